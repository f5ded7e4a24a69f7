"""Structured pruning: the lightest heads, units and layers go, and never the last of a layer."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compressors._base import nearest
from compressors._scores import head_norms, keep_highest, unit_norms
from compressors.first_layers import FirstLayers
from compressors.head_pruning import HeadPruning
from compressors.row_pruning import RowPruning
from core.errors import Unsupported
from encoders.cut import factorise, keep_heads, keep_units
from encoders.model import Encoder, build
from encoders.roles import linear
from encoders.zoo import tiny


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return build(tiny(), seed=0)


def one(
    compressor: HeadPruning | RowPruning | FirstLayers, encoder: Encoder, rate: float
) -> Encoder:
    made = dict(compressor.track(encoder, [rate]))[rate]
    assert not isinstance(made, Unsupported)
    return made


def test_head_norms_are_those_of_each_head_cut_out(encoder: Encoder) -> None:
    """A head's norm is what is left of q, k, v and out when it is the only one that is kept."""
    norms = head_norms(encoder)
    for head in range(8):
        alone = keep_heads(encoder, [[head]] * 6)
        for layer in range(6):
            parts = [linear(alone, layer, role) for role in ("q", "k", "v", "out")]
            total = sum(part.weight.abs().sum() for part in parts)
            total += sum(part.bias.abs().sum() for part in parts[:3])
            assert float(norms[layer][head]) == pytest.approx(total.item(), rel=1e-5)


def test_unit_norms_are_those_of_each_unit_cut_out(encoder: Encoder) -> None:
    norms = unit_norms(encoder)
    for unit in (0, 17, 511):
        alone = keep_units(encoder, [[unit]] * 6)
        for layer in range(6):
            fc1, fc2 = linear(alone, layer, "fc1"), linear(alone, layer, "fc2")
            total = fc1.weight.abs().sum() + fc1.bias.abs().sum() + fc2.weight.abs().sum()
            assert float(norms[layer][unit]) == pytest.approx(total.item(), rel=1e-5)


@pytest.mark.parametrize(("scope", "rate"), [("layer", 0.5), ("model", 0.5), ("model", 0.9)])
def test_the_lightest_heads_go(encoder: Encoder, scope: str, rate: float) -> None:
    norms = torch.stack(head_norms(encoder))
    pruned = one(HeadPruning(scope=scope), encoder, rate)  # type: ignore[arg-type]
    kept = torch.zeros_like(norms, dtype=torch.bool)
    for layer, spec in enumerate(pruned.spec.layers):
        kept[layer, list(spec.heads)] = True
    assert int(kept.sum()) == max(6, 48 - nearest(rate, 48))
    for layer in range(6):
        assert kept[layer, norms[layer].argmax()], "the best head of a layer always stays"
    if scope == "layer":
        for own, left in zip(norms, kept, strict=True):
            assert own[~left].max() < own[left].min()
    else:
        spare = kept & (norms < norms.max(1, keepdim=True).values)
        if spare.any():
            assert norms[~kept].max() < norms[spare].min()


def test_what_a_kept_head_computes_is_unchanged(encoder: Encoder) -> None:
    pruned = one(HeadPruning(), encoder, 0.5)
    for layer, spec in enumerate(pruned.spec.layers):
        rows = [16 * head + i for head in spec.heads for i in range(16)]
        for role in ("q", "k", "v"):
            before, after = linear(encoder, layer, role), linear(pruned, layer, role)
            assert torch.equal(after.weight, before.weight[rows])
            assert torch.equal(after.bias, before.bias[rows])
        before, after = linear(encoder, layer, "out"), linear(pruned, layer, "out")
        assert torch.equal(after.weight, before.weight[:, rows])
        assert torch.equal(after.bias, before.bias)


