"""A run in the terminal: what each method keeps of the score at what cost, references first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, Group
from rich.segment import Segment
from rich.style import Style
from rich.table import Table
from rich.text import Text

from core.point import REFERENCES
from results.axes import ALIASES, spread
from results.superb import Score
from results.table import load

if TYPE_CHECKING:
    from pandas import DataFrame

#: Costs in the table: heading, short name of the metric, divisor, digits after the point.
_COSTS = (
    ("params (M)", "params", 1e6, 2),
    ("MACs (G/s)", "macs", 1e9, 3),
    ("latency (ms)", "latency", 1e-3, 1),
)


@dataclass
class Grid:
    """A name and numbers per row, of any number of rows: rich's `Table` takes 0.4 ms for each.

    Where the terminal is too narrow, names are cut and numbers are not.
    """

    headings: tuple[str, ...]
    rows: list[tuple[tuple[str, ...], bool]] = field(default_factory=list)

    def add(self, *cells: str, bold: bool) -> None:
        self.rows.append((cells, bold))

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> Iterator[Segment]:
        lines = [(self.headings, True), *self.rows]
        columns = zip(*(cells for cells, _ in lines), strict=True)
        first, *widths = (max(map(cell_len, column)) for column in columns)
        room = options.max_width - sum(2 + width for width in widths)
        first = min(first, max(room, len(self.headings[0])))
        for cells, bold in lines:
            yield Segment(_line(cells, first, widths), Style(bold=True) if bold else None)
            yield Segment.line()


def _line(cells: Sequence[str], first: int, widths: Sequence[int]) -> str:
    """The first cell to the left, at most `first` wide, the others to the right."""
    name, *numbers = cells
    if cell_len(name) > first:
        name = f"{set_cell_size(name, first - 1)}…"
    aligned = (f"{number:>{width}}" for number, width in zip(numbers, widths, strict=True))
    return "  ".join([set_cell_size(name, first), *aligned])


def render(run_folder: str | Path) -> Group:
    """The run as terminal tables: cost and score per method and rate, task scores of references.

    Seeds are averaged, with their range beside. Dense, FBANK and random encoder always have a row.

    Raises:
        InputError: the folder holds no run, or a file that no sweep writes.
    """
    frame = load([run_folder])
    parts: list[Grid | Table | Text] = []
    if frame["random_weights"].any():
        parts.append(Text("Random weights: the costs are real, scores mean nothing.", "bold red"))
    parts += [_points(frame), *_troubles(frame), _references(frame)]
    if devices := sorted(set(frame["device"]) - {""}):
        parts.append(Text(f"Latency on {'; '.join(devices)}.", "dim"))
    return Group(*(part for part in parts if not isinstance(part, Table) or part.row_count))


def render_scores(scores: Mapping[str, Score]) -> Table:
    """superb_s of published models, saying which tasks a partial score leaves out."""
    table = Table("model", "superb_s", "tasks", "anchors", box=None, pad_edge=False)
    table.columns[1].justify = "right"
    for model, score in scores.items():
        tasks = "all" if not score.partial else f"only {' '.join(score.terms)}"
        table.add_row(model, f"{score.value:.2f}", tasks, score.anchors)
    return table


def _points(frame: DataFrame) -> Grid:
    """Score and costs per method and rate; a status where there is nothing to show."""
    found = set(zip(frame["method"], frame["rate"], strict=True))
    absent = {(name, 0.0) for name in REFERENCES if name not in set(frame["method"])}
    table = Grid(("method", "rate", "superb_s", *(heading for heading, *_ in _COSTS)))
    groups, costs = frame.groupby(["method", "rate"]).indices, _costs(frame)
    scores, statuses = frame["superb_s"].tolist(), frame["status"].tolist()
    for pair in sorted(found | absent, key=lambda pair: _order(*pair)):
        method, rate = pair
        reference, rows = method in REFERENCES, groups.get(pair, [])
        score = spread([scores[row] for row in rows], 0) or "-"
        if "done" not in [statuses[row] for row in rows]:
            score = statuses[rows[0]] if len(rows) else "absent"
        numbers = costs.get(pair, ["-"] * len(_COSTS))
        table.add(method, "" if reference else f"{rate:g}", score, *numbers, bold=reference)
    return table


def _costs(frame: DataFrame) -> dict[tuple[str, float], list[str]]:
    """The mean costs of each method and rate, as text in the order of _COSTS."""
    chosen = [next((c for c in ALIASES[short] if c in frame), None) for _, short, *_ in _COSTS]
    means = frame.groupby(["method", "rate"])[[c for c in chosen if c]].mean()
    return {
        pair: [
            _number(values[column] / divisor if column else math.nan, digits)
            for column, (*_, divisor, digits) in zip(chosen, _COSTS, strict=True)
        ]
        for pair, values in zip(means.index, means.to_dict("records"), strict=True)
    }


def _references(frame: DataFrame) -> Table:
    """Each task's metric for the dense model, FBANK and the random encoder."""
    table = Table("task metric", *REFERENCES, "in superb_s", box=None, pad_edge=False)
    for column in table.columns[1:-1]:
        column.justify = "right"
    counting = set(" ".join(frame["superb_tasks"]).split())
    for column, section in sorted(frame.attrs["sections"].items()):
        metric = frame.attrs["metrics"].get(column)
        if not section.startswith("task.") or metric is None:
            continue
        cells = [spread(frame.loc[frame.method == name, column], 2) or "-" for name in REFERENCES]
        meaning = ", ".join(filter(None, (metric.unit, f"{metric.better} is better")))
        task = section.removeprefix("task.")
        counts = "yes" if task in counting else "no: " + _excuse(frame, task)
        table.add_row(f"{column} ({meaning})", *cells, counts)
    return table


def _excuse(frame: DataFrame, task: str) -> str:
    """Why a task is outside superb_s."""
    return "no margin over FBANK" if task in frame.attrs["meant"] else "shown beside it"


def _order(method: str, rate: float) -> tuple:
    reference = method in REFERENCES
    return REFERENCES.index(method) if reference else len(REFERENCES), method, rate


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _troubles(frame: DataFrame) -> list[Text]:
    """What is not done and why, a line per reason."""
    troubled = frame[frame["status"] != "done"]
    groups = troubled.groupby(["status", "reason"], sort=True)
    return [
        Text(f"{status}: {', '.join(_names(rows))} ({reason})", "yellow")
        for (status, reason), rows in groups
    ]


def _names(rows: DataFrame) -> list[str]:
    """The methods of those rows, each with its rates."""
    rates: dict[str, list[str]] = {}
    for method, rate in dict.fromkeys(zip(rows["method"], rows["rate"], strict=True)):
        rates.setdefault(method, []).append("" if method in REFERENCES else f" {rate:g}")
    return [f"{method}{''.join(found)}" for method, found in rates.items()]
