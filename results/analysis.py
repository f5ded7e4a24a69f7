"""Numbers behind a curve: its hypervolume, what a score costs, what a cost scores, who beats whom.

A method's curve is the front of its own points, means over seeds. The hypervolume (Zitzler and
Thiele 1999) is the area below it, of the rectangle from no cost to the dense model's and from
FBANK's score to the dense model's: 1 would be the dense model for nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from core.errors import InputError
from core.point import DENSE, FBANK, RANDOM
from results.curves import column_of, curves, metric
from results.front import front
from results.quantity import read_quantity
from results.table import load

if TYPE_CHECKING:
    from pandas import DataFrame, Series


class Read(NamedTuple):
    """A number read off a curve; interpolated: linearly between two of its points."""

    value: float
    interpolated: bool

    def __str__(self) -> str:
        return "-" if math.isnan(self.value) else f"{'~' * self.interpolated}{self.value:.6g}"


NOWHERE = Read(math.nan, False)


@dataclass(frozen=True)
class Curve:
    """A method's front, from the cheapest point to the dearest; scores are high where good."""

    run: str
    method: str
    costs: tuple[float, ...]
    scores: tuple[float, ...]

    def hypervolume(self, cost: float, low: float, high: float) -> float:
        """The share of the rectangle below: costs up to `cost`, scores from low to high."""
        edges = [*self.costs, cost]
        steps = zip(pairwise(edges), self.scores, strict=True)
        area = sum(
            max(0.0, min(after, cost) - min(before, cost)) * max(0.0, score - low)
            for (before, after), score in steps
        )
        return area / (cost * (high - low))

    def score_at(self, cost: float) -> Read:
        """What the method scores at that cost; nowhere outside of what was measured."""
        return _read(self.costs, self.scores, cost)

    def cost_at(self, score: float) -> Read:
        """What that score costs with the method; nowhere outside of what was measured."""
        return _read(self.scores, self.costs, score)


@dataclass(frozen=True)
class Analysis:
    """methods: a row per run and method. points: a row per point, with who beats it.

    lost: points without one of the numbers.
    """

    x: str
    y: str
    methods: DataFrame
    points: DataFrame
    lost: int


def analyse(
    run_folders: Iterable[str | Path],
    x: str,
    y: str,
    costs: Sequence[str] = (),
    scores: Sequence[str] = (),
) -> Analysis:
    """The numbers of every curve of `y` over `x`.

    costs, scores: at which every curve is read, as text with a suffix (`0.5M`).

    Raises:
        InputError: there is no such column, or nothing to hold curves against.
    """
    from pandas import DataFrame

    frame = load(run_folders)
    x, y = column_of(frame, x), column_of(frame, y)
    signs = [1.0 if metric(frame, column).better == "higher" else -1.0 for column in (x, y)]
    if signs[0] > 0:
        raise InputError(f"{x}: more of it is better, so it is no cost; give one with --x")
    table = curves(frame, x, y)
    corner = _corner(table, signs[1], y)
    at_costs = [read_quantity(text, metric(frame, x).unit, "--at") for text in costs]
    at_scores = [read_quantity(text, metric(frame, y).unit, "--at-score") for text in scores]
    rows = []
    for curve in _fronts(table, signs[1]):
        row = {"run": curve.run, "method": curve.method, "points": len(curve.costs)}
        row["hypervolume"] = round(curve.hypervolume(*corner), 4)
        for text, cost in zip(costs, at_costs, strict=True):
            read = curve.score_at(cost)
            row[f"{y} at {x} {text}"] = str(read._replace(value=signs[1] * read.value))
        for text, score in zip(scores, at_scores, strict=True):
            row[f"{x} at {y} {text}"] = str(curve.cost_at(signs[1] * score))
        rows.append(row)
    if not rows:
        raise InputError(f"no method has both {x} and {y}, so there is no curve; sweep some")
    methods = DataFrame(rows).sort_values("hypervolume", ascending=False, kind="stable")
    points = _ranked(table, signs[1])
    meant = frame.loc[~frame["method"].isin([FBANK, RANDOM]), "key"]
    return Analysis(x, y, methods, points, len(meant) - len(" ".join(points["keys"]).split()))


def _corner(table: DataFrame, sign: float, y: str) -> tuple[float, float, float]:
    """The dense model's cost, and FBANK's and its score."""
    dense, fbank = (table[table["method"] == name] for name in (DENSE, FBANK))
    if dense.empty or dense["x"].isna().all() or fbank.empty:
        raise InputError(f"{y}: curves are held against the dense model and FBANK; score both")
    return dense["x"].mean(), sign * fbank["y"].mean(), sign * dense["y"].mean()


def _fronts(table: DataFrame, sign: float) -> Iterable[Curve]:
    """Every method's own front. The dense model is every method's point of rate 0."""
    competing = table[~table["method"].isin([FBANK, RANDOM]) & table["x"].notna()]
    for (run, method), rows in competing.groupby(["run", "method"], sort=False):
        if method != DENSE:
            costs, scores = rows["x"].tolist(), (sign * rows["y"]).tolist()
            kept = front(costs, scores)
            yield Curve(
                str(run), str(method), tuple(costs[i] for i in kept), tuple(scores[i] for i in kept)
            )


def _read(known: Sequence[float], wanted: Sequence[float], at: float) -> Read:
    """The value of `wanted` where `known`, which rises, is `at`."""
    for (x0, x1), (y0, y1) in zip(pairwise(known), pairwise(wanted), strict=True):
        if x0 < at < x1:
            return Read(y0 + (y1 - y0) * (at - x0) / (x1 - x0), True)
    exact = [value for x, value in zip(known, wanted, strict=True) if x == at]
    return Read(exact[0], False) if exact else NOWHERE


def _ranked(table: DataFrame, sign: float) -> DataFrame:
    """Every point with the one that beats it by most, and whether their seeds tie.

    A point is beaten by one that costs no more and scores more, or costs less for as much; they
    tie where the ranges of their seeds overlap in the score.
    """
    points = table[~table["method"].isin([FBANK, RANDOM]) & table["x"].notna()].reset_index()
    names = [
        str(row.method) if row.method == DENSE else f"{row.method} at {row.rate:g}"
        for row in points.itertuples()
    ]
    rivals = [_rival(points["x"], sign * points["y"], place) for place in points.index]
    ties = [
        rival is not None and points["seeds"][place] > 1 and _overlap(points, place, rival)
        for place, rival in zip(points.index, rivals, strict=True)
    ]
    columns = ["run", "method", "rate", "seeds", "x", "x_low", "x_high", "y", "y_low", "y_high"]
    return points[columns].assign(
        dominated_by=["" if rival is None else names[rival] for rival in rivals],
        tied=ties,
        keys=points["keys"],
    )


def _rival(costs: Series, scores: Series, place: int) -> int | None:
    """The place of the best score among the points that beat one, None where none does."""
    better = (costs <= costs[place]) & (scores >= scores[place])
    better &= (costs < costs[place]) | (scores > scores[place])
    return int(scores[better].idxmax()) if better.any() else None


def _overlap(points: DataFrame, one: int, other: int) -> bool:
    low, high = points["y_low"], points["y_high"]
    return bool(low[other] <= high[one] and low[one] <= high[other])
