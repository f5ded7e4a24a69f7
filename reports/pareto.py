"""Score against one or more costs: a curve per method, the Pareto front behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from core.errors import InputError
from core.point import FBANK, RANDOM
from reports._drawing import Drawing, Page, Runs
from reports._looks import Look
from reports._page import COLUMN, PAGE, caption, curve, divided, empty, legend, scale, title
from results import axes as naming
from results.curves import curves, metric

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Pareto(Drawing):
    """x, y: a metric, a task, or params, macs, latency, memory; a panel for each cost in x."""

    x: Sequence[str] = ("params",)
    y: str = "superb_s"

    @property
    def stem(self) -> str:
        return "-".join([self.y, *self.x])

    def page(self, runs: Runs) -> Page:
        panels = _panels(runs.frame, self.x, self.y)
        return Page(_figure(runs, panels), _drawn(panels))


@dataclass
class Panel:
    """One pair of axes: the columns, and the table of points drawn on them."""

    x: str
    y: str
    table: DataFrame


def _panels(frame: DataFrame, x: Sequence[str], y: str) -> list[Panel]:
    """What is drawn on each pair of axes; a cost that this run has not measured leaves a gap."""
    columns = {c: "" for c in map(str, frame) if c.startswith("score.")}
    columns |= frame.attrs["sections"]
    if frame["superb_s"].notna().any():
        columns["superb_s"] = ""
    y = naming.resolve(y, columns)
    panels, unmeasured = [], []
    for name in dict.fromkeys(x):
        try:
            column = naming.resolve(name, columns)
        except InputError as error:
            if name not in (*naming.ALIASES, *naming.TITLES):
                raise
            unmeasured.append(error)
            column = naming.ALIASES.get(name, (name,))[0]
            frame = frame.assign(**{column: float("nan")})
        panels.append(Panel(column, y, curves(frame, column, y)))
    if not panels:
        raise InputError("no cost to draw the score against; name one or more with --x")
    if len(unmeasured) == len(panels):
        raise unmeasured[0]
    return panels


def _figure(runs: Runs, panels: list[Panel]) -> Figure:
    frame, y = runs.frame, panels[0].y
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    width = COLUMN if columns == 1 else PAGE
    entries = len(panels[0].table.groupby(["run", "method"])) + 1
    legend_columns = 2 if columns == 1 else 5
    height = 2.5 * rows + 0.5 + 0.16 * -(-entries // legend_columns)
    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    flat = list(grid.flat)
    for axes, panel in zip(flat, panels, strict=False):
        _draw_panel(axes, frame, panel, runs.looks)
    for axes in flat[len(panels) :]:
        axes.remove()
    for axes in grid[:, 0]:
        axes.set_ylabel(title(frame, y, frame[y]))
    if metric(frame, y).better == "lower":
        flat[0].invert_yaxis()
    legend(figure, legend_columns)
    told = caption(frame, _drawn(panels), [p.x for p in panels], width)
    figure.suptitle(told, fontsize=8)
    return figure


def _draw_panel(
    axes: Axes, frame: DataFrame, panel: Panel, looks: dict[tuple[str, str], Look]
) -> None:
    costs = panel.table.loc[~panel.table["method"].isin([FBANK, RANDOM]), "x"].dropna()
    divisor, _ = naming.scale(metric(frame, panel.x).unit, costs.abs().max() if len(costs) else 0)
    table = divided(panel.table, "x", divisor)
    for (run, method), rows in table.groupby(["run", "method"], sort=False):
        look = looks[str(run), str(method)]
        if method in (FBANK, RANDOM):
            _level(axes, rows, look)
        elif rows["x"].notna().any():
            curve(axes, rows.sort_values("rate"), look)
    _front(axes, table, metric(frame, panel.x).better == "higher")
    axes.set_xlabel(title(frame, panel.x, costs))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    if costs.empty:
        empty(axes, f"{panel.x}\nnot measured")
    else:
        scale(axes, "x", costs / divisor)


def _level(axes: Axes, rows: DataFrame, look: Look) -> None:
    """A reference whose cost says nothing: its score as a line across, its range as a band."""
    axes.axhline(
        rows["y"].mean(), label=look.label, color=look.colour, linestyle=look.stroke, linewidth=1.0
    )
    low, high = rows["y_low"].min(), rows["y_high"].max()
    if high > low:
        axes.axhspan(low, high, color=look.colour, alpha=0.12, linewidth=0)


def _front(axes: Axes, table: DataFrame, descending: bool) -> None:
    """The front as a staircase: the best score to be had at each cost."""
    rows = table[table["on_front"]].sort_values("x", ascending=not descending)
    if len(rows):
        axes.plot(
            rows["x"], rows["y"], label="Pareto front", color="#C8C8C8", linewidth=3,
            drawstyle="steps-post", zorder=1.5, solid_capstyle="round",
        )  # fmt: skip


def _drawn(panels: list[Panel]) -> DataFrame:
    """All that was drawn: a row per point and panel."""
    tables = [p.table.assign(x_metric=p.x, y_metric=p.y) for p in panels]
    table = pd.concat(tables, ignore_index=True)
    leading = ["x_metric", "y_metric"]
    return table[leading + [c for c in table if c not in leading]]
