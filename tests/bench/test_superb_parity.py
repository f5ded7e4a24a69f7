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


@pytest.mark.parametrize(("task", "apart"), [("sid", 4), ("ks", 5)])
def test_scores_are_equal_within_the_noise_of_seeds(
    task: str, apart: float, speech_data: Path, tmp_path: Path
) -> None:
    """apart: percent; what three seeds of s3prl's recipe are apart, and as much again."""
    ours, theirs = compare("builtin", speech_data, tmp_path, [task], [0], None)
    scores = float(str(ours["value"])), float(str(theirs["value"]))
    assert min(scores) > 90
    assert scores[0] == pytest.approx(scores[1], abs=apart)
