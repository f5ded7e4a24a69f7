"""Scores tasks together: one pass of the encoder over the utterances that any of them reads."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from core import plugins
from core.errors import Unsupported
from encoders.corpora.base import Corpus, Item
from encoders.model import Encoder
from tasks._base import Outcome, Task
from tasks._features import extract


def score_tasks(
    encoder: Encoder, names: Sequence[str], corpus: Corpus, seed: int
) -> Iterator[tuple[str, Outcome]]:
    """The outcome of each task as soon as it is there; one that cannot be done gives its reason."""
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
        encoder,
        corpus,
        pooled=[i for task, items in tasks.values() if task.needs == "means" for i in items],
        framed=[i for task, items in tasks.values() if task.needs == "frames" for i in items],
    )
    extraction = time.perf_counter() - begin
    for name, (task, items) in tasks.items():
        try:
            outcome = task.score(encoder, corpus, items, features, seed)
        except Unsupported as reason:
            outcome = Outcome(reason=str(reason))
        outcome.details |= {"in_score": task.in_score, "extraction_seconds": round(extraction, 2)}
        yield name, outcome
