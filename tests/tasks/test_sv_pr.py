"""Equal error rate and CTC decoding against plain definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tasks._heads import Head
from tasks.pr import Batch, error_rate
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


def test_decoding_joins_repeats_and_drops_blanks():
    """The path - a a - a b b stands for `a a b`."""
    head = Head(1, 3, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        head.maps[0].weight.copy_(torch.eye(3))
    path = torch.tensor([0, 1, 1, 0, 1, 2, 2])
    features = torch.nn.functional.one_hot(path, 3).float()[None, None]
    batch = Batch(features, torch.tensor([7]), torch.tensor([1, 1, 2]), torch.tensor([3]),
                  [["a", "a", "b"]])  # fmt: skip
    assert error_rate(head, [batch], ["", "a", "b"]) == 0
    batch.phones = [["a", "b"]]
    assert error_rate(head, [batch], ["", "a", "b"]) == pytest.approx(50)
