"""Score against one or more costs: a curve per method, the Pareto front behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from core.errors import InputError
from reports._drawing import Drawing, Page, Runs
from reports._page import caption, divided, legend, sheet, title
from reports._panels import Panel, draw_panel, drawn
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
        return Page(_figure(runs, panels), drawn(panels))


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
    figure, flat = sheet(len(panels), columns, 2.5, sharey=True)
    for axes, panel in zip(flat, panels, strict=True):
        divisor = draw_panel(axes, frame, panel, runs.looks)
        _front(axes, divided(panel.table, "x", divisor), metric(frame, panel.x).better == "higher")
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    for axes in flat[::columns]:
        axes.set_ylabel(title(frame, y, frame[y]))
    if metric(frame, y).better == "lower":
        flat[0].invert_yaxis()
    legend(figure)
    told = caption(frame, drawn(panels), [p.x for p in panels], figure.get_figwidth())
    figure.suptitle(told)
    return figure


def _front(axes: Axes, table: DataFrame, descending: bool) -> None:
    """The front as a staircase: the best score to be had at each cost."""
    rows = table[table["on_front"]].sort_values("x", ascending=not descending)
    if len(rows):
        axes.plot(
            rows["x"], rows["y"], label="Pareto front", color="#C8C8C8", linewidth=3,
            drawstyle="steps-post", zorder=1.5, solid_capstyle="round",
        )  # fmt: skip
