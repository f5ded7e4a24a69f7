"""One training gives every rate: cut behind a layer, or left when sure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from toy_corpus import ToyCorpus
from toy_models import DEEP, FAST

from compressors._base import Setting
from compressors._calibration import calibration
from compressors.early_exit import AtExits, EarlyExit, growing
from core.errors import InputError, Unsupported
from encoders import build
from encoders.crops import Batch
from encoders.cut import keep_layers
from encoders.masked_prediction import MaskedPrediction
from encoders.model import Encoder

LAYERS = len(DEEP.layers)
RATES = [rate / 10 for rate in range(1, 10)]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return build(DEEP, seed=1).eval()


@pytest.fixture(scope="module")
def anytime(encoder: Encoder, corpus: ToyCorpus) -> dict[float, Encoder | Unsupported]:
    """By confidence, long enough for utterances to differ."""
    method = EarlyExit(**FAST | {"steps": 40}, policy="confidence")
    return dict(method.track(encoder, RATES, Setting(corpus)))


def _encoders(made: dict[float, Encoder | Unsupported]) -> dict[float, Encoder]:
    return {rate: e for rate, e in made.items() if isinstance(e, Encoder)}


def _same(one: Encoder, other: Encoder) -> bool:
    ours, its = one.state_dict(), other.state_dict()
    return ours.keys() == its.keys() and all(torch.equal(v, its[k]) for k, v in ours.items())


@pytest.mark.parametrize("policy", ["layer", "confidence"])
def test_nine_rates_take_one_training(
    policy: Any, encoder: Encoder, corpus: ToyCorpus, trainings: list[str]
) -> None:
    made = dict(EarlyExit(**FAST, policy=policy).track(encoder, RATES, Setting(corpus)))
    assert trainings == ["exits"]
    assert list(made) == RATES
    reached = 9 if policy == "layer" else 8  # 0.9 leaves 0.6 of 6 layers
    assert len(_encoders(made)) == reached


def test_layers_are_cut_off_one_trained_encoder(encoder: Encoder, corpus: ToyCorpus) -> None:
    method = EarlyExit(**FAST)
    made = _encoders(dict(method.track(encoder, [0.001, 0.17, 0.5, 0.83, 0.95], Setting(corpus))))
    whole = made.pop(0.001)
    assert [len(e.layers) for e in made.values()] == [5, 3, 1]
    for cut in made.values():
        assert cut.spec.exits is None
        assert _same(cut, keep_layers(whole, range(len(cut.layers))))
        assert method.achieved(encoder, cut) == 1 - len(cut.layers) / LAYERS
    for layer, before in zip(whole.layers, encoder.layers, strict=True):
        assert not torch.equal(layer.fc1.weight, before.fc1.weight), "every layer was trained"


def test_the_mean_depth_on_calibration_speech_is_what_the_rate_asks(
    anytime: dict[float, Encoder | Unsupported], encoder: Encoder, corpus: ToyCorpus
) -> None:
    waveforms = calibration(encoder, corpus, seconds=60)
    assert len(waveforms) == 16, "all the training speech: it is less than a minute"
    differing = False
    for rate, made in _encoders(anytime).items():
        with torch.no_grad():
            depths = [int(made(waveform).depths) for waveform in waveforms]  # type: ignore[arg-type]
        mean = sum(depths) / len(depths)
        assert made.spec.exits is not None
        assert made.spec.exits.mean_depth == pytest.approx(mean)
        assert EarlyExit().achieved(encoder, made) == pytest.approx(1 - mean / LAYERS)
        assert mean == pytest.approx(LAYERS * (1 - rate), abs=0.4)
        differing = differing or len(set(depths)) > 1
    assert differing, "content decides"
    thresholds = [made.spec.exits.threshold for made in _encoders(anytime).values()]  # type: ignore[union-attr]
    assert thresholds == sorted(thresholds)


def test_less_than_a_layer_is_unsupported(
    anytime: dict[float, Encoder | Unsupported], encoder: Encoder, corpus: ToyCorpus
) -> None:
    assert "0.6 of 6 layers" in str(anytime[0.9])
    ((_, made),) = EarlyExit(**FAST | {"steps": 0}).track(encoder, [0.95], Setting())
    assert isinstance(made, Unsupported)
    assert "ask for 0.83 or less" in str(made)


def test_untrained_it_cuts_the_encoder_as_it_is(encoder: Encoder) -> None:
    ((_, made),) = EarlyExit(steps=0).track(encoder, [0.5])
    assert isinstance(made, Encoder)
    assert _same(made, keep_layers(encoder, range(3)))


def test_heads_alone_leave_the_encoder_as_it_is(encoder: Encoder, corpus: ToyCorpus) -> None:
    method = EarlyExit(**FAST, policy="confidence", update="heads")
    ((_, made),) = method.track(encoder, [0.5], Setting(corpus))
    assert isinstance(made, Encoder)
    state = made.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in encoder.state_dict().items())
    ((_, before),) = EarlyExit(**FAST | {"steps": 0}, policy="confidence").track(
        encoder, [0.5], Setting(corpus)
    )
    assert isinstance(before, Encoder)
    assert not torch.equal(before.exits[0].linear.weight, made.exits[0].linear.weight)


def test_a_training_that_is_done_is_read(
    encoder: Encoder, corpus: ToyCorpus, tmp_path: Path
) -> None:
    told: list[int] = []
    setting = Setting(corpus, 0, tmp_path, lambda name, step, total, values: told.append(step))
    method = EarlyExit(**FAST, policy="confidence")
    ((_, first),) = method.track(encoder, [0.5], setting)
    assert told
    told.clear()
    ((_, again), _) = EarlyExit(**FAST, policy="confidence").track(encoder, [0.5, 0.7], setting)
    assert not told
    assert isinstance(first, Encoder)
    assert isinstance(again, Encoder)
    assert first.spec == again.spec, "nor does a rate depend on the others"
    assert _same(first, again)


def test_the_loss_is_the_weighted_mean_over_the_layers(encoder: Encoder, corpus: ToyCorpus) -> None:
    task = MaskedPrediction.of(encoder, corpus, 0, 8)
    features = encoder.features(torch.stack([corpus.waveform(i) for i in corpus.items[:3]]))[0]
    batch = Batch(features + 0.1, features, tuple(corpus.items[:3]), (0, 0, 0))
    for weights, shares in (("uniform", [1 / 6] * 6), ("depth", growing(6))):
        objective = AtExits(task, DEEP, weights)
        states, labels = objective.masked(encoder, batch, torch.Generator().manual_seed(1))
        heads = [*objective.exits, objective.head]
        losses = [
            F.cross_entropy(head(state), labels)
            for head, state in zip(heads, states[1:], strict=True)
        ]
        found = objective(encoder, batch, torch.Generator().manual_seed(1))
        expected = sum(share * loss for share, loss in zip(shares, losses, strict=True))
        torch.testing.assert_close(found["loss"], expected)
        torch.testing.assert_close(found["loss_3"], losses[2].detach())
    assert growing(3) == pytest.approx([1 / 6, 2 / 6, 3 / 6])


def test_what_it_does_not_support() -> None:
    one = keep_layers(build(DEEP, seed=0), [0]).spec
    assert "one layer" in str(EarlyExit().supports(one))
    with pytest.raises(InputError, match="--data"):
        list(EarlyExit(policy="confidence").track(build(DEEP, seed=0), [0.5]))


def test_exits_are_not_put_on_exits(anytime: dict[float, Encoder | Unsupported]) -> None:
    made = _encoders(anytime)[0.5]
    assert "already" in str(EarlyExit().supports(made.spec))
