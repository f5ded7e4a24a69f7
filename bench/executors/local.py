"""Runs jobs in processes of this machine: a job that dies takes nothing with it.

Processes are forked from a server that has imported torch and our packages once, so a fresh one
costs tens of milliseconds and begins with clean state. That is dear for jobs of a few milliseconds
alone: a process takes jobs in turn as long as it is YOUNG, so whatever trains, encodes a corpus or
is timed has one of its own, and what a process could gather is bounded. The parent sleeps until a
child speaks or ends; it never polls.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import ModuleType

from bench import environment
from bench.executors._base import Ended, Job, Said
from bench.executors._crew import Crew
from bench.executors._worker import work
from core.errors import InputError
from core.runtime import Runtime
from encoders.together import Seat, meeting_place


class Local:
    """Runs submitted jobs, at most `workers` processes at a time; leaves no child behind it.

    threads: of the CPU, of each worker. devices: of CUDA, as CUDA_VISIBLE_DEVICES names them; a
    worker sees the one that the fewest others use, or all of the machine's where none are given.
    Several that do a job together see as many, or none.
    """

    def __init__(self, workers: int, threads: int = 1, devices: Sequence[str] = ()) -> None:
        self.workers, self.threads, self.devices = workers, threads, tuple(devices)
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["bench.executors._server"])
        self._queue: deque[Job] = deque()
        self._running: dict[Connection, Crew] = {}
        self._idle: list[Crew] = []
        self._children: set[BaseProcess] = set()

    @classmethod
    def of(cls, runtime: Runtime, workers: int | None = None, processes: int = 1) -> Local:
        """A worker per GPU, or as many as the cores are enough for where none are asked for.

        Raises:
            InputError: there is no room for a job of so many processes.
        """
        devices = _devices() if runtime.device == "cuda" else ()
        room = 1 if runtime.cuda else environment.cores() // runtime.threads
        local = cls(workers or len(devices) or max(1, room), runtime.threads, devices)
        if processes > 1:
            _check_room(local, runtime, processes)
        return local

    def __enter__(self) -> Local:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def submit(self, job: Job) -> None:
        """Put a job into the line; it starts while `events` is being read."""
        self._queue.append(job)

    def events(self) -> Iterator[Said | Ended]:
        """What happens, as it happens, until no job is left. Jobs may be submitted meanwhile.

        Raises:
            InputError: a job could not write what it found, so that going on makes no sense.
        """
        self._start_what_fits()
        while self._running:
            for connection in wait(list(self._running)):
                assert isinstance(connection, Connection)
                if connection in self._running and (event := self._receive(connection)):
                    yield event
            self._start_what_fits()

    def stop(self) -> None:
        """End all children and forget the line.

        Ctrl-C may have come while a child was in no crew that we know; Python would wait for it.
        """
        self._queue.clear()
        children = [process for process in self._children if process.is_alive()]
        for process in children:
            process.terminate()
        for process in children:
            process.join(timeout=3)
            process.kill()
        for crew in (*self._at_work(), *self._idle):
            crew.end()
        self._running.clear()
        self._idle.clear()

    def _at_work(self) -> list[Crew]:
        return list(dict.fromkeys(self._running.values()))

    def _start_what_fits(self) -> None:
        while job := self._next():
            self._queue.remove(job)
            if job.exclusive:
                self._dismiss()
            if not self._hand_over(job):
                self._start(job)
        self._dismiss()

    def _next(self) -> Job | None:
        """What may start now of what is in the line; what is too large for now is waited for."""
        busy = self._at_work()
        left = self.workers - sum(map(len, busy))
        if not self._queue or left <= 0 or any(crew.job.exclusive for crew in busy):
            return None
        job = next((job for job in self._queue if not job.exclusive), None)
        if job is None:
            return None if busy else self._queue[0]
        return job if job.processes <= left or not busy else None

    def _hand_over(self, job: Job) -> bool:
        """Give the job to a process that has none, if there is one."""
        while self._idle and job.processes == 1:
            crew = self._idle.pop()
            with suppress(OSError):  # it was killed meanwhile
                crew.first.send(job)
                crew.job = job
                self._running[crew.first] = crew
                return True
            crew.end(force=False)
        return False

    def _dismiss(self) -> None:
        """End the processes that have nothing to do."""
        for crew in self._idle:
            with suppress(OSError):
                crew.first.send(None)
        while self._idle:
            self._idle.pop().end(force=False)

    def _start(self, job: Job) -> None:
        used = Counter(device for crew in self._at_work() for device in crew.devices)
        devices = tuple(sorted(self.devices, key=used.__getitem__)[: job.processes])
        place = meeting_place() if job.processes > 1 else None
        crew = Crew(job, devices, place)
        self._children = {process for process in self._children if process.is_alive()}
        for index in range(job.processes):
            ours, theirs = self._context.Pipe()
            seat = Seat(index, job.processes, place.port) if place is not None else None
            seen = devices if devices or seat else None
            process = self._context.Process(
                target=work, args=(job, theirs, self.threads, seen, seat)
            )
            self._children.add(process)
            with _nameless():
                process.start()
            theirs.close()
            crew.members[ours] = process
            self._running[ours] = crew

    def _receive(self, connection: Connection) -> Said | Ended | None:
        """What is to be told of what a process says, which is nothing where another leads it."""
        crew = self._running[connection]
        try:
            kind, message = connection.recv()
        except (EOFError, OSError):
            kind, message = "died", None
        if kind == "said":
            return Said(crew.job, message)
        if kind == "ended" and connection is not crew.first:
            del self._running[connection]
            return None
        for own in crew.members:
            self._running.pop(own, None)
        if kind == "free":
            self._idle.append(crew)
            return Ended(crew.job)
        end = Ended(crew.job) if kind in ("ended", "refused") else crew.fate(connection, message)
        crew.end(force=kind != "ended")
        if kind == "refused":
            raise InputError(message)
        return end


@contextmanager
def _nameless() -> Iterator[None]:
    """Hide what this process was started as: each child would import that again, for nothing."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _check_room(local: Local, runtime: Runtime, processes: int) -> None:
    """Refuse more processes to a job than there is room for.

    Raises:
        InputError: there is no room.
    """
    if processes <= min(local.workers, len(local.devices) if runtime.cuda else processes):
        return
    takes = f"--processes-per-track {processes} takes as many"
    if not runtime.cuda:
        raise InputError(
            f"{takes} workers, and there are {local.workers}; give --workers {processes}"
        )
    raise InputError(
        f"{takes} GPUs and workers, and with --device {runtime.device} there are "
        f"{max(1, len(local.devices))} and {local.workers}"
    )


def _devices() -> tuple[str, ...]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return tuple(name.strip() for name in named.split(",") if name.strip())
    import torch

    return tuple(map(str, range(torch.cuda.device_count())))
