"""Where the frames of utterances are: in memory, memory-mapped from disk, or nowhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence

from torch import Tensor

from encoders.corpora.base import Item


class Frames(Mapping[str, Tensor]):
    """Frames (states, time, dim) by utterance. What fits nowhere is encoded when it is asked for.

    encode: the frames of a batch by utterance. memory: bytes that may be held.
    """

    def __init__(
        self, encode: Callable[[Sequence[Item]], Mapping[str, Tensor]], memory: float
    ) -> None:
        self._encode, self._memory = encode, memory
        self._kept: dict[str, Tensor] = {}
        self._batches: dict[str, Sequence[Item]] = {}
        self._latest: Mapping[str, Tensor] = {}

    def take(self, batch: Sequence[Item], frames: Mapping[str, Tensor], mapped: bool) -> None:
        """Keep frames of utterances that were encoded together, if they fit.

        mapped: they lie on disk and take no memory.
        """
        size = 0 if mapped else sum(tensor.nbytes for tensor in frames.values())
        if size <= self._memory:
            self._memory -= size
            self._kept.update(frames)
        else:
            self._batches.update(dict.fromkeys(frames, batch))

    @property
    def lacking(self) -> int:
        """How many utterances are encoded again whenever they are asked for."""
        return len(self._batches)

    def __getitem__(self, key: str) -> Tensor:
        if key in self._kept:
            return self._kept[key]
        if key not in self._latest:
            self._latest = {}  # before the next ones take memory
            self._latest = self._encode(self._batches[key])
        return self._latest[key]

    def __iter__(self) -> Iterator[str]:
        yield from self._kept
        yield from self._batches

    def __len__(self) -> int:
        return len(self._kept) + len(self._batches)


def usual_memory() -> float:
    """Bytes for one process: a quarter of the machine's, parted among its cores.

    A GB at least, which the built-in corpus fits in.
    """
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1e9, machine / 4 / (os.cpu_count() or 1))
