"""Equal error rate against plain definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.sv import equal_error_rate


@given(st.integers(0, 300))
def test_equal_error_rate_lies_where_both_errors_meet(seed):
    draw = np.random.default_rng(seed)
    same = draw.random(60) < 0.4
    same[:2] = [True, False]
    scores = draw.standard_normal(60) + same
    rate = equal_error_rate(same, scores) / 100
    gaps = []
    for threshold in [*scores, np.inf]:
        accepted, missed = (scores >= threshold)[~same].mean(), (scores < threshold)[same].mean()
        gaps.append((abs(accepted - missed), accepted, missed))
    _, accepted, missed = min(gaps)
    assert min(accepted, missed) - 0.05 <= rate <= max(accepted, missed) + 0.05


def test_equal_error_rate_of_perfect_and_of_reversed_scores():
    same = np.array([True, True, False, False])
    assert equal_error_rate(same, np.array([4.0, 3, 2, 1])) == 0
    assert equal_error_rate(same, np.array([1.0, 2, 3, 4])) == pytest.approx(100)
