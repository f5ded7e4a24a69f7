"""Joined frames: one training for all rates, the frame period that was asked for, and phones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy_corpus import PITCHES, TONE_SECONDS, ToyCorpus

from compressors import _trained
from compressors._adaptive import adapt
from compressors._base import Setting
from compressors._imitation import Teacher
from compressors._joining import States, joined
from compressors._segments import by_change, by_labels, one_token_each
from compressors.ofa_sequence import OfaSequence, OnceForAll, removed, strength_for
from compressors.subsampling import Subsampling
from core.errors import Diverged, InputError, Unsupported
from core.spec import Exits, LayerSpec, MelFrontEnd, ModelSpec, Positions, Shortening
from encoders import build
from encoders.corpora import Item
from encoders.crops import Batch, Crops
from encoders.model import Encoder
from encoders.shortening import Fire

SPEC = ModelSpec(
    "melhubert", MelFrontEnd(bins=10, stack=2), 16, 2, 8, (LayerSpec.dense(2, 8, 16),) * 3,
    Positions(bias_reach=5), feature_norm=False,
)  # fmt: skip
RATES = [rate / 10 for rate in range(1, 10)]
FAST: dict[str, Any] = {
    "steps": 6, "batch_seconds": 2.0, "crop_seconds": 0.5, "precision": "no",
    "learning_rate": 5e-3,
}  # fmt: skip
HOP = SPEC.hop


class Tones(ToyCorpus):
    """The toy corpus, its four tones labelled as phones with their starts."""

    def __init__(self) -> None:
        super().__init__(repeats=4)
        tone = round(TONE_SECONDS * 16_000)
        starts = " ".join(str(tone * place) for place in range(4))
        self.items = [
            replace(item, labels={**item.labels, "phone_starts": starts}) for item in self.items
        ]


@pytest.fixture(scope="module")
def corpus() -> Tones:
    return Tones()


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return build(SPEC, seed=1).eval()


@pytest.fixture(scope="module")
def once(encoder: Encoder, corpus: Tones) -> dict[float, Encoder]:
    return encoders(OfaSequence(**FAST).track(encoder, RATES, Setting(corpus)))


def encoders(track: Any) -> dict[float, Encoder]:
    return {rate: made for rate, made in track if isinstance(made, Encoder)}


def batch_of(corpus: Tones, encoder: Encoder) -> Batch:
    crop = Crops(corpus, 4.0, 0.5, False, 0)[0]
    with torch.no_grad():
        features = encoder.features(crop.clean)[0]
    return Batch(features, features, crop.items, crop.offsets)


def loss_of(encoder: Encoder, objective: nn.Module, batch: Batch) -> dict[str, float]:
    with torch.no_grad():
        losses = objective(encoder, batch, torch.Generator().manual_seed(0))
    return {name: float(value) for name, value in losses.items()}


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Name and steps of each training that is begun."""
    begun: list[tuple[str, int]] = []
    train = _trained.train

    def counted(learner: Any, batches: Any, settings: Any, name: str, *rest: Any) -> Any:
        begun.append((name, settings.steps))
        return train(learner, batches, settings, name, *rest)

    monkeypatch.setattr(_trained, "train", counted)
    return begun


def test_nine_rates_take_one_training(
    encoder: Encoder, corpus: Tones, trainings: list[tuple[str, int]], once: dict[float, Encoder]
) -> None:
    made = encoders(OfaSequence(**FAST).track(encoder, RATES, Setting(corpus)))
    assert trainings == [("once for all", 6)]
    assert list(made) == RATES
    weights = [e.state_dict() for e in made.values()]
    for other in weights[1:]:
        assert all(torch.equal(other[name], tensor) for name, tensor in weights[0].items())
    for rate, again in once.items():
        assert made[rate].spec == again.spec, "the same arguments give the same encoders"


def test_the_frame_period_is_what_was_asked_for(once: dict[float, Encoder], corpus: Tones) -> None:
    """On the whole training split, which is here what lambda was chosen on."""
    for rate, encoder in once.items():
        frames = tokens = 0
        with torch.no_grad():
            for item in corpus.training().items:
                hidden = encoder(corpus.waveform(item)[None])
                assert hidden.tokens is not None
                frames, tokens = frames + int(hidden.lengths), tokens + int(hidden.tokens)
        assert 1 - tokens / frames == pytest.approx(rate, abs=0.02)
        assert encoder.spec.shortening is not None
        assert encoder.spec.shortening.factor == pytest.approx(frames / tokens)
        assert OfaSequence().achieved(build(SPEC), encoder) == pytest.approx(1 - tokens / frames)
    strengths = [e.spec.shortening.strength for e in once.values() if e.spec.shortening]
    assert strengths == sorted(strengths)


