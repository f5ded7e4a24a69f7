"""How far a run is: what is done, in work, failed and why, and how long the rest may take.

Reads what lies in the run's folder, so it answers from any machine that sees the folder. No torch.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from bench.executors import slurm
from bench.heartbeat import Sign, signs, since
from bench.plan import exclusive
from bench.progress import TimeLeft, in_words
from bench.wanted import Pair
from core.errors import InputError
from core.point import RANDOM, REFERENCES, Point
from results.store import RunFolder

#: Seconds between two looks of `--watch`.
PAUSE = 5.0

#: So many sections of each name tell how long the others will take; their keys are in no order.
TIMED = 100

#: How many points are named that failed for one reason.
NAMED = 3

STATES = ("done", "running", "missing", "failed", "unsupported")


@dataclass
class Status:
    """What is known of a run. failed: by reason. missing: the names of sections to be made.

    seconds: how long sections took, by name; a section that was taken over from a twin took none.
    jobs: the states of those that were submitted to SLURM, by id.
    """

    run: RunFolder
    points: dict[str, Point] = field(default_factory=dict)
    states: Counter[str] = field(default_factory=Counter)
    failed: dict[str, list[Pair]] = field(default_factory=lambda: defaultdict(list))
    missing: list[str] = field(default_factory=list)
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    signs: list[Sign] = field(default_factory=list)
    jobs: dict[str, str] = field(default_factory=dict)

    @property
    def alive(self) -> list[Sign]:
        """Who is at work."""
        return [sign for sign in self.signs if sign.alive]

    @property
    def over(self) -> bool:
        """Whether nobody works at it, nor will by himself."""
        return not self.alive and not any(map(slurm.waits, self.jobs.values()))

    def time_left(self) -> float | None:
        """Seconds with the workers that there are, one at least; None before anything was made."""
        left = TimeLeft(sum(sign.workers for sign in self.alive) or 1, exclusive)
        for name, seconds in self.seconds.items():
            for each in seconds:
                left.learn(name, each)
        return left.seconds(self.missing)


def look(run: RunFolder) -> Status:
    """The run as it is now.

    Raises:
        InputError: run.json or a point is something else than what a sweep writes there.
    """
    info = run.run_info()
    found = Status(run, signs=list(signs(run)), jobs=_job_states(run))
    working = {(key, name) for sign in found.alive for key, name, _ in sign.work}
    keys = run.keys()
    for key in keys:
        folder = str(run.path / "points" / key)
        if (point := _point(folder)) is None:
            continue
        found.points[key] = point
        glances = {}
        for entry in os.scandir(folder):
            name = entry.name.removesuffix(".json")
            if name not in ("point", entry.name) and not name.startswith("."):
                glances[name] = Glance.at(entry.path, len(found.seconds[name]) < TIMED)
        _count(found, key, glances, _expected(info, point), working)
    return found


def _job_states(run: RunFolder) -> dict[str, str]:
    """Of submitted jobs; unknown where SLURM does not answer, so that the rest can be told."""
    try:
        return slurm.states(run.path)
    except InputError:
        return dict.fromkeys(slurm.jobs(run.path)["jobs"], slurm.UNKNOWN)


@dataclass
class Glance:
    """Of a section what status tells of it; "missing" where it is not there, or half-written."""

    status: str = "missing"
    seconds: float | None = None
    reason: str = ""

    @classmethod
    def at(cls, path: str, timed: bool) -> Glance:
        """A hundred thousand files are looked at: of one that is done the beginning is enough,
        where it need not be `timed`."""
        try:
            file = os.open(path, os.O_RDONLY)
            try:
                head = os.read(file, 128)
                if not timed and b'\n "status": "done",' in head:
                    return cls("done")
                data = json.loads(head + os.read(file, os.fstat(file).st_size))
            finally:
                os.close(file)
            return cls(data["status"], float(data["seconds"]), data["reason"])
        except (OSError, ValueError, TypeError, KeyError):
            return cls()


def _point(folder: str) -> Point | None:
    """The point in that folder, None where there is none, or half of one."""
    path = os.path.join(folder, "point.json")
    try:
        with open(path, "rb") as file:
            return Point(**json.load(file))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    except TypeError as error:
        raise InputError(f"{path} is no point of a sweep; remove it or restore it") from error


def _expected(info: dict[str, Any], point: Point) -> list[str]:
    """The sections that the last request wants of the point; none where it is not part of it."""
    reference = point.method in REFERENCES
    asked = reference or (point.method in info.get("methods", ()) and point.rate in info["rates"])
    if not asked or point.seed not in info.get("seeds", ()):
        return []
    profiles = [] if point.method == RANDOM else info.get("profilers", ())
    tasks = [f"task.{name}" for name in info.get("tasks", ())]
    return ["compress", *(f"profile.{name}" for name in profiles), *tasks]


def _count(
    found: Status, key: str, glances: dict[str, Glance], expected: Iterable[str], working: set[Pair]
) -> None:
    """Add the point's sections to what was found: what there is and what is still to come."""
    made = glances.get("compress", Glance())
    for name in dict.fromkeys((*glances, *expected)):
        glance = glances.get(name, Glance())
        if made.status in ("failed", "unsupported"):
            state = made.status  # a model that is not there cannot be measured
        else:
            state = "running" if (key, name) in working else glance.status
        found.states[state] += 1
        if state in ("missing", "running"):
            found.missing.append(name)
        if glance.status == "failed":
            found.failed[glance.reason].append((key, name))
        if glance.status == "done" and glance.seconds is not None:
            found.seconds[name].append(glance.seconds)


