"""What a training said of itself: `log.csv`, one number a line, for whoever draws it."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from pathlib import Path

#: Told the training's name, the updates done, how many there will be, and means since last time.
Report = Callable[[str, int, int, dict[str, float]], None]


def silent(name: str, step: int, total: int, values: dict[str, float]) -> None:
    """A report that nobody hears."""


_COLUMNS = ("training", "step", "metric", "value")


class TrainingLog:
    """Lines of (training, step, metric, value) in a file that all trainings of a track share."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, training: str, step: int, values: dict[str, float]) -> None:
        """Append the values of that update."""
        fresh = not self.path.exists()
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if fresh:
                writer.writerow(_COLUMNS)
            writer.writerows((training, step, key, f"{value:.6g}") for key, value in values.items())

    def forget(self, training: str, after: int) -> None:
        """Drop what a run said past its last checkpoint, before it says so again."""
        if not self.path.exists():
            return
        with self.path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.reader(file) if len(row) == len(_COLUMNS)]
        kept = [r for r in rows[1:] if r[0] != training or int(r[1]) <= after]
        fresh = self.path.with_suffix(".new")
        with fresh.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([_COLUMNS, *kept])
        os.replace(fresh, self.path)