def test_factored_maps_are_weighed_by_their_product_and_cut(encoder: Encoder) -> None:
    factors = {}
    for role in ("q", "k", "v", "out", "fc1", "fc2"):
        u, s, v = torch.linalg.svd(linear(encoder, 0, role).weight.detach(), full_matrices=False)
        factors[0, role] = (u * s, v)  # of full rank: the same map
    factored = factorise(encoder, factors)
    torch.testing.assert_close(head_norms(factored)[0], head_norms(encoder)[0])
    torch.testing.assert_close(unit_norms(factored)[0], unit_norms(encoder)[0])
    waveforms = torch.randn(1, 8_000, generator=torch.Generator().manual_seed(0))
    for compressor in (HeadPruning(), RowPruning()):
        full, cut = one(compressor, encoder, 0.5), one(compressor, factored, 0.5)
        with torch.no_grad():
            states = zip(full.eval()(waveforms).states, cut.eval()(waveforms).states, strict=True)
        for expected, state in states:
            torch.testing.assert_close(state, expected, atol=1e-4, rtol=1e-4)
        assert compressor.achieved(factored, cut) == 0.5


def test_first_layers_keeps_the_first(encoder: Encoder) -> None:
    for rate, count in ((0.1, 5), (0.5, 3), (0.74, 2), (0.9, 1), (0.99, 1)):
        kept = one(FirstLayers(), encoder, rate)
        assert len(kept.layers) == count
        state = kept.state_dict()
        assert all(torch.equal(encoder.state_dict()[name], t) for name, t in state.items())


@given(st.floats(0.001, 0.999), st.integers(0, 5_000))
def test_nearest_is_within_half(rate: float, total: int) -> None:
    assert abs(nearest(rate, total) - rate * total) <= 0.5 + 1e-6


def test_nearest_rounds_halves_up_in_spite_of_binary_fractions() -> None:
    assert [nearest(0.5, 5), nearest(0.3, 5), nearest(0.7, 5), nearest(0.15, 10)] == [3, 2, 4, 2]


_SCORES = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=6), min_size=1, max_size=4).map(
    lambda layers: [torch.tensor(layer, dtype=torch.float32) for layer in layers]
)


@given(_SCORES, st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.sampled_from(["layer", "model"]))
def test_every_layer_keeps_one_and_higher_rates_keep_less(
    scores: list[torch.Tensor], one_rate: float, other_rate: float, scope: str
) -> None:
    total = sum(map(len, scores))
    highest = 1 - len(scores) / 2 / total - 1e-9
    low, high = (min(rate, highest) for rate in sorted((one_rate, other_rate)))
    few, many = keep_highest(scores, high, scope), keep_highest(scores, low, scope)
    for own, less, more in zip(scores, few, many, strict=True):
        assert less
        assert set(less) <= set(more)
        assert less == sorted(less)
        assert own.argmax() in less or own[less].max() == own.max()
    if scope == "model":
        assert sum(map(len, few)) == max(len(scores), total - nearest(high, total))


@given(_SCORES, st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.sampled_from(["layer", "model"]))
def test_in_two_steps_as_many_go_as_at_once(
    scores: list[torch.Tensor], one_rate: float, other_rate: float, scope: str
) -> None:
    """The rate counts from what there was before the first step."""
    sizes = [len(own) for own in scores]
    highest = 1 - len(scores) / 2 / sum(sizes) - 1e-9
    low, high = (min(rate, highest) for rate in sorted((one_rate, other_rate)))
    first = keep_highest(scores, low, scope)
    left = [own[kept] for own, kept in zip(scores, first, strict=True)]
    then = keep_highest(left, high, scope, sizes)
    again = [[kept[place] for place in own] for kept, own in zip(first, then, strict=True)]
    assert again == keep_highest(scores, high, scope)


@pytest.mark.parametrize("scope", ["layer", "model"])
@pytest.mark.parametrize("method", [HeadPruning, RowPruning])
def test_a_rate_that_leaves_a_layer_nothing_is_refused(
    encoder: Encoder, method: type[HeadPruning | RowPruning], scope: str
) -> None:
    made = dict(method(scope=scope).track(encoder, [0.9, 0.9999]))  # type: ignore[arg-type]
    assert isinstance(made[0.9], Encoder)
    assert isinstance(made[0.9999], Unsupported)
    assert "0.9999 of" in str(made[0.9999])
