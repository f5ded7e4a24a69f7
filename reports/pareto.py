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
from results.curves import column_of, curves, metric
from results.published import ANCHORS
from results.published import METHOD as PUBLISHED
from results.superb import CONVENTIONS, QUICK

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Pareto(Drawing):
    """x, y: a metric, a task, or params, macs, latency, memory; a panel for each cost in x.

    anchors: of superb_s, `quick` by default. published: published models beside the runs, or alone;
    these have official scores, so the anchors are then `leaderboard`, or `wang2023` if asked for.
    """

    x: Sequence[str] = ("params",)
    y: str = "superb_s"
    anchors: str = ""
    published: bool = False

    @property
    def stem(self) -> str:
        return "-".join([self.y, *self.x, *[self.anchors] * bool(self.anchors),
                         *["published"] * self.published])  # fmt: skip

    @property
    def needs_runs(self) -> bool:
        return not self.published

    def page(self, runs: Runs) -> Page:
        if self.anchors or self.published:
            runs = runs.graded(_grade(self.anchors, self.published), self.published)
        panels = _panels(runs.frame, self.x, self.y)
        if self.published:
            _check_published(runs, panels)
        return Page(_figure(runs, panels), drawn(panels))


def _grade(anchors: str, published: bool) -> str:
    """The grade of superb_s that is drawn.

    Raises:
        InputError: quick scores would be drawn beside published ones.
    """
    if published and anchors == QUICK:
        raise InputError(
            "published models have official scores, which no axis should mix with quick ones; "
            f"leave --published, or give other --anchors: {', '.join(CONVENTIONS)}"
        )
    return anchors or ANCHORS


def _check_published(runs: Runs, panels: Sequence[Panel]) -> None:
    """Refuse published models where they, or the runs, have nothing on these axes.

    Raises:
        InputError: they have not.
    """
    for panel in panels:
        scored = panel.table["y"].notna() & panel.table["x"].notna()
        outside = panel.table["run"] == PUBLISHED
        if not (scored & outside).any():
            raise InputError(
                f"published models have no {panel.y} over {panel.x}; they have superb_s and the "
                "tasks of SUPERB over params and macs_superb32"
            )
    if runs.runs and (panels[0].table["run"] == PUBLISHED).all():
        raise InputError(
            f"{runs.names} has no official {panels[0].y}, and quick scores are another grade, "
            "which no axis should mix with published ones; score its models by bench superb, or "
            "draw published models alone by naming no run"
        )


def _panels(frame: DataFrame, x: Sequence[str], y: str) -> list[Panel]:
    """What is drawn on each pair of axes; a cost that this run has not measured leaves a gap."""
    y = column_of(frame, y)
    panels, unmeasured = [], []
    for name in dict.fromkeys(x):
        try:
            column = column_of(frame, name)
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
        table = divided(panel.table, "x", divisor)
        _front(axes, table, metric(frame, panel.x).better == "higher")
        _name(axes, table[table["on_front"] & (table["run"] == PUBLISHED)])
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    for axes in flat[::columns]:
        axes.set_ylabel(title(frame, y, frame[y]))
    if metric(frame, y).better == "lower":
        flat[0].invert_yaxis()
    legend(figure)
    told = caption(frame, drawn(panels), [p.x for p in panels], figure.get_figwidth())
    figure.suptitle(told)
    return figure


def _name(axes: Axes, rows: DataFrame) -> None:
    """The names of published models, on the side of their marks where there is room.

    One that would lie on another's is left out; the CSV has them all.
    """
    taken: list[tuple[float, float]] = []
    place = axes.transData + axes.transAxes.inverted()
    for model, *mark in rows.sort_values("y")[["model", "x", "y"]].to_numpy()[::-1].tolist():
        across, up = place.transform(mark)
        if all(abs(across - x) > 0.3 or abs(up - y) > 0.05 for x, y in taken):
            taken.append((across, up))
            right = across > 0.6
            axes.annotate(
                model, mark, xytext=(-5 if right else 5, -1), va="top",
                ha="right" if right else "left", textcoords="offset points", fontsize="x-small",
                color="#555555",
            )  # fmt: skip


def _front(axes: Axes, table: DataFrame, descending: bool) -> None:
    """The front as a staircase: the best score to be had at each cost."""
    rows = table[table["on_front"]].sort_values("x", ascending=not descending)
    if len(rows):
        axes.plot(
            rows["x"], rows["y"], label="Pareto front", color="#C8C8C8", linewidth=3,
            drawstyle="steps-post", zorder=1.5, solid_capstyle="round",
        )  # fmt: skip
