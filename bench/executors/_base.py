"""What a job is, what an executor tells of it, and what a sweep asks of an executor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

Say = Callable[[Any], None]


class Job(Protocol):
    """Work that can be sent to a process. exclusive: nothing else may run beside it.

    processes: how many do it together, on one machine, each as if it were alone but for what it
    reads in the variables that `encoders.together` sets. What the first says is heard.
    """

    exclusive: ClassVar[bool]

    @property
    def processes(self) -> int: ...

    def run(self, say: Say) -> None:
        """Do the work; `say` sends a message to the parent."""


@dataclass(frozen=True)
class Said:
    """A message of a job that is at work."""

    job: Job
    message: Any


@dataclass(frozen=True)
class Ended:
    """A job's process is gone; `reason` is empty where it came to its end.

    lost: it went with its machine, which is no fault of the job's. overtime: the alarm ended it
    that it had set for itself.
    """

    job: Job
    reason: str = ""
    lost: bool = False
    overtime: bool = False


class Executor(Protocol):
    """Runs jobs side by side; a context manager that leaves none at work."""

    @property
    def workers(self) -> int:
        """How many jobs of one process there is room for."""

    def __enter__(self) -> Executor: ...

    def __exit__(self, *_: object) -> None: ...

    def submit(self, job: Job) -> None:
        """Put a job into the line; it starts while `events` is being read."""

    def events(self) -> Iterator[Said | Ended]:
        """What happens, as it happens, until no job is left. Jobs may be submitted meanwhile.

        Raises:
            InputError: a job could not write what it found, so that going on makes no sense.
        """

    def stop(self) -> None:
        """End all that is at work and forget the line."""
