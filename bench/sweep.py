"""Runs what a plan lacks: make models, measure them, then time them while all else is quiet."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any
from uuid import uuid4

from bench.executor import Ended, Executor, Said
from bench.jobs import Compress, Evaluate, Finished, Job, Started, Time, Told, Trained
from bench.plan import Plan
from bench.progress import Progress, TimeLeft
from core.errors import InputError
from core.record import Section
from encoders import store
from results.store import RunFolder

Pair = tuple[str, str]  # (point key, section name)


class Sweep:
    """One pass over everything that a plan lacks.

    Sections with the same fingerprint are equal by definition, so each is made once: a section
    waits for its twin that is in work, and takes over what came of it.
    """

    def __init__(
        self, plan: Plan, workers: int, environment: Mapping[str, Any], retry_failed: bool = False
    ) -> None:
        self.plan = plan
        self.workers = workers
        self.environment = environment
        self._wanted = dict.fromkeys(plan.todo(retry_failed))
        self._in_work: dict[str, str] = {}
        self._waiting: dict[str, list[Pair]] = {}
        self._told: set[str] = set()
        self._made = {
            section.fingerprint: (key, section)
            for key, record in plan.records.items()
            for section in record.sections.values()
            if section.status == "done" and section.name != "compress"
        }

    @property
    def left(self) -> int:
        """How many sections have to be made."""
        return len(self._wanted)

    def run(self) -> None:
        """Make all of it; what is finished stays, whenever this is interrupted.

        Raises:
            InputError: the run's folder cannot be written, or another sweep is writing there.
        """
        self._time_left = TimeLeft(self.workers, self.plan.exclusive)
        with (
            alone(self.plan.run),
            Executor(self.workers) as self._executor,
            Progress(self.left, self._time_left) as self._progress,
        ):
            for key in {key for key, _ in self._wanted}:
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
                source, which = self.plan.request.source, self.plan.track(points[0])
                self._executor.submit(Compress(**common, source=source, track=which))
            for point in track:
                if point not in points:
                    self._measure(point.key)

    def _measure(self, key: str) -> None:
        """Start all measurements of a model that share the machine with others."""
        names = [n for k, n in self._wanted if k == key and not self.plan.exclusive(n)]
        todo = self._claim([(key, name) for name in names])
        if todo:
            request = self.plan.request
            common = self._common((self.plan.records[key].point,), todo)
            job = Evaluate(
                **common, source=request.source, task_source=request.task_source,
                runtime=request.runtime, cache=request.cache,
            )  # fmt: skip
            self._executor.submit(job)

    def _submit_timing(self) -> None:
        todo = self._claim(list(self._wanted))
        if todo:
            keys = {key for key, _ in todo}
            points = tuple(self.plan.records[key].point for key in self.plan.records if key in keys)
            dense = self.plan.run.model_folder(self.plan.dense(points[0]))
            common, request = self._common(points, todo), self.plan.request
            self._executor.submit(
                Time(**common, source=request.source, runtime=request.runtime, dense=dense)
            )

    def _common(self, points: tuple, todo: dict[Pair, str]) -> dict[str, Any]:
        path = self.plan.run.path
        return {
            "run_path": path, "environment": self.environment, "points": points, "todo": todo
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
            elif fingerprint in self._made:
                self._copy(*pair, *self._made[fingerprint])
            elif fingerprint in self._waiting:
                self._waiting[fingerprint].append(pair)
            else:
                self._waiting[fingerprint] = []
                todo[pair] = fingerprint
        return todo

    def _follow(self) -> None:
        """Take in what the workers report until none is at work."""
        for event in self._executor.events():
            match event:
                case Said(_, Started(key, name)):
                    self._in_work[key] = name
                    self._progress.working(f"{self.plan.records[key].point}: {name}")
                case Said(_, Trained() as training):
                    point = self.plan.records[training.key].point
                    self._progress.training(f"{point.method} (seed {point.seed})", training)
                case Said(_, Told(line)) if line not in self._told:
                    self._told.add(line)
                    self._progress.say(line)
                case Said(_, Finished(key, section)):
                    self._finish(key, section)
                case Ended(job, reason):
                    assert isinstance(job, Job)
                    self._bury(job, reason)

    def _finish(self, key: str, section: Section) -> None:
        """A worker has written the section."""
        self._in_work.pop(key, None)
        self._time_left.learn(section.name, section.seconds)
        self._settle(key, section.name, section)
        if section.name == "compress":
            if section.status == "done":
                self._share_weights(key, section)
                self._measure(key)
            else:
                for pair in [pair for pair in self._wanted if pair[0] == key]:
                    self._settle(*pair, None)
        for pair in self._waiting.pop(section.fingerprint, []):
            self._copy(*pair, key, section)
        if section.status == "done" and section.name != "compress":
            self._made[section.fingerprint] = key, section

    def _settle(self, key: str, name: str, section: Section | None) -> None:
        """The section needs no more work; None where there is nothing that it could measure."""
        if (key, name) not in self._wanted:
            return
        del self._wanted[key, name]
        record = self.plan.records[key]
        if section is not None:
            record.sections[name] = section
            if section.status == "failed":
                self._progress.say(f"failed: {record.point}, {name}: {section.reason}")
        self._progress.finished(str(record.point), [n for _, n in self._wanted])

    def _copy(self, key: str, name: str, twin: str, section: Section) -> None:
        details = {**section.details, "same_as": section.details.get("same_as", twin)}
        copied = replace(section, name=name, details=details, seconds=0.0)
        self.plan.run.write_section(key, copied)
        self._settle(key, name, copied)

    def _bury(self, job: Job, reason: str) -> None:
        """The job's process is gone: what it was doing failed, the rest gets a new process."""
        left = job.without({pair for pair in job.todo if pair not in self._wanted})
        if left is None:
            return
        guilty = [pair for pair in left.todo if self._in_work.get(pair[0]) == pair[1]]
        key, name = (guilty or list(left.todo))[0]
        section = Section(
            name, "failed", left.todo[key, name], reason=reason or "the process left it out",
            environment=dict(self.environment),
        )  # fmt: skip
        self.plan.run.write_section(key, section)
        self._finish(key, section)
        rest = left.without({(key, name)})
        if rest is not None:
            self._executor.submit(rest)

    def _share_weights(self, key: str, section: Section) -> None:
        """Store equal weights once: the file becomes a hard link to the one that is there."""
        folders = (
            self.plan.run.model_folder(other)
            for other, record in self.plan.records.items()
            if other != key
            and (made := record.sections.get("compress")) is not None
            and made.details.get("weights") == section.details["weights"]
        )
        ours = self.plan.run.model_folder(key) / store.WEIGHTS
        for folder in folders:
            if (folder / store.WEIGHTS).is_file():
                link = ours.with_name(f".{uuid4().hex[:8]}.tmp")
                with suppress(OSError):  # not every file system has links
                    os.link(folder / store.WEIGHTS, link)
                    os.replace(link, ours)
                return


@contextmanager
def alone(run: RunFolder) -> Iterator[None]:
    """Hold the run's folder; the lock goes with the process, however it ends.

    Raises:
        InputError: another process holds it, or it cannot be written.
    """
    try:
        run.path.mkdir(parents=True, exist_ok=True)
        lock = os.open(run.path / ".lock", os.O_CREAT | os.O_WRONLY)
    except OSError as error:
        raise InputError(
            f"cannot write into {run.path} ({error.strerror}); choose another folder with --out"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise InputError(
            f"another sweep is writing into {run.path}; wait for it or choose another --out"
        ) from None
    finally:
        os.close(lock)
