"""What compression does to each task: small multiples of its own metric against a cost.

superb_s is a mean, which hides that tasks fall apart at different rates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from core.errors import InputError
from core.point import DENSE
from reports._drawing import Drawing, Page, Runs
from reports._page import abreast, caption, legend, sheet
from reports._panels import TURNED, Panel, crown, draw_panel, drawn, scores
from results import axes as naming
from results.curves import curves


@dataclass(frozen=True)
class Tasks(Drawing):
    """x: a metric, or params, macs, latency, memory; several make a set of panels each."""

    x: Sequence[str] = ("params",)

    @property
    def stem(self) -> str:
        return "-".join(["tasks", *self.x])

    def page(self, runs: Runs) -> Page:
        panels = _panels(runs, self.x)
        columns = abreast(len(panels) // len(self.x))
        figure, flat = sheet(len(panels), columns, 1.6)
        for axes, panel in zip(flat, panels, strict=True):
            _draw(axes, runs, panel)
        for axes, panel, below in zip(flat, panels, panels[columns:], strict=False):
            if panel.x == below.x:
                axes.set_xlabel("")
        legend(figure)
        table = drawn(panels)
        costs = sorted({panel.x for panel in panels})
        figure.suptitle(caption(runs.frame, table, costs, figure.get_figwidth(), [TURNED]))
        return Page(figure, table)


def _panels(runs: Runs, x: Sequence[str]) -> list[Panel]:
    """What is drawn on each pair of axes, by cost and then by task.

    Raises:
        InputError: no task was scored, a cost was not measured, or numbers do not compare.
    """
    own = scores(runs.frame)
    if not own:
        raise InputError(f"{runs.names} has no scores; sweep it again with --tasks all")
    if not x:
        raise InputError("no cost to draw the scores against; name one or more with --x")
    costs = [naming.resolve(name, runs.frame.attrs["sections"]) for name in dict.fromkeys(x)]
    return [Panel(cost, score, curves(runs.frame, cost, score)) for cost in costs for score in own]


def _draw(axes: Axes, runs: Runs, panel: Panel) -> None:
    """One task; up is better. The dense score is a level too, to see what falls below it."""
    draw_panel(axes, runs.frame, panel, runs.looks)
    for score in panel.table.loc[panel.table["method"] == DENSE, "y"]:
        axes.axhline(score, color="black", linewidth=0.6, zorder=1.6)
    crown(axes, runs.frame, panel.y)