def test_another_rate_costs_no_training(
    encoder: Encoder, corpus: Tones, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = Setting(corpus, folder=tmp_path)
    first = encoders(OfaSequence(**FAST).track(encoder, [0.5], setting))[0.5]

    def refuse(*_: Any) -> Any:
        raise AssertionError("an update was made")

    monkeypatch.setattr(OnceForAll, "forward", refuse)
    made = encoders(OfaSequence(**FAST).track(encoder, [0.5, 0.8], setting))
    assert made[0.5].spec == first.spec
    state = first.state_dict()
    assert all(torch.equal(v, state[name]) for name, v in made[0.8].state_dict().items())


def test_a_rate_beyond_lambda_is_unsupported(encoder: Encoder, corpus: Tones) -> None:
    method = OfaSequence(**FAST | {"steps": 0}, lambda_max=0.5)
    made = dict(method.track(encoder, [0.1, 0.9], Setting(corpus)))
    assert isinstance(made[0.1], Encoder)
    assert isinstance(made[0.9], Unsupported)
    assert "lambda up to 0.5 removes 0." in str(made[0.9])


def test_lambda_max_is_checked() -> None:
    with pytest.raises(InputError, match=r"lambda_max 2\.5; expected above 0 and up to 2"):
        OfaSequence(lambda_max=2.5).supports(SPEC)


def test_lambda_is_drawn_anew_at_each_step(encoder: Encoder, corpus: Tones) -> None:
    student, batch = joined(encoder, Shortening("cif")), batch_of(corpus, encoder)
    objective = OnceForAll(OfaSequence(lambda_max=1.5), encoder, 0)
    drawn = []
    for step in range(40):
        objective(student, batch, torch.Generator().manual_seed(step))
        assert isinstance(student.shortening, Fire)
        drawn.append(float(student.shortening.strength))
    assert len(set(drawn)) == 40
    assert min(drawn) >= 0
    assert 1.2 < max(drawn) < 1.5


def test_bisection_finds_the_nearest_rate() -> None:
    generator = torch.Generator().manual_seed(0)
    alphas = [torch.rand(1, 200 + n, generator=generator).double() for n in range(5)]
    for rate in (0.05, 0.5, 0.97):
        assert removed(alphas, strength_for(alphas, rate, 1.999)) == pytest.approx(rate, abs=0.005)
    with pytest.raises(Unsupported, match=r"removes 0\.995 of"):
        strength_for(alphas, 0.9999, 1.9999)


@pytest.mark.parametrize("boundaries", ["auto", "change"])
def test_guidance_makes_a_token_of_a_phone(
    boundaries: Any, encoder: Encoder, corpus: Tones
) -> None:
    """Tones of 0.15 s: seven and a half frames each."""
    options = FAST | {"steps": 60, "learning_rate": 2e-2}
    method = OfaSequence(**options, guidance=10.0, boundaries=boundaries, lambda_max=1.0)
    student = joined(encoder, Shortening("cif"))
    objective, batch = OnceForAll(method, encoder, 0), batch_of(corpus, encoder)
    before = loss_of(student, objective, batch)
    method.train(student, objective, Setting(corpus), "guided")
    after = loss_of(student, objective, batch)
    assert after["guidance"] < 0.5 * before["guidance"]


def test_phones_by_their_labels() -> None:
    items = [Item(str(i), 1.0, {"phone_starts": "0 1600 8000"}) for i in range(2)]
    segments = by_labels(items, (0, 1600), 12, HOP)
    assert segments is not None
    middles = [320 * frame + 280 for frame in range(12)]  # of two windows of 25 ms, 10 ms apart
    for row, offset in zip(segments.tolist(), (0, 1600), strict=True):
        expected = [1 + (m + offset >= 1600) + (m + offset >= 8000) for m in middles]
        assert row == expected
    assert by_labels([*items, Item("bare", 1.0)], (0, 0, 0), 12, HOP) is None


def test_tones_by_the_change_of_the_signal(encoder: Encoder, corpus: Tones) -> None:
    """A boundary within a frame of each change of pitch, which lies between frames 7 and 8."""
    item = next(i for i in corpus.items if i.labels["phones"] == "a b a b")
    with torch.no_grad():
        features = encoder.features(corpus.waveform(item)[None])[0]
    found = by_change(features)[0].diff().nonzero()[:, 0] + 1
    for pitch in range(1, len(PITCHES)):
        change = pitch * TONE_SECONDS * 16_000 / HOP
        assert (found - change).abs().min() <= 1.5


def test_guidance_is_the_distance_of_whole_segments_from_one() -> None:
    alpha = torch.tensor([[0.9, 0.2, 0.3, 0.9, 0.9, 0.1], [0.5] * 6]).double()
    segments = torch.tensor([[4, 5, 5, 7, 7, 9], [0, 0, 1, 1, 2, 2]])
    # Whole: 0.5 and 1.8 of the first row (6 and 8 are too short for a frame), 1.0 of the second.
    expected = (0.5 + 0.8 + 0.0) / 3
    assert float(one_token_each(alpha, segments)) == pytest.approx(expected)
    assert float(one_token_each(alpha, torch.zeros(2, 6, dtype=torch.long))) == 0


@pytest.mark.parametrize("by", ["mean", "conv"])
def test_untrained_subsampling_is_the_dense_encoder_on_averages(
    by: Any, encoder: Encoder, corpus: Tones
) -> None:
    method = Subsampling(steps=0, by=by)
    made = encoders(method.track(encoder, [0.5, 0.75], Setting()))
    for rate, factor in ((0.5, 2), (0.75, 4)):
        assert made[rate].spec.shortening == Shortening(by, factor)
        assert method.achieved(encoder, made[rate]) == rate
        hidden = made[rate](torch.randn(1, 8000, generator=torch.Generator().manual_seed(0)))
        assert int(hidden.tokens) == Shortening(by, factor).tokens(int(hidden.lengths))
        state = made[rate].state_dict()
        assert all(torch.equal(v, state[name]) for name, v in encoder.state_dict().items())


def test_a_mean_may_be_of_any_number_of_frames(encoder: Encoder) -> None:
    made = encoders(Subsampling(steps=0).track(encoder, RATES, Setting()))
    for rate, e in made.items():
        assert Subsampling().achieved(encoder, e) == pytest.approx(rate)
    assert list(made) == RATES


def test_a_stride_of_one_is_unsupported(encoder: Encoder) -> None:
    made = dict(Subsampling(steps=0, by="conv").track(encoder, [0.3, 0.34, 0.9], Setting()))
    assert isinstance(made[0.3], Unsupported)
    assert "nearest to rate 0.3 is 1" in str(made[0.3])
    factors = [made[rate].spec.shortening.factor for rate in (0.34, 0.9)]  # type: ignore[union-attr]
    assert factors == [2, 10]


@pytest.mark.parametrize("targets", ["states", "multi-layer"])
@pytest.mark.parametrize("by", ["mean", "conv"])
def test_training_brings_the_states_back(
    by: Any, targets: Any, encoder: Encoder, corpus: Tones
) -> None:
    options = FAST | {"steps": 40, "augment": False}
    before = encoders(Subsampling(steps=0, by=by).track(encoder, [0.75], Setting()))[0.75]
    method = Subsampling(**options, by=by, targets=targets)
    after = encoders(method.track(encoder, [0.75], Setting(corpus)))[0.75]
    assert not after.training
    batch, objective = batch_of(corpus, encoder), States(Teacher(encoder))
    if targets == "states":  # most of the error is what an average of steady tones cannot hold
        losses = [loss_of(e, objective, batch)["loss"] for e in (before, after)]
        assert losses[1] < 0.96 * losses[0]
    moved = after.state_dict()["layers.0.fc1.weight"] - before.state_dict()["layers.0.fc1.weight"]
    assert moved.abs().max() > 0


def test_a_student_without_loss_is_the_teacher(encoder: Encoder, corpus: Tones) -> None:
    batch, objective = batch_of(corpus, encoder), States(Teacher(encoder))
    assert loss_of(encoder, objective, batch)["loss"] < 1e-9
    same = joined(encoder, Shortening("mean"))
    assert loss_of(same, objective, batch)["loss"] < 1e-9


@pytest.mark.parametrize("method", [Subsampling(), OfaSequence()], ids=["subsampling", "ofa"])
def test_what_cannot_be_joined_says_why(method: Any) -> None:
    assert method.supports(SPEC) is None
    assert "joined already" in method.supports(replace(SPEC, shortening=Shortening("mean")))
    assert "exits" in method.supports(replace(SPEC, exits=Exits(3)))
    assert "later ones" in method.supports(replace(SPEC, causal=True))


def test_a_task_learns_its_own_lambda(once: dict[float, Encoder]) -> None:
    """One that wants frames to differ lowers it, one that wants them alike raises it."""
    encoder, head = once[0.9], nn.Linear(SPEC.dim, 1)
    nn.init.constant_(head.weight, 0.01)
    nn.init.zeros_(head.bias)
    before = head.weight.detach().clone()
    waveforms = torch.randn(4, 12_000, generator=torch.Generator().manual_seed(0))

    def loss(hidden: Any, wanted: float) -> Tensor:
        spread = hidden.states[0].var(dim=1).mean()
        return wanted * spread + head(hidden.states[-1].mean(1)).square().mean()

    found = {}
    for wanted in (-10.0, 10.0):
        adapted = adapt(encoder, head, [(waveforms, wanted)] * 20, loss, 0.01, 0.2, start=1.5)
        assert adapted.spec.shortening is not None
        found[wanted] = adapted.spec.shortening.strength
        hidden = adapted(waveforms)
        assert adapted.spec.shortening.factor == pytest.approx(
            float(hidden.lengths.sum() / hidden.tokens.sum())
        )
    assert found[-10.0] < 1.5 < found[10.0] < 2
    assert not torch.equal(head.weight, before)
    state = encoder.state_dict()
    assert all(torch.equal(v, state[name]) for name, v in adapted.state_dict().items())
    with pytest.raises(Unsupported, match="only an encoder of ofa-sequence"):
        adapt(build(SPEC), head, [], loss, 0.1, 0.1)
    with pytest.raises(Diverged, match="the loss became nan"):
        adapt(encoder, head, [(waveforms, float("nan"))], loss, 0.1, 0.1)
