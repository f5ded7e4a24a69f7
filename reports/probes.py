"""What each layer knows: linear probes of every hidden state, task by task, as heat maps.

A task that probes by layer tells a number per state in `details["by_state"]`: 0 is what enters the
first layer, L what leaves the last. Shades are within a task, over all panels: dark is its best
number, light its worst.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from pandas import DataFrame

from core.errors import InputError
from core.point import DENSE, FBANK, RANDOM, REFERENCES
from reports._drawing import Drawing, Page, Runs
from reports._page import PAGE, caption, sheet
from results import axes as naming
from results.curves import check_comparable, metric

#: So many methods are drawn unless they are named.
METHODS = 4

#: States up to which numbers are written into the cells.
LEGIBLE = 14

#: What a panel is of.
GROUP = ["run", "model", "method", "rate"]


@dataclass(frozen=True)
class Probes(Drawing):
    """A heat map per model: the dense one, the random encoder, then methods at each rate.

    rates: the middle one by default.
    """

    reads: ClassVar[tuple[str, ...]] = ("by_state",)

    rates: Sequence[float] = ()

    def page(self, runs: Runs) -> Page:
        probed = _table(runs)
        chosen = _chosen(probed, self.rates, METHODS if runs.methods is None else None)
        table = _shaded(runs.frame, chosen)
        panels = [rows for _, rows in table.groupby(GROUP, sort=False)]
        tasks = list(table["task"].unique())
        columns = 1 if table["state"].max() > LEGIBLE else min(2, len(panels))
        figure, flat = sheet(len(panels), columns, 0.75 + 0.24 * len(tasks))
        figure.set_figwidth(PAGE if len(panels) > 1 or columns == 1 else figure.get_figwidth())
        for axes, rows in zip(flat, panels, strict=True):
            shades = _draw(axes, rows, tasks, int(table["state"].max()) + 1)
            axes.set_title(_name(table, rows))
        for axes in flat[len(panels) - columns :]:
            axes.set_xlabel("Hidden state")
        if table["state"].max() > LEGIBLE:
            figure.colorbar(shades, ax=flat, label="worst to best of a task", aspect=40, ticks=[])
        hidden = sorted(set(probed["method"]) - set(table["method"]))
        told = [f"{', '.join(hidden)} was probed too (--methods draws it)"] * bool(hidden)
        frame = runs.frame[runs.frame["key"].isin(" ".join(table["keys"]).split())]
        remarks = [*_meanings(runs.frame, table), "0 enters the first layer", *told]
        figure.suptitle(caption(frame, table, [], figure.get_figwidth(), remarks))
        return Page(figure, table)


def _table(runs: Runs) -> DataFrame:
    """A row per model, task and state: the mean and range over its seeds.

    Raises:
        InputError: no task told numbers by state, or those of a task do not compare.
    """
    sections = dict.fromkeys(runs.frame.attrs["sections"].values())
    found = DataFrame(row for name in sections for row in _states(runs, name))
    if found.empty:
        raise InputError(
            f"{runs.names} has no numbers by layer; sweep it again with the tasks that probe: "
            "bench list tasks"
        )
    for column in found["metric"].unique():
        check_comparable(runs.frame, column)
    groups = found.groupby([*GROUP, "task", "metric", "state"], sort=False)
    table = groups.agg(
        seeds=("seed", "nunique"), value=("value", "mean"), value_low=("value", "min"),
        value_high=("value", "max"), keys=("key", " ".join),
    ).reset_index()  # fmt: skip
    order = table["method"].map(lambda name: [DENSE, RANDOM, name].index(name))
    return table.assign(order=order).sort_values("order", kind="stable").drop(columns="order")


def _states(runs: Runs, section: str) -> Iterator[dict[str, Any]]:
    """Every number that one task tells, by point and state."""
    details = runs.details(section)
    points = runs.frame[["run", "model", "method", "rate", "seed", "key"]]
    for point in points.to_dict("records"):
        numbers = details.get((point["run"], point["key"]), {}).get("by_state", ())
        for state, value in enumerate(numbers if point["method"] != FBANK else ()):
            column = naming.resolve(section, runs.frame.attrs["sections"])
            value = float("nan") if value is None else float(value)
            task = section.partition(".")[2].removeprefix("probe-")
            own = {"task": task, "metric": column, "state": state, "value": value}
            yield {str(fact): told for fact, told in point.items()} | own


def _shaded(frame: DataFrame, table: DataFrame) -> DataFrame:
    """The table with `shade`: 0 for the worst number of a task, 1 for its best."""
    lower = table["metric"].map(lambda name: metric(frame, name).better == "lower")
    worth = table["value"].where(~lower, -table["value"])
    low, high = (worth.groupby(table["task"]).transform(end) for end in ("min", "max"))
    table.insert(len(table.columns) - 1, "shade", (worth - low) / (high - low).where(high > low, 1))
    return table


def _chosen(table: DataFrame, rates: Sequence[float], most: int | None) -> DataFrame:
    """References, and the methods at those rates.

    Raises:
        InputError: nothing was probed at one of the rates.
    """
    made = table[~table["method"].isin(REFERENCES)]
    known = sorted(made["rate"].unique())
    for rate in rates:
        if rate not in known:
            listing = ", ".join(f"{one:g}" for one in known) or "no rate"
            raise InputError(f"rate {rate:g} has no numbers by layer; they are there at: {listing}")
    wanted = rates or known[(len(known) - 1) // 2 :][:1]
    methods = sorted(made.loc[made["rate"].isin(wanted), "method"].unique())[:most]
    shown = made["rate"].isin(wanted) & made["method"].isin(methods)
    return table[table["method"].isin(REFERENCES) | shown.reindex(table.index, fill_value=False)]


def _name(table: DataFrame, rows: DataFrame) -> str:
    first = rows.iloc[0]
    where = f"{first['run']}: " if table["run"].nunique() > 1 else ""
    rate = "" if first["method"] in REFERENCES else f" at {first['rate']:g}"
    return f"{where}{first['method']}{rate}"


def _draw(axes: Axes, rows: DataFrame, tasks: Sequence[str], states: int) -> QuadMesh:
    """One model: a row per task, a column per state; what it has not stays white."""
    values, shade = (_cells(rows, name, tasks, states) for name in ("value", "shade"))
    shades = axes.pcolormesh(
        np.ma.masked_invalid(shade), cmap="Blues", vmin=0, vmax=1.25, edgecolor="white",
        linewidth=0.8,
    )  # fmt: skip
    places = range(0, states, -(-states // 13))
    axes.set_xticks([at + 0.5 for at in places], [str(at) for at in places])
    axes.set_yticks([at + 0.5 for at in range(len(tasks))], list(tasks))
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for (task, state), value in np.ndenumerate(values):
        if states <= LEGIBLE + 1 and np.isfinite(value):
            axes.text(
                state + 0.5, task + 0.5, f"{value:.3g}", ha="center", va="center",
                fontsize="x-small", color="white" if shade[task, state] > 0.7 else "black",
            )  # fmt: skip
    return shades


def _cells(rows: DataFrame, name: str, tasks: Sequence[str], states: int) -> Any:
    """One number by task and state, NaN where there is none."""
    wide = rows.pivot(index="task", columns="state", values=name)
    return wide.reindex(index=list(tasks), columns=range(states)).to_numpy(float)


def _meanings(frame: DataFrame, table: DataFrame) -> list[str]:
    """What the numbers are, tasks of one unit together."""
    kinds: dict[tuple[str, str], list[str]] = {}
    for task, column in table[["task", "metric"]].drop_duplicates().itertuples(index=False):
        meaning = metric(frame, column)
        kinds.setdefault((meaning.unit, meaning.better), []).append(f"{task} ({column})")
    return [
        f"{', '.join(told)}: {f'in {unit}, ' * bool(unit)}{better} is better"
        for (unit, better), told in kinds.items()
    ]
