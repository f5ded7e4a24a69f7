"""Choosing a model: those of a run that keep within limits, or how near the others come."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import InputError
from core.point import FBANK, RANDOM
from results import axes
from results.curves import column_of, metric
from results.quantity import read_quantity
from results.store import RunFolder
from results.table import load

if TYPE_CHECKING:
    from pandas import DataFrame

#: What the options of `bench select` limit; MACs are those over SUPERB's 32 utterances, the unit of
#: published tables.
COLUMNS = {"params": "params_total", "macs": "macs_superb32", "latency": "latency",
           "memory": "memory", "score": "superb_s"}  # fmt: skip

_CONDITION = re.compile(r"\s*([\w.-]+)\s*(<=|>=)\s*(\S.*)")


@dataclass(frozen=True)
class Limit:
    """What a model must keep to: at most, or at least, so much of one column."""

    column: str
    at_most: bool
    amount: float
    unit: str

    def miss(self, value: float) -> float:
        """By which share of the limit a value is on the wrong side; infinite where unknown."""
        if math.isnan(value):
            return math.inf
        over = value - self.amount if self.at_most else self.amount - value
        return max(0.0, over) / abs(self.amount) if self.amount else max(0.0, over)

    def told(self, value: float) -> str:
        """What a value misses, in words."""
        sign = "<=" if self.at_most else ">="
        if math.isnan(value):
            return f"{self.column} was not measured, {sign} {shown(self.amount, self.unit)} asked"
        return (
            f"{self.column} is {shown(value, self.unit)}, {100 * self.miss(value):.1f} % past "
            f"{sign} {shown(self.amount, self.unit)}"
        )


@dataclass(frozen=True)
class Candidate:
    """A method at a rate, the mean over its seeds; folder: the saved encoder of the best seed."""

    method: str
    rate: float
    seeds: int
    values: Mapping[str, float]
    misses: Mapping[Limit, float]
    folder: Path

    @property
    def fits(self) -> bool:
        return not any(self.misses.values())


def read_limits(
    frame: DataFrame, wanted: Mapping[str, str | None], conditions: Sequence[str]
) -> list[Limit]:
    """Limits from options (`max_params`: `30M`, `min_score`: `800`) and conditions (`pr<=20`).

    Raises:
        InputError: a column was not measured, or an amount cannot be read.
    """
    limits = []
    for option, text in wanted.items():
        if text is not None:
            side, _, name = option.partition("_")
            what = f"--{side}-{name}"
            limits.append(_limit(frame, COLUMNS[name], side == "max", text, what))
    for condition in conditions:
        found = _CONDITION.fullmatch(condition)
        if not found:
            raise InputError(
                f"condition {condition!r}: expected NAME<=NUMBER or NAME>=NUMBER, as in 'pr<=20'"
            )
        limits.append(_limit(frame, found[1], found[2] == "<=", found[3], f"condition {found[1]}"))
    return limits


def candidates(
    run_folder: str | Path, limits: Sequence[Limit], frame: DataFrame
) -> list[Candidate]:
    """All models of a run: those that fit, the best score first, then the nearest misses."""
    run = RunFolder(run_folder)
    done = frame[(frame["status"] == "done") & ~frame["method"].isin([FBANK, RANDOM])]
    found = []
    for (method, rate), rows in done.groupby(["method", "rate"], sort=True):
        values = rows.select_dtypes("number").mean()
        best = rows.sort_values("superb_s", ascending=False, na_position="last", kind="stable")
        misses = {limit: limit.miss(float(values[limit.column])) for limit in limits}
        folder = run.model_folder(str(best["key"].iloc[0]))
        means = {str(column): float(value) for column, value in values.items()}
        candidate = Candidate(str(method), float(str(rate)), len(rows), means, misses, folder)
        found.append(candidate)
    return sorted(found, key=_rank)


def _rank(candidate: Candidate) -> tuple:
    """What fits by its score and then its size; what does not by how far it is off in all."""
    score = candidate.values.get("superb_s", math.nan)
    size = candidate.values.get("params_total", math.nan)
    return (
        sum(candidate.misses.values()),
        math.inf if math.isnan(score) else -score,
        math.inf if math.isnan(size) else size,
    )


def open_run(run_folder: str | Path) -> DataFrame:
    """The table of a run that has something to choose from.

    Raises:
        InputError: it holds no run, or none of its models was made.
    """
    frame = load([run_folder])
    if not (frame["status"] == "done").any():
        raise InputError(f"{run_folder} has no finished point to choose from; run the sweep first")
    return frame


def _limit(frame: DataFrame, name: str, at_most: bool, text: str, what: str) -> Limit:
    column = column_of(frame, name)
    unit = metric(frame, column).unit
    return Limit(column, at_most, read_quantity(text, unit, what), unit)


def shown(value: float, unit: str) -> str:
    """A value with the prefix that makes it readable: `26.6 M`, `12.1 ms`."""
    divisor, symbol = axes.scale(unit, abs(value))
    return f"{value / divisor:.4g} {symbol}".strip()
