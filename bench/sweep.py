"""Runs what a plan lacks: make models, measure them, then time them while all else is quiet."""

from __future__ import annotations

import fcntl
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.deaths import write_death
from bench.executors._base import Ended, Executor, Said
from bench.heartbeat import Heartbeat
from bench.jobs import Compress, Evaluate, Finished, Job, Started, Time, Told, Trained
from bench.plan import Plan, exclusive
from bench.progress import Progress, TimeLeft, in_words
from bench.wanted import Pair, Wanted
from core.errors import InputError
from core.record import Section
from encoders import store
from results.store import RunFolder, replaced

#: How often a section is tried whose machine went away: perhaps it takes the machine with it.
LIVES = 3


class Sweep:
    """One pass over everything that a plan lacks.

    Sections with the same fingerprint are equal by definition, so each is made once: a section
    waits for its twin that is in work, and takes over what came of it. The executor is at work
    already, as its `with` makes it.
    """

    def __init__(
        self,
        plan: Plan,
        executor: Executor,
        retry_failed: bool = False,
        piece: str | None = None,
    ) -> None:
        self.plan = plan
        self.executor = executor
        self.piece = piece
        self._wanted = Wanted(plan.todo(retry_failed))
        self._in_work: dict[str, Started] = {}
        self._losses = Counter[Pair]()
        self._waiting: dict[str, list[Pair]] = {}
        self._told: set[str] = set()
        self._made = {
            section.fingerprint: key
            for key, record in plan.records.items()
            for section in record.sections.values()
            if section.status == "done" and section.name != "compress"
        }
        weights = ((key, plan.weights(key)) for key in plan.records)
        self._models = {which: key for key, which in weights if which}

    @property
    def left(self) -> int:
        """How many sections have to be made."""
        return len(self._wanted)

    def run(self) -> None:
        """Make all of it; what is finished stays, whenever this is interrupted.

        Raises:
            InputError: the run's folder cannot be written, or another sweep is writing there.
        """
        with alone(self.plan.run, self.piece):
            workers = self.executor.workers
            self._time_left = TimeLeft(workers, exclusive)
            with (
                Heartbeat(self.plan.run, workers, self.left, self.piece) as self._heartbeat,
                Progress(self.left, self._time_left) as self._progress,
            ):
                self._make_all()

    def _make_all(self) -> None:
        for key in self._wanted.points():
            if not self.plan.records[key].sections:
                self.plan.run.write_point(self.plan.records[key].point)
        self._submit_tracks()
        self._follow()
        self._submit_timing()
        self._follow()

    def _submit_tracks(self) -> None:
        """Models that are not there are made; the others are measured right away."""
        for track in self.plan.request.tracks():
            points = tuple(p for p in track if (p.key, "compress") in self._wanted)
            if points:
                todo = self._fingerprints([(p.key, "compress") for p in points])
                common = self._common(points, todo)
                request, which = self.plan.request, self.plan.track(points[0])
                job = Compress(
                    **common, source=request.source, track=which, trackers=request.trackers,
                    processes=request.together(points[0].method),
                )  # fmt: skip
                self.executor.submit(job)
            for point in track:
                if (point.key, "compress") not in self._wanted:
                    self._measure(point.key)

    def _measure(self, key: str) -> None:
        """Start all measurements of a model that share the machine with others."""
        names = [name for name in self._wanted.of(key) if not exclusive(name)]
        todo = self._claim([(key, name) for name in names])
        if todo:
            request = self.plan.request
            common = self._common((self.plan.records[key].point,), todo)
            job = Evaluate(
                **common, source=request.source, task_source=request.task_source,
                runtime=request.runtime, cache=request.cache,
            )  # fmt: skip
            self.executor.submit(job)

    def _submit_timing(self) -> None:
        todo = self._claim(list(self._wanted))
        if todo:
            keys = {key for key, _ in todo}
            points = tuple(self.plan.records[key].point for key in self.plan.records if key in keys)
            dense = self.plan.run.model_folder(self.plan.dense(points[0]))
            common, request = self._common(points, todo), self.plan.request
            self.executor.submit(
                Time(**common, source=request.source, runtime=request.runtime, dense=dense)
            )

    def _common(self, points: tuple, todo: dict[Pair, str]) -> dict[str, Any]:
        limit = self.plan.request.time_limit
        return {
            "run_path": self.plan.run.path, "points": points, "todo": todo, "time_limit": limit
        }  # fmt: skip

    def _fingerprints(self, pairs: list[Pair]) -> dict[Pair, str]:
        found = {pair: self.plan.fingerprint(*pair) for pair in pairs}
        return {pair: fingerprint for pair, fingerprint in found.items() if fingerprint}

    def _claim(self, pairs: list[Pair]) -> dict[Pair, str]:
        """Those of the sections that have no twin: the others copy, or wait for theirs."""
        todo = {}
        for pair, fingerprint in self._fingerprints(pairs).items():
            section = self.plan.section(*pair)
            if section and section.fingerprint == fingerprint and section.status == "done":
                self._settle(*pair, section)
            elif twin := self._twin(fingerprint, pair[1]):
                self._copy(*pair, *twin)
            elif fingerprint in self._waiting:
                self._waiting[fingerprint].append(pair)
            else:
                self._waiting[fingerprint] = []
                todo[pair] = fingerprint
        return todo

    def _twin(self, fingerprint: str, name: str) -> tuple[str, Section] | None:
        """Whose equal section is there, and what came of it, read anew: nobody holds them all."""
        key = self._made.get(fingerprint)
        section = key and self.plan.run.section(key, name)
        return (key, section) if key and section else None

    def _follow(self) -> None:
        """Take in what the workers report until none is at work."""
        for event in self.executor.events():
            match event:
                case Said(_, Started(key, name) as started):
                    self._in_work[key] = started
                    self._heartbeat.started(key, name)
                    self._progress.working(f"{self.plan.records[key].point}: {name}")
                case Said(_, Trained() as training):
                    point = self.plan.records[training.key].point
                    self._progress.training(f"{point.method} (seed {point.seed})", training)
                case Said(_, Told(line)) if line not in self._told:
                    self._told.add(line)
                    self._progress.say(line)
                case Said(_, Finished(key, section)):
                    self._finish(key, section)
                case Ended(Job() as job) as end:
                    self._bury(job, end)

    def _finish(self, key: str, section: Section) -> None:
        """A worker has written the section."""
        self._in_work.pop(key, None)
        self._heartbeat.finished(key)
        self._time_left.learn(section.name, section.seconds)
        self._settle(key, section.name, section)
        if section.name == "compress":
            if section.status == "done":
                self._share_weights(key, section)
                self._measure(key)
            else:
                for name in self._wanted.of(key):
                    self._settle(key, name, None)
        for pair in self._waiting.pop(section.fingerprint, []):
            self._copy(*pair, key, section)
        if section.status == "done" and section.name != "compress":
            self._made[section.fingerprint] = key

    def _settle(self, key: str, name: str, section: Section | None) -> None:
        """The section needs no more work; None where there is nothing that it could measure."""
        if (key, name) not in self._wanted:
            return
        self._wanted.remove((key, name))
        self._heartbeat.left(self.left)
        record = self.plan.records[key]
        if section is not None:
            record.sections[name] = section.brief()
            if section.status == "failed":
                self._progress.say(f"failed: {record.point}, {name}: {section.reason}")
        self._progress.finished(str(record.point), self._wanted.by_name)

    def _copy(self, key: str, name: str, twin: str, section: Section) -> None:
        copied = replace(copy_of(twin, section), name=name)
        self.plan.run.write_section(key, copied)
        self._settle(key, name, copied)

    def _bury(self, job: Job, end: Ended) -> None:
        """The job's process is gone: what it was doing failed, the rest gets a new process.

        What a machine took with it gets another one, LIVES times in all.
        """
        if end.lost:
            self._take_in(job)
        left = job.without({pair for pair in job.todo if pair not in self._wanted})
        if left is None:
            return
        begun = {(key, started.section) for key, started in self._in_work.items()}
        guilty = next((pair for pair in left.todo if pair in begun), next(iter(left.todo)))
        self._losses[guilty] += end.lost
        if not end.lost or self._losses[guilty] == LIVES:
            self._fail(guilty, left.todo[guilty], self._reason(end))
            left = left.without({guilty})
        if left is not None:
            self.executor.submit(left)

    def _take_in(self, job: Job) -> None:
        """Sections that were written, and whose machine went before it could say so."""
        for key, name in [pair for pair in job.todo if pair in self._wanted]:
            section = self.plan.run.read(key).sections.get(name)
            if section is None or section.fingerprint != job.todo[key, name]:
                continue
            there = (
                name != "compress" or (self.plan.run.model_folder(key) / store.WEIGHTS).is_file()
            )
            if there and section.status == "done":
                self._finish(key, section)

    def _fail(self, pair: Pair, fingerprint: str, reason: str) -> None:
        """Record what nobody could who worked at it."""
        key, name = pair
        run, started = self.plan.run, self._in_work.get(key)
        self._finish(key, write_death(run, key, name, fingerprint, reason, started))

    def _reason(self, end: Ended) -> str:
        limit = self.plan.request.time_limit
        if end.overtime and limit:
            return f"it took longer than --time-limit, {in_words(limit)}"
        return end.reason or "the process left it out"

    def _share_weights(self, key: str, section: Section) -> None:
        """Store equal weights once: the file becomes a hard link to the one that is there."""
        twin = self._models.setdefault(section.details["weights"], key)
        if not share_weights(self.plan.run, key, twin):
            self._models[section.details["weights"]] = key


