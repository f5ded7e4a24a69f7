"""Mixtures: two of a corpus' utterances, the same ones each time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from encoders.corpora import Corpus, Item
from encoders.corpora.mixtures import DELAYS, LONGEST, mix


def corpus(tmp_path: Path, seconds: float = 1.0) -> Corpus:
    draw = np.random.default_rng(0)
    items = []
    for number in range(6):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, draw.uniform(-0.1, 0.1, round(seconds * 16_000)), 16_000)
        items.append(Item(path.name, seconds, {"speaker": "ab"[number % 2]}, "train", path))
    return Corpus("c", items, "0")


def test_a_mixture_is_the_sum_of_its_parts(tmp_path: Path) -> None:
    speech = corpus(tmp_path)
    for item in mix(speech.items, 9, "dev"):
        (first, second), total = item.parts, speech.waveform(item)
        assert first.item.labels["speaker"] != second.item.labels["speaker"]
        assert item.split == "dev"
        assert total.shape == (item.samples,)
        assert DELAYS[0] * 16_000 <= second.start <= DELAYS[1] * 16_000
        expected = torch.zeros(item.samples)
        expected[: first.samples] = speech.waveform(first.item)
        expected[second.start :] += speech.waveform(second.item)
        torch.testing.assert_close(total, expected)


def test_the_same_utterances_give_the_same_mixtures(tmp_path: Path) -> None:
    items = corpus(tmp_path).items
    assert mix(items, 9, "train") == mix(items, 9, "train")
    assert mix(items, 9, "train")[:4] == mix(items, 4, "train")
    assert len({item.key for item in mix(items, 9, "train")}) == 9


def test_long_utterances_are_cut(tmp_path: Path) -> None:
    speech = corpus(tmp_path, seconds=LONGEST + 1)
    (item,) = mix(speech.items, 1, "train")
    assert [part.samples for part in item.parts] == [LONGEST * 16_000] * 2
    assert speech.waveform(item).shape == (item.samples,)


@pytest.mark.parametrize("count", [0, 1])
def test_one_speaker_makes_no_mixture(tmp_path: Path, count: int) -> None:
    alone = [item for item in corpus(tmp_path).items if item.labels["speaker"] == "a"]
    assert mix(alone[: 1 + count], 3, "train") == []
