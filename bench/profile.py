"""`bench profile MODEL`: what running one encoder costs, without a run folder.

Every profiler runs in a process of its own, one after the other, as in a sweep: a model that takes
more memory than there is ends that process and not this one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from bench.executors._base import Ended, Said, Say
from bench.executors.local import Local
from bench.jobs import Source
from core import plugins
from core.errors import InputError, Unsupported
from core.metric import Metric
from core.runtime import Runtime
from encoders import store
from results.table import MACHINE_FREE


@dataclass(frozen=True)
class Request:
    """What is to be measured, and how.

    against: the model that speed-ups are relative to, run by torch, None for none. repeats: timed
    passes at least.
    """

    model: str
    workload: str
    source: Source
    runtime: Runtime
    repeats: int = 5
    against: str | None = None


@dataclass(frozen=True)
class Measured:
    """What one profiler found."""

    profiler: str
    values: dict[str, float]
    details: dict[str, Any]


@dataclass
class Profile:
    """Numbers by metric name, what they mean, why one is missing, and details by profiler."""

    values: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, Metric] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)

    def take(self, found: Measured) -> None:
        self.values |= found.values
        self.metrics |= {m.name: m for m in plugins.card("profiler", found.profiler).metrics}
        details = dict(found.details)
        self.unavailable |= details.pop("unavailable", {})
        self.details[found.profiler] = details


@dataclass(frozen=True)
class Measure:
    """One profiler at work on one model. exported: a folder that all share, for its graph."""

    profiler: str
    request: Request
    exported: Path
    exclusive: ClassVar[bool] = True
    processes: ClassVar[int] = 1

    def run(self, say: Say) -> None:
        from encoders.workload import Workload
        from profilers._base import Setting
        from profilers._running import check, told

        request = self.request
        check(request.runtime)
        corpus = request.source.open() if request.workload == "corpus" else None
        workload = Workload.parse(request.workload, corpus)
        setting = Setting(
            workload,
            store.load(request.against) if request.against else None,
            Path(request.model) if Path(request.model).is_dir() else None,
            request.runtime,
            self.exported,
            request.repeats,
        )
        profiler = plugins.load("profiler", self.profiler)()
        with told(max(workload.lengths)):
            try:
                found = profiler.measure(store.load(request.model), setting)
                say(Measured(self.profiler, found.values, found.details))
            except Unsupported as reason:
                lacking = {metric.name: str(reason) for metric in profiler.metrics}
                say(Measured(self.profiler, {}, {"unavailable": lacking}))


def profile(request: Request, profilers: list[str]) -> Profile:
    """Measure one encoder with each of the profilers.

    Raises:
        InputError: there is no such model, workload, data or device, or memory was too small.
    """
    store.read_spec(request.model)
    found = Profile()
    for measured in _measure(request, profilers):
        found.take(measured)
    return found


def verify(request: Request, profilers: list[str]) -> tuple[Profile, Profile]:
    """Measure twice, in fresh processes, what depends on the machine and its state.

    Raises:
        InputError: as `profile`, or none of the profilers depends on it.
    """
    physical = [name for name in profilers if f"profile.{name}" not in MACHINE_FREE]
    if not physical:
        raise InputError(
            f"{', '.join(profilers)}: the same on every machine and in every run; verify others"
        )
    return profile(request, physical), profile(request, physical)


def _measure(request: Request, profilers: list[str]) -> Iterator[Measured]:
    with TemporaryDirectory() as exported, Local(workers=1) as executor:
        for name in profilers:
            executor.submit(Measure(name, request, Path(exported)))
        for event in executor.events():
            match event:
                case Said(_, Measured() as measured):
                    yield measured
                case Ended(Measure(name), reason) if reason:
                    raise InputError(f"profiler {name!r} came to nothing: {reason}")
