"""What every task is: a metric, the utterances it reads, and a light head on frozen features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from core.errors import Unsupported
from core.metric import Metric
from encoders.corpora.base import Corpus, Item
from encoders.model import Encoder
from tasks._features import Features

SPLITS = ("train", "dev", "test")


@dataclass
class Outcome:
    """What came of a task: its numbers, or the reason why there are none."""

    values: dict[str, float] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    reason: str | None = None


class Task:
    """A downstream task. A subclass is one file; its name is the file's name.

    metric: what is reported. also: further metrics that count as much as the first one.
    groups: names of sets of tasks that it is in: `quick` is scored by default, `superb` are
    SUPERB's ten. in_score: whether it enters the quick suite's superb_s.
    needs: whether the head reads every frame, or each utterance's mean over time (which is exact
    for heads that are linear up to their pooling).
    """

    metric: ClassVar[Metric]
    also: ClassVar[tuple[Metric, ...]] = ()
    groups: ClassVar[tuple[str, ...]] = ()
    in_score: ClassVar[bool] = True
    needs: ClassVar[Literal["frames", "means", "nothing"]] = "means"

    def select(self, corpus: Corpus) -> list[Item]:
        """The utterances that the task reads.

        Raises:
            Unsupported: the corpus lacks the labels or a split.
        """
        raise NotImplementedError

    def score(
        self, encoder: Encoder, corpus: Corpus, items: list[Item], features: Features, seed: int
    ) -> Outcome:
        """Train the head on train, choose on dev, report on test."""
        raise NotImplementedError


def labelled(corpus: Corpus, labels: Sequence[str], task: str) -> tuple[str, list[Item]]:
    """The first of these labels that the corpus has, and the utterances that carry it.

    Raises:
        Unsupported: it has none of them.
    """
    for label in labels:
        items = [item for item in corpus.items if item.labels.get(label)]
        if items:
            return label, items
    raise Unsupported(
        f"task {task} needs utterances labelled {' or '.join(map(repr, labels))}; "
        f"corpus {corpus.name!r} has none"
    )


def parted(
    items: Sequence[Item], task: str, splits: Sequence[str] = SPLITS
) -> dict[str, list[Item]]:
    """The utterances by split; the label `TASK_split` overrides an utterance's own split.

    Raises:
        Unsupported: a split is empty.
    """
    parts: dict[str, list[Item]] = {split: [] for split in SPLITS}
    for item in items:
        parts[item.labels.get(f"{task}_split", item.split)].append(item)
    for split in splits:
        if not parts[split]:
            raise Unsupported(f"task {task} needs utterances in split {split!r}; there are none")
    return parts


def thin(items: Sequence[Item], limit: int) -> list[Item]:
    """At most so many of them, evenly spread."""
    count = min(limit, len(items))
    return [items[index * len(items) // count] for index in range(count)]


def classes(train: Sequence[str], others: Sequence[str], task: str) -> dict[str, int]:
    """An index for every label of the training split, in sorted order.

    Raises:
        Unsupported: there is but one label, or another split has one that training lacks.
    """
    known = {label: index for index, label in enumerate(sorted(set(train)))}
    if len(known) < 2:
        raise Unsupported(f"task {task} needs two labels or more in training, not {len(known)}")
    unseen = sorted(set(others) - set(known))
    if unseen:
        raise Unsupported(
            f"task {task}: label {unseen[0]!r} ({len(unseen)} in all) stands in dev or test but "
            "not in train"
        )
    return known
