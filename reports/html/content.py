"""What the page tells, as JSON: points, columns, looks, figures, gaps, where it comes from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import reports
from core.errors import InputError
from reports._drawing import read_by
from reports._looks import appearances
from reports.html.figures import figures
from reports.html.gaps import gaps
from results import axes
from results.curves import devices, grades, metric
from results.table import LEADING, read, tabulate

if TYPE_CHECKING:
    from pandas import DataFrame

#: Plotly's names for the markers and strokes of `reports._looks`.
SYMBOLS = {
    "o": "circle", "s": "square", "^": "triangle-up", "D": "diamond", "v": "triangle-down",
    "P": "cross", "X": "x", "<": "triangle-left", "p": "pentagon", ">": "triangle-right",
    "h": "hexagon", "*": "star", "": "",
}  # fmt: skip
DASHES = {"-": "solid", "--": "dash", ":": "dot", "-.": "dashdot", "none": ""}

#: Costs that the table shows from the start, beside superb_s and the tasks.
SHOWN = ("params", "macs", "latency", "speedup")

#: What is told of every point beside its numbers.
FACTS = tuple(
    name
    for name in LEADING
    if name not in ("rate", "achieved_rate", "superb_s", "superb_tasks", "anchors")
)


def content(run_folders: Sequence[str | Path]) -> dict[str, Any]:
    """All that the page shows. NaN and what was not measured are None.

    Raises:
        InputError: a folder holds no run, or the runs have no point.
    """
    runs = read(run_folders, read_by(map(reports.figure, reports.names())))
    frame = tabulate(runs)
    if frame.empty:
        names = ", ".join(map(str, run_folders)) or "no run"
        raise InputError(f"{names} has no points yet; run the sweep first")
    columns = _columns(frame)
    fields = [*FACTS, "grade", *(column["name"] for column in columns)]
    graded = frame.assign(grade=grades(frame))
    told = (_plain(graded[field].tolist()) for field in fields)
    return {
        "runs": [{"name": run.name, "info": run.info} for run in runs],
        "columns": columns,
        "fields": fields,
        "points": list(zip(*told, strict=True)),
        "looks": _looks(frame),
        "figures": list(figures(runs, frame)),
        "gaps": [gap for run in runs for gap in gaps(run)],
    }


def _columns(frame: DataFrame) -> list[dict[str, Any]]:
    """The numbers: what each means, how it is written, and what keeps its points apart.

    apart: the fact in which points must agree to lie on one line, empty where all may.
    """
    sections = frame.attrs["sections"]
    numbers = ["superb_s", *(c for c in map(str, frame) if c not in LEADING), "achieved_rate"]
    measured = [name for name in dict.fromkeys(numbers) if frame[name].notna().any()]
    shown = _shown(frame)
    found = [_column(frame, name, sections.get(name, ""), name in shown) for name in measured]
    found.sort(key=lambda column: (GROUPS.index(column["group"]), column["name"] != "superb_s"))
    rate = {"name": "rate", "title": "Rate", "unit": "", "divisor": 1.0, "better": "higher",
            "about": "fraction that was asked to be removed", "group": "Compression", "apart": "",
            "shown": True}  # fmt: skip
    return [*found, rate]


GROUPS = ("Scores", "Tasks", "Costs", "Compression")


def _column(frame: DataFrame, name: str, section: str, shown: bool) -> dict[str, Any]:
    meaning = metric(frame, name)
    divisor, unit = axes.scale(meaning.unit, float(frame[name].abs().max()))
    kinds = {"": "Scores", "task": "Tasks", "profile": "Costs"}
    about = meaning.about
    if name.startswith("score."):
        about = f"{name.removeprefix('score.')} where FBANK is 0 and the dense model 1000"
    if name == "superb_s":
        tasks = {task for text in frame["superb_tasks"] for task in text.split()}
        about += f"; mean of {' '.join(sorted(tasks))}"
    return {
        "name": name,
        "title": axes.TITLES.get(name, name),
        "unit": unit,
        "divisor": divisor,
        "better": meaning.better,
        "about": about,
        "group": kinds.get(section.partition(".")[0], "Compression"),
        "apart": _apart(frame, name, section),
        "shown": shown,
    }


def _apart(frame: DataFrame, name: str, section: str) -> str:
    if name == "superb_s" or name.startswith("score."):
        return "grade"
    if section.startswith("task."):
        return "task_data"
    return "device" if devices(frame, name) else ""


def _shown(frame: DataFrame) -> set[str]:
    """The columns of the table to begin with: superb_s, each task's first number, usual costs."""
    sections = frame.attrs["sections"]
    names = [*SHOWN, *sorted({s for s in sections.values() if s.startswith("task.")})]
    shown = {"superb_s"}
    for name in names:
        if name in sections or name in axes.ALIASES or name.startswith("task."):
            shown.add(_resolved(name, sections))
    return shown


def _resolved(name: str, sections: dict[str, str]) -> str:
    """The column of that name, the name itself where there is none."""
    try:
        return axes.resolve(name, sections)
    except InputError:
        return name


def _plain(values: list[Any]) -> list[Any]:
    """The values for JSON: ten digits are more than anything here is known to."""
    return [
        value
        if not isinstance(value, float)
        else float(f"{value:.10g}")
        if math.isfinite(value)
        else None
        for value in values
    ]


def _looks(frame: DataFrame) -> list[dict[str, Any]]:
    """How each method of each run is drawn, as in every figure."""
    return [
        {
            "run": run,
            "method": method,
            "colour": look.colour,
            "symbol": SYMBOLS[look.marker],
            "dash": DASHES[look.stroke],
            "hollow": look.hollow,
        }
        for (run, method), look in appearances(frame).items()
    ]
