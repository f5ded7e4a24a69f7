"""Recognition of sequences by CTC: phones, characters, characters with slots share it.

A head turns features (states, batch, time, dim) and lengths (batch,) into scores (batch, time,
symbols); the blank is symbol 0. It is decoded greedily, as in Yang et al. 2021 (arXiv 2105.01051),
sec. 2.1.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from core.errors import Unsupported
from encoders.corpora.base import Corpus, Item
from encoders.model import Encoder
from tasks._base import SPLITS, Outcome, Task, classes, labelled, parted, thin
from tasks._features import Features
from tasks._heads import Net, descend, draw_training, layers

BLANK = 0

#: Bytes of one split's padded features that are held; of more, a batch is put together at each use.
HELD = 2e9

#: The share of symbols in dev and test that may be missing from train: they count as errors.
UNSEEN = 0.01

Spell = Callable[[Item], list[str]]


@dataclass(frozen=True)
class Batch:
    """Utterances of similar length. inputs: () -> features (states, batch, time, dim), padded.

    frames, counts: of each utterance, the latter of its symbols. targets: the symbols of all, one
    after the other. said: the same by name, with those that training does not know.
    """

    inputs: Callable[[], Tensor]
    frames: Tensor
    targets: Tensor
    counts: Tensor
    said: list[list[str]]


class Recognition(Task):
    """A sequence of symbols out of each utterance.

    label: what is spelled. limits: utterances of train, dev and test at most. batch: how many are
    trained on together. symbols: what they are called in the record.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    limits: ClassVar[tuple[int, int, int]]
    batch: ClassVar[int]
    symbols: ClassVar[str]
    needs = "frames"

    def spell(self, item: Item) -> list[str]:
        """The symbols of an utterance that carries the label."""
        raise NotImplementedError

    def learn(
        self, parts: dict[str, list[Batch]], names: Sequence[str], generator: torch.Generator
    ) -> tuple[nn.Module, dict[str, Any]]:
        """A head for symbols of those names, the blank's first, and how it was trained."""
        raise NotImplementedError

    def rate(self, said: list[list[str]], heard: list[list[str]]) -> dict[str, float]:
        """The metrics."""
        raise NotImplementedError

    def joined(self, items: Sequence[Item], features: Features) -> int:
        """How many frames make one for the head."""
        return 1

    def select(self, corpus: Corpus) -> list[Item]:
        _, items = labelled(corpus, (self.label,), self.name)
        parts = parted([item for item in items if self.spell(item)], self.name)
        limits = zip(SPLITS, self.limits, strict=True)
        return [item for split, limit in limits for item in thin(parts[split], limit)]

    def score(
        self, encoder: Encoder, corpus: Corpus, items: list[Item], features: Features, seed: int
    ) -> Outcome:
        parts = parted(items, self.name)
        said = {split: list(chain(*map(self.spell, part))) for split, part in parts.items()}
        known = seen(said["train"], said["dev"] + said["test"], self.name)
        chosen = draw_training(len(parts["train"]), seed).tolist()
        parts["train"] = [parts["train"][index] for index in chosen]
        joined = self.joined(items, features)
        made = {
            split: batches(part, features, self.spell, known, self.batch, joined)
            for split, part in parts.items()
        }
        names = ["", *known]
        head, details = self.learn(made, names, torch.Generator().manual_seed(seed))
        rates = self.rate(*decode(head, made["test"], names))
        details["dev"] = self.measure(head, made["dev"], names)
        details["layer_weights"] = layers(head)
        details[self.symbols] = len(known)
        details["items"] = {split: len(part) for split, part in parts.items()}
        return Outcome(rates, details)

    def train(
        self,
        head: Net,
        parts: dict[str, list[Batch]],
        names: Sequence[str],
        updates: int,
        rate: float,
        generator: torch.Generator,
    ) -> tuple[Net, dict[str, Any]]:
        """The head after so many updates at least, in whole epochs, and how it was trained."""
        epochs = math.ceil(updates / len(parts["train"]))
        error = partial(self.error, parts["dev"], names)
        return train(head, parts["train"], parts["dev"], epochs, rate, error, generator)

    def measure(self, head: nn.Module, batches: list[Batch], names: Sequence[str]) -> float:
        """The metric of what a head hears."""
        return self.rate(*decode(head, batches, names))[self.metric.name]

    def error(self, batches: list[Batch], names: Sequence[str], head: nn.Module) -> float:
        """The metric as a number that is to be small.

        As in s3prl it chooses the epoch: on little data CTC grows too sure of itself, and its loss
        rises, while the head hears ever better.
        """
        value = self.measure(head, batches, names)
        return value if self.metric.better == "lower" else -value


