"""Classification of whole utterances: keyword spotting, intents and speakers share it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from encoders.corpora.base import Corpus, Item
from encoders.model import Encoder
from tasks._base import Outcome, Task, classes, labelled, parted
from tasks._features import Features
from tasks._heads import draw_training, fit_classifier, slot_accuracy


class Classification(Task):
    """SUPERB's linear classifier of the mean over time; accuracy in percent on dev and test.

    labels: names of the label, of which a corpus has one. A label with `;` holds several slots; an
    utterance is right if all of them are.
    """

    name: ClassVar[str]
    labels: ClassVar[tuple[str, ...]]

    def select(self, corpus: Corpus) -> list[Item]:
        _, items = labelled(corpus, self.labels, self.name)
        parted(items, self.name)
        return items

    def score(
        self, encoder: Encoder, corpus: Corpus, items: list[Item], features: Features, seed: int
    ) -> Outcome:
        label, _ = labelled(corpus, self.labels, self.name)
        parts = parted(items, self.name)
        slots = _slots(parts, label, self.name)
        targets = {s: _targets(parts[s], label, slots) for s in parts}
        pooled = {s: features.pooled(parts[s]) for s in parts}
        chosen = draw_training(len(parts["train"]), seed)
        counts = [len(slot) for slot in slots]
        head, details = fit_classifier(
            (pooled["train"][:, chosen], targets["train"][chosen]),
            (pooled["dev"], targets["dev"]),
            [sum(counts)],
            seed,
            counts,
        )
        details["dev"] = slot_accuracy(head, pooled["dev"], targets["dev"], counts)
        details["items"] = {split: len(part) for split, part in parts.items()}
        test = slot_accuracy(head, pooled["test"], targets["test"], counts)
        return Outcome({self.metric.name: test}, details)


def _slots(parts: dict[str, list[Item]], label: str, task: str) -> list[dict[str, int]]:
    """For each slot of the label, the index of every value."""
    values = {s: [item.labels[label].split(";") for item in part] for s, part in parts.items()}
    width = len(values["train"][0])
    return [
        classes(
            [value[slot] for value in values["train"]],
            [value[slot] for split in ("dev", "test") for value in values[split]],
            task,
        )
        for slot in range(width)
    ]


def _targets(items: Sequence[Item], label: str, slots: Sequence[dict[str, int]]) -> Tensor:
    """Class indices (items, slots)."""
    values = [item.labels[label].split(";") for item in items]
    return torch.tensor([[s[v] for s, v in zip(slots, value, strict=True)] for value in values])
