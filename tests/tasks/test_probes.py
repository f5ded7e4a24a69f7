"""Linear probes: closed forms agree with scikit-learn, F0 with tones; states are told apart."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from toy_corpus import TONE_SECONDS, ToyCorpus

from core import plugins
from core.errors import Unsupported
from core.spec import SAMPLE_RATE
from encoders import zoo
from encoders.corpora.base import Corpus, Item
from encoders.model import Hidden, build
from tasks import _probe
from tasks._closed_forms import (
    SHRINKAGES,
    Moments,
    accuracies,
    discriminants,
    r_squared,
    regressions,
)
from tasks._probe import Choice, classify
from tasks._suite import score_tasks
from tasks.probe_energy import ProbeEnergy
from tasks.probe_phone import ProbePhone, around, control
from tasks.probe_pitch import ProbePitch, fundamental

PROBES = plugins.groups("task")["probes"]


def drawn(n: int, states: int = 3, dim: int = 6, seed: int = 0):
    """Features of which state 0 says nothing, state 1 something and state 2 most."""
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randint(4, (n,), generator=generator)
    middles = 2 * torch.randn(4, dim, generator=torch.Generator().manual_seed(9))
    noise = torch.randn(states, n, dim, generator=generator) + 1.0
    return noise + middles[classes] * torch.tensor([0.0, 0.4, 1.5])[:, None, None], classes


def halves(x, y):
    """The same examples in two blocks."""
    middle = len(y) // 2
    return [(x[:, :middle], y[:middle]), (x[:, middle:], y[middle:])]


def test_discriminants_are_those_of_scikit_learn():
    x, classes = drawn(400)
    hot = torch.nn.functional.one_hot(classes, 4).float()
    maps = discriminants(Moments.of(halves(x, hot)))
    test, _ = drawn(200, seed=1)
    ours = maps(test)
    assert ours.shape == (len(SHRINKAGES), 3, 200, 4)
    for state in range(3):
        for place, share in enumerate(SHRINKAGES):
            # Its shrinkage is (1 - a) C + a t: the same matrix as ours, but for a factor.
            theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=share / (1 + share))
            theirs.fit(x[state].numpy(), classes.numpy())
            same = theirs.predict(test[state].numpy()) == ours[place, state].argmax(-1).numpy()
            assert same.mean() > 0.98


def test_regression_and_its_r_squared_are_those_of_scikit_learn():
    x, classes = drawn(300)
    y = classes.float()[:, None] + 7
    train, test = Moments.of(halves(x, y)), drawn(100, seed=1)
    held = Moments.of([(test[0], test[1].float()[:, None] + 7)])
    found = r_squared(regressions(train), held)
    for state in range(3):
        variance = float(np.cov(x[state].numpy().T, bias=True).diagonal().mean())
        for place, share in enumerate(SHRINKAGES):
            theirs = Ridge(alpha=share * variance * 300).fit(x[state].numpy(), y[:, 0].numpy())
            guesses = theirs.predict(test[0][state].numpy())
            expected = 100 * r2_score(test[1].numpy() + 7.0, guesses)
            assert found[place, state].item() == pytest.approx(expected, abs=1e-2)


def test_a_class_without_examples_is_never_guessed():
    x, classes = drawn(100)
    hot = torch.nn.functional.one_hot(classes, 5).float()
    guesses = discriminants(Moments.of([(x, hot)]))(x).argmax(-1)
    assert guesses.max() == 3


def test_every_state_is_told_and_noise_is_chance():
    parts = {split: drawn(600, seed=seed) for seed, split in enumerate(("train", "dev", "test"))}
    two = {s: (x, torch.stack([y, y.flip(0)], 1)) for s, (x, y) in parts.items()}
    told, heart = classify(lambda split: [two[split]], [4, 4])
    assert told.state == 2
    assert told.by_state[2] > 90 > told.by_state[1] > 40 > told.by_state[0]
    assert max(heart.by_state) < 40, "labels of other examples cannot be learned"


def test_dev_chooses_and_test_reports():
    dev = torch.tensor([[1.0, 5.0], [2.0, 4.0], [0.0, 0.0]])
    test = torch.tensor([[10.0, 50.0], [20.0, 40.0], [99.0, 99.0]])
    choice = Choice.of(dev, test)
    assert choice.by_state == [20.0, 50.0]
    assert (choice.state, choice.dev) == (1, 5.0)
    assert choice.shrinkages == [SHRINKAGES[1], SHRINKAGES[0]]


def test_states_that_are_not_finite_are_refused():
    x, classes = drawn(50)
    hot = torch.nn.functional.one_hot(classes, 4).float()
    x[1, 3, 2] = math.nan
    with pytest.raises(Unsupported, match="not finite"):
        discriminants(Moments.of([(x, hot)]))


@pytest.mark.parametrize("hertz", [80.0, 123.0, 210.0, 390.0])
def test_pitch_of_a_noisy_voice(hertz):
    time = torch.arange(SAMPLE_RATE) / SAMPLE_RATE
    voice = sum(torch.sin(2 * torch.pi * hertz * k * time) / k for k in range(1, 9))
    noise = torch.randn(len(time), generator=torch.Generator().manual_seed(0))
    noisy = voice + noise * voice.std() / 10 ** (9 / 20)  # 9 dB, the worst of the corpus
    centres = torch.arange(1000, 15_000, 320)
    pitch, periodic = fundamental(noisy, centres)
    assert (periodic > 0.7).all()
    assert torch.median(pitch) == pytest.approx(hertz, rel=2e-3)
    assert ((pitch / hertz - 1).abs() < 0.02).float().mean() > 0.9
    assert not (fundamental(noise, centres)[1] > 0.6).any()


def test_unvoiced_frames_and_octave_errors_are_left_out():
    time = torch.arange(SAMPLE_RATE) / SAMPLE_RATE
    wave = torch.sin(2 * torch.pi * torch.where(time < 0.8, 100.0, 300.0) * time)
    wave[:4000] = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    octaves = ProbePitch().values(wave, torch.tensor([2000, 8000, 10_000, 15_000]))
    assert octaves.isnan().tolist() == [True, False, False, True]
    assert octaves[1].exp2() == pytest.approx(100, rel=1e-2)
    assert ProbePitch().values(torch.zeros(16_000), torch.tensor([8000])).isnan().all()


def test_level_is_relative_to_the_utterance():
    wave = torch.cat([torch.full((8000,), 0.1), torch.full((8000,), 0.01), torch.zeros(8000)])
    centres = torch.tensor([4000, 12_000, 20_000])
    levels = ProbeEnergy().values(wave, centres)
    assert levels[0] - levels[1] == pytest.approx(20, abs=1e-3)
    assert levels[2] == -60
    assert ProbeEnergy().values(5 * wave, centres) == pytest.approx(levels, abs=1e-4)


class Spoken(ToyCorpus):
    """The toy corpus with the starts of its phones."""

    def __init__(self) -> None:
        super().__init__()
        step = int(TONE_SECONDS * SAMPLE_RATE)
        starts = " ".join(str(place * step) for place in range(4))
        for item in self.items:
            item.labels["phone_starts"] = starts


@pytest.fixture(scope="module")
def outcomes():
    return dict(score_tasks(build(zoo.tiny(), seed=0).eval(), PROBES, Spoken(), seed=0))


def test_probes_are_a_group_of_five():
    assert PROBES == ["probe-energy", "probe-phone", "probe-pitch", "probe-speaker", "probe-word"]


@pytest.mark.parametrize("name", PROBES)
def test_each_probe_tells_all_states_and_reports_one(name, outcomes):
    outcome = outcomes[name]
    ((_, value),) = outcome.values.items()
    assert len(outcome.details["by_state"]) == 7
    assert value == outcome.details["by_state"][outcome.details["state"]]
    assert outcome.details["in_score"] is False


def test_easy_speech_is_read_off_random_states(outcomes):
    assert outcomes["probe-phone"].values["probe_phone_acc"] > 85
    assert outcomes["probe-phone"].details["selectivity"] > 15
    for name, metric in (("speaker", "speaker_acc"), ("word", "word_acc")):
        assert outcomes[f"probe-{name}"].values[f"probe_{metric}"] > 95


def test_frames_meet_the_phones_that_are_spoken_there(monkeypatch):
    """With a state that holds the time alone, the phone of every frame is known exactly."""
    encoder = build(zoo.tiny(), seed=0).eval()

    def clock(self, waveforms, lengths=None):
        frames = torch.tensor([self.spec.frames(int(length)) for length in lengths])
        middles = torch.arange(int(frames.max())) * self.spec.hop + 200
        place = (middles // int(TONE_SECONDS * SAMPLE_RATE)).clamp(max=3)
        hot = torch.nn.functional.one_hot(place, self.spec.dim).float()
        return Hidden([hot.expand(len(waveforms), -1, -1)], frames, self.spec.hop)

    monkeypatch.setattr(type(encoder), "forward", clock)
    corpus = Spoken()
    for item in corpus.items:
        item.labels["phones"] = "a b c d"
    ((_, outcome),) = score_tasks(encoder, ["probe-phone"], corpus, seed=0)
    assert outcome.values["probe_phone_acc"] == 100


def test_no_more_frames_than_the_limit(monkeypatch):
    monkeypatch.setattr(_probe, "FRAMES", 100)
    ((_, outcome),) = score_tasks(build(zoo.fbank()).eval(), ["probe-energy"], Spoken(), seed=0)
    for split, frames in outcome.details["frames"].items():
        assert frames <= 100 + outcome.details["items"][split], "every utterance begins anew"


def test_control_task_keeps_a_phone_between_its_neighbours():
    items = Spoken().items
    known = {phone: index for index, phone in enumerate("abcd")}
    labels = control(items, known, seed=0)
    assert set(labels) == {c for item in items for c in around(item.labels["phones"].split())}
    assert set(labels.values()) <= set(range(4))
    assert control(items, known, seed=0) == labels != control(items, known, seed=1)


def test_silence_throughout_is_a_reason():
    class Silent(Spoken):
        def waveform(self, item):
            return torch.zeros(item.samples)

    ((_, outcome),) = score_tasks(build(zoo.tiny(), 0).eval(), ["probe-pitch"], Silent(), seed=0)
    assert "probe-pitch" in outcome.reason
    assert "two frames" in outcome.reason


def test_starts_that_do_not_fit_the_phones_are_named():
    item = Item("odd", 1.0, {"phones": "a b", "phone_starts": "0"}, "train")
    corpus = Corpus("odd", [item, *Spoken().items], "0")
    with pytest.raises(Unsupported, match="'odd' has 2 phones and 1 phone_starts"):
        ProbePhone().score(build(zoo.tiny(), 0), corpus, corpus.items, None, 0)


def test_accuracy_counts_each_target():
    x, classes = drawn(300)
    hot = torch.nn.functional.one_hot(classes, 4).float()
    maps = discriminants(Moments.of([(x, hot)]))
    right = accuracies([maps, maps], halves(x, torch.stack([classes, (classes + 1) % 4], 1)))
    guesses = maps(x).argmax(-1)
    assert right[0] == pytest.approx(100 * (guesses == classes).float().mean(-1))
    assert right[1] == pytest.approx(100 * (guesses == (classes + 1) % 4).float().mean(-1))
