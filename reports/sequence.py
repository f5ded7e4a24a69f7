"""How long may a frame be? Every task against the mean frame period.

As figures 2 and 3 of Chen et al. 2022 (arXiv 2211.02332): a once-for-all model, whose one training
serves every period, is a line; models that were each made for a fixed rate are crosses. Where a
period was learned with a task (`bench adapt`, then a sweep of what it made), that model is marked
with its lambda.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import nan
from typing import ClassVar

from matplotlib.axes import Axes
from pandas import DataFrame

from core.errors import InputError
from core.point import DENSE, FBANK, RANDOM
from reports._drawing import Drawing, Page, Runs
from reports._looks import Look
from reports._page import abreast, caption, curve, legend, level, scale, sheet
from reports._panels import TURNED, Panel, crown, drawn, scores
from results.curves import curves

#: Methods with this in their name are trained once for all periods.
ONCE_FOR_ALL = "ofa-sequence"

#: A method that makes frames longer by less than this keeps their rate.
LONGER = 1.02

CROSSES = "x+12"


@dataclass(frozen=True)
class Sequence(Drawing):
    """A panel per task, with one logarithmic axis of frame periods."""

    reads: ClassVar[tuple[str, ...]] = ("token_ms", "shortening")

    def page(self, runs: Runs) -> Page:
        frame = _periods(runs)
        looks = _looks(runs, frame)
        panels = [Panel("token_ms", y, curves(frame, "token_ms", y)) for y in scores(frame)]
        if not panels:
            raise InputError(f"{runs.names} has no scores; sweep it again with --tasks all")
        figure, flat = sheet(len(panels), abreast(len(panels)), 1.6)
        for axes, panel in zip(flat, panels, strict=True):
            _draw(axes, frame, panel, looks)
        legend(figure)
        table = drawn(panels).drop(columns="on_front")
        told = caption(frame, table, [], figure.get_figwidth(), _remarks(looks))
        figure.suptitle(told)
        return Page(figure, table)


def _periods(runs: Runs) -> DataFrame:
    """The dense points and those of methods that shorten, with their frame period in ms.

    Raises:
        InputError: no periods were measured, or nothing shortens.
    """
    counted = runs.details("profile.macs")
    frame = runs.frame[~runs.frame["method"].isin([FBANK, RANDOM])]
    keys = zip(frame["run"], frame["key"], strict=True)
    frame = frame.assign(token_ms=[counted.get(key, {}).get("token_ms", nan) for key in keys])
    if frame["token_ms"].isna().all():
        raise InputError(f"{runs.names} has no frame periods; sweep it again with --profilers macs")
    shortest = frame.groupby("run")["token_ms"].transform("min")
    longer = frame.loc[frame["token_ms"] > LONGER * shortest, "method"].unique()
    if not len(longer):
        raise InputError(
            f"in {runs.names} no method makes frames longer; sweep ofa-sequence or subsampling"
        )
    return frame[frame["method"].isin([DENSE, *longer])]


def _looks(runs: Runs, frame: DataFrame) -> dict[tuple[str, str], Look]:
    """As in every figure, but fixed rates are crosses, and a learned period says its lambda."""
    made = runs.details("compress")
    learned = {
        run: f"learned, $\\lambda$ = {shortening['strength']:.2f}"
        for run, key in frame.loc[frame["method"] == DENSE, ["run", "key"]].itertuples(index=False)
        if (shortening := made.get((run, key), {}).get("shortening"))
    }
    fixed = [m for m in frame["method"].unique() if m != DENSE and ONCE_FOR_ALL not in m]
    looks = {}
    for (run, method), look in runs.looks.items():
        if method in fixed:
            cross = CROSSES[fixed.index(method) % len(CROSSES)]
            look = replace(look, marker=cross, stroke="none", hollow=False)
        elif method == DENSE and run in learned:
            look = replace(look, marker="P", label=f"{run}: {learned[run]}")
        looks[run, method] = look
    return looks


def _draw(axes: Axes, frame: DataFrame, panel: Panel, looks: dict[tuple[str, str], Look]) -> None:
    """One task; up is better, and the dense score is a level as well."""
    for (run, method), rows in panel.table.groupby(["run", "method"], sort=False):
        look = looks[str(run), str(method)]
        curve(axes, rows.sort_values("x"), look)
        if method == DENSE and look.marker == "*":
            level(axes, rows, replace(look, stroke="-", label=""))
    if len(panel.table):
        scale(axes, "x", panel.table["x"], 1.0)
    axes.set_xlabel("Frame period (ms)")
    crown(axes, frame, panel.y)


def _remarks(looks: dict[tuple[str, str], Look]) -> list[str]:
    crosses = {look.marker for look in looks.values()} & set(CROSSES)
    learned = any("lambda" in look.label for look in looks.values())
    told = [TURNED, *["crosses: made for a fixed rate"] * bool(crosses)]
    return told + ["no model here has learned its period (lambda) with a task"] * (not learned)
