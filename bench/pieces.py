"""Cuts a sweep into pieces that jobs of a cluster make by themselves, on one run folder.

A piece is an ordinary sweep of fewer points: one track, so that what trains once for all rates
does; and, when all tracks are there, every timing in one job, beside the dense model. So twins,
failures and going on are the same code as on one machine.
"""

from __future__ import annotations

import signal
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import forkserver, resource_tracker
from pathlib import Path

from bench.estimate import lengths
from bench.executors.local import Local
from bench.plan import Plan, Request, exclusive
from bench.sweep import Sweep
from core.point import Point, digest

#: The piece that needs a machine to itself.
TIMING = "timing"


@dataclass(frozen=True)
class Piece:
    """Some points of a request. workers: processes side by side, None for one per GPU."""

    name: str
    request: Request
    folder: Path
    keys: frozenset[str]
    workers: int | None
    retry_failed: bool

    @property
    def exclusive(self) -> bool:
        return self.name == TIMING

    def run(self) -> None:
        """Make what is missing of it.

        Raises:
            InputError: as `Sweep.run`, also where another process is at this piece.
        """
        plan = self._plan()
        processes = 1 if self.exclusive else self.request.processes
        executor = Local.of(self.request.runtime, self.workers, processes)
        with unsignalled():
            forkserver.ensure_running()
        with executor:
            Sweep(plan, executor, self.retry_failed, self.name).run()

    def _plan(self) -> Plan:
        """The plan of the piece; models that failed to be made are not made for timing."""
        plan = Plan.of(self.request, self.folder, self.keys)
        if self.exclusive:
            made = {key for key in plan.records if plan.state(key, "compress") == "done"}
            plan = Plan.of(self.request, self.folder, made)
        return plan


def cut(plan: Plan, workers: int | None, retry_failed: bool) -> list[Piece]:
    """The pieces that lack something: the longest first, as jobs begin in order; timings last."""
    request, todo = plan.request, plan.todo(retry_failed)
    alone = tuple(n for n in request.profilers if exclusive(f"profile.{n}"))
    shared = tuple(name for name in request.profilers if name not in alone)
    lacking = _lacking(plan, todo)
    folder = plan.run.path.resolve()
    pieces = [
        Piece(_name(track[0]), replace(request, profilers=shared), folder, keys,
              workers, retry_failed)
        for track in request.tracks()
        if (keys := frozenset(point.key for point in track) & lacking.keys())
    ]  # fmt: skip
    pieces.sort(key=lambda piece: -sum(lacking[key] for key in piece.keys))
    if any(exclusive(name) for _, name in todo):
        timed = replace(request, profilers=alone, tasks=())
        keys = frozenset(point.key for track in timed.tracks() for point in track)
        pieces.append(Piece(TIMING, timed, folder, keys, 1, retry_failed))
    return pieces


def _lacking(plan: Plan, todo: list[tuple[str, str]]) -> dict[str, float]:
    """The points that lack more than timings, and how long that takes."""
    lacking, length = defaultdict[str, float](float), lengths(plan)
    for key, name in todo:
        if not exclusive(name):
            lacking[key] += length(plan.records[key].point.method, name)
    return lacking


def _name(first: Point) -> str:
    """What a track's job, lock and signs of life are called."""
    method = "".join(c if c.isalnum() or c in "-+" else "-" for c in first.method)[:40]
    return f"{method}-{digest([first.method, first.seed])[:6]}"


@contextmanager
def unsignalled() -> Iterator[None]:
    """Processes that are started within do not get SIGTERM and SIGUSR2, nor do their children.

    SLURM sends them to all processes of a job that it wants to end or to be put into the line
    again. The job answers; a worker that died of them would look as if its point had failed.
    """
    resource_tracker.ensure_running()  # it unblocks SIGTERM when it starts
    signals = {signal.SIGTERM, signal.SIGUSR2}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
