"""Panels that show a score against a cost: a curve per method, and references."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.axes import Axes

from core.point import FBANK, RANDOM
from reports._looks import Look
from reports._page import curve, divided, empty, level, scale, title
from results import axes as naming
from results.curves import metric
from results.superb import OFFICIAL

if TYPE_CHECKING:
    from pandas import DataFrame

#: What `crown` needs said below.
TURNED = "up is better, where lower values are (↓) the axis is turned"


@dataclass
class Panel:
    """One pair of axes: the columns, and the table of points drawn on them."""

    x: str
    y: str
    table: DataFrame


def draw_panel(
    axes: Axes, frame: DataFrame, panel: Panel, looks: dict[tuple[str, str], Look]
) -> float:
    """Curves against the cost, FBANK and the random encoder as levels; what x was divided by."""
    costs = panel.table.loc[~panel.table["method"].isin([FBANK, RANDOM]), "x"].dropna()
    divisor, _ = naming.scale(metric(frame, panel.x).unit, costs.abs().max() if len(costs) else 0)
    table = divided(panel.table, "x", divisor)
    for (run, method), rows in table.groupby(["run", "method"], sort=False):
        look = looks[str(run), str(method)]
        if method in (FBANK, RANDOM):
            level(axes, rows, look)
        elif rows["x"].notna().any():
            curve(axes, rows.sort_values("rate"), look)
    axes.set_xlabel(title(frame, panel.x, costs))
    if costs.empty:
        empty(axes, f"{panel.x}\nnot measured")
    else:
        scale(axes, "x", costs / divisor)
    return divisor


def crown(axes: Axes, frame: DataFrame, score: str) -> None:
    """The title of a panel that shows a task alone; up is better, an arrow says that it is turned.

    To be explained by TURNED in the caption.
    """
    lower = metric(frame, score).better == "lower"
    text = title(frame, score, frame[score]).rsplit(", ", 1)[0]
    axes.set_title(f"{text} ↓" if lower else text)
    if lower:
        axes.invert_yaxis()


def drawn(panels: list[Panel]) -> DataFrame:
    """All that was drawn: a row per point and panel."""
    tables = [p.table.assign(x_metric=p.x, y_metric=p.y) for p in panels]
    table = pd.concat(tables, ignore_index=True)
    leading = ["x_metric", "y_metric"]
    return table[leading + [c for c in table if c not in leading]]


def scores(frame: DataFrame) -> list[str]:
    """The own metric of every task of the runs, by the task's name: the first that it declares."""
    tasks = {
        section: naming.resolve(section, frame.attrs["sections"])
        for section in frame.attrs["sections"].values()
        if section.startswith(("task.", OFFICIAL))
    }
    return [tasks[name] for name in sorted(tasks)]
