"""The life of a worker: a process that does jobs in turn, or its part of one that several share."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from bench.executors._base import Job
from core.errors import InputError
from encoders.together import Seat

#: A process that has worked for fewer seconds of its processor may take another job.
YOUNG = 1.0


def work(
    job: Job | None,
    parent: Connection,
    threads: int,
    devices: tuple[str, ...] | None,
    seat: Seat | None = None,
) -> None:
    """Do the job and those that come after it, and tell the parent: a kind, and a message.

    ("said", message) of the job. At its end ("ended", None); ("free", None) where another may
    follow; ("refused", sentence) where nobody should go on; ("failed", sentence) of one of several
    processes, which have to end together.

    devices: what CUDA_VISIBLE_DEVICES is to be, None for what it is. seat: among several.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends us
    jobs: SimpleQueue[Job | None] = SimpleQueue()
    threading.Thread(target=_take_in, args=(parent, jobs), daemon=True).start()
    if devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(devices)  # nobody has looked for any before
    import torch

    _keep_memory()
    drawn = torch.get_rng_state()
    while job:
        torch.set_num_threads(threads)
        torch.set_rng_state(drawn)  # nor do random numbers tell of the jobs before
        try:
            if seat:
                _work_together(job, parent, threads, cuda=bool(devices), seat=seat)
            else:
                job.run(lambda message: parent.send(("said", message)))
        except InputError as error:
            parent.send(("refused", str(error)))
            return
        old = job.exclusive or seat is not None or time.process_time() > YOUNG
        parent.send(("ended" if old else "free", None))
        job = None if old else jobs.get()


def _work_together(job: Job, parent: Connection, threads: int, cuda: bool, seat: Seat) -> None:
    """Do a part of the job.

    A process that cannot go on says so and stays until it is ended: the others wait for it, and if
    it went they would look as if they had failed.
    """

    def say(message: Any) -> None:
        if not seat.index:
            parent.send(("said", message))

    try:
        seat.take(cuda, threads)
        job.run(say)
        seat.leave()
    except InputError:
        raise
    except Exception as error:
        parent.send(("failed", str(error) or type(error).__name__))
        threading.Event().wait()


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
