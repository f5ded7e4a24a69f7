"""Training speech: which crops, how loud, how noisy, and the same ones each time."""

from __future__ import annotations

import pytest
import torch

from core.errors import InputError
from core.spec import SAMPLE_RATE
from encoders.augmentation import augment
from encoders.corpora.base import Corpus, Item
from encoders.crops import Crops


class Speech(Corpus):
    """Noise whose samples count up, so that a crop tells where it was taken."""

    def waveform(self, item):
        return torch.arange(item.samples) / 1e5 + int(item.key)


def corpus(*seconds: float, splits: str = "train") -> Speech:
    splits = splits.split()
    items = [Item(str(i), s, split=splits[i % len(splits)]) for i, s in enumerate(seconds)]
    return Speech("toy", items, "0")


def test_crops_are_where_they_say_and_equally_long():
    crops = Crops(corpus(3.0, 2.5, 4.0, 2.2), seconds=10, crop_seconds=2.0, augmented=False, seed=0)
    for index in range(5):
        crop = crops[index]
        assert crop.clean.shape == (5, 2 * SAMPLE_RATE)
        assert crop.noisy is crop.clean
        begins = [
            int(i.key) + offset / 1e5 for i, offset in zip(crop.items, crop.offsets, strict=True)
        ]
        assert crop.clean[:, 0].tolist() == pytest.approx(begins)


def test_a_batch_is_known_by_its_number_and_the_seed():
    made = [Crops(corpus(3, 4, 5, 6), 12, 2, True, seed) for seed in (0, 0, 1)]
    assert torch.equal(made[0][7].noisy, made[1][7].noisy)
    assert not torch.equal(made[0][7].noisy, made[0][8].noisy)
    assert not torch.equal(made[0][7].noisy, made[2][7].noisy)


def test_short_utterances_shorten_the_crops_and_the_shortest_quarter_is_left_out():
    crops = Crops(corpus(0.3, 0.5, 0.6, 3.0), 6, 2.0, False, 0)
    assert crops.samples == SAMPLE_RATE // 2
    assert {item.key for item in crops.items} == {"1", "2", "3"}
    with pytest.raises(InputError, match="too short to train on"):
        Crops(corpus(0.05, 0.06, 0.05), 6, 2.0, False, 0)


def test_only_training_speech_is_heard():
    crops = Crops(corpus(3, 3, 3, 3, splits="train test"), 60, 2, False, 0)
    assert {item.key for item in crops[0].items} == {"0", "2"}
    untold = Crops(corpus(3, 3, splits="test"), 60, 2, False, 0)
    assert len(untold.items) == 2


def test_augmentation_keeps_the_level_and_changes_the_speech_as_much_as_it_says():
    generator = torch.Generator().manual_seed(0)
    time = torch.arange(SAMPLE_RATE) / SAMPLE_RATE
    clean = torch.stack([(f * 2 * torch.pi * time).sin() for f in range(100, 3300, 10)]) * 0.05
    noisy = augment(clean, generator)
    level = noisy.square().mean(1).sqrt() / clean.square().mean(1).sqrt()
    assert level.min() > 0.9
    assert level.max() < 1.1
    gain = (noisy * clean).sum(1) / clean.square().sum(1)
    noise = (noisy - gain[:, None] * clean).square().mean(1)
    snr = 10 * torch.log10((gain**2 * clean.square().mean(1)) / noise.clamp(min=1e-12))
    assert (snr > 60).float().mean() == pytest.approx(0.2, abs=0.07)  # left without noise
    assert snr[snr < 60].min() > 4
    assert snr[snr < 60].max() < 27
    again = augment(clean, torch.Generator().manual_seed(0))
    assert torch.equal(noisy, again)
