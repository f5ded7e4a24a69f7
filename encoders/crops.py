"""Training speech: random crops of equal length, drawn by number, as they are and augmented."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from core.errors import InputError
from core.spec import SAMPLE_RATE
from encoders.augmentation import augment
from encoders.corpora import Corpus, Item


@dataclass(frozen=True)
class Crop:
    """A batch of waveforms (batch, samples).

    noisy: what students hear. clean: the same speech as it is, the same tensor where nothing was
    augmented. items, offsets: which utterances these are, and the sample at which each row begins.
    """

    noisy: Tensor
    clean: Tensor
    items: tuple[Item, ...]
    offsets: tuple[int, ...]

    def to(self, device: torch.device) -> Crop:
        noisy = self.noisy.to(device)
        clean = noisy if self.clean is self.noisy else self.clean.to(device)
        return replace(self, noisy=noisy, clean=clean)


@dataclass(frozen=True)
class Batch:
    """What the front end makes of a crop: features (batch, time, F) of both versions of it."""

    features: Tensor
    clean: Tensor
    items: tuple[Item, ...]
    offsets: tuple[int, ...]


class Crops:
    """Crops of the training speech of a corpus; batch `index` is the same at every call.

    All crops are equally long, so that no front end sees padding: `crop_seconds`, or less where
    more than a quarter of the utterances is shorter than that.
    """

    def __init__(
        self, corpus: Corpus, seconds: float, crop_seconds: float, augmented: bool, seed: int
    ) -> None:
        self.corpus = corpus.training()
        items = self.corpus.items
        lengths = sorted(item.samples for item in items)
        self.samples = min(round(crop_seconds * SAMPLE_RATE), lengths[len(lengths) // 4])
        if self.samples < SAMPLE_RATE // 10:
            raise InputError(
                f"corpus {corpus.name!r} has utterances of {lengths[len(lengths) // 4]} samples, "
                "too short to train on; expected 0.1 s or more of most of them"
            )
        self.items = [item for item in items if item.samples >= self.samples]
        self.count = max(1, round(seconds * SAMPLE_RATE / self.samples))
        self.augmented, self.seed = augmented, seed

    def __getitem__(self, index: int) -> Crop:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        chosen = torch.randint(len(self.items), (self.count,), generator=generator).tolist()
        items = tuple(self.items[place] for place in chosen)
        draws = torch.rand(self.count, generator=generator).tolist()
        offsets = tuple(
            int(draw * (item.samples - self.samples + 1))
            for draw, item in zip(draws, items, strict=True)
        )
        clean = torch.stack(
            [
                self.corpus.waveform(item)[offset : offset + self.samples]
                for item, offset in zip(items, offsets, strict=True)
            ]
        )
        noisy = augment(clean, generator) if self.augmented else clean
        return Crop(noisy, clean, items, offsets)
