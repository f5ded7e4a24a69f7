"""Is a compressed model still susceptible to fine-tuning? Each task's score against the rate.

Dashed: the head alone is trained; solid: the encoder is fine-tuned with it (`bench finetune`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.axes import Axes

from core.errors import InputError
from core.point import REFERENCES
from reports._drawing import Drawing, Page, Runs
from reports._page import abreast, caption, curve, legend, sheet
from reports._panels import TURNED
from results.curves import metric, over_seeds

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from reports._looks import Look

SECTION, FROZEN, TUNED = "finetune.", "_frozen", "_tuned"


@dataclass(frozen=True)
class Finetune(Drawing):
    """No options: the rate is what both scores are drawn against."""

    def page(self, runs: Runs) -> Page:
        tables = {name: _table(runs.frame, name) for name in _metrics(runs)}
        figure, flat = sheet(len(tables), abreast(len(tables)), 1.9)
        for axes, (name, table) in zip(flat, tables.items(), strict=True):
            _draw(axes, runs, name, table)
        _explain(figure, flat[0])
        table = pd.concat(tables.values(), ignore_index=True)
        figure.suptitle(caption(runs.frame, table, [], figure.get_figwidth(), [TURNED]))
        return Page(figure, table)


def _metrics(runs: Runs) -> list[str]:
    """The tasks' own metrics that there are both scores of.

    Raises:
        InputError: there are none.
    """
    found = [
        column.removesuffix(TUNED)
        for column, section in runs.frame.attrs["sections"].items()
        if section.startswith(SECTION) and column.endswith(TUNED)
    ]
    if not found:
        raise InputError(f"{runs.names} has no fine-tuned scores; make them with bench finetune")
    return sorted(found)


def _table(frame: DataFrame, name: str) -> DataFrame:
    """A row per run, method and rate with both scores, and by how much the second is better."""
    columns = {"frozen": name + FROZEN, "tuned": name + TUNED, "gain": f"{name}_gain"}
    table = over_seeds(frame[frame[columns["tuned"]].notna()], columns)
    table.insert(0, "metric", name)
    return table


def _draw(axes: Axes, runs: Runs, name: str, table: DataFrame) -> None:
    meaning = metric(runs.frame, name + TUNED)
    for (run, method), rows in table.groupby(["run", "method"], sort=False):
        look, rows = runs.looks[str(run), str(method)], rows.sort_values("rate")
        if method in REFERENCES:
            _levels(axes, rows, look)
            continue
        curve(axes, rows, look, "rate", "tuned")
        axes.plot(
            rows["rate"], rows["frozen"], linewidth=1.0, markersize=3.8,
            **look.marks() | {"linestyle": "--", "markerfacecolor": "white"},
        )  # fmt: skip
    lower = meaning.better == "lower"
    axes.set_title(f"{name} ({meaning.unit})" + (" ↓" if lower else ""))
    if lower:
        axes.invert_yaxis()
    axes.set_xlabel("rate")


def _levels(axes: Axes, rows: DataFrame, look: Look) -> None:
    """Both scores of a model that has no rate, as lines across."""
    axes.axhline(rows["tuned"].mean(), color=look.colour, linewidth=0.8, label=look.label)
    axes.axhline(rows["frozen"].mean(), color=look.colour, linewidth=0.8, linestyle="--")


def _explain(figure: Figure, axes: Axes) -> None:
    """Two more entries of the legend: what the strokes mean."""
    for label, shown in (("head alone", "--"), ("encoder fine-tuned", "-")):
        axes.plot([], [], color="#7F7F7F", linewidth=1.0, linestyle=shown, label=label)
    legend(figure)
