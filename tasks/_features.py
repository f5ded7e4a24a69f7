"""Frozen features: every utterance is encoded once, whatever number of tasks reads it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

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

    def joined(self, items: Sequence[Item], states: int | slice = slice(None)) -> Tensor:
        """Standardised frames, utterance after utterance: (states, time, dim), or of one state."""
        frames = torch.cat([self.frames[item.key][states] for item in items], dim=-2)
        return frames.sub_(self.mean[states, None]).div_(self.std[states, None])

    def lengths(self, items: Sequence[Item]) -> list[int]:
        """The number of frames of each utterance."""
        return [self.frames[item.key].shape[1] for item in items]


@torch.inference_mode()
def extract(
    encoder: Encoder, corpus: Corpus, pooled: Iterable[Item], framed: Iterable[Item]
) -> Features:
    """Encode every utterance once; keep the frames of `framed` and the means of `pooled`.

    Raises:
        InputError: an utterance is shorter than one frame, or its file is unreadable.
    """
    whole = {item.key: item for item in framed}
    others = {item.key: item for item in pooled if item.key not in whole}
    features = Features()
    total, squares, count = torch.zeros(()), torch.zeros(()), 0
    # Batches are of one kind, so that frames are kept where they are: a copy costs fresh memory.
    for items in chain(*(batches(list(p.values()), encoder.spec) for p in (whole, others))):
        waves = [corpus.waveform(item) for item in items]
        lengths = torch.tensor([len(wave) for wave in waves])
        hidden = encoder(pad_sequence(waves, batch_first=True), lengths)
        states = torch.stack(hidden.states, dim=1).float()  # (batch, states, time, dim)
        for item, state, length in zip(items, states, hidden.lengths.tolist(), strict=True):
            valid = state[:, :length]
            summed = valid.sum(1)
            features.means[item.key] = summed / length
            if item.key in whole:
                features.frames[item.key] = valid
            if item.split == "train":
                total = total + summed
                squares = squares + valid.square().sum(1)
                count += length
    if count:
        features.mean = total / count
        variance = (squares / count - features.mean.square()).clamp(min=0)
        features.std = variance.sqrt() + 1e-3 * variance.mean(1, keepdim=True).sqrt() + 1e-8
    return features


def batches(items: list[Item], spec: ModelSpec, equal_only: bool = False) -> Iterator[list[Item]]:
    """Utterances to be encoded together, the shortest first; padding changes nothing of them.

    equal_only: of one length, so that a batch needs none.
    """
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