def copy_of(twin: str, section: Section) -> Section:
    """The section as an equal model has it that is measured no more."""
    details = {**section.details, "same_as": section.details.get("same_as", twin)}
    return replace(section, details=details, seconds=0.0)


def share_weights(run: RunFolder, key: str, twin: str) -> bool:
    """Make the point's weights a hard link to its twin's; no where those were removed."""
    ours, theirs = (run.model_folder(k) / store.WEIGHTS for k in (key, twin))
    if not theirs.is_file():
        return False
    if ours.is_file() and not ours.samefile(theirs):
        with suppress(OSError), replaced(ours) as link:  # not every file system has links
            os.link(theirs, link)
    return True


@contextmanager
def alone(run: RunFolder, piece: str | None = None) -> Iterator[None]:
    """Hold the run's folder, or a piece of it: pieces are made side by side, each by one process.

    The locks go with the process, however it ends; what a killed one left half-made is removed.

    Raises:
        InputError: another process holds it, or it cannot be written.
    """
    with ExitStack() as held:
        try:
            run.path.mkdir(parents=True, exist_ok=True)
            held.enter_context(_locked(run.path / ".lock", shared=piece is not None))
            if piece:
                held.enter_context(_locked(run.path / f".lock-{piece}"))
            else:
                run.tidy()
        except BlockingIOError:
            raise InputError(
                f"another sweep is writing into {run.path}; wait for it or choose another --out"
            ) from None
        except OSError as error:
            raise InputError(
                f"cannot write into {run.path} ({error.strerror}); choose another folder with --out"
            ) from error
        yield


@contextmanager
def _locked(path: Path, shared: bool = False) -> Iterator[None]:
    lock = os.open(path, os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        yield
    finally:
        os.close(lock)
