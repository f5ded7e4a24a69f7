"""Linear probes of all hidden states at once, solved in closed form.

A probe asks what a linear map can read off one state (Alain & Bengio 2016, arXiv 1610.01644). The
dev split chooses the shrinkage of each state and the state that is reported; the test split says
how good they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from core.errors import Unsupported
from core.spec import ModelSpec
from encoders.corpora.base import Corpus, Item
from encoders.model import Encoder
from tasks._base import Outcome, Task, classes, labelled, parted, thin
from tasks._closed_forms import (
    SHRINKAGES,
    Block,
    Moments,
    accuracies,
    discriminants,
    r_squared,
    regressions,
)
from tasks._features import Features, batches
from tasks._heads import draw_training

LIMITS = {"train": 320, "dev": 80, "test": 240}  # utterances of a split whose frames are probed
FRAMES = 30_000  # of a split, about, evenly spread: neighbours say the same
TOGETHER = 256  # means over time that are looked at in one go


def classify(blocks: Callable[[str], Iterable[Block]], slots: Sequence[int]) -> list[Choice]:
    """Train discriminants of each slot, of so many classes, and test them.

    blocks: by split; their targets (n, slots) are indices of classes.
    """
    hot = (
        (x, torch.cat([F.one_hot(y[:, i], k) for i, k in enumerate(slots)], 1).to(x.dtype))
        for x, y in blocks("train")
    )
    moments, first, maps = Moments.of(hot), 0, []
    for count in slots:
        maps.append(discriminants(moments.columns(first, first + count)))
        first += count
    dev, test = accuracies(maps, blocks("dev")), accuracies(maps, blocks("test"))
    return [Choice.of(*pair) for pair in zip(dev, test, strict=True)]


@dataclass(frozen=True)
class Choice:
    """Of each state the value on test, with the shrinkage that dev chose; `state`: dev's best."""

    by_state: list[float]
    state: int
    dev: float
    shrinkages: list[float]

    @classmethod
    def of(cls, dev: Tensor, test: Tensor) -> Choice:
        """Of values (shrinkages, states), of which higher ones are better."""
        best, places = dev.max(0)
        chosen = test.gather(0, places[None])[0]
        state = int(best.argmax())
        tried = [SHRINKAGES[place] for place in places.tolist()]
        return cls([round(v, 3) for v in chosen.tolist()], state, best[state].item(), tried)

    @property
    def details(self) -> dict[str, Any]:
        """For the record."""
        return {
            "by_state": self.by_state, "state": self.state, "dev": self.dev,
            "shrinkage_by_state": self.shrinkages,
        }  # fmt: skip


class Probe(Task):
    """Reports the state that is best on dev; the details have them all as `by_state`."""

    name: ClassVar[str]
    groups = ("probes",)
    in_score = False

    def outcome(self, choice: Choice, parts: dict[str, list[Item]], **details: Any) -> Outcome:
        counts = {split: len(part) for split, part in parts.items()}
        return Outcome(
            {self.metric.name: choice.by_state[choice.state]},
            {**choice.details, **details, "items": counts},
        )


class PooledProbe(Probe):
    """Which class an utterance is of, from its mean over time.

    labels: names of the label, of which a corpus has one. like: the task whose splits are used.
    """

    labels: ClassVar[tuple[str, ...]]
    like: ClassVar[str]

    def select(self, corpus: Corpus) -> list[Item]:
        _, items = labelled(corpus, self.labels, self.name)
        parted(items, self.like)
        return items

    def score(
        self, encoder: Encoder, corpus: Corpus, items: list[Item], features: Features, seed: int
    ) -> Outcome:
        label, _ = labelled(corpus, self.labels, self.name)
        parts = parted(items, self.like)
        said = {split: [item.labels[label] for item in part] for split, part in parts.items()}
        known = classes(said["train"], said["dev"] + said["test"], self.name)
        parts["train"] = drawn(parts["train"], seed)

        def blocks(split: str) -> Iterator[Block]:
            for start in range(0, len(parts[split]), TOGETHER):
                some = parts[split][start : start + TOGETHER]
                targets = torch.tensor([[known[item.labels[label]]] for item in some])
                yield features.pooled(some), targets

        (choice,) = classify(blocks, [len(known)])
        return self.outcome(choice, parts, classes=len(known))


class FrameRegression(Probe):
    """A number per frame that follows from the waveform: the variance of it that is explained."""

    needs = "frames"

    def values(self, wave: Tensor, centres: Tensor) -> Tensor:
        """The number at each of those samples (n,) of a waveform (samples,), NaN for none."""
        raise NotImplementedError

    def select(self, corpus: Corpus) -> list[Item]:
        """Utterances with phones, where there are some: other tasks read their frames too."""
        items = [item for item in corpus.items if item.labels.get("phones")] or corpus.items
        return limited(items, self.name)

    def score(
        self, encoder: Encoder, corpus: Corpus, items: list[Item], features: Features, seed: int
    ) -> Outcome:
        parts = parted(items, self.name)
        parts["train"] = drawn(parts["train"], seed)

        def label(item: Item, centres: Tensor) -> Tensor:
            return self.values(corpus.waveform(item), centres)[:, None]

        moments = {
            split: Moments.of(frames(part, features, encoder.spec, label))
            for split, part in parts.items()
        }
        for split, own in moments.items():
            if own.n < 2 or not own.yy > own.y.square() / own.n:
                raise Unsupported(
                    f"task {self.name} needs two frames or more that differ in split {split!r}; "
                    f"corpus {corpus.name!r} has {own.n} that can be measured"
                )
        maps = regressions(moments["train"])
        choice = Choice.of(r_squared(maps, moments["dev"]), r_squared(maps, moments["test"]))
        return self.outcome(choice, parts, frames={s: own.n for s, own in moments.items()})


def limited(items: Sequence[Item], task: str) -> list[Item]:
    """At most LIMITS of each split.

    Raises:
        Unsupported: a split is empty.
    """
    parts = parted(items, task)
    return [item for split, limit in LIMITS.items() for item in thin(parts[split], limit)]


def drawn(items: list[Item], seed: int) -> list[Item]:
    """The part of the training utterances that the seed draws."""
    return [items[place] for place in draw_training(len(items), seed).tolist()]


def frames(
    items: list[Item],
    features: Features,
    spec: ModelSpec,
    label: Callable[[Item, Tensor], Tensor],
) -> Iterator[Block]:
    """Frames of utterances with their targets, one in so many that about FRAMES are read at most.

    label: the targets (n, k) of an utterance at those samples (n,). A frame is left out where the
    first of them is NaN or, being the index of a class, below 0.
    """
    stride = 1 + (sum(features.lengths(items)) - 1) // FRAMES
    for some in batches(items, spec):
        x = features.joined(some)
        ends, places, targets = 0, [], []
        for item, count in zip(some, features.lengths(some), strict=True):
            chosen = torch.arange(0, count, stride)
            y = label(item, centres(chosen, spec))
            valid = ~y[:, 0].isnan() if y.is_floating_point() else y[:, 0] >= 0
            places.append(ends + chosen[valid])
            targets.append(y[valid])
            ends += count
        yield x[:, torch.cat(places)], torch.cat(targets)


def centres(places: Tensor, spec: ModelSpec) -> Tensor:
    """The samples in the middle of those frames, whose 25 ms windows begin where they do."""
    return places * spec.hop + 200