def as_text(found: Status) -> str:
    """The status as lines."""
    counts = ", ".join(f"{found.states[state]} {state}" for state in STATES if found.states[state])
    lines = [f"{len(found.points)} points in {found.run.path}, sections: {counts or 'none'}"]
    lines += _jobs(found)
    for sign in found.signs:
        lines += _sign(found, sign)
    lines += [line for reason in found.failed for line in _failure(found, reason)]
    return "\n".join([*lines, *_outlook(found)])


def _jobs(found: Status) -> list[str]:
    """How many jobs are in each state, and where to look if one failed."""
    if not found.jobs:
        return []
    counts = Counter(found.jobs.values())
    told = ", ".join(f"{count} {state.lower()}" for state, count in counts.most_common())
    pieces = slurm.jobs(found.run.path)["jobs"]
    bad = [job for job, state in found.jobs.items() if not slurm.waits(state)]
    logs = [
        f"  {found.jobs[job].lower()}: {pieces[job]}, see {found.run.path}/slurm/{job}_0_log.err"
        for job in bad if found.jobs[job] not in ("COMPLETED", slurm.UNKNOWN)
    ]  # fmt: skip
    return [f"jobs: {told}", *logs]


def _sign(found: Status, sign: Sign) -> list[str]:
    """Who works where at what, or did."""
    where = f"{sign.name} on {sign.host} (process {sign.pid})"
    if not sign.alive:
        return [f"not heard from for {in_words(since(sign.updated))}: {where}"]
    lines = [f"at work for {in_words(since(sign.began))}: {where}, {sign.left} sections to go"]
    for key, name, begun in sign.work:
        point = found.points.get(key, key)
        lines.append(f"  {point}: {name}, for {in_words(since(begun))}")
    return lines


def _failure(found: Status, reason: str) -> list[str]:
    """A reason, and the first points that failed for it."""
    pairs = found.failed[reason]
    named = [f"  {found.points[key]}: {name}" for key, name in pairs[:NAMED]]
    more = [f"  and {len(pairs) - NAMED} more"] if len(pairs) > NAMED else []
    return [f"failed ({len(pairs)}): {reason}", *named, *more]


def _outlook(found: Status) -> list[str]:
    """How long the rest takes, or what is to be done about it."""
    if not found.missing:
        return ["nothing is left to be made"]
    seconds = found.time_left()
    left = "" if seconds is None else f", about {in_words(seconds)} of work left"
    if not found.over:
        return [f"{len(found.missing)} sections to go{left}"]
    return [f"nobody is at work; the same `bench sweep` goes on{left} for one worker"]


def watch(run: RunFolder) -> None:
    """Show the status again and again until nobody is at work any more."""
    console = Console()
    while True:
        found = look(run)
        if console.is_terminal:
            console.clear()
        console.print(as_text(found), markup=False, highlight=False, soft_wrap=True)
        if found.over:
            return
        time.sleep(PAUSE)
