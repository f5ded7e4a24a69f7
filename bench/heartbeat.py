"""The sign of life that a sweep gives in its run's folder, for whoever asks how far it is.

    RUN/status/NAME.json     NAME: `sweep`, or the piece of one that was submitted to a cluster

The file is written when something changes, at most once a second, and else once a minute; it goes
with the sweep. One that stays without being written tells that its process was killed.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from results.store import RunFolder

#: Seconds between two beats at least, and at most.
SHORTEST, LONGEST = 1.0, 60.0

#: Who was not heard from for so many seconds is presumed dead: the clocks of machines differ, and
#: folders on a network show what is new with a delay.
PRESUMED_DEAD = 300.0

WHOLE = "sweep"


@dataclass
class Sign:
    """What a sweep says of itself. Times are seconds since 1970 by the clock of its machine.

    work: [point key, section name, since when] of what is being made. left: sections to be made.
    """

    name: str
    host: str
    pid: int
    workers: int
    began: float
    updated: float
    left: int
    work: list[tuple[str, str, float]] = field(default_factory=list)

    @property
    def alive(self) -> bool:
        """Whether its process is there as far as one can tell from here."""
        if self.host == socket.gethostname() and not exists(self.pid):
            return False
        return abs(time.time() - self.updated) < PRESUMED_DEAD


def signs(run: RunFolder) -> Iterator[Sign]:
    """Who works at the run, or did and was killed. What is no such file is passed over."""
    for path in sorted((run.path / "status").glob("[!.]*.json")):
        with suppress(OSError, ValueError, TypeError):
            yield Sign(**json.loads(path.read_text(encoding="utf-8")))


def since(moment: float) -> float:
    """The seconds since then; none where a clock was set back meanwhile."""
    return max(0.0, time.time() - moment)


class Heartbeat:
    """Keeps the file while a sweep runs; a context manager.

    A run goes on without it where its file cannot be written.
    """

    def __init__(self, run: RunFolder, workers: int, left: int, name: str | None = None) -> None:
        now = time.time()
        self._path = run.path / "status" / f"{name or WHOLE}.json"
        self._sign = Sign(name or WHOLE, socket.gethostname(), os.getpid(), workers, now, now, left)
        self._work: dict[str, tuple[str, float]] = {}
        self._changed, self._over = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Heartbeat:
        self._write()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._changed.set()
        self._thread.join()
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def started(self, key: str, section: str) -> None:
        """That section of the point is in work from now on."""
        with self._lock:
            self._work[key] = section, time.time()
        self._changed.set()

    def finished(self, key: str) -> None:
        """Nobody works at that point any more."""
        with self._lock:
            self._work.pop(key, None)
        self._changed.set()

    def left(self, count: int) -> None:
        """So many sections have to be made still."""
        self._sign.left = count
        self._changed.set()

    def _beat(self) -> None:
        """Sleeps until something changes: what is timed meanwhile must not be disturbed."""
        while not self._over.is_set():
            self._changed.wait(LONGEST)
            self._changed.clear()
            self._write()
            self._over.wait(SHORTEST)

    def _write(self) -> None:
        """Whole, but without waiting for the disk: it is worth nothing after a crash."""
        with self._lock:
            work = [(key, section, begun) for key, (section, begun) in self._work.items()]
        content: dict[str, Any] = asdict(self._sign) | {"updated": time.time(), "work": work}
        temporary = self._path.with_name(f".{self._path.name}.tmp")
        with suppress(OSError):
            self._path.parent.mkdir(exist_ok=True)
            temporary.write_text(json.dumps(content), encoding="utf-8")
            os.replace(temporary, self._path)


def exists(pid: int) -> bool:
    """Whether there is such a process on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
