"""What fine-tuning gained, read from records: rows, a CSV file, a table for the terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from core import plugins
from core.point import REFERENCES
from results.store import RunFolder
from results.table import order

SECTION = "finetune."
COLUMNS = ("frozen", "tuned", "gain")


def rows(run: RunFolder) -> list[dict[str, Any]]:
    """One per point and task, in order; scores are empty where there are none, for the reason."""
    made = []
    for record in sorted(run.records(), key=lambda record: order(record.point)):
        point = record.point
        for name, section in record.sections.items():
            values: Sequence[float | None] = [*section.values.values()] or [None] * len(COLUMNS)
            made.append(
                {"model": point.model, "method": point.method, "rate": point.rate,
                 "seed": point.seed, "task": name.removeprefix(SECTION),
                 "metric": plugins.card("task", name.removeprefix(SECTION)).metrics[0].name,
                 **dict(zip(COLUMNS, values, strict=True)), "status": section.status,
                 "reason": section.reason, "seconds": section.seconds, "key": point.key}
            )  # fmt: skip
    return made


def as_csv(made: Sequence[Mapping[str, Any]]) -> bytes:
    """The rows as the file `finetune.csv`."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(made[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(made)
    return text.getvalue().encode()


def render(made: Sequence[Mapping[str, Any]]) -> Table:
    """A line per task, method and rate, seeds averaged; a status where there is nothing to show."""
    table = Table("task", "method", "rate", *COLUMNS, box=None, pad_edge=False)
    for column in table.columns[2:]:
        column.justify = "right"
    groups: dict[tuple[str, str, float], list[Mapping[str, Any]]] = {}
    for row in sorted(made, key=lambda row: row["metric"]):
        groups.setdefault((row["metric"], row["method"], row["rate"]), []).append(row)
    for (metric, method, rate), found in groups.items():
        shown = "" if method in REFERENCES else f"{rate:g}"
        table.add_row(metric, Text(method), shown, *_cells(found))
    return table


def _cells(found: Sequence[Mapping[str, Any]]) -> list[str]:
    done = [row for row in found if row["status"] == "done"]
    if not done:
        return [found[0]["status"]]
    frozen, tuned, gain = (sum(row[c] for row in done) / len(done) for c in COLUMNS)
    return [f"{frozen:.1f}", f"{tuned:.1f}", f"{gain:+.1f}"]
