"""The leaderboard: runs as one CSV file whose text changes only when a result does."""

from __future__ import annotations

import math
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from results.store import write_whole
from results.table import load

if TYPE_CHECKING:
    from pandas import DataFrame


def write(run_folders: Iterable[str | Path], out: str | Path) -> DataFrame:
    """Write the points of one or more runs to a CSV file and return them as numbers.

    Points that failed or are not supported are rows with their status and reason. The column `run`
    is there for several runs only.

    Raises:
        InputError: a folder holds no run, or the file cannot be written.
    """
    frame = load(run_folders).drop(columns="data")
    if frame["run"].nunique() <= 1:
        frame = frame.drop(columns="run")
    text = frame.astype(object).map(cell).to_csv(index=False, lineterminator="\n")
    write_whole(Path(out), text.encode())
    return frame


def cell(value: Any) -> str:
    """A value as text: whole numbers whole, others to six significant digits, never `1e+06`."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int | float):
        return str(value)
    if math.isnan(value):
        return ""
    if not math.isfinite(value) or float(value).is_integer():
        return f"{value:.0f}"
    return format(Decimal(f"{value:.6g}"), "f")
