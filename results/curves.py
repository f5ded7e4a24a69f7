"""Seeds become points, points become curves: what a figure draws, as a table of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from core.errors import InputError
from core.metric import Metric
from core.point import FBANK, RANDOM, REFERENCES
from results import axes
from results.front import front
from results.superb import OFFICIAL, QUICK
from results.table import MACHINE_FREE

if TYPE_CHECKING:
    from pandas import DataFrame, Series


#: What the seeds of a point have in common, as columns.
POINT = ["run", "model", "method", "rate"]


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

    plain = DataFrame(frame)  # pandas would copy all that `attrs` holds for every group
    plain.attrs = {}
    numbers: dict[str, Any] = {}
    for name, column in columns.items():
        numbers |= {name: (column, "mean"), f"{name}_low": (column, "min")}
        numbers |= {f"{name}_high": (column, "max")}
    groups = plain.groupby(POINT, sort=False)
    return groups.agg(seeds=("seed", "nunique"), **numbers).join(keys(plain)).reset_index()


def keys(frame: DataFrame) -> Series:
    """The keys of the records behind each of the points; pandas would take long over joining."""
    from pandas import MultiIndex, Series

    found: dict[tuple, list[str]] = {}
    for *point, key in zip(*(frame[column] for column in (*POINT, "key")), strict=True):
        found.setdefault(tuple(point), []).append(key)
    index = MultiIndex.from_tuples(found, names=POINT)
    return Series([" ".join(own) for own in found.values()], index, dtype=str, name="keys")


def column_of(frame: DataFrame, name: str) -> str:
    """The column that a metric, a task or a short name stands for in that table.

    Where superb_s is of the official grade, a task is the official one too, and MACs are those that
    published tables give.

    Raises:
        InputError: there is no such column, or nothing was measured in it.
    """
    sections = {column: "" for column in map(str, frame) if column.startswith("score.")}
    sections |= frame.attrs["sections"]
    if frame["superb_s"].notna().any():
        sections["superb_s"] = ""
    if frame.attrs["anchors"] != QUICK:
        known = {*sections, *sections.values()}
        official = {"macs": "macs_superb32"}.get(name, f"{OFFICIAL}{name}")
        name = official if official in known else name
    if name == "superb_s" and name not in sections:
        raise InputError(_no_superb_s(frame))
    return axes.resolve(name, sections)


def _no_superb_s(frame: DataFrame) -> str:
    """Why there is none, and what there is in its place."""
    sections = frame.attrs["sections"].values()
    tasks = sorted({s.removeprefix("task.") for s in sections if s.startswith("task.")})
    instead = f"; or take a task: {', '.join(tasks)}" if tasks else ""
    if frame.attrs["anchors"] != QUICK:
        return "'superb_s' was not measured in this run by SUPERB's recipes; bench superb does that"
    return (
        "'superb_s' was not measured in this run: it is relative to FBANK and the dense model, "
        f"scored on tasks that tell them apart{instead}"
    )


def metric(frame: DataFrame, column: str) -> Metric:
    """What the column means; scores worked out here say no more than that higher is better."""
    return frame.attrs["metrics"].get(column) or Metric(column, "", "higher")


def grades(frame: DataFrame, column: str = "superb_s") -> Series:
    """What makes a score comparable with others of its column, as text; empty for what does not.

    The quick grade is relative to the dense model of its run and to labelled audio; a task's own
    metric to the audio alone. Official scores have anchors and audio in common.
    """
    section = frame.attrs["sections"].get(column, "")
    blank = frame["superb_s"].map(lambda _: "")
    audio = frame["task_data"].map(lambda name: f" on {name}" if name else "")
    if section.startswith("task."):
        return ("quick" + audio).where(frame[column].notna(), "")
    if column != "superb_s" and not column.startswith("score."):
        return blank
    own = " of " + frame["model"] + audio
    told = frame["anchors"] + own.where(frame["anchors"].str.startswith(QUICK), "")
    if column == "superb_s":
        told += " over " + frame["superb_tasks"]
    return told.where(frame[column].notna(), "")


def devices(frame: DataFrame, column: str) -> set[str]:
    """Where the numbers of that column were measured, empty where it makes no difference."""
    section = frame.attrs["sections"].get(column, "")
    if not section.startswith("profile.") or section in MACHINE_FREE:
        return set()
    return set(frame.loc[frame[column].notna(), "device"])


def check_comparable(frame: DataFrame, column: str) -> None:
    """Refuse an axis that mixes devices, or scores of different grades, anchors, tasks or audio.

    Raises:
        InputError: the axis mixes them.
    """
    machines = sorted(devices(frame, column))
    if len(machines) > 1:
        raise InputError(
            f"{column} was measured on {' and on '.join(map(repr, machines))}, which no axis "
            "should mix; draw the runs of each device apart"
        )
    kinds = sorted(set(grades(frame, column)) - {""})
    if len(kinds) > 1:
        anchored = [kind.startswith(QUICK) for kind in kinds]
        mend = "draw those runs apart" + ", or one task with --y" * (column == "superb_s")
        if any(anchored) and not all(anchored):
            mend = "give quick scores a figure of their own, or score those models by bench superb"
        raise InputError(
            f"{column} is {' and '.join(map(repr, kinds))}, which no axis should mix; {mend}"
        )


def _signed(frame: DataFrame, values: Any, column: str, sign: int) -> Any:
    """The values as a cost (sign -1: low is good) or as a score (sign 1: high is good)."""
    return values * (sign if metric(frame, column).better == "higher" else -sign)
