"""Low rank: the best approximation there is, at the rank that the rate asks for."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from compressors._base import Setting
from compressors._calibration import calibration, second_moments
from compressors.low_rank import LowRank, split
from core.errors import InputError, Unsupported
from core.spec import ROLES
from encoders.corpora import Corpus, Item
from encoders.model import Encoder, build
from encoders.roles import linear
from encoders.zoo import tiny

NORMS: tuple[Literal["frobenius", "inputs"], ...] = ("frobenius", "inputs")


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return build(tiny(), seed=0)


def one(
    compressor: LowRank, encoder: Encoder, rate: float, setting: Setting | None = None
) -> Encoder:
    made = dict(compressor.track(encoder, [rate], setting))[rate]
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


def error(weight: Tensor, u: Tensor, v: Tensor, rank: int, inputs: Tensor) -> float:
    """The norm of (W - UV) X, the columns of X being the rows of `inputs`."""
    return float(((weight - u[:, :rank] @ v[:rank]).double() @ inputs.double().T).norm())


def correlated(frames: int, dims: int, seed: int) -> Tensor:
    """Inputs (frames, dims) whose directions differ in strength, and whose mean is not 0."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dims, dims, generator=torch.Generator().manual_seed(9))
    strengths = torch.logspace(0, -2, dims)
    return (torch.randn(frames, dims, generator=generator) * strengths + 0.1) @ mixing


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 12), st.integers(2, 12), st.integers(0, 2**16))
def test_the_error_over_the_inputs_is_the_least_there_is(
    outputs: int, inputs: int, seed: int
) -> None:
    """It is the norm of the cut singular values of W L, and no other factors come below it."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, inputs, generator=generator)
    x = correlated(500, inputs, seed)
    moments = x.T @ x / len(x)
    plain, whitened = split(weight), split(weight, moments)
    torch.testing.assert_close(whitened[0] @ whitened[1], weight, rtol=1e-3, atol=1e-4)
    half = torch.linalg.cholesky(moments.double() + 1e-12 * torch.eye(inputs))
    values = torch.linalg.svdvals(weight.double() @ half) * len(x) ** 0.5
    for rank in range(1, min(outputs, inputs)):
        own = error(weight, *whitened, rank, x)
        assert own == pytest.approx(float(values[rank:].norm()), rel=0.02, abs=1e-2)
        assert own <= error(weight, *plain, rank, x) * 1.02 + 1e-2


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1.0, 1e4])
def test_inputs_of_all_directions_give_the_plain_decomposition(scale: float) -> None:
    weight = torch.randn(9, 7, generator=torch.Generator().manual_seed(0))
    plain, whitened = split(weight), split(weight, scale * torch.eye(7))
    for rank in range(1, 8):
        torch.testing.assert_close(
            whitened[0][:, :rank] @ whitened[1][:rank], plain[0][:, :rank] @ plain[1][:rank]
        )


def test_inputs_that_do_not_fill_their_space_are_no_obstacle() -> None:
    """Three frames of eight dimensions: what they never reach may go first."""
    weight = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
    u, v = split(weight, x.T @ x / 3)
    assert error(weight, u, v, 3, x) < 0.02 * float((weight @ x.T).norm())
    assert error(weight, *split(weight), 3, x) > 0.2 * float((weight @ x.T).norm())


class Tones(Corpus):
    """Chords: speech-like in that few directions of the features are strong."""

    def waveform(self, item: Item) -> Tensor:
        generator = torch.Generator().manual_seed(int(item.key))
        time = torch.arange(item.samples) / 16_000
        pitches = 100 + 3_000 * torch.rand(5, 1, generator=generator)
        noise = 0.01 * torch.randn(item.samples, generator=generator)
        return (2 * torch.pi * pitches * time).sin().mean(0) + noise


SPEECH = Tones("tones", [Item(str(i), 0.5, split="train") for i in range(20)], "0")


def test_second_moments_are_those_of_what_enters(encoder: Encoder) -> None:
    """Of layer 0 the inputs of q are the states in front of it; v hears the same as q."""
    waveforms = calibration(encoder, SPEECH, 2.0, seed=3)
    places = [(0, "q"), (0, "v"), (2, "fc2")]
    moments = second_moments(encoder, waveforms, places)
    with torch.no_grad():
        states = torch.cat([encoder(waveform).states[0][0] for waveform in waveforms])
    torch.testing.assert_close(moments[0, "q"], states.T @ states / len(states))
    assert torch.equal(moments[0, "q"], moments[0, "v"])
    assert moments[2, "fc2"].shape == (512, 512)
    assert not any(module._forward_pre_hooks for module in encoder.modules())


def test_hooks_go_even_where_encoding_fails(encoder: Encoder) -> None:
    with pytest.raises(InputError):
        second_moments(encoder, [torch.zeros(1, 3)], [(0, "q")])
    assert not any(module._forward_pre_hooks for module in encoder.modules())


def test_calibration_is_drawn_by_its_seed(encoder: Encoder) -> None:
    one, again, other = (calibration(encoder, SPEECH, 2.0, seed) for seed in (0, 0, 1))
    assert [waveform.shape for waveform in one] == [(1, 8_000)] * 4
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert len(calibration(encoder, SPEECH, 1e9)) == 20
    with pytest.raises(InputError, match="--data"):
        calibration(encoder, None, 1.0)
    short = Tones("short", [Item("0", 0.001)], "0")
    with pytest.raises(InputError, match="no utterance of one frame"):
        calibration(encoder, short, 1.0)


def test_inputs_beat_the_plain_norm_on_speech_they_have_not_heard(encoder: Encoder) -> None:
    """Each map by itself, over the inputs that the dense encoder gives it."""
    setting = Setting(SPEECH, seed=0)
    made = [dict(LowRank(norm=n, seconds=4.0).track(encoder, [0.7], setting))[0.7] for n in NORMS]
    places = [(layer, role) for layer in range(6) for role in ROLES]
    unheard = calibration(encoder, SPEECH, 1e9, seed=1)
    heard = {w.sum().item() for w in calibration(encoder, SPEECH, 4.0, seed=0)}
    unheard = [w for w in unheard if w.sum().item() not in heard]
    assert len(unheard) == 12
    moments = second_moments(encoder, unheard, places)
    for place in places:
        weight = linear(encoder, *place).weight.detach()
        errors = []
        for each in made:
            assert isinstance(each, Encoder)
            gone = weight - linear(each, *place).weight.detach()
            errors.append(float((gone @ moments[place] @ gone.T).trace()))
        assert errors[1] < errors[0], place


def test_only_what_needs_speech_depends_on_it(encoder: Encoder) -> None:
    made = dict(LowRank(norm="frobenius").track(encoder, [0.5]))
    assert isinstance(made[0.5], Encoder)
    with pytest.raises(InputError, match="--data"):
        list(LowRank(norm="inputs").track(encoder, [0.5]))


def test_factors_are_trained_at_each_rate_by_itself(encoder: Encoder) -> None:
    """The ranks stay, the factors move, and other rates of the grid change nothing."""
    brief = LowRank(steps=2, batch_seconds=1.0, crop_seconds=0.25, clusters=4)
    setting = Setting(SPEECH)
    alone = one(brief, encoder, 0.5, setting)
    both = dict(brief.track(encoder, [0.3, 0.5], setting))
    free = one(LowRank(), encoder, 0.5)
    assert alone.spec == free.spec
    assert not torch.equal(linear(alone, 0, "fc1").weight, linear(free, 0, "fc1").weight)
    again = both[0.5]
    assert isinstance(again, Encoder)
    assert all(torch.equal(t, again.state_dict()[n]) for n, t in alone.state_dict().items())
