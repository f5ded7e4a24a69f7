"""Speech with labels: what tasks train on and what profilers run on."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from core.errors import InputError
from core.spec import SAMPLE_RATE, ModelSpec
from encoders.corpora.audio import Header, describe, read_audio

if TYPE_CHECKING:
    from torch import Tensor

SPLITS = ("train", "dev", "test")

#: What an utterance may be labelled with; `phones`, `text`, `slots` are sequences parted by spaces.
LABELS = ("label", "text", "phones", "word", "speaker", "intent", "slots", "emotion")


class Part(NamedTuple):
    """The beginning of an utterance within a mixture: from which sample on, for how many."""

    item: Item
    start: int
    samples: int


@dataclass(frozen=True)
class Item:
    """One utterance, or a mixture of some.

    key: unique within its corpus. seconds: its length. path: its audio file. parts: what a mixture
    is the sum of.
    """

    key: str
    seconds: float
    labels: dict[str, str] = field(default_factory=dict, hash=False)
    split: str = "test"
    path: Path | None = None
    parts: tuple[Part, ...] = ()

    @property
    def samples(self) -> int:
        """Length of its waveform, known without reading it."""
        return round(self.seconds * SAMPLE_RATE)


@dataclass
class Corpus:
    """A list of utterances in a fixed order.

    fingerprint: changes when a file does. notes: what had to be converted, to be told to the user.
    """

    name: str
    items: list[Item]
    fingerprint: str
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.items:
            raise InputError(f"corpus {self.name!r} holds no utterances; it needs at least one")
        seen: set[str] = set()
        for item in self.items:
            if item.key in seen:
                raise InputError(f"corpus {self.name!r} lists {item.key!r} twice; name it once")
            seen.add(item.key)

    @property
    def seconds(self) -> float:
        return sum(item.seconds for item in self.items)

    def split(self, name: str) -> list[Item]:
        """The utterances of that split: train, dev or test."""
        return [item for item in self.items if item.split == name]

    def training(self) -> Corpus:
        """The speech that encoders are trained on: the train split, all of it where there is none.

        The built-in corpus has other speech for that, by other voices.
        """
        return with_items(self, self.split("train") or self.items)

    def draw(self, spec: ModelSpec, seconds: float, seed: int) -> list[Item]:
        """Utterances drawn at random until they fill the seconds, all where there are no more.

        Those without a single frame for an encoder of that spec are left out.

        Raises:
            InputError: nothing is left.
        """
        import torch  # as in `waveform`

        items = [item for item in self.items if spec.frames(item.samples) > 0]
        if not items:
            raise InputError(f"corpus {self.name!r} has no utterance of one frame or more")
        generator = torch.Generator().manual_seed(seed)
        chosen, left = [], seconds * SAMPLE_RATE
        for place in torch.randperm(len(items), generator=generator).tolist():
            if left <= 0:
                break
            chosen.append(items[place])
            left -= items[place].samples
        return chosen

    def waveform(self, item: Item) -> Tensor:
        """The utterance or mixture as (samples,) float32 at 16 kHz.

        Raises:
            InputError: a file is gone or corrupt.
        """
        import torch  # not before there is sound to read: listing a corpus needs no torch

        if not item.parts:
            return self.read(item)
        mixed = torch.zeros(item.samples)
        for part in item.parts:
            mixed[part.start : part.start + part.samples] += self.read(part.item)[: part.samples]
        return mixed

    def read(self, item: Item) -> Tensor:
        """An utterance by itself; a corpus that keeps its sound elsewhere overrides this."""
        import torch

        assert item.path is not None, "a corpus without files overrides read()"
        return torch.from_numpy(read_audio(item.path)[0])


def with_items(corpus: Corpus, items: list[Item]) -> Corpus:
    """The same corpus with those of its items alone."""
    part = copy.copy(corpus)
    part.items = items
    return part


def corpus_of_files(
    name: str, root: Path, items: list[Item], headers: Sequence[Header], also: Iterable[Path] = ()
) -> Corpus:
    """A corpus whose items lie in files under `root`; `also`: its label files."""
    files = [item.path for item in items if item.path is not None]
    return Corpus(name, items, fingerprint(root, [*files, *also]), describe(headers))


def fingerprint(root: Path, files: Iterable[Path]) -> str:
    """A hash of every file's path relative to `root`, its size and its time of change."""
    state = hashlib.blake2b(digest_size=8)
    for file in files:
        stat = file.stat()
        where = file.relative_to(root) if file.is_relative_to(root) else file
        state.update(f"{where.as_posix()}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return state.hexdigest()


def split_by_order(count: int) -> list[str]:
    """60 % train, 20 % dev, 20 % test, in that order; the middle of each item's share decides."""
    places = [(index + 0.5) / count for index in range(count)]
    return ["train" if p < 0.6 else "dev" if p < 0.8 else "test" for p in places]
