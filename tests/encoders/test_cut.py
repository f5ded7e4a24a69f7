"""Cutting equals masking: the smaller encoder computes what the larger one does with zeros."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InputError, Unsupported
from core.spec import ROLES, ConvFrontEnd, LayerSpec, MelFrontEnd, ModelSpec, Positions
from encoders import build, cut, roles
from encoders.model import Encoder

HEADS, HEAD_DIM, FFN, DEPTH = 4, 6, 10, 3
CONV = ConvFrontEnd((6, 8), (10, 4), (40, 4), norm="layer")


def _spec(positions: Positions, norm_first: bool = False, ranks: bool = False) -> ModelSpec:
    layer = LayerSpec.dense(HEADS, HEAD_DIM, FFN)
    uneven = LayerSpec((0, 2, 3), (6, 2, 4), (3, 6, 0), FFN)
    if ranks:
        uneven = replace(uneven, ranks=tuple((role, 3) for role in ROLES))
    return ModelSpec(
        "test", CONV, 24, HEADS, HEAD_DIM, (layer, uneven, layer), positions, norm_first=norm_first
    )


SPECS = (
    _spec(Positions(bias_reach=4)),
    _spec(Positions(gated_buckets=8, gated_distance=20), norm_first=True),
    _spec(Positions(conv_kernel=4, conv_groups=2), ranks=True),
)
WAVEFORMS = torch.randn(2, 3000, generator=torch.Generator().manual_seed(0))


def _states(encoder: Encoder) -> list[torch.Tensor]:
    with torch.no_grad():
        return encoder(WAVEFORMS, torch.tensor([3000, 2200])).states


def _assert_same(first: Encoder, second: Encoder) -> None:
    for a, b in zip(_states(first), _states(second), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def _subsets(count: int) -> st.SearchStrategy[list[int]]:
    return st.sets(st.integers(0, count - 1)).map(sorted)


@given(st.sampled_from(SPECS), st.tuples(_subsets(4), _subsets(3), _subsets(4)))
def test_keep_heads_equals_zeroing_their_outputs(
    spec: ModelSpec, kept: tuple[list[int], ...]
) -> None:
    encoder = build(spec, seed=1)
    masked = copy.deepcopy(encoder)
    for index, positions in enumerate(kept):
        out = roles.linear(masked, index, "out")
        columns = out.weight if isinstance(out, torch.nn.Linear) else out.down.weight
        for head, (_, vo) in enumerate(roles.head_slices(masked, index)):
            if head not in positions:
                columns.data[:, vo] = 0
    before = copy.deepcopy(encoder.state_dict())
    small = cut.keep_heads(encoder, kept)
    _assert_same(masked, small)
    for layer, positions, old in zip(small.spec.layers, kept, spec.layers, strict=True):
        assert layer.heads == tuple(old.heads[head] for head in positions)
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, before[name])


@given(st.sampled_from(SPECS), st.data())
def test_keep_dims_equals_zeroing_them(spec: ModelSpec, data: st.DataObject) -> None:
    """Of q/k a dimension is gone when its q is 0, of v/out when nothing is taken from it."""
    encoder = build(spec, seed=1)
    masked = copy.deepcopy(encoder)
    kept: dict[str, list[list[list[int]]]] = {"q": [], "out": []}
    for index, layer in enumerate(spec.layers):
        for role, widths in (("q", layer.qk), ("out", layer.vo)):
            kept[role].append(
                [data.draw(_subsets(width) if width else st.just([])) for width in widths]
            )
            _zero(masked, index, role, widths, kept[role][-1])
    small = cut.keep_dims(encoder, kept["q"], kept["out"])
    _assert_same(masked, small)
    for old, new, qk, vo in zip(
        spec.layers, small.spec.layers, kept["q"], kept["out"], strict=True
    ):
        assert new == replace(old, qk=tuple(map(len, qk)), vo=tuple(map(len, vo)))


def _zero(
    encoder: Encoder, layer: int, role: str, widths: tuple[int, ...], kept: list[list[int]]
) -> None:
    """Set rows of q, or columns of out, to 0 but for the kept dimensions of each head."""
    starts = [sum(widths[:head]) for head in range(len(widths))]
    stay = {start + dim for start, dims in zip(starts, kept, strict=True) for dim in dims}
    gone = [dim for dim in range(sum(widths)) if dim not in stay]
    linear = roles.linear(encoder, layer, role)
    if role == "q":
        outer = linear if isinstance(linear, torch.nn.Linear) else linear.up
        outer.weight.data[gone], outer.bias.data[gone] = 0, 0
    else:
        inner = linear if isinstance(linear, torch.nn.Linear) else linear.down
        inner.weight.data[:, gone] = 0


@given(st.sampled_from(SPECS), st.tuples(*[_subsets(FFN)] * DEPTH))
def test_keep_units_equals_zeroing_their_outputs(
    spec: ModelSpec, kept: tuple[list[int], ...]
) -> None:
    encoder = build(spec, seed=1)
    masked = copy.deepcopy(encoder)
    for index, units in enumerate(kept):
        fc2 = roles.linear(masked, index, "fc2")
        columns = fc2.weight if isinstance(fc2, torch.nn.Linear) else fc2.down.weight
        columns.data[:, [unit for unit in range(FFN) if unit not in units]] = 0
    small = cut.keep_units(encoder, [kept[0], torch.tensor(kept[1], dtype=torch.long), kept[2]])
    _assert_same(masked, small)
    assert [layer.ffn for layer in small.spec.layers] == [len(units) for units in kept]


def test_cuts_compose_by_present_positions() -> None:
    encoder = build(SPECS[1], seed=0)
    twice = cut.keep_heads(
        cut.keep_heads(encoder, [[1, 3], [0, 1], [0, 1, 2, 3]]), [[1], [1], [0, 2]]
    )
    once = cut.keep_heads(encoder, [[3], [1], [0, 2]])
    assert twice.spec == once.spec
    assert twice.spec.layers[0].heads == (3,)
    _assert_same(twice, once)


def test_keep_layers_is_a_prefix_of_the_forward_pass() -> None:
    encoder = build(SPECS[0], seed=0)
    small = cut.keep_layers(encoder, [0, 1])
    for a, b in zip(_states(small), _states(encoder), strict=False):
        assert torch.equal(a, b)
    assert small.spec.layers == encoder.spec.layers[:2]
    assert len(_states(cut.keep_layers(encoder, []))) == 1
    assert cut.keep_layers(encoder, [2, 0]).spec.layers == (SPECS[0].layers[0], SPECS[0].layers[2])


def test_full_rank_factors_change_nothing() -> None:
    encoder = build(SPECS[0], seed=0)
    factors = {}
    for index in range(DEPTH):
        for role in ROLES:
            u, s, v = torch.linalg.svd(
                roles.linear(encoder, index, role).weight.detach(), full_matrices=False
            )
            factors[index, role] = (u * s, v)
    factored = cut.factorise(encoder, factors)
    _assert_same(encoder, factored)
    assert [role for role, _ in factored.spec.layers[1].ranks] == list(ROLES)


@given(st.sampled_from(ROLES), st.integers(1, 5))
def test_factors_are_put_in_place_and_the_bias_stays(role: str, rank: int) -> None:
    for spec in (SPECS[0], SPECS[2]):  # the second has factored maps already
        encoder = build(spec, seed=0)
        outputs, inputs = spec.layers[1].linear_shape(role, spec.dim)
        u, v = torch.randn(outputs, rank), torch.randn(rank, inputs)
        factored = cut.factorise(encoder, {(1, role): (u, v)})
        linear = roles.linear(factored, 1, role)
        torch.testing.assert_close(linear.weight, u @ v)
        assert torch.equal(linear.bias, roles.linear(encoder, 1, role).bias)
        assert factored.spec.layers[1].rank(role) == rank


def test_a_cut_shares_no_memory_with_its_input() -> None:
    encoder = build(SPECS[0], seed=0).eval()
    before = _states(encoder)[-1]
    everything = cut.keep_heads(encoder, [range(4), range(3), range(4)])
    assert not everything.training
    for parameter in everything.parameters():
        parameter.data.zero_()
    assert torch.equal(_states(encoder)[-1], before)


def test_what_cannot_be_cut_is_refused() -> None:
    encoder = build(SPECS[0], seed=0)
    with pytest.raises(InputError, match="one per layer"):
        cut.keep_heads(encoder, [[0]])
    with pytest.raises(InputError, match="there is no head of layer 1 at 3"):
        cut.keep_heads(encoder, [[0], [3], [0]])
    with pytest.raises(InputError, match="twice"):
        cut.keep_units(encoder, [[1, 1], [], []])
    with pytest.raises(InputError, match="2 lists for 4 heads of layer 0"):
        cut.keep_dims(encoder, [[[0], [1]]] * DEPTH, [[[0]] * 4] * DEPTH)
    with pytest.raises(InputError, match="no dimension of a head of layer 0 at 6"):
        cut.keep_dims(encoder, [[[6]] * 4] * DEPTH, [[[0]] * 4] * DEPTH)
    with pytest.raises(InputError, match="there is no layer at -1"):
        cut.keep_layers(encoder, [-1])
    with pytest.raises(InputError, match="do not multiply"):
        cut.factorise(encoder, {(0, "q"): (torch.zeros(3, 2), torch.zeros(2, 24))})
    with pytest.raises(InputError, match="did you mean 'out'"):
        roles.linear(encoder, 0, "outt")
    with pytest.raises(InputError, match="count from 0"):
        roles.linear(encoder, 7, "q")
    bare = replace(SPECS[0], front_end=MelFrontEnd(12), project=False)
    with pytest.raises(Unsupported):
        cut.keep_layers(build(bare), [])