def seen(train: Sequence[str], others: Sequence[str], task: str) -> dict[str, int]:
    """An index for every symbol of the training split; rare ones of other splits may lack one.

    Raises:
        Unsupported: there is but one, or too much of what other splits say is not among them.
    """
    known = classes(train, (), task)
    unseen = Counter(symbol for symbol in others if symbol not in known)
    if unseen.total() > UNSEEN * len(others):
        symbol, _ = unseen.most_common(1)[0]
        raise Unsupported(
            f"task {task}: {unseen.total()} of {len(others)} symbols of dev and test, such as "
            f"{symbol!r}, stand nowhere in train"
        )
    return known


def batches(
    items: Sequence[Item],
    features: Features,
    spell: Spell,
    known: dict[str, int],
    size: int,
    joined: int = 1,
) -> list[Batch]:
    """The utterances in batches, the shortest first.

    known: the index of each symbol, the blank not counted; one that has none is never heard.
    joined: how many frames make one.
    """
    items = sorted(items, key=lambda item: (item.samples, item.key))
    lengths = [length // joined for length in features.lengths(items)]
    states, dim = features.mean.shape
    hold = 4 * sum(lengths) * joined * states * dim <= HELD
    made = []
    for start in range(0, len(items), size):
        some, frames = items[start : start + size], lengths[start : start + size]
        inputs = partial(_inputs, some, features, joined)
        said = [spell(item) for item in some]
        targets = [[known[symbol] + 1 for symbol in own if symbol in known] for own in said]
        made.append(
            Batch(
                cache(inputs) if hold else inputs,
                torch.tensor(frames),
                torch.tensor(list(chain(*targets))),
                torch.tensor([len(own) for own in targets]),
                said,
            )
        )
    return made


def _inputs(items: list[Item], features: Features, joined: int) -> Tensor:
    """Features (states, batch, time, joined x dim); frames that are left over at the end go."""
    lengths = features.lengths(items)
    parts = features.joined(items).split(lengths, dim=1)
    whole = [part[:, : len(part[0]) // joined * joined] for part in parts]
    rows = [part.unflatten(1, (-1, joined)).flatten(2).transpose(0, 1) for part in whole]
    return pad_sequence(rows, batch_first=True).permute(2, 0, 1, 3).contiguous()


def loss(head: nn.Module, batch: Batch) -> Tensor:
    """Mean CTC loss per symbol; utterances with more symbols than frames count as 0."""
    scores = head(batch.inputs(), batch.frames).log_softmax(-1).transpose(0, 1)
    return F.ctc_loss(scores, batch.targets, batch.frames, batch.counts, BLANK, zero_infinity=True)


def train(
    head: Net,
    batches: list[Batch],
    dev: list[Batch],
    epochs: int,
    rate: float,
    error: Callable[[Net], float],
    generator: torch.Generator,
) -> tuple[Net, dict[str, Any]]:
    """The head after so many epochs of `descend`; `crowded` utterances taught it nothing.

    Raises:
        Unsupported: all of them have more symbols than frames.
    """
    crowded = sum(int((batch.frames < batch.counts).sum()) for batch in batches)
    if crowded == sum(len(batch.frames) for batch in batches):
        raise Unsupported(
            "every utterance for training has more symbols than this model has frames for it"
        )
    head, details = descend(head, loss, batches, dev, epochs, rate, generator, error)
    return head, details | {"crowded": crowded}


@torch.no_grad()
def decode(
    head: nn.Module, batches: list[Batch], symbols: Sequence[str]
) -> tuple[list[list[str]], list[list[str]]]:
    """What was said and what the head heard: repeats joined, blanks dropped. symbols: by index."""
    said, heard = [], []
    for batch in batches:
        best = head(batch.inputs(), batch.frames).argmax(-1)
        for row, frames in zip(best, batch.frames.tolist(), strict=True):
            path = row[:frames].unique_consecutive().tolist()
            heard.append([symbols[index] for index in path if index != BLANK])
        said += batch.said
    return said, heard
