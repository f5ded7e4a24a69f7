"""Scores tasks together: one pass of the encoder over the utterances that any of them reads."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from core import plugins
from core.errors import Unsupported
from encoders.corpora.base import Corpus, Item
from encoders.model import Encoder
from tasks._base import Outcome, Task
from tasks._features import Keeping, extract


def score_tasks(
    encoder: Encoder,
    names: Sequence[str],
    corpus: Corpus,
    seed: int,
    keeping: Keeping | None = None,
    running: Encoder | None = None,
) -> Iterator[tuple[str, Outcome]]:
    """The outcome of each task as soon as it is there; one that cannot be done gives its reason.

    keeping: where hidden states are kept. running: what they come from, the encoder on another
    device or in another numeric type; by default itself.
    """
    tasks: dict[str, tuple[Task, list[Item]]] = {}
    for name in names:
        task = plugins.load("task", name)()
        try:
            tasks[name] = (task, task.select(corpus))
        except Unsupported as reason:
            yield name, Outcome(reason=str(reason))
    if not tasks:
        return
    begin = time.perf_counter()
    features = extract(
        running or encoder,
        corpus,
        pooled=[i for task, items in tasks.values() if task.needs == "means" for i in items],
        framed=[i for task, items in tasks.values() if task.needs == "frames" for i in items],
        keeping=keeping,
    )
    extraction = time.perf_counter() - begin
    for name, (task, items) in tasks.items():
        # By its own utterances: a score must not depend on which other tasks are scored.
        own = features if task.needs == "nothing" else features.scaled(items)
        try:
            outcome = task.score(encoder, corpus, items, own, seed)
        except Unsupported as reason:
            outcome = Outcome(reason=str(reason))
        outcome.details |= {"in_score": task.in_score, "extraction_seconds": round(extraction, 2)}
        yield name, outcome
