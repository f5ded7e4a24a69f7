"""What the head of a task learns, as a loss that an encoder can learn with it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core import plugins
from core.errors import Unsupported
from encoders.corpora import Corpus, Item
from encoders.padding import behind
from tasks._base import classes, labelled, parted
from tasks._classify import Classification
from tasks._ctc import BLANK, Recognition, batches
from tasks._features import Features
from tasks._heads import Head, draw_training, fit_classifier, slot_accuracy, slot_loss

#: Tasks whose heads are trained by gradients, so that an encoder can learn with them.
HEADS = (Classification, Recognition)


class Goal(Protocol):
    """What the head of a task learns.

    parts: the utterances by split. framed: whether the head reads frames, not their mean over time.
    """

    parts: dict[str, list[Item]]
    framed: ClassVar[bool]

    def head(self, features: Features, seed: int) -> nn.Module:
        """The head as the task trains it on frozen features."""

    def targets(self, items: Sequence[Item]) -> tuple[Tensor, ...]: ...

    def loss(self, head: nn.Module, states: Tensor, lengths: Tensor, *targets: Tensor) -> Tensor:
        """Of standardised states (states, batch, time, dim), valid up to their lengths (batch,)."""

    def score(self, head: nn.Module, features: Features, split: str) -> float:
        """The task's metric."""


class Labels:
    """A class for each slot of an utterance's label, from its mean over time."""

    framed: ClassVar[bool] = False

    def __init__(self, task: Classification, corpus: Corpus, seed: int) -> None:
        self.label, _ = labelled(corpus, task.labels, task.name)
        self.parts = parted(task.select(corpus), task.name)
        said = {split: list(map(self._values, part)) for split, part in self.parts.items()}
        others = said["dev"] + said["test"]
        self.slots = [
            classes([v[slot] for v in said["train"]], [v[slot] for v in others], task.name)
            for slot in range(len(said["train"][0]))
        ]
        self.counts = [len(slot) for slot in self.slots]
        self.parts["train"] = drawn(self.parts["train"], seed)

    def _values(self, item: Item) -> list[str]:
        return item.labels[self.label].split(";")

    def head(self, features: Features, seed: int) -> nn.Module:
        train, dev = (self._pooled(features, split) for split in ("train", "dev"))
        return fit_classifier(train, dev, [sum(self.counts)], seed, self.counts)[0]

    def _pooled(self, features: Features, split: str) -> tuple[Tensor, Tensor]:
        items = self.parts[split]
        return features.pooled(items), self.targets(items)[0]

    def targets(self, items: Sequence[Item]) -> tuple[Tensor, ...]:
        rows = [[s[v] for s, v in zip(self.slots, self._values(i), strict=True)] for i in items]
        return (torch.tensor(rows),)

    def loss(self, head: nn.Module, states: Tensor, lengths: Tensor, *targets: Tensor) -> Tensor:
        valid = ~behind(lengths, states.shape[2])
        means = (states * valid[..., None]).sum(2) / lengths[:, None]
        return slot_loss(head(means), targets[0], self.counts)

    def score(self, head: nn.Module, features: Features, split: str) -> float:
        assert isinstance(head, Head)
        return slot_accuracy(head, *self._pooled(features, split), self.counts)


class Symbols:
    """A sequence of symbols, by CTC."""

    framed: ClassVar[bool] = True

    def __init__(self, task: Recognition, corpus: Corpus, seed: int) -> None:
        self.task, self.parts = task, parted(task.select(corpus), task.name)
        said = {s: list(chain(*map(task.spell, part))) for s, part in self.parts.items()}
        self.known = classes(said["train"], said["dev"] + said["test"], task.name)
        self.names = ["", *self.known]
        self.joined = 1
        self.parts["train"] = drawn(self.parts["train"], seed)

    def _batches(self, features: Features, split: str) -> list[Any]:
        size, spell = self.task.batch, self.task.spell
        return batches(self.parts[split], features, spell, self.known, size, self.joined)

    def head(self, features: Features, seed: int) -> nn.Module:
        self.joined = self.task.joined(list(chain(*self.parts.values())), features)
        made = {split: self._batches(features, split) for split in ("train", "dev")}
        generator = torch.Generator().manual_seed(seed)
        return self.task.learn(made, self.names, generator)[0]

    def targets(self, items: Sequence[Item]) -> tuple[Tensor, ...]:
        rows = [[1 + self.known[symbol] for symbol in self.task.spell(item)] for item in items]
        return torch.tensor(list(chain(*rows))), torch.tensor(list(map(len, rows)))

    def loss(self, head: nn.Module, states: Tensor, lengths: Tensor, *targets: Tensor) -> Tensor:
        whole = states[:, :, : states.shape[2] // self.joined * self.joined]
        lengths = lengths // self.joined
        scores = head(whole.unflatten(2, (-1, self.joined)).flatten(3), lengths)
        spoken = scores.float().log_softmax(-1).transpose(0, 1)
        return F.ctc_loss(spoken, targets[0], lengths, targets[1], BLANK, zero_infinity=True)

    def score(self, head: nn.Module, features: Features, split: str) -> float:
        return self.task.measure(head, self._batches(features, split), self.names)


def goal(name: str, corpus: Corpus, seed: int) -> Goal:
    """What the head of that task learns, on the part of the training utterances the seed draws.

    Raises:
        Unsupported: the corpus lacks the task's labels.
    """
    task = plugins.load("task", name)()
    if isinstance(task, Classification):
        return Labels(task, corpus, seed)
    if isinstance(task, Recognition):
        return Symbols(task, corpus, seed)
    raise Unsupported(f"task {name!r} has no head that can be fine-tuned with the encoder")


def drawn(items: list[Item], seed: int) -> list[Item]:
    return [items[index] for index in draw_training(len(items), seed).tolist()]
