"""Unstructured pruning: exactly the smallest weights go, or exactly as many at random."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.utils import prune

from compressors._base import Setting
from compressors._zeros import _all_but_lowest, magnitudes, nonzero, weights, zero_lowest
from compressors.random_pruning import RandomPruning
from compressors.weight_pruning import WeightPruning
from encoders.model import Encoder, build
from encoders.zoo import hubert_base, tiny

RATES = (0.2, 0.5, 0.9)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return build(tiny(), seed=0)


def flat(encoder: Encoder) -> Tensor:
    return torch.cat([getattr(m, name).detach().flatten() for m, name in weights(encoder)])


def test_the_group_is_the_papers() -> None:
    with torch.device("meta"):
        encoder = build(hubert_base())
    assert sum(getattr(m, n).numel() for m, n in weights(encoder)) == 12 * (
        4 * (768 * 768 + 768) + 2 * 768 * 3072 + 768 + 3072
    )
    assert round(sum(getattr(m, n).numel() for m, n in weights(encoder)) / 1e6, 1) == 85.0


@pytest.mark.parametrize("rate", RATES)
def test_it_is_torchs_global_l1_pruning(encoder: Encoder, rate: float) -> None:
    expected = copy.deepcopy(encoder)
    group = weights(expected)
    prune.global_unstructured(group, prune.L1Unstructured, amount=rate)
    for module, name in group:
        prune.remove(module, name)
    state = zero_lowest(encoder, magnitudes(encoder), rate).state_dict()
    assert all(torch.equal(t, state[name]) for name, t in expected.state_dict().items())


@pytest.mark.parametrize("rate", RATES)
def test_weight_pruning_leaves_only_larger_weights(encoder: Encoder, rate: float) -> None:
    before, after = flat(encoder), flat(dict(WeightPruning().track(encoder, [rate]))[rate])
    gone = after == 0
    assert int(gone.sum()) == round(rate * len(before))
    assert before[gone].abs().max() <= before[~gone].abs().min()
    assert torch.equal(after[~gone], before[~gone])


def test_nothing_but_the_linear_maps_changes(encoder: Encoder) -> None:
    pruned = dict(WeightPruning().track(encoder, [0.9]))[0.9]
    inside = {id(getattr(m, name)) for m, name in weights(pruned)}
    state = dict(encoder.named_parameters())
    others = [name for name, p in pruned.named_parameters() if id(p) not in inside]
    assert any("norm" in name for name in others)
    assert all(torch.equal(dict(pruned.named_parameters())[name], state[name]) for name in others)


def test_random_pruning_is_nested_seeded_and_blind_to_magnitude(encoder: Encoder) -> None:
    made = [flat(e) for _, e in RandomPruning().track(encoder, RATES, Setting(seed=3))]
    assert all(((high == 0) >= (low == 0)).all() for low, high in pairwise(made))
    other = flat(dict(RandomPruning().track(encoder, [0.5], Setting(seed=4)))[0.5])
    assert not torch.equal(other == 0, made[1] == 0)
    before = flat(encoder).abs()
    gone = before[made[1] == 0]
    assert len(gone) == round(0.5 * len(before))
    assert gone.mean() == pytest.approx(float(before.mean()), rel=0.01)


def test_weights_that_are_zero_already_do_not_count(encoder: Encoder) -> None:
    once = dict(WeightPruning().track(encoder, [0.5]))[0.5]
    for method in (WeightPruning(), RandomPruning()):
        twice = dict(method.track(once, [0.5]))[0.5]
        assert nonzero(twice) == pytest.approx(nonzero(encoder) / 4, abs=1)
        assert method.achieved(once, twice) == pytest.approx(0.5, abs=1e-5)
        assert bool((flat(twice)[flat(once) == 0] == 0).all())


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.data())
def test_exactly_the_count_goes_even_among_equals(scores: list[int], data: st.DataObject) -> None:
    count = data.draw(st.integers(0, len(scores)))
    values = torch.tensor(scores, dtype=torch.float32)
    keep = _all_but_lowest(values, count)
    assert int((~keep).sum()) == count
    if 0 < count < len(scores):
        assert values[~keep].max() <= values[keep].min()
