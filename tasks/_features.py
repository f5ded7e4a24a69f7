"""Frozen features: every utterance is encoded once, whatever number of tasks reads it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from core.errors import InputError
from core.spec import SAMPLE_RATE, ModelSpec
from encoders.corpora.base import Corpus, Item
from encoders.model import Encoder

#: Audio per batch. More does not help one core, less leaves it waiting for Python.
BATCH_SECONDS = 16.0


@dataclass
class Features:
    """Hidden states of utterances by key, and the statistics of their frames.

    means: (states, dim), an utterance's mean over time. frames: (states, time, dim). mean, std:
    (states, dim) over all frames of the training utterances.
    """

    means: dict[str, Tensor] = field(default_factory=dict)
    frames: dict[str, Tensor] = field(default_factory=dict)
    mean: Tensor = field(default_factory=lambda: torch.zeros(()))
    std: Tensor = field(default_factory=lambda: torch.ones(()))

    def pooled(self, items: Sequence[Item]) -> Tensor:
        """Standardised means over time (states, items, dim).

        The scale is that of single frames: dividing by the spread of the means themselves would
        blow up dimensions whose mean says nothing, such as FBANK's deltas.
        """
        means = torch.stack([self.means[item.key] for item in items], dim=1)
        return (means - self.mean[:, None]) / self.std[:, None]

    def sequence(self, item: Item) -> Tensor:
        """Standardised frames (states, time, dim)."""
        return (self.frames[item.key] - self.mean[:, None]) / self.std[:, None]


@torch.inference_mode()
def extract(
    encoder: Encoder, corpus: Corpus, pooled: Iterable[Item], framed: Iterable[Item]
) -> Features:
    """Encode every utterance once; keep the frames of `framed` and the means of `pooled`.

    Raises:
        InputError: an utterance is shorter than one frame, or its file is unreadable.
    """
    wanted = {item.key: item for item in [*pooled, *framed]}
    keep_frames = {item.key for item in framed}
    features = Features()
    total, squares, count = torch.zeros(()), torch.zeros(()), 0
    for items in batches(list(wanted.values()), encoder.spec):
        waves = [corpus.waveform(item) for item in items]
        lengths = torch.tensor([len(wave) for wave in waves])
        hidden = encoder(pad_sequence(waves, batch_first=True), lengths)
        states = torch.stack(hidden.states, dim=1).float()  # (batch, states, time, dim)
        for item, state, length in zip(items, states, hidden.lengths.tolist(), strict=True):
            valid = state[:, :length]
            features.means[item.key] = valid.mean(1)
            if item.key in keep_frames:
                features.frames[item.key] = valid.clone()
            if item.split == "train":
                total = total + valid.sum(1)
                squares = squares + valid.square().sum(1)
                count += length
    if count:
        features.mean = total / count
        variance = (squares / count - features.mean.square()).clamp(min=0)
        features.std = variance.sqrt() + 1e-3 * variance.mean(1, keepdim=True).sqrt() + 1e-8
    return features


def batches(items: list[Item], spec: ModelSpec, equal_only: bool = False) -> Iterator[list[Item]]:
    """Utterances to be encoded together, the shortest first.

    A front end with GroupNorm computes statistics over the padding, so its batches hold
    utterances of equal length only; others are padded, which changes nothing.
    """
    equal_only = equal_only or getattr(spec.front_end, "norm", "layer") == "group"
    batch: list[Item] = []
    for item in sorted(items, key=lambda item: (item.samples, item.key)):
        if spec.frames(item.samples) < 1:
            raise InputError(
                f"{item.key!r} lasts {item.seconds:.3f} s, which is less than one frame of this "
                f"model; leave it out or pad it to {(spec.hop + 400) / SAMPLE_RATE:.2f} s"
            )
        full = batch and (len(batch) + 1) * item.seconds > BATCH_SECONDS
        if full or (batch and equal_only and batch[0].samples != item.samples):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch
