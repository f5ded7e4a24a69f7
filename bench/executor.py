"""Runs jobs in processes of their own: a job that dies takes nothing with it.

Processes are forked from a server that has imported torch and our packages once, so a fresh one
costs tens of milliseconds and begins with clean state. The parent sleeps until a child speaks or
ends; it never polls.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, ClassVar, Protocol

from core.errors import InputError

#: Imported once, in the server that workers are forked from: our shared parts, and what plug-ins
#: and torch import late at the cost of a second (torch._dynamo: the first use of the meta device).
PRELOAD = (
    "torch", "torch._dynamo", "safetensors.torch", "fvcore.nn", "sklearn.metrics",
    "bench.jobs", "compressors._chain", "encoders.workload", "profilers._base", "tasks._suite",
)  # fmt: skip

Say = Callable[[Any], None]


class Job(Protocol):
    """Work that can be sent to a process. exclusive: nothing else may run beside it."""

    exclusive: ClassVar[bool]

    def run(self, say: Say) -> None:
        """Do the work; `say` sends a message to the parent."""


@dataclass(frozen=True)
class Said:
    """A message of a job that is at work."""

    job: Job
    message: Any


@dataclass(frozen=True)
class Ended:
    """A job's process is gone; `reason` is empty where it came to its end."""

    job: Job
    reason: str = ""


class Executor:
    """Runs submitted jobs, at most `workers` at a time; a context manager that leaves no child."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(PRELOAD))
        self._queue: deque[Job] = deque()
        self._running: dict[Connection, tuple[BaseProcess, Job]] = {}

    def __enter__(self) -> Executor:
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
                yield self._receive(connection)
            self._start_what_fits()

    def stop(self) -> None:
        """End all children and forget the line."""
        self._queue.clear()
        for process, _ in self._running.values():
            process.terminate()
        for process, _ in self._running.values():
            process.join(timeout=3)
            if process.is_alive():
                process.kill()
                process.join()
        for connection in self._running:
            connection.close()
        self._running.clear()

    def _start_what_fits(self) -> None:
        while self._queue and len(self._running) < self.workers:
            busy = [job for _, job in self._running.values()]
            if any(job.exclusive for job in busy):
                return
            job = next((job for job in self._queue if not job.exclusive), None)
            if job is None and not busy:
                job = self._queue[0]
            if job is None:
                return
            self._queue.remove(job)
            self._start(job)

    def _start(self, job: Job) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(job, theirs), daemon=True)
        process.start()
        theirs.close()
        self._running[ours] = (process, job)

    def _receive(self, connection: Connection) -> Said | Ended:
        process, job = self._running[connection]
        try:
            kind, message = connection.recv()
        except (EOFError, OSError):
            kind, message = "died", ""
        if kind == "said":
            return Said(job, message)
        process.join()
        connection.close()
        del self._running[connection]
        if kind == "refused":
            raise InputError(message)
        return Ended(job, "" if kind == "ended" else _death(process.exitcode))


def _death(exitcode: int | None) -> str:
    """Why a process is gone that did not say goodbye."""
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        hint = ", out of memory?" if name == "SIGKILL" else ""
        return f"the process died of {name}{hint}"
    return f"the process ended early with code {exitcode}"


def _work(job: Job, parent: Connection) -> None:
    """The life of a child."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends us
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    import torch

    _keep_memory()
    torch.set_num_threads(1)
    try:
        job.run(lambda message: parent.send(("said", message)))
    except InputError as error:
        parent.send(("refused", str(error)))
    else:
        parent.send(("ended", None))


def _keep_memory() -> None:
    """Let malloc keep what was freed, where it is glibc's: fresh pages are dear.

    Tensors of megabytes would go back to the system and come from it again at every operation,
    which took a fifth of the time of encoding a corpus, and most where two processes do it.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in _MALLOC.items():
            mallopt(option, value)


#: M_MMAP_THRESHOLD, M_TRIM_THRESHOLD and M_TOP_PAD of glibc's malloc.h, in bytes.
_MALLOC = {-3: 1 << 30, -1: (1 << 31) - 1, -2: 64 << 20}


def _end_with(parent: Connection) -> None:
    """Leave at once when the parent is gone, even by kill -9: nobody would take our results."""
    with suppress(EOFError, OSError):
        parent.recv()
    os._exit(1)
