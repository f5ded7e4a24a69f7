"""Joined frames: what is averaged, how many tokens there are, and that batches change nothing."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from core.errors import InputError
from core.spec import ConvFrontEnd, LayerSpec, MelFrontEnd, ModelSpec, Positions, Shortening
from encoders import build, zoo
from encoders.model import Encoder
from encoders.shortening import Fire, integrate, weaken

MEL = ModelSpec(
    "melhubert", MelFrontEnd(bins=10, stack=2), 32, 4, 8, (LayerSpec.dense(4, 8, 64),) * 2,
    Positions(bias_reach=5), feature_norm=False,
)  # fmt: skip
CONV = replace(
    MEL, front_end=ConvFrontEnd((16,) * 7, norm="layer"), feature_norm=True,
    positions=Positions(conv_kernel=8, conv_groups=4),
)  # fmt: skip
FAMILIES = {
    "mel": MEL,
    "conv": CONV,
    "prenorm": replace(CONV, norm_first=True, normalize_waveform=True),
    "wavlm": replace(CONV, positions=Positions(8, 4, gated_buckets=16, gated_distance=40)),
}
KINDS = (
    Shortening("mean", factor=2.6),
    Shortening("conv", factor=3),
    Shortening("cif", strength=0.7),
    Shortening("cif", strength=1.6),
)


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


weights = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=40)


def one_by_one(x: Tensor, weights: list[float]) -> list[Tensor]:
    """Integrate-and-fire as it is told: frame by frame, a token whenever 1 is full."""
    tokens, state, full = [], torch.zeros(x.shape[-1], dtype=torch.float64), 0.0
    for frame, weight in zip(x.double(), weights, strict=True):
        if full + weight < 1 - 1e-9:
            state, full = state + weight * frame, full + weight
            continue
        tokens.append(state + (1 - full) * frame)
        full = weight - (1 - full)
        state = full * frame
    if full >= 0.5 - 1e-6 or not tokens:
        tokens.append(state / max(full, 1e-6))
    return tokens


@given(weights)
def test_all_at_once_is_one_by_one(drawn: list[float]) -> None:
    x = noise(1, len(drawn), 3)
    made = integrate(x, torch.tensor([drawn]), torch.tensor([len(drawn)]))
    expected = torch.stack(one_by_one(x[0], drawn))
    assert made.counts.tolist() == [len(expected)]
    torch.testing.assert_close(made.values[0].double(), expected, atol=1e-4, rtol=1e-4)


@given(weights)
def test_tokens_are_the_total_weight_rounded(drawn: list[float]) -> None:
    total = math.fsum(drawn)
    made = integrate(
        torch.ones(1, len(drawn), 2), torch.tensor([drawn]), torch.tensor([len(drawn)])
    )
    assert made.counts.item() == max(1, math.floor(total + 0.5 + 1e-6))
    # Each token has weight 1, whatever the frames' weights are: ones stay ones.
    if total > 0.01:
        torch.testing.assert_close(made.values, torch.ones_like(made.values))


@given(weights)
def test_owners_rise_by_at_most_one(drawn: list[float]) -> None:
    made = integrate(noise(1, len(drawn), 2), torch.tensor([drawn]), torch.tensor([len(drawn)]))
    steps = made.owners[0].diff()
    assert bool(((steps == 0) | (steps == 1)).all())
    assert made.owners.min() >= 0
    assert made.owners.max() < made.counts.item()


@pytest.mark.parametrize("factor", [1, 2, 3, 7])
def test_a_whole_factor_is_average_pooling(factor: int) -> None:
    x = noise(2, 42, 5)
    made = integrate(x, torch.full((2, 42), 1 / factor), torch.tensor([42, 42]))
    pooled = F.avg_pool1d(x.transpose(1, 2), factor).transpose(1, 2)
    torch.testing.assert_close(made.values, pooled, atol=1e-5, rtol=1e-5)
    assert made.owners[0].tolist() == [t // factor for t in range(42)]


def test_gradients_reach_the_weights() -> None:
    x, lengths = noise(2, 9, 3).double(), torch.tensor([9, 6])
    drawn = (torch.rand(2, 9, generator=torch.Generator().manual_seed(1)).double() * 0.8) + 0.1

    def total(weights: Tensor) -> Tensor:
        made = integrate(x, weights, lengths)
        return (made.values.double() * torch.arange(1.0, 4.0).double()).square().sum()

    drawn.requires_grad_(True)
    (found,) = torch.autograd.grad(total(drawn), drawn)
    for place in ((0, 0), (0, 4), (1, 2)):
        step = torch.zeros_like(drawn)
        step[place] = 1e-3
        slope = (total(drawn + step) - total(drawn - step)) / 2e-3
        assert found[place].item() == pytest.approx(slope.item(), rel=2e-2, abs=1e-2)
    assert bool((found[1, 6:] == 0).all())


def test_strength_lowers_the_weights_down_to_one_token() -> None:
    alpha = torch.rand(3, 50, generator=torch.Generator().manual_seed(0)).double()
    strengths = (0.0, 0.3, 0.999, 1.0, 1.5, 1.9, 1.9999)
    sums = torch.stack([weaken(alpha, strength).sum(1) for strength in strengths])
    assert bool((sums[0] == 50).all())
    assert bool((sums.diff(dim=0) <= 1e-9).all())
    torch.testing.assert_close(sums[3], alpha.sum(1))
    torch.testing.assert_close(sums[-1], torch.ones(3).double())
    assert bool((weaken(alpha, 1.9) <= 1).all())


def pair(spec: ModelSpec, shortening: Shortening) -> tuple[Encoder, Encoder]:
    """An encoder and the same with that shortening."""
    dense, short = build(spec, 1).eval(), build(replace(spec, shortening=shortening), 2).eval()
    missing = short.load_state_dict(dense.state_dict(), strict=False)
    assert not missing.unexpected_keys
    assert all(name.startswith("shortening.") for name in missing.missing_keys)
    return dense, short


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["mean", "conv", "cif"])
@torch.no_grad()
def test_a_token_per_frame_changes_nothing(family: str, kind: str) -> None:
    dense, short = pair(FAMILIES[family], Shortening(kind))  # type: ignore[arg-type]
    waveforms, lengths = noise(2, 4000), torch.tensor([4000, 2500])
    before, after = dense(waveforms, lengths), short(waveforms, lengths)
    assert after.tokens is not None
    assert torch.equal(after.tokens, before.lengths)
    for one, other in zip(before.states, after.states, strict=True):
        for row, length in enumerate(before.lengths):
            torch.testing.assert_close(one[row, :length], other[row, :length], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shortening", KINDS, ids=str)
@torch.no_grad()
def test_padding_changes_no_token(family: str, shortening: Shortening) -> None:
    encoder = build(replace(FAMILIES[family], shortening=shortening), 3).eval()
    waveforms = noise(2, 9000)
    waveforms[1, 5000:] = 0
    batch = encoder(waveforms, torch.tensor([9000, 5000]))
    alone = encoder(waveforms[1:, :5000])
    frames = int(alone.lengths)
    assert batch.lengths.tolist() == [encoder.spec.frames(9000), frames]
    assert batch.tokens is not None
    assert alone.tokens is not None
    assert batch.tokens[1] == alone.tokens[0] < frames
    for padded, single in zip(batch.states, alone.states, strict=True):
        assert padded.shape[1] == encoder.spec.frames(9000)
        torch.testing.assert_close(padded[1, :frames], single[0], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("shortening", KINDS, ids=str)
@torch.no_grad()
def test_the_spec_knows_the_tokens_or_says_that_it_does_not(shortening: Shortening) -> None:
    encoder = build(replace(MEL, shortening=shortening), 3).eval()
    for samples in range(3000, 9000, 331):
        tokens = encoder(noise(1, samples)).tokens
        expected = shortening.tokens(MEL.frames(samples))
        assert expected == (None if shortening.kind == "cif" else tokens.item())


@torch.no_grad()
def test_frames_have_the_state_of_their_token() -> None:
    encoder = build(replace(MEL, shortening=Shortening("mean", factor=4)), 3).eval()
    state = encoder(noise(1, 4000)).states[-1][0]
    assert len(state) == MEL.frames(4000)
    assert torch.equal(state[0], state[3])
    assert not torch.equal(state[3], state[4])


@torch.no_grad()
def test_a_strided_convolution_starts_as_an_average() -> None:
    mean, conv = (build(replace(MEL, shortening=Shortening(kind, factor=3)), 3).eval()
                  for kind in ("mean", "conv"))  # fmt: skip
    conv.load_state_dict(mean.state_dict(), strict=False)
    samples = 400 + 160 * (2 * 12 - 1)  # 12 frames, 4 whole tokens
    first, second = mean(noise(1, samples)), conv(noise(1, samples))
    assert first.tokens == second.tokens == 4
    torch.testing.assert_close(first.states[-1], second.states[-1], atol=1e-5, rtol=1e-4)


def test_masked_frames_reach_their_tokens() -> None:
    encoder = build(replace(MEL, shortening=Shortening("mean", factor=2)), 3).eval()
    features, _ = encoder.features(noise(1, 6000))
    mask = torch.zeros(features.shape[:2], dtype=torch.bool)
    mask[0, 8:10] = True
    with torch.no_grad():
        embedding = torch.full((MEL.dim,), 3.0)
        before = encoder.encode(features).states[0]
        after = encoder.encode(features, mask=mask, mask_embedding=embedding).states[0]
    changed = (before - after).abs().amax(-1)[0] > 1e-6
    assert changed.nonzero()[:, 0].tolist() == [8, 9]


def test_training_reaches_alpha() -> None:
    encoder = build(replace(MEL, shortening=Shortening("cif", strength=1.2)), 3).train()
    hidden = encoder(noise(2, 6000), torch.tensor([6000, 4000]))
    assert hidden.alpha is not None
    assert hidden.alpha.requires_grad
    hidden.states[-1].square().sum().backward()
    assert isinstance(encoder.shortening, Fire)
    slopes = [parameter.grad for parameter in encoder.shortening.parameters()]
    assert all(slope is not None and slope.isfinite().all() for slope in slopes)
    assert all(slope.abs().sum() > 0 for slope in slopes)


def test_half_precision_counts_tokens_as_single_does() -> None:
    spec = replace(MEL, shortening=Shortening("mean", factor=3), dtype="bfloat16")
    with torch.no_grad():
        hidden = build(spec, 3).eval()(noise(1, 40_000))
    assert hidden.tokens == Shortening("mean", factor=3).tokens(spec.frames(40_000))
    assert hidden.states[-1].isfinite().all()


@pytest.mark.parametrize("shortening", [None, *KINDS], ids=str)
def test_a_spec_goes_to_json_and_back(shortening: Shortening | None) -> None:
    spec = replace(zoo.tiny(), shortening=shortening)
    data = spec.to_json()
    assert ModelSpec.from_json(data) == spec
    assert ("shortening" in data) == (shortening is not None), "old files stay as they are"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "max"}, "'max'; expected mean, conv or cif"),
        ({"kind": "mean", "factor": 0.5}, "0.5 frames; expected a factor of 1 or more"),
        ({"kind": "mean", "factor": math.inf}, "inf frames"),
        ({"kind": "conv", "factor": 2.5}, "2.5 frames; expected a whole number"),
        ({"kind": "cif", "strength": 2.0}, "2.0 of cif; expected from 0 up to below 2"),
        ({"kind": "cif", "strength": math.nan}, "nan of cif"),
    ],
)
def test_bad_values_are_named(fields: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Shortening(**fields)
