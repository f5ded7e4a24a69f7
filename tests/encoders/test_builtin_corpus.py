"""The built-in corpus: the same on every run, and labelled truly."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from core.errors import InputError
from encoders.corpora import builtin, espeak
from encoders.corpora.distortion import distort, equalise

pytest.importorskip("espeakng_loader", reason="the corpus extra (eSpeak NG) is not installed")

SMALL = {
    "sentences": {"train": 3, "dev": 1, "test": 2},
    "commands": {"train": 9, "dev": 1, "test": 2},
    "words": {"train": 4, "dev": 1, "test": 2},
    "clean": {"test": 2},
}


@pytest.fixture(scope="module")
def small_sizes():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builtin, "SIZES", SMALL)
        yield patch


@pytest.fixture(scope="module")
def corpus(small_sizes, tmp_path_factory):
    small_sizes.setenv("BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
    return builtin.open_builtin()


def test_made_twice_it_is_the_same_to_the_sample(corpus, small_sizes, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_CACHE", str(tmp_path))
        again = builtin.open_builtin()
    assert [i.key for i in again.items] == [i.key for i in corpus.items]
    for one, other in zip(corpus.items, again.items, strict=True):
        assert one.labels == other.labels
        np.testing.assert_array_equal(corpus.waveform(one), again.waveform(other))


def test_second_opening_synthesises_nothing(corpus, monkeypatch):
    monkeypatch.setattr(espeak, "speak_all", lambda *_: pytest.fail("synthesised again"))
    assert len(builtin.open_builtin().items) == len(corpus.items)


def test_sizes_and_levels_are_as_planned(corpus):
    assert len(corpus.items) == sum(n for sizes in SMALL.values() for n in sizes.values())
    for item in corpus.items:
        wave = corpus.waveform(item).numpy()
        assert len(wave) == item.samples
        assert 0.02 < np.sqrt((wave**2).mean()) < 0.08


def test_labels_agree_with_the_text(corpus):
    commands = [item for item in corpus.items if item.key.startswith("commands")]
    for item in commands:
        action, thing, place = item.labels["intent"].split(";")
        assert thing in item.labels["text"]
        assert item.labels["text"].endswith(place)
        phrases = [p.format(f"the {thing}") for p in builtin.ACTIONS[action]]
        assert any(item.labels["text"].startswith(phrase) for phrase in phrases)
        assert len(item.labels["slots"].split()) == len(item.labels["text"].split())


def test_phones_start_in_order_inside_the_utterance(corpus):
    for item in corpus.items:
        if "phones" in item.labels:
            phones = item.labels["phones"].split()
            starts = list(map(int, item.labels["phone_starts"].split()))
            assert len(phones) == len(starts)
            assert phones[0] == phones[-1] == "sil"
            assert starts == sorted(starts)
            assert starts[-1] < item.samples
            assert starts[1] >= 1600  # the padding before the speech


def test_voices_of_the_splits_are_disjoint():
    for one, other in itertools.combinations(builtin.VOICES.values(), 2):
        assert not set(one) & set(other)
    assert max(max(voices) for voices in builtin.VOICES.values()) < espeak.VARIANTS


def test_unknown_voice_is_an_error_and_not_the_previous_voice(tmp_path):
    prompts = [
        espeak.Prompt("hello", "en-us", 1, 50, 50, 170, 1),
        espeak.Prompt("hello", "en-zz", 1, 50, 50, 170, 1),
    ]
    with pytest.raises(InputError, match="en-zz"):
        list(espeak.speak_all(prompts, tmp_path))


def test_unwritable_cache_is_one_sentence(small_sizes, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match="BENCH_CACHE"):
        builtin.open_builtin()


def test_noise_is_at_the_ratio_asked_for():
    draw = np.random.default_rng(0)
    wave = draw.standard_normal(16000) * 0.05
    crowd = [draw.integers(-9000, 9000, 20000).astype(np.int16) for _ in range(10)]
    mixed = distort(wave, crowd, 6.0, np.random.default_rng(1))
    clean = equalise(wave, np.random.default_rng(1))
    scale = (mixed @ clean) / (clean @ clean)  # the noise is all but orthogonal to the speech
    noise = mixed - scale * clean
    ratio = 10 * np.log10(((scale * clean) ** 2).mean() / (noise**2).mean())
    assert ratio == pytest.approx(6.0, abs=0.5)
    assert np.sqrt((mixed**2).mean()) == pytest.approx(0.05)
