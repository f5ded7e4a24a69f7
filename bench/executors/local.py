"""Runs jobs in processes of this machine: a job that dies takes nothing with it.

Processes are forked from a server that has imported torch and our packages once, so a fresh one
costs tens of milliseconds and begins with clean state. That is dear for jobs of a few milliseconds
alone: a process takes jobs in turn as long as it is YOUNG, so whatever trains, encodes a corpus or
is timed has one of its own, and what a process could gather is bounded. The parent sleeps until a
child speaks or ends; it never polls.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from types import ModuleType

from bench import environment
from bench.executors._base import Ended, Job, Said
from core.errors import InputError
from core.runtime import Runtime

#: A process that has worked for fewer seconds of its processor may take another job.
YOUNG = 1.0

Child = tuple[BaseProcess, Job, str | None]  # and the device that it sees


class Local:
    """Runs submitted jobs, at most `workers` at a time; a context manager that leaves no child.

    threads: of the CPU, of each worker. devices: of CUDA, as CUDA_VISIBLE_DEVICES names them; a
    worker sees the one that the fewest others use, or all of the machine's where none are given.
    """

    def __init__(self, workers: int, threads: int = 1, devices: Sequence[str] = ()) -> None:
        self.workers, self.threads, self.devices = workers, threads, tuple(devices)
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["bench.executors._server"])
        self._queue: deque[Job] = deque()
        self._running: dict[Connection, Child] = {}
        self._idle: dict[Connection, Child] = {}

    @classmethod
    def of(cls, runtime: Runtime, workers: int | None = None) -> Local:
        """A worker per GPU, or as many as the cores are enough for where none are asked for."""
        devices = _devices() if runtime.device == "cuda" else ()
        room = 1 if runtime.cuda else environment.cores() // runtime.threads
        return cls(workers or len(devices) or max(1, room), runtime.threads, devices)

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
                yield self._receive(connection)
            self._start_what_fits()

    def stop(self) -> None:
        """End all children and forget the line."""
        self._queue.clear()
        for process, *_ in self._running.values():
            process.terminate()
        for process, *_ in self._running.values():
            process.join(timeout=3)
            if process.is_alive():
                process.kill()
                process.join()
        for connection in self._running:
            connection.close()
        self._running.clear()
        self._dismiss()

    def _start_what_fits(self) -> None:
        while job := self._next():
            self._queue.remove(job)
            if job.exclusive:
                self._dismiss()
            if not self._hand_over(job):
                self._start(job)
        self._dismiss()

    def _next(self) -> Job | None:
        """What may start now of what is in the line."""
        busy = [job for _, job, _ in self._running.values()]
        if not self._queue or len(busy) >= self.workers or any(job.exclusive for job in busy):
            return None
        job = next((job for job in self._queue if not job.exclusive), None)
        return self._queue[0] if job is None and not busy else job

    def _hand_over(self, job: Job) -> bool:
        """Give the job to a process that has none, if there is one."""
        while self._idle:
            connection, (process, _, device) = self._idle.popitem()
            with suppress(OSError):  # it was killed meanwhile
                connection.send(job)
                self._running[connection] = (process, job, device)
                return True
            self._bury(connection, process)
        return False

    def _dismiss(self) -> None:
        """End the processes that have nothing to do."""
        for connection in self._idle:
            with suppress(OSError):
                connection.send(None)
        while self._idle:
            connection, (process, *_) = self._idle.popitem()
            self._bury(connection, process)

    def _bury(self, connection: Connection, process: BaseProcess) -> None:
        """Wait for a process that ends."""
        process.join()
        connection.close()

    def _start(self, job: Job) -> None:
        ours, theirs = self._context.Pipe()
        used = Counter(device for *_, device in self._running.values())
        device = min(self.devices, key=used.__getitem__, default=None)
        process = self._context.Process(
            target=_work, args=(job, theirs, self.threads, device), daemon=True
        )
        with _nameless():
            process.start()
        theirs.close()
        self._running[ours] = (process, job, device)

    def _receive(self, connection: Connection) -> Said | Ended:
        process, job, _ = self._running[connection]
        try:
            kind, message = connection.recv()
        except (EOFError, OSError):
            kind, message = "died", ""
        if kind == "said":
            return Said(job, message)
        child = self._running.pop(connection)
        if kind == "free":
            self._idle[connection] = child
            return Ended(job)
        self._bury(connection, process)
        if kind == "refused":
            raise InputError(message)
        if kind == "ended":
            return Ended(job)
        overtime = process.exitcode == -signal.SIGALRM
        return Ended(job, _death(process.exitcode), overtime=overtime)


@contextmanager
def _nameless() -> Iterator[None]:
    """Hide what this process was started as: each child would import that again, for nothing."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _devices() -> tuple[str, ...]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return tuple(name.strip() for name in named.split(",") if name.strip())
    import torch

    return tuple(map(str, range(torch.cuda.device_count())))


def _death(exitcode: int | None) -> str:
    """Why a process is gone that did not say goodbye."""
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        hint = ", out of memory?" if name == "SIGKILL" else ""
        return f"the process died of {name}{hint}"
    return f"the process ended early with code {exitcode}"


def _work(job: Job | None, parent: Connection, threads: int, device: str | None) -> None:
    """The life of a child."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends us
    jobs: SimpleQueue[Job | None] = SimpleQueue()
    threading.Thread(target=_take_in, args=(parent, jobs), daemon=True).start()
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device  # nobody has looked for devices before
    import torch

    _keep_memory()
    drawn = torch.get_rng_state()
    while job:
        torch.set_num_threads(threads)
        torch.set_rng_state(drawn)  # nor do random numbers tell of the jobs before
        try:
            job.run(lambda message: parent.send(("said", message)))
        except InputError as error:
            parent.send(("refused", str(error)))
            return
        old = job.exclusive or time.process_time() > YOUNG
        parent.send(("ended" if old else "free", None))
        job = None if old else jobs.get()


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


def _take_in(parent: Connection, jobs: SimpleQueue[Job | None]) -> None:
    """Put the jobs that come into the line; None is the last.

    Leave at once when the parent is gone, even by kill -9: nobody would take our results.
    """
    with suppress(EOFError, OSError):
        while True:
            jobs.put(parent.recv())
    os._exit(1)
