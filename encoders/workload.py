"""What an encoder is run on while its costs are measured: a list of utterances."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from core.errors import InputError, closest
from core.spec import SAMPLE_RATE

if TYPE_CHECKING:
    from encoders.corpora import Corpus

#: Lengths in samples of the 32 LibriSpeech test-clean utterances on which SUPERB counts MACs
#: (224.86 s in all), by the public leaderboard's buckets.
SUPERB32: dict[str, tuple[int, ...]] = {
    "short": (20560, 34560, 38480, 42560, 45600, 48720, 52000, 55120),
    "medium": (59120, 62720, 66400, 71200, 75200, 78640, 82800, 87520),
    "long": (92720, 98560, 104400, 111120, 118480, 125040, 132720, 142640),
    "longer": (154000, 166720, 180880, 197920, 217920, 239280, 268160, 326000),
}

#: Root mean square of synthetic speech: a quiet room, so that nothing overflows or is denormal.
_LEVEL = 0.01
_SECONDS = (0.05, 3600.0)


@dataclass(frozen=True)
class Workload:
    """Utterances by length. waveform: index -> (samples,) float32 at 16 kHz, the same each time.

    buckets: lengths by the name of the part they belong to; their sums are reported apart.
    """

    name: str
    lengths: tuple[int, ...]
    waveform: Callable[[int], Tensor]
    buckets: dict[str, tuple[int, ...]]

    @property
    def seconds(self) -> float:
        return sum(self.lengths) / SAMPLE_RATE

    def part(self, places: Sequence[int]) -> Workload:
        """Those utterances alone, under the same name."""
        lengths = tuple(self.lengths[place] for place in places)
        return Workload(self.name, lengths, lambda index: self.waveform(places[index]), {})

    @classmethod
    def parse(cls, text: str, corpus: Corpus | None = None) -> Workload:
        """`superb32`, one of its buckets (`superb32:short`), `seconds:N`, or `corpus`.

        Raises:
            InputError: the text names no workload, or there is no corpus to take.
        """
        name, _, part = text.strip().partition(":")
        if name == "superb32" and not part:
            return _synthetic(text, SUPERB32)
        if name == "superb32" and part in SUPERB32:
            return _synthetic(text, {part: SUPERB32[part]})
        if name == "seconds":
            return _synthetic(text, {"": (round(_read_seconds(text, part) * SAMPLE_RATE),)})
        if text.strip() == "corpus":
            return _of_corpus(corpus)
        raise InputError(
            f"unknown workload {text!r}{closest(text, ['superb32', 'seconds:10', 'corpus'])}; "
            f"expected superb32, superb32:{'|'.join(SUPERB32)}, seconds:N or corpus"
        )


def _synthetic(name: str, buckets: dict[str, tuple[int, ...]]) -> Workload:
    lengths = tuple(length for part in buckets.values() for length in part)
    named = {key: part for key, part in buckets.items() if key}
    return Workload(name.strip(), lengths, partial(_noise, lengths), named)


def _noise(lengths: tuple[int, ...], index: int) -> Tensor:
    """Low-level white noise, seeded by the place in the list."""
    generator = torch.Generator().manual_seed(index)
    return torch.randn(lengths[index], generator=generator) * _LEVEL


def _read_seconds(text: str, part: str) -> float:
    try:
        seconds = float(part)
    except ValueError:
        seconds = math.nan
    if not _SECONDS[0] <= seconds <= _SECONDS[1]:
        raise InputError(
            f"workload {text!r}: expected seconds:N with N from {_SECONDS[0]:g} to {_SECONDS[1]:g}"
        )
    return seconds


def _of_corpus(corpus: Corpus | None) -> Workload:
    if corpus is None:
        raise InputError("workload 'corpus' needs a corpus; name one with --data")
    lengths = tuple(item.samples for item in corpus.items)
    return Workload("corpus", lengths, partial(_utterance, corpus), {})


def _utterance(corpus: Corpus, index: int) -> Tensor:
    return corpus.waveform(corpus.items[index])
