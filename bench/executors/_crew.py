"""The processes of a job: how they end, and which of several that end together was the cause."""

from __future__ import annotations

import signal
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING

from bench.executors._base import Ended, Job

if TYPE_CHECKING:
    from torch.distributed import TCPStore

#: A process that dies takes those along that work with it, and one of them may speak of it first:
#: for so many seconds at most we look which it was.
MOURNING = 1.0


class Crew:
    """The processes that do a job, most often one; the first leads. devices: that they see.

    place: where several meet, which lasts as long as this.
    """

    def __init__(
        self, job: Job, devices: tuple[str, ...] = (), place: TCPStore | None = None
    ) -> None:
        self.job, self.devices, self.place = job, devices, place
        self.members: dict[Connection, BaseProcess] = {}

    def __len__(self) -> int:
        return len(self.members)

    @property
    def first(self) -> Connection:
        return next(iter(self.members))

    def end(self, force: bool = True) -> None:
        """See that all are gone. force: or else the first goes by itself, and the others soon."""
        first, *others = self.members.values()
        for process in others:
            if not force:
                process.join(MOURNING)
            process.kill()
        if force:
            first.kill()
        for connection, process in self.members.items():
            process.join()
            connection.close()

    def fate(self, speaker: Connection, sentence: str | None) -> Ended:
        """How the job ends of which a process said that sentence, or nothing any more."""
        guilty = self.members[speaker]
        if sentence is None:
            guilty.join()
        else:
            guilty = self._fallen() or guilty
        reason = _death(guilty.exitcode) if guilty.exitcode or sentence is None else sentence
        if len(self) > 1:
            number = list(self.members.values()).index(guilty) + 1
            reason += f" (process {number} of {len(self)} that train together)"
        return Ended(self.job, reason, overtime=guilty.exitcode == -signal.SIGALRM)

    def _fallen(self) -> BaseProcess | None:
        """The one that died at its work, if that comes to light soon."""
        left = [process for process in self.members.values() if process.exitcode != 0]
        wait([process.sentinel for process in left], MOURNING)
        return next((process for process in left if process.exitcode), None)


def _death(exitcode: int | None) -> str:
    """Why a process is gone that did not say goodbye."""
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        hint = ", out of memory?" if name == "SIGKILL" else ""
        return f"the process died of {name}{hint}"
    return f"the process ended early with code {exitcode}"
