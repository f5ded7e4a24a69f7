"""The quick suite's heads and s3prl's recipes come to the same scores on the same real speech."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from superb_parity import compare

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("s3prl") is None, reason="s3prl is not installed"),
]


@pytest.mark.parametrize(
    ("case", "apart", "between"),
    [("sid", 4, (90, 100)), ("ks", 5, (90, 100)), ("pr", 6, (75, 90)), ("pr-builtin", 8, (10, 35))],
)
def test_scores_are_equal_within_the_noise_of_seeds(
    case: str, apart: float, between: tuple[float, float], speech_data: Path, tmp_path: Path
) -> None:
    """apart: percent; what three seeds of s3prl's recipe are apart, and as much again."""
    ours, theirs = compare("builtin", speech_data, tmp_path, [case], [0], None)
    scores = float(str(ours["value"])), float(str(theirs["value"]))
    assert between[0] < min(scores)
    assert max(scores) < between[1]
    assert scores[0] == pytest.approx(scores[1], abs=apart)
