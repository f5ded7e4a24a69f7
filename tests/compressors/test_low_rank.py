"""Low rank: the best approximation there is, at the rank that the rate asks for."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressors.low_rank import LowRank, split
from core.errors import Unsupported
from encoders.model import Encoder, build
from encoders.roles import linear
from encoders.zoo import tiny


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return build(tiny(), seed=0)


def one(compressor: LowRank, encoder: Encoder, rate: float) -> Encoder:
    made = dict(compressor.track(encoder, [rate]))[rate]
    assert not isinstance(made, Unsupported), made
    return made


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 12), st.integers(2, 12), st.integers(0, 2**16))
def test_the_error_is_eckart_and_youngs(outputs: int, inputs: int, seed: int) -> None:
    """The Frobenius error at rank k is the norm of the singular values that are cut off."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, inputs, generator=generator)
    values = torch.linalg.svdvals(weight.double())
    u, v = split(weight)
    for rank in range(1, min(outputs, inputs) + 1):
        error = (weight - u[:, :rank] @ v[:rank]).norm()
        assert float(error) == pytest.approx(float(values[rank:].norm()), abs=1e-4)
        other = torch.randn(outputs, rank, generator=generator)
        best = torch.linalg.lstsq(other.double(), weight.double()).solution
        assert error <= (weight - other.double() @ best).norm() + 1e-4


def test_ranks_follow_the_rate(encoder: Encoder) -> None:
    layer = one(LowRank(), encoder, 0.5).spec.layers[0]
    assert dict(layer.ranks) == {"q": 32, "k": 32, "v": 32, "out": 32, "fc1": 51, "fc2": 51}
    assert linear(one(LowRank(), encoder, 0.5), 0, "fc1").down.weight.shape == (51, 128)


def test_where_ffn_leaves_attention_alone(encoder: Encoder) -> None:
    factored = one(LowRank(where="ffn"), encoder, 0.5)
    assert {role for role, _ in factored.spec.layers[3].ranks} == {"fc1", "fc2"}
    assert torch.equal(linear(factored, 3, "q").weight, linear(encoder, 3, "q").weight)
    assert LowRank(where="ffn").achieved(encoder, factored) == pytest.approx(0.5, abs=0.01)
    assert LowRank(where="all").achieved(encoder, factored) == pytest.approx(1 / 3, abs=0.01)


def test_the_bias_stays(encoder: Encoder) -> None:
    factored = one(LowRank(), encoder, 0.9)
    for role in ("q", "fc2"):
        assert torch.equal(linear(factored, 2, role).bias, linear(encoder, 2, role).bias)


def test_what_would_save_nothing_stays_whole(encoder: Encoder) -> None:
    """At the rate 0.001 rank 64 of a 128 x 128 matrix would hold all of its 16,384 parameters."""
    factored = one(LowRank(), encoder, 0.001)
    assert dict(factored.spec.layers[0].ranks) == {"fc1": 102, "fc2": 102}
    assert torch.equal(linear(factored, 0, "q").weight, linear(encoder, 0, "q").weight)


def test_a_rank_below_one_does_not_exist(encoder: Encoder) -> None:
    made = dict(LowRank().track(encoder, [0.5, 0.9999, 0.7]))
    assert isinstance(made[0.9999], Unsupported)
    assert "rank below 1" in str(made[0.9999])
    assert isinstance(made[0.7], Encoder), "the other rates go on"


def test_a_factored_encoder_is_factored_further(encoder: Encoder) -> None:
    once = one(LowRank(), encoder, 0.5)
    twice = one(LowRank(), once, 0.5)
    assert dict(twice.spec.layers[0].ranks)["q"] == 16
    assert LowRank().achieved(once, twice) == pytest.approx(0.5, abs=0.01)
    direct = one(LowRank(), encoder, 0.75)
    torch.testing.assert_close(linear(twice, 0, "q").weight, linear(direct, 0, "q").weight)
