"""Frozen features: every utterance is encoded once, whatever number of tasks reads it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, chain
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from core import memory
from core.errors import InputError
from core.spec import SAMPLE_RATE, ModelSpec
from encoders.corpora.base import Corpus, Item
from encoders.hidden_cache import KEPT, Shards, name_of
from encoders.model import DTYPES, Encoder
from tasks._frames import Frames, usual_memory

#: Audio per batch. More does not help one core, less leaves it waiting for Python.
BATCH_SECONDS = 16.0

T = TypeVar("T")


@dataclass
class Features:
    """Hidden states of utterances by key, and the statistics of their frames.

    frames: (states, time, dim). means, squares: (states, dim), the means over time of the frames
    and of their squares. counts: how many frames there are. mean, std: (states, dim) over all
    frames of the training utterances, or of all utterances where none is for training.
    """

    frames: Frames
    means: dict[str, Tensor] = field(default_factory=dict)
    squares: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
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
        mean, std = self.mean[states, None], self.std[states, None]
        ends = list(accumulate(self.lengths(items)))
        joined = mean.new_empty(*mean.shape[:-2], ends[-1], mean.shape[-1])
        # In the order of batches, so that what has to be encoded again is encoded once.
        for item, end in sorted(zip(items, ends, strict=True), key=lambda pair: place(pair[0])):
            joined[..., end - self.counts[item.key] : end, :] = self.frames[item.key][states]
        return joined.sub_(mean).div_(std)

    def lengths(self, items: Sequence[Item]) -> list[int]:
        """The number of frames of each utterance."""
        return [self.counts[item.key] for item in items]

    def scaled(self, items: Sequence[Item]) -> Features:
        """The same features, mean and std being those of these utterances."""
        items = [item for item in items if item.split == "train"] or items
        total = squares = torch.zeros((), dtype=torch.float64)
        for item in items:
            total = total + self.counts[item.key] * self.means[item.key].double()
            squares = squares + self.counts[item.key] * self.squares[item.key].double()
        count = sum(self.lengths(items))
        mean = total / count
        variance = (squares / count - mean.square()).clamp(min=0)
        std = variance.sqrt() + 1e-3 * variance.mean(1, keepdim=True).sqrt() + 1e-8
        return replace(self, mean=mean.float(), std=std.float())


@dataclass(frozen=True)
class Keeping:
    """Where hidden states are kept. shards: on disk, None for not at all.

    dtype: what frames are rounded to. memory: bytes of frames that may be held. tell: takes a
    sentence for the user.
    """

    shards: Shards | None = None
    dtype: str = KEPT[0]
    memory: float = field(default_factory=usual_memory)
    tell: Callable[[str], None] = lambda _: None


def extract(
    encoder: Encoder,
    corpus: Corpus,
    pooled: Iterable[Item],
    framed: Iterable[Item],
    keeping: Keeping | None = None,
) -> Features:
    """The frames of `framed` and the means of `pooled`; what is not on disk is encoded, once.

    The encoder runs where it is; what comes of it is on the CPU.

    Raises:
        InputError: an utterance is shorter than one frame, or its file is unreadable.
    """
    keeping = keeping or Keeping()
    whole = {item.key: item for item in framed}
    every = {item.key: item for item in chain(whole.values(), pooled)}
    source = _Source(encoder, corpus, keeping, whole)
    features = Features(Frames(source.frames, keeping.memory))
    for alike in _kinds(every.values()):
        for items in batches(alike, encoder.spec):
            source.read(items, features)
    if features.frames.lacking:
        keeping.tell(
            f"hidden states of {features.frames.lacking} utterances fit neither in memory nor on "
            "disk; they are made again for each use"
        )
    return features.scaled(list(every.values())) if every else features


def _kinds(items: Iterable[Item]) -> list[list[Item]]:
    """The utterances by which labels they carry, as tasks ask for them.

    What is encoded together then depends little on which tasks are scored together: in another
    batch the last bits of a state are others.
    """
    kinds: dict[tuple[str, ...], list[Item]] = defaultdict(list)
    for item in items:
        kinds[tuple(sorted(item.labels))].append(item)
    return [kinds[labels] for labels in sorted(kinds)]


class _Source:
    """Hidden states of a corpus, batch by batch: from disk where they are there, else encoded.

    framed: keys of the utterances whose frames are wanted. Moments are the means over time of the
    states and of their squares (2, states, dim).
    """

    def __init__(
        self, encoder: Encoder, corpus: Corpus, keeping: Keeping, framed: Mapping[str, Item]
    ) -> None:
        self.encoder, self.corpus, self.keeping = encoder, corpus, keeping
        self._framed, self._told = framed, False

    def read(self, items: Sequence[Item], features: Features) -> None:
        """Add the utterances of a batch to the features."""
        waves = [self.corpus.waveform(item) for item in items]
        names = [name_of(wave) for wave in waves] if self.keeping.shards else []
        found = self._find(items, names)
        moments, frames = found or self._encode(items, waves)
        mapped = frames if found else self._store(items, names, moments, frames)
        for item, wave, moment in zip(items, waves, moments, strict=True):
            features.means[item.key], features.squares[item.key] = moment
            features.counts[item.key] = self.encoder.spec.frames(len(wave))
        features.frames.take(items, mapped or frames, mapped=bool(mapped))

    def frames(self, items: Sequence[Item]) -> dict[str, Tensor]:
        """The frames of a batch that are wanted, encoded again."""
        return self._encode(items, [self.corpus.waveform(item) for item in items])[1]

    def _wanted(self, items: Sequence[Item], values: Sequence[T]) -> dict[str, T]:
        """Those of the values, one for each utterance, whose frames are wanted."""
        pairs = zip(items, values, strict=True)
        return {item.key: value for item, value in pairs if item.key in self._framed}

    def _find(
        self, items: Sequence[Item], names: list[str]
    ) -> tuple[list[Tensor], dict[str, Tensor]] | None:
        """Moments and frames of a batch, if all that is wanted of it is on disk."""
        shards = self.keeping.shards
        if shards is None:
            return None
        wanted = self._wanted(items, names)
        moments = shards.find("means", names, names)
        frames = shards.find("frames", names, wanted.values())
        if moments is None or frames is None:
            return None
        return moments, dict(zip(wanted, frames, strict=True))

    def _store(
        self,
        items: Sequence[Item],
        names: list[str],
        moments: list[Tensor],
        frames: dict[str, Tensor],
    ) -> dict[str, Tensor] | None:
        """Put on disk what may be there, and give back the frames from there."""
        shards = self.keeping.shards
        if shards is None:
            return None
        shards.add("means", names, dict(zip(names, moments, strict=True)))
        if not frames:
            return None
        if not self._told:
            self._told = True
            self.keeping.tell(self._announce(shards.limit))
        wanted = self._wanted(items, names)
        shards.add("frames", names, {wanted[key]: own for key, own in frames.items()})
        found = self._find(items, names)
        return found and found[1]

    def _announce(self, limit: float) -> str:
        """How much will be written."""
        spec, width = self.encoder.spec, DTYPES[self.keeping.dtype].itemsize
        count = sum(spec.frames(item.samples) for item in self._framed.values())
        size = count * (len(spec.layers) + 1) * spec.dim * width
        return (
            f"hidden states of {len(self._framed)} utterances: {size / 1e9:.3g} GB, "
            f"cache limit {limit / 1e9:.3g} GB"
        )

    def _encode(
        self, items: Sequence[Item], waves: list[Tensor]
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Moments of all utterances of a batch, and the frames that are wanted.

        Where memory does not hold the batch it is encoded in halves: utterances of a batch do not
        depend on each other.
        """
        try:
            return self._encode_together(items, waves)
        except (RuntimeError, MemoryError) as error:
            if len(items) == 1 or not memory.ran_out(error):
                raise
            self.keeping.tell(f"{memory.shortage(error)}: smaller batches are encoded instead")
        # Only here, where the error is gone and with it what its frames held.
        torch.cuda.empty_cache()
        half = len(items) // 2
        moments, frames = self._encode(items[:half], waves[:half])
        others, more = self._encode(items[half:], waves[half:])
        return moments + others, frames | more

    @torch.inference_mode()
    def _encode_together(
        self, items: Sequence[Item], waves: list[Tensor]
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """As `_encode`, in one batch."""
        device = next(chain(self.encoder.parameters(), self.encoder.buffers())).device
        padded = pad_sequence(waves, batch_first=True)
        lengths = torch.tensor([len(wave) for wave in waves])
        if device.type == "cuda":
            padded, lengths = padded.pin_memory(), lengths.pin_memory()
        hidden = self.encoder(
            padded.to(device, non_blocking=True), lengths.to(device, non_blocking=True)
        )
        states = torch.stack(hidden.states, dim=1).float()  # (batch, states, time, dim)
        counts = hidden.lengths.tolist()
        valid = [state[:, :count] for state, count in zip(states, counts, strict=True)]
        moments = [torch.stack([own.mean(1), own.square().mean(1)]).cpu() for own in valid]
        frames = self._wanted(items, valid)
        # Views where they are, unless they would keep frames that nobody wants: copies are dear.
        copy = len(frames) < len(items)
        dtype = DTYPES[self.keeping.dtype]
        return moments, {key: own.to("cpu", dtype, copy=copy) for key, own in frames.items()}


def batches(items: list[Item], spec: ModelSpec, equal_only: bool = False) -> Iterator[list[Item]]:
    """Utterances to be encoded together, the shortest first; padding changes nothing of them.

    equal_only: of one length, so that a batch needs none.
    """
    batch: list[Item] = []
    for item in sorted(items, key=place):
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


def place(item: Item) -> tuple[int, str]:
    """Where an utterance stands in the order of batches."""
    return item.samples, item.key
