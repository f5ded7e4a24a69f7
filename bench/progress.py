"""How far a sweep is: a bar with time left and the current point, or lines in a log."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

from bench.jobs import Trained

#: Of what a training reports, what fits beside a progress bar.
_SHOWN = ("loss", "sparsity", "accuracy")


class TimeLeft:
    """Estimates the seconds left from how long sections of each name took so far."""

    def __init__(self, workers: int, alone: Callable[[str], bool]) -> None:
        self._workers = workers
        self._alone = alone
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._seen: Counter[str] = Counter()

    def learn(self, name: str, seconds: float) -> None:
        self._seconds[name] += seconds
        self._seen[name] += 1

    def seconds(self, names: Iterable[str] | Mapping[str, int]) -> float | None:
        """Wall-clock for sections of these names, or for so many of each; None if none was seen.

        A name that was not seen yet takes as long as the others do on average.
        """
        means = {name: self._seconds[name] / count for name, count in self._seen.items()}
        if not means:
            return None
        usual = sum(means.values()) / len(means)
        return sum(
            count * means.get(name, usual) / (1 if self._alone(name) else self._workers)
            for name, count in Counter(names).items()
        )


class Pace:
    """Says how far trainings are, and how long the rest takes at the pace seen so far."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, float]] = {}

    def words(self, name: str, training: Trained) -> str:
        first, began = self._seen.setdefault(name, (training.step, time.monotonic()))
        done = training.step - first
        pace = (time.monotonic() - began) / done if done else None
        seconds = None if pace is None else pace * (training.total - training.step)
        values = [f"{key} {value:.3g}" for key, value in training.values.items() if key in _SHOWN]
        far = f"{training.step}/{training.total}"
        return ", ".join(filter(None, [f"{name}: {far}", *values, _left(seconds)]))


class Progress:
    """Shows progress on stderr: drawn once a second on a terminal, else a line every 5 %."""

    def __init__(self, total: int, left: TimeLeft, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._left = left
        self._total, self._done, self._told = total, 0, 0
        self._bar = Bar(
            BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[left]}"),
            TextColumn("{task.description}", markup=False),
            console=self._console, refresh_per_second=1, transient=True,
            disable=not self._console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task("starting", total=total, left="")
        self._pace = Pace()

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def working(self, what: str) -> None:
        """Name the point in work."""
        self._bar.update(self._task, description=what)

    def training(self, who: str, training: Trained) -> None:
        """How far a training is that a point in work waits for."""
        words = self._pace.words(f"{who}, {training.training}", training)
        self._bar.update(self._task, description=words)

    def finished(self, what: str, names: Iterable[str] | Mapping[str, int]) -> None:
        """One section is there; `names`: those of the sections that are still to be made."""
        self._done += 1
        left = _left(self._left.seconds(names))
        self._bar.update(self._task, advance=1, left=left)
        if self._bar.disable and 20 * self._done // self._total > self._told:
            self._told = 20 * self._done // self._total
            self.say(f"{self._done}/{self._total}, {left}: {what}")

    def say(self, line: str) -> None:
        """A line above the bar."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class Training:
    """Shows a training's rounds on stderr, as `Progress` does a sweep's sections."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._bar = Bar(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TimeRemainingColumn(), TextColumn("{task.fields[values]}"),
            console=self._console, refresh_per_second=1, disable=not self._console.is_terminal,
        )  # fmt: skip
        self._tasks: dict[str, TaskID] = {}
        self._told = 0

    def __enter__(self) -> Training:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def report(self, name: str, step: int, total: int, values: dict[str, float]) -> None:
        """Where the round stands, and the means of its values since the last report."""
        if name not in self._tasks:
            self._tasks[name] = self._bar.add_task(name, total=total, values="")
            self._told = 0
        words = ", ".join(f"{key} {value:.3f}" for key, value in values.items())
        self._bar.update(self._tasks[name], completed=step, values=words)
        if self._bar.disable and 20 * step // total > self._told:
            self._told = 20 * step // total
            self._console.print(f"{name}: {step}/{total}, {words}", markup=False, highlight=False)


def in_words(seconds: float) -> str:
    """A duration, as exactly as one wants to know it."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def _left(seconds: float | None) -> str:
    return "" if seconds is None else f"{in_words(seconds)} left"
