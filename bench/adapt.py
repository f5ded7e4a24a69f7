"""`bench adapt`: the frame period that serves a task best, learned with the task's head."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.jobs import Source
from compressors._adaptive import adapt as learn
from core import plugins
from core.errors import Diverged, InputError
from core.spec import SAMPLE_RATE
from encoders import card, store
from encoders.corpora import Item
from encoders.model import Hidden
from tasks._base import classes, labelled
from tasks._classify import Classification
from tasks._heads import Head

BATCH = 16


def adapt(
    model: str, task: str, out: Path, data: str, seed: int, epochs: int, rates: tuple[float, float]
) -> str:
    """Learn lambda of an `ofa-sequence` model on a task's training utterances; what to tell.

    rates: learning rates of the head and of lambda.

    Raises:
        InputError: the task is none of whole utterances, or the model has no lambda.
    """
    chosen, corpus = plugins.load("task", task)(), Source(data).open()
    if not isinstance(chosen, Classification):
        raise InputError(f"task {task!r} does not classify utterances; ks, ic and sid do")
    label, items = labelled(corpus, chosen.labels, task)
    items = [item for item in items if item.split == "train"]
    known = classes([item.labels[label] for item in items], [], task)
    encoder = store.load(model)
    states = len(encoder.layers) + 1
    generator = torch.Generator().manual_seed(seed)
    head = Head(states, encoder.spec.dim, len(known), generator=generator)

    def loss(hidden: Hidden, targets: Tensor) -> Tensor:
        return F.cross_entropy(head(torch.stack([s.mean(1) for s in hidden.states])), targets)

    batches = (
        (torch.stack([corpus.waveform(item) for item in some]),
         torch.tensor([known[item.labels[label]] for item in some]))
        for some in _batches(items, epochs, generator)
    )  # fmt: skip
    try:
        made = learn(encoder, head, batches, loss, *rates)
    except Diverged as error:
        raise InputError(str(error)) from error
    store.save(made, out, card.of(model, method=f"adapt to {task}", seed=seed))
    shortening = made.spec.shortening
    assert shortening is not None
    period = 1000 * shortening.factor * made.spec.hop / SAMPLE_RATE
    return f"lambda {shortening.strength:.3f} for {task}, {period:.0f} ms per frame, saved in {out}"


def _batches(items: list[Item], epochs: int, generator: torch.Generator) -> Iterator[list[Item]]:
    """Utterances of one length, in random order, `epochs` times over."""
    equal: dict[int, list[Item]] = defaultdict(list)
    for item in items:
        equal[item.samples].append(item)
    groups = [own[at : at + BATCH] for own in equal.values() for at in range(0, len(own), BATCH)]
    for _ in range(epochs):
        for place in torch.randperm(len(groups), generator=generator).tolist():
            yield groups[place]
