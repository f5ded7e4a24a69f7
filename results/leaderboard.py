"""The leaderboard: runs as one file whose text changes only when a result does.

`.csv` has every point with every number. `.md` and `.tex` (booktabs) are for reading: a row per
method and rate, the mean over seeds with their range, scores and the usual costs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import InputError
from core.point import REFERENCES
from results import axes
from results.published import ANCHORS, METHOD
from results.store import write_whole
from results.superb import CONVENTIONS, OFFICIAL, QUICK
from results.table import read as read_runs
from results.table import tabulate

if TYPE_CHECKING:
    from pandas import DataFrame, Series

#: Costs of the readable tables: short name, heading, divisor, digits.
COSTS: tuple[tuple[str, str, float, int], ...] = (
    ("params", "params (M)", 1e6, 2),
    ("macs_superb32", "MACs (G)", 1e9, 1),
    ("latency", "latency (ms)", 1e-3, 1),
    ("speedup", "speed-up", 1.0, 2),
)


def write(
    run_folders: Iterable[str | Path],
    out: str | Path,
    anchors: str = QUICK,
    published: bool = False,
) -> DataFrame:
    """Write the points of one or more runs to a file and return them as numbers.

    Points that failed or are not supported are rows with their status and reason. The column `run`
    is there for several runs only. anchors, published: as `results.table.tabulate` has them; beside
    every superb_s stands what it is relative to.

    Raises:
        InputError: a folder holds no run, the file cannot be written, its suffix is none of .csv,
            .md and .tex, or there is nothing to write or no such grade of superb_s.
    """
    render = FORMATS.get(Path(out).suffix)
    if render is None:
        raise InputError(
            f"leaderboard {str(out)!r}: expected a file ending in {', '.join(FORMATS)}"
        )
    frame = tabulate(read_runs(run_folders, ()), anchors, published)
    frame = frame.drop(columns=["data", "task_data"])
    if frame.empty:
        names = ", ".join(map(str, run_folders)) or "no run"
        raise InputError(f"{names} has no points yet; run the sweep first")
    if frame["run"].nunique() <= 1:
        frame = frame.drop(columns="run")
    write_whole(Path(out), render(frame).encode())
    return frame


def read(path: str | Path) -> DataFrame:
    """The points of one run, as `write` left them in a .csv file.

    Raises:
        InputError: the file cannot be read, is something else, or holds several runs.
    """
    import pandas as pd

    words = dict.fromkeys(("model", "method", "status", "superb_tasks", "anchors", "key"), str)
    try:
        frame = pd.read_csv(path, dtype=words)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path} ({error}); give a leaderboard.csv") from error
    lacking = {*words, "rate", "seed", "superb_s"} - set(frame)
    if lacking:
        raise InputError(
            f"{path} has no column {', '.join(sorted(lacking))}; give a file that "
            "bench leaderboard has written"
        )
    if frame.duplicated(["model", "method", "rate", "seed"]).any():
        raise InputError(f"{path} holds several runs; write a leaderboard of one of them")
    return frame.fillna(dict.fromkeys(words, ""))


def cell(value: Any) -> str:
    """A value as text: whole numbers whole, others to six significant digits, never `1e+06`."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int | float):
        return str(value)
    if math.isnan(value):
        return ""
    if not math.isfinite(value) or float(value).is_integer():
        return f"{value:.0f}"
    text = f"{value:.6g}"
    return format(Decimal(text), "f") if "e" in text else text


def _as_csv(frame: DataFrame) -> str:
    return frame.astype(object).map(cell).to_csv(index=False, lineterminator="\n")


def _as_markdown(frame: DataFrame) -> str:
    headings, rows = _readable(frame)
    left = 1 + ("run" in frame)  # columns of words, the rest are numbers
    rules = ["---"] * left + ["---:"] * (len(headings) - left)
    lines = [headings, rules, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _as_latex(frame: DataFrame) -> str:
    headings, rows = _readable(frame)
    left = 1 + ("run" in frame)
    columns = "l" * left + "r" * (len(headings) - left)
    lines = [
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        _latex_row(headings),
        r"\midrule",
        *map(_latex_row, rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _latex_row(cells: Sequence[str]) -> str:
    escaped = (
        cell.replace("_", r"\_").replace("%", r"\%").replace("..", "--").replace("&", r"\&")
        for cell in cells
    )
    return " & ".join(escaped) + r" \\"


FORMATS: dict[str, Callable[[DataFrame], str]] = {
    ".csv": _as_csv, ".md": _as_markdown, ".tex": _as_latex,
}  # fmt: skip


def _readable(frame: DataFrame) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of the short table; what was not done has its status for a score.

    Anchors are told unless all of superb_s is of the quick suite and over the same tasks.
    """
    tasks, models = _tasks(frame), frame["model"]
    costs = [(_column(frame, n), heading, unit, digits) for n, heading, unit, digits in COSTS]
    costs = [cost for cost in costs if cost[0] in frame]
    outside = frame["method"] == METHOD
    frame = frame.assign(method=frame["method"].where(~outside, models), grade=_grades(frame))
    kinds = set(frame["grade"]) - {""}
    told = ["anchors"] * (len(kinds) > 1 or any(not kind.startswith(QUICK) for kind in kinds))
    leading = ["run", "method", "rate"] if "run" in frame else ["method", "rate"]
    headings = [*leading, "superb_s", *told, *tasks, *(heading for _, heading, *_ in costs)]
    unrated, rows = {*REFERENCES, *models[outside]}, []
    for key, points in frame.groupby(leading, sort=False):
        *names, rate = key
        done = points[points["status"] == "done"]
        score = axes.spread(done["superb_s"], 0) if len(done) else points["status"].iloc[0]
        cells = [*map(str, names), "" if names[-1] in unrated else f"{rate:g}", score]
        cells += [points["grade"].max() for _ in told]
        cells += [axes.spread(done[task], 2) for task in tasks]
        cells += [axes.spread(done[column] / unit, digits) for column, _, unit, digits in costs]
        rows.append(cells)
    return headings, rows


def _grades(frame: DataFrame) -> Series:
    """What superb_s is relative to, in short, and over which tasks where it is not all of them."""
    tasks = frame["superb_tasks"]
    some = (" (" + tasks + ")").where(tasks != " ".join(sorted(CONVENTIONS[ANCHORS].tasks)), "")
    return (frame["anchors"].str.partition(":")[0] + some).where(frame["anchors"] != "", "")


def _tasks(frame: DataFrame) -> list[str]:
    """The first number of every task, in the order of their names."""
    first: dict[str, str] = {}
    for column, section in frame.attrs["sections"].items():
        if section.startswith(("task.", OFFICIAL)):
            first.setdefault(section, column)
    return [first[section] for section in sorted(first)]


def _column(frame: DataFrame, name: str) -> str:
    """The column that a short name stands for here, itself where there is none."""
    return next((c for c in axes.ALIASES.get(name, (name,)) if c in frame), name)
