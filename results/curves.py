"""Seeds become points, points become curves: what a figure draws, as a table of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from core.errors import InputError
from core.metric import Metric
from core.point import FBANK, RANDOM, REFERENCES
from results.front import front
from results.table import MACHINE_FREE

if TYPE_CHECKING:
    from pandas import DataFrame


def curves(frame: DataFrame, x: str, y: str) -> DataFrame:
    """One row per run, method and rate with the mean and the range of its seeds on both axes.

    Columns: run, method, rate, seeds, x, x_low, x_high, y, y_low, y_high, on_front, and the keys of
    the records behind the row. Points without a number on either axis are left out, references
    without a cost are kept. The front is global; FBANK and the random encoder do not compete.

    Raises:
        InputError: the numbers of one axis do not compare with each other.
    """
    for column in (x, y):
        check_comparable(frame, column)
    drawn = frame[frame[y].notna() & (frame[x].notna() | frame["method"].isin(REFERENCES))]
    table = over_seeds(drawn, {"x": x, "y": y})
    competing = table[~table["method"].isin([FBANK, RANDOM])]
    costs, scores = _signed(frame, competing["x"], x, -1), _signed(frame, competing["y"], y, 1)
    kept = competing.index[front(costs.tolist(), scores.tolist())]
    table.insert(len(table.columns) - 1, "on_front", table.index.isin(kept))
    return table


def over_seeds(frame: DataFrame, columns: Mapping[str, str]) -> DataFrame:
    """One row per run, method and rate: mean, lowest and highest value of its seeds.

    columns: of the frame, by the name they get here; NAME_low and NAME_high are the range. `seeds`
    counts them, `keys` names the records behind the row.
    """
    from pandas import DataFrame

    groups = frame.groupby(["run", "model", "method", "rate"], sort=False)
    names = [part for name in columns for part in (name, f"{name}_low", f"{name}_high")]
    rows = [
        {"run": run, "model": model, "method": method, "rate": rate, **_point(group, columns)}
        for (run, model, method, rate), group in groups
    ]
    return DataFrame(rows, columns=["run", "model", "method", "rate", "seeds", *names, "keys"])


def metric(frame: DataFrame, column: str) -> Metric:
    """What the column means; scores worked out here say no more than that higher is better."""
    return frame.attrs["metrics"].get(column) or Metric(column, "", "higher")


def devices(frame: DataFrame, column: str) -> set[str]:
    """Where the numbers of that column were measured, empty where it makes no difference."""
    section = frame.attrs["sections"].get(column, "")
    if not section.startswith("profile.") or section in MACHINE_FREE:
        return set()
    return set(frame.loc[frame[column].notna(), "device"])


def check_comparable(frame: DataFrame, column: str) -> None:
    """Refuse an axis that mixes devices, or scores with different anchors or tasks.

    Raises:
        InputError: the axis mixes them.
    """
    machines = sorted(devices(frame, column))
    if len(machines) > 1:
        raise InputError(
            f"{column} was measured on {' and on '.join(map(repr, machines))}, which no axis "
            "should mix; draw the runs of each device apart"
        )
    if column != "superb_s":
        return
    scored = frame[frame["superb_s"].notna()]
    kinds = sorted(set(scored["anchors"] + " over " + scored["superb_tasks"]))
    if len(kinds) > 1:
        raise InputError(
            f"superb_s is {' and '.join(map(repr, kinds))}, which no axis should mix; "
            "draw those runs apart, or one task with --y"
        )


def _point(group: DataFrame, columns: Mapping[str, str]) -> dict[str, Any]:
    cells: dict[str, Any] = {"seeds": group["seed"].nunique(), "keys": " ".join(group["key"])}
    for name, column in columns.items():
        values = group[column]
        cells |= {name: values.mean(), f"{name}_low": values.min(), f"{name}_high": values.max()}
    return cells


def _signed(frame: DataFrame, values: Any, column: str, sign: int) -> Any:
    """The values as a cost (sign -1: low is good) or as a score (sign 1: high is good)."""
    return values * (sign if metric(frame, column).better == "higher" else -sign)
