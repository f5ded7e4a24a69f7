"""Gates, what they cost, and the cut: the small encoder computes what the masked one does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy_corpus import ToyCorpus

from compressors._base import Setting
from compressors._gated import Gated, cut, masks_at, weights
from compressors._gates import chance_open, sampled, settled
from compressors._layer_pairs import LayerPairs, matched
from compressors._sparsified import Rise, Sparsified
from compressors.structured_l0 import StructuredL0
from core.errors import Unsupported
from core.spec import ConvFrontEnd, LayerSpec, MelFrontEnd, ModelSpec, Positions
from encoders import build
from encoders.crops import Batch
from encoders.model import Encoder
from encoders.zoo import wavlm_base

HEADS, HEAD_DIM, FFN, DEPTH = 4, 8, 48, 3
MEL = ModelSpec(
    "melhubert", MelFrontEnd(bins=10, stack=2), 32, HEADS, HEAD_DIM,
    (LayerSpec.dense(HEADS, HEAD_DIM, FFN),) * DEPTH, Positions(bias_reach=5), feature_norm=False,
)  # fmt: skip
CONV = replace(
    MEL, family="hubert", front_end=ConvFrontEnd((16,) * 7),
    positions=Positions(conv_kernel=8, conv_groups=4), feature_norm=True,
)  # fmt: skip
SHAPES = {
    "mel": MEL,
    "conv": CONV,
    "prenorm": replace(CONV, norm_first=True, normalize_waveform=True),
    "wavlm": replace(CONV, positions=Positions(8, 4, gated_buckets=16, gated_distance=40)),
}
RATES = [rate / 10 for rate in range(1, 10)]
FAST: dict[str, Any] = {
    "steps": 6, "batch_seconds": 2.0, "crop_seconds": 0.5, "precision": "no", "gate_rate": 0.5,
}  # fmt: skip


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return make("mel")


def make(shape: str) -> Encoder:
    """A small encoder of that shape, its biases not zero."""
    encoder = build(SHAPES[shape], seed=1).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in encoder.layers.parameters():
            if parameter.ndim == 1:
                parameter += torch.randn(parameter.shape, generator=generator) * 0.1
    return encoder


def shuffled(encoder: Encoder, seed: int, fine: bool = True) -> Gated:
    """The encoder under gates of random log alphas, some of its sub-layers closed."""
    gated = Gated(encoder, fine)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in gated.gates.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 3)
    return gated


def states(encoder: Encoder | Gated) -> list[torch.Tensor]:
    waveforms = torch.randn(2, 4_000, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        features, lengths = encoder.features(waveforms, torch.tensor([4_000, 3_100]))
        return encoder.encode(features, lengths).states


def features_of(waveforms: torch.Tensor, encoder: Encoder) -> Batch:
    features = encoder.features(waveforms)[0]
    return Batch(features, features, (), ())


@pytest.mark.parametrize("log_alpha", [-4.0, -1.6, 0.0, 2.5])
def test_the_closed_form_is_the_share_of_samples_that_are_open(log_alpha: float) -> None:
    values = sampled(torch.full((200_000,), log_alpha), torch.Generator().manual_seed(0))
    assert 0 <= values.min() <= values.max() <= 1
    expected = chance_open(torch.tensor(log_alpha)).item()
    assert (values > 0).float().mean().item() == pytest.approx(expected, abs=0.004)


def test_without_noise_gates_are_open_closed_or_between() -> None:
    values = settled(torch.tensor([-9.0, -2.398, -2.397, 0.0, 2.397, 2.399, 9.0]))
    assert values.tolist()[:2] == [0, 0]
    assert 0 < values[2] < values[3] < values[4] < 1
    assert values[3] == pytest.approx(0.5)
    assert values.tolist()[5:] == [1, 1]


def test_straight_through_a_cut_off_value_goes_the_clipped_gradient() -> None:
    """d value / d log alpha is that of the stretched sigmoid, after a hard tanh of d loss."""
    for straight in (True, False):
        alphas = torch.tensor([-8.0, 0.0, 0.0, 8.0], requires_grad=True)
        values = sampled(alphas, torch.Generator().manual_seed(1), straight)
        assert [values[0].item(), values[3].item()] == [0, 1], "closed, open"
        assert 0 < values[1] < 1
        slopes = torch.autograd.grad(
            sampled(alphas, torch.Generator().manual_seed(1), True).sum(), alphas
        )[0]
        (values * torch.tensor([-5.0, 0.25, 3.0, 0.5])).sum().backward()
        clipped = torch.tensor([-1.0, 0.25, 1.0, 0.5]) * slopes
        plain = torch.tensor([0.0, 0.25, 3.0, 0.0]) * slopes
        torch.testing.assert_close(alphas.grad, clipped if straight else plain)
        assert (slopes > 0).all()


def test_the_expected_sparsity_is_the_mean_over_samples(encoder: Encoder) -> None:
    gated = shuffled(encoder, 5)
    generator = torch.Generator().manual_seed(0)
    zeros = []
    with torch.no_grad():
        for _ in range(400):
            layers = gated.values(lambda alpha: sampled(alpha, generator))
            left = sum(
                int((m.qk * m.attention > 0).sum() + (m.vo * m.attention > 0).sum())
                + int((m.units * m.feed > 0).sum())
                for m in layers
            )
            zeros.append(1 - left / (DEPTH * (2 * HEADS * HEAD_DIM + FFN)))
        assert sum(zeros) / len(zeros) == pytest.approx(gated.sparsity().item(), abs=0.01)


@pytest.mark.parametrize("fine", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_cut_encoder_computes_what_the_masked_one_does(shape: str, fine: bool) -> None:
    for seed, rate in ((0, 0.3), (1, 0.6), (2, 0.9)):
        gated = shuffled(make(shape), seed, fine)
        gated.masks = masks_at(gated, rate, settled)
        small = cut(gated.encoder, gated.masks)
        for expected, state in zip(states(gated), states(small), strict=True):
            assert (expected - state).abs().max() < 1e-5
        rebuilt = build(small.spec, seed=9).eval()
        rebuilt.load_state_dict(small.state_dict(), strict=True)


def test_closed_sub_layers_add_nothing_at_all(encoder: Encoder) -> None:
    """A post-norm layer without both is its two LayerNorms, whatever the biases were."""
    open_ = Gated(encoder).masks
    zero = torch.tensor(0.0)
    small = cut(encoder, [m._replace(attention=zero, feed=zero) for m in open_])
    assert all(layer.heads == () and layer.ffn == 0 for layer in small.spec.layers)
    before, after = states(small)[:2]
    norms = encoder.layers[0]
    torch.testing.assert_close(after, norms.ffn_norm(norms.attention_norm(before)))


def test_a_head_without_keys_stays_and_one_without_values_goes(encoder: Encoder) -> None:
    first, *rest = Gated(encoder).masks
    qk, vo = first.qk.clone(), first.vo.clone()
    qk[:HEAD_DIM], vo[HEAD_DIM : 2 * HEAD_DIM] = 0, 0
    small = cut(encoder, [first._replace(qk=qk, vo=vo), *rest])
    layer = small.spec.layers[0]
    assert layer.heads == (0, 2, 3)
    assert (layer.qk, layer.vo) == ((0, 8, 8), (8, 8, 8))


@given(st.integers(0, 10_000), st.floats(0.02, 0.98), st.booleans())
def test_the_cut_lands_on_the_rate(seed: int, rate: float, fine: bool) -> None:
    encoder = make("mel")
    gated = shuffled(encoder, seed, fine)
    small = cut(gated.encoder, masks_at(gated, rate, settled))
    unit = 2 * MEL.dim / weights(MEL)
    head = 2 * HEAD_DIM * unit
    achieved = StructuredL0().achieved(encoder, small)
    assert achieved == pytest.approx(rate, abs=unit / 2 if fine else head / 2 + unit)
    if not fine:
        for layer in small.spec.layers:
            assert set(layer.qk) | set(layer.vo) <= {HEAD_DIM}


def test_what_a_lower_rate_cuts_has_the_lower_log_alphas(encoder: Encoder) -> None:
    gated = shuffled(encoder, 3)
    many, few = (masks_at(gated, rate, settled) for rate in (0.2, 0.6))
    units = [gates.masks(lambda alpha: alpha).units for gates in gated.gates]  # type: ignore[operator]
    for own, low, high in zip(units, many, few, strict=True):
        assert ((high.units > 0) <= (low.units > 0)).all()
        kept = own[high.units > 0]
        if len(kept) and high.feed > 0:
            assert kept.min() > own[high.units == 0].max()


def test_wavlm_base_at_four_fifths_has_the_published_size() -> None:
    """26.57 M of 94.70 M in the paper, 0.3 M of them not in our encoder; whatever is cut."""
    encoder = build(wavlm_base(), seed=0)
    small = cut(encoder, masks_at(shuffled(encoder, 0), 0.8, settled))
    assert StructuredL0().achieved(encoder, small) == pytest.approx(0.8, abs=1e-4)
    assert 26.2e6 < sum(p.numel() for p in small.parameters()) < 26.9e6


def test_untrained_gates_cut_the_smallest_norms(encoder: Encoder) -> None:
    with torch.no_grad():
        strong = make("mel")
        strong.layers[1].fc1.weight[:5] *= 9
        strong.layers[2].attention.v.weight[:HEAD_DIM] *= 9
    [(_, small)] = StructuredL0(steps=0).track(strong, [0.9])
    assert isinstance(small, Encoder)
    assert small.spec.layers[1].ffn >= 5
    dims = small.spec.layers[2]
    assert dims.vo[dims.heads.index(0)] == HEAD_DIM
    kept, before = small.layers[1].fc1.weight, strong.layers[1].fc1.weight
    for row in kept:
        assert (before == row).all(1).any(), "what stays is as it was"


@pytest.mark.parametrize("fahp", [True, False])
def test_nine_rates_take_one_training(
    fahp: bool, encoder: Encoder, corpus: ToyCorpus, trainings: list[str]
) -> None:
    method = StructuredL0(**FAST, fahp=fahp)
    made = dict(method.track(encoder, RATES, Setting(corpus)))
    assert trainings == ["gates"]
    for rate, small in made.items():
        assert isinstance(small, Encoder)
        assert method.achieved(encoder, small) == pytest.approx(rate, abs=0.03)
        assert fahp or {w for own in small.spec.layers for w in own.qk + own.vo} <= {HEAD_DIM}
    [(_, alone)] = method.track(encoder, [0.5], Setting(corpus))
    assert same(alone, made[0.5]), "a rate does not depend on the others"


def test_as_in_the_paper_each_rate_has_a_training(
    encoder: Encoder, corpus: ToyCorpus, trainings: list[str]
) -> None:
    method = StructuredL0(**FAST, trajectory=False, settle=2)
    made = dict(method.track(encoder, [0.5, 0.95], Setting(corpus)))
    assert trainings == ["rate 0.5", "settle 0.5", "rate 0.95", "settle 0.95"]
    assert all(isinstance(small, Encoder) for small in made.values())


def test_a_training_that_was_cut_goes_on_bit_by_bit(
    encoder: Encoder, corpus: ToyCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StructuredL0, "_settings", every_update(StructuredL0._settings))
    method = StructuredL0(**FAST)
    whole = dict(method.track(encoder, RATES, Setting(corpus, folder=tmp_path / "whole")))
    setting = Setting(corpus, folder=tmp_path / "cut", report=interrupt(4))
    with pytest.raises(KeyboardInterrupt):
        list(method.track(encoder, RATES, setting))
    assert (tmp_path / "cut" / "gates.pt").exists()
    again = dict(method.track(encoder, RATES, Setting(corpus, folder=tmp_path / "cut")))
    assert all(same(again[rate], whole[rate]) for rate in RATES)
    late = dict(method.track(encoder, [0.35], Setting(corpus, folder=tmp_path / "cut")))
    [(_, fresh)] = method.track(encoder, [0.35], Setting(corpus))
    assert same(late[0.35], fresh), "a rate that was asked for after the training had ended"


def test_the_multipliers_push_towards_the_target(encoder: Encoder) -> None:
    """Too dense: lambda1 falls below 0, and a negative lambda1 closes gates."""
    gated, rise = Gated(encoder), Rise(0.8, 0.0, 0.1)
    objective = Sparsified(encoder, 2, rise, 10, ste=True, gate_rate=0.1, multiplier_rate=0.1)
    objective.done.fill_(5)
    batch = features_of(torch.randn(2, 4_000, generator=torch.Generator().manual_seed(0)), encoder)
    losses = objective(gated, batch, torch.Generator().manual_seed(0))
    assert losses["target"] == pytest.approx(0.8)
    excess = losses["sparsity"].item() - 0.8
    assert excess < 0
    losses["loss"].backward()
    torch.testing.assert_close(objective.multipliers.grad, torch.tensor([excess, excess**2]))
    *_, multipliers = objective.groups(gated, 1e-3)
    assert multipliers["maximize"]
    with torch.no_grad():
        objective.multipliers.copy_(torch.tensor([-1e6, 0.0]))
    gated.zero_grad()
    objective(gated, batch, torch.Generator().manual_seed(0))["loss"].backward()
    for gates in gated.gates:
        assert all((alphas.grad > 0).all() for alphas in gates.log_alphas.values())


def test_the_target_rises_and_rates_are_cut_where_it_passes_them() -> None:
    rise = Rise(0.9, 0.1, 1.0)
    assert [rise.at(p) for p in (0, 0.1, 0.55, 1.0)] == pytest.approx([0, 0, 0.45, 0.9])
    for rate in RATES:
        update = rise.reaches(rate, 1_000)
        assert rise.at(update / 1_000) >= rate - 1e-9 > rise.at((update - 1) / 1_000) - 1e-9
    assert Rise(0.8, 0.0, 0.07).reaches(0.8, 100) == 100


def test_pairs_are_the_best_that_do_not_cross() -> None:
    errors = torch.rand(3, 5, generator=torch.Generator().manual_seed(4))
    every = [
        (errors[0, a] + errors[1, b] + errors[2, c], [a, b, c])
        for a in range(5) for b in range(a, 5) for c in range(b, 5)
    ]  # fmt: skip
    assert matched(errors) == min(every)[1]
    assert matched(torch.tensor([[3.0, 1.0]])) == [1]


def test_the_teacher_itself_is_at_no_distance(encoder: Encoder) -> None:
    objective = LayerPairs(encoder, 2)
    assert objective.targets == [2, 3]
    batch = features_of(torch.randn(2, 4_000, generator=torch.Generator().manual_seed(0)), encoder)
    assert objective.distance(encoder, batch).item() < 1e-10
    assert objective.distance(build(MEL, seed=5).eval(), batch).item() > 0.1


def test_what_does_not_exist_is_refused(encoder: Encoder, corpus: ToyCorpus) -> None:
    method = StructuredL0(**FAST, sparsest=0.5)
    outcomes = dict(method.track(encoder, [0.6, 0.9999], Setting(corpus)))
    assert "set sparsest" in str(outcomes[0.6])
    [(_, nothing)] = StructuredL0(steps=0).track(encoder, [0.9999])
    assert isinstance(nothing, Unsupported)
    assert "leaves none" in str(nothing)
    factored = replace(MEL, layers=(replace(MEL.layers[0], ranks=(("q", 2),)),))
    assert "factored" in str(method.supports(factored))


def every_update(settings: Any) -> Any:
    return lambda *given: replace(settings(*given), checkpoint_every=1, report_every=1)


def interrupt(at: int) -> Any:
    def report(name: str, step: int, total: int, values: dict[str, float]) -> None:
        if step == at:
            raise KeyboardInterrupt

    return report


def same(one: Any, other: Any) -> bool:
    ours, its = one.state_dict(), other.state_dict()
    return (
        one.spec == other.spec
        and ours.keys() == its.keys()
        and all(torch.equal(v, its[k]) for k, v in ours.items())
    )
