"""`bench profile MODEL`: what running one encoder costs, without a run folder."""

from __future__ import annotations

from dataclasses import dataclass

from core import plugins
from core.metric import Metric


@dataclass(frozen=True)
class Profile:
    """Numbers by metric name, what they mean, and why one is missing."""

    values: dict[str, float]
    metrics: dict[str, Metric]
    unavailable: dict[str, str]


def profile(
    model: str,
    profilers: list[str],
    workload: str,
    data: str,
    subset: str | None,
    threads: int,
    repeats: int,
) -> Profile:
    """Measure one encoder with each of the profilers, in this process.

    Raises:
        InputError: there is no such model, workload or data.
    """
    import torch

    from encoders import store
    from encoders.corpora import open_corpus
    from encoders.workload import Workload
    from profilers._base import Setting

    torch.set_num_threads(threads)
    corpus = open_corpus(data, subset) if workload == "corpus" else None
    parsed = Workload.parse(workload, corpus)
    encoder = store.load(model)
    setting = Setting(parsed, threads=threads, repeats=repeats)
    result = Profile({}, {}, {})
    for name in profilers:
        measured = plugins.load("profiler", name)().measure(encoder, setting)
        result.values.update(measured.values)
        result.metrics.update({m.name: m for m in plugins.card("profiler", name).metrics})
        result.unavailable.update(measured.details.get("unavailable", {}))
    return result
