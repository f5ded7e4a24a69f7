"""Two runs held together: what got better, what got worse, and what is no more than noise.

Points are matched by model, method and rate, and then seed by seed. With two seeds or more the mean
of the paired differences has a 95 % interval (Student's t); where it holds 0, the difference is
noise. A single seed has none: its scores repeat bit by bit on one machine, so a difference is a
change of code or data, but how much another seed would differ is not known. Of wall-clock only the
speed-up is compared, by the intervals that it was measured with, as times of two runs drift. A
leaderboard.csv stands for its run, to the six digits that it has and without times.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from core.errors import InputError
from core.metric import Metric
from core.point import FBANK, RANDOM
from core.record import Record
from results.curves import metric
from results.leaderboard import cell
from results.leaderboard import read as read_table
from results.published import METHOD
from results.superb import OFFICIAL
from results.table import MACHINE_FREE, read, tabulate

if TYPE_CHECKING:
    from pandas import DataFrame, Series

Verdict = Literal["better", "worse", "noise", "lost"]

#: The detail of a latency that tells within what its speed-up lies.
INTERVAL = "speedup_interval95"

#: Points of superb_s, and of a task's normalised score, are a share of the dense model's 1000.
SPAN = 1000.0


@dataclass(frozen=True)
class Change:
    """One number of one model in both runs. share: the difference over the value before.

    interval: of that share, None with one seed. A `lost` model, or number of one that is there, was
    there and is not any more.
    """

    method: str
    rate: float
    column: str
    before: float
    after: float
    share: float
    interval: tuple[float, float] | None
    verdict: Verdict

    def __str__(self) -> str:
        point = self.method if not self.rate else f"{self.method} at {self.rate:g}"
        if self.verdict == "lost":
            return f"{point}: {self.column}"
        spread = "" if self.interval is None else " ({:+.1%} to {:+.1%})".format(*self.interval)
        return (
            f"{point}: {self.column} {self.before:,.6g} -> {self.after:,.6g}, "
            f"{self.share:+.1%}{spread}"
        )


@dataclass(frozen=True)
class Comparison:
    """All changes, and how many numbers are exactly as before.

    seeds: the fewest of a point. remarks: what was not compared, and why.
    """

    changes: list[Change]
    same: int
    seeds: int
    remarks: tuple[str, ...] = ()

    def of(self, *verdicts: Verdict) -> list[Change]:
        """Changes of those kinds, the largest first."""
        chosen = [change for change in self.changes if change.verdict in verdicts]
        return sorted(chosen, key=lambda c: (-abs(c.share), c.method, c.rate, c.column))

    def regressions(self, tolerance: float) -> list[Change]:
        """What is lost, or worse beyond noise by more than that share."""
        worse = [change for change in self.of("worse") if abs(change.share) > tolerance]
        return self.of("lost") + worse


class Side(NamedTuple):
    """One of the two. intervals: of each point's speed-up, by its key."""

    frame: DataFrame
    intervals: dict[str, tuple[float, float]]

    @classmethod
    def open(cls, path: str | Path) -> Side:
        """A run's folder, or the leaderboard.csv of one.

        Raises:
            InputError: it is neither.
        """
        if Path(path).suffix == ".csv":
            return cls(read_table(path), {})
        runs = read([path], [INTERVAL])
        return cls(tabulate(runs), _intervals(runs[0].records))

    @property
    def written(self) -> bool:
        """Whether it is a file, whose numbers are rounded and do not say what they mean."""
        return "metrics" not in self.frame.attrs


def compare(before: str | Path, after: str | Path) -> Comparison:
    """Hold the points of two runs together; of one of them its leaderboard.csv will do.

    Raises:
        InputError: a folder holds no run, a file no leaderboard, or both are files.
    """
    first, second = Side.open(before), Side.open(after)
    if first.written and second.written:
        raise InputError(
            f"{before} and {after} are both tables, which do not say which way a number is better; "
            "give the folder of one of the runs"
        )
    run = second.frame if first.written else first.frame
    columns, remarks = _compared(first, second, run)
    old, new = first.frame, second.frame
    if first.written or second.written:
        numbers = ["rate", *columns]
        old, new = (f.assign(**{c: f[c].map(_rounded) for c in numbers}) for f in (old, new))
    changes: list[Change] = []
    same, fewest = 0, math.inf
    for rows, others in _matched(old, new):
        if others is None:
            changes.append(_lost(rows.iloc[0], "was made and measured, now is not"))
            continue
        fewest = min(fewest, len(rows))
        for column in columns:
            meaning = metric(run, column)
            found = _change(rows, others, column, meaning, (first.intervals, second.intervals))
            same += found is None and bool(rows[column].notna().any())
            changes += [found] if found else []
    return Comparison(changes, same, 0 if fewest == math.inf else int(fewest), remarks)


def _compared(first: Side, second: Side, run: DataFrame) -> tuple[list[str], tuple[str, ...]]:
    """Columns that both have: scores, metrics of tasks, and costs that no machine decides.

    run: that of the two which says where its columns come from. Also what is left out that a
    reader would look for.
    """
    there = set(first.frame) & set(second.frame)
    columns: list[str] = []
    remarks: tuple[str, ...] = ()
    grades = [_grade(side.frame) for side in (first, second)]
    if grades[0] == grades[1]:
        columns = ["superb_s"]
    elif all(grades):
        told = " and ".join(map(repr, grades))
        remarks = (f"superb_s is not compared: it is {told}",)
    for column, section in run.attrs["sections"].items():
        scored = section.startswith(("task.", OFFICIAL))
        if column in there and (scored or section in MACHINE_FREE):
            columns.append(column)
    timed = not (first.written or second.written) and "speedup" in there
    return columns + ["speedup"] * timed, remarks


def _grade(frame: DataFrame) -> str:
    """What superb_s is relative to and which tasks it is over, empty where there is none."""
    scored = frame[frame["superb_s"].notna()]
    return "; ".join(sorted(set(scored["anchors"] + " over " + scored["superb_tasks"])))


def _rounded(value: float) -> float:
    """As a leaderboard has it."""
    return float(cell(float(value)) or "nan")


def _matched(first: DataFrame, second: DataFrame) -> Iterator[tuple[DataFrame, DataFrame | None]]:
    """Rows of each model in both runs, seed by seed; None where the second has it no more."""
    key, names = ["model", "method", "rate"], ["seed"]
    done = first[(first["status"] == "done") & ~first["method"].isin([FBANK, RANDOM, METHOD])]
    again = second[second["status"] == "done"].set_index([*key, *names])
    for _, rows in done.groupby(key, sort=False):
        rows = rows.set_index([*key, *names])
        common = rows.index.intersection(again.index)
        if len(common):
            yield rows.loc[common].reset_index(), again.loc[common].reset_index()
        else:
            yield rows.reset_index(), None


def _lost(row: Series, what: str) -> Change:
    nothing = math.nan
    return Change(str(row["method"]), float(row["rate"]), what, nothing, nothing, -math.inf,
                  None, "lost")  # fmt: skip


def _change(
    rows: DataFrame,
    others: DataFrame,
    column: str,
    meaning: Metric,
    intervals: Sequence[dict[str, tuple[float, float]]],
) -> Change | None:
    """What became of one number; None where it is as it was, or was not measured before."""
    before, after = rows[column], others[column]
    if (before.notna() & after.isna()).any():
        return _lost(rows.iloc[0], f"{column} was measured, now is not")
    known = before.notna() & after.notna()
    if not known.any() or (before[known] == after[known]).all():
        return None
    mean = float(before[known].mean())
    unit = SPAN if column == "superb_s" or column.startswith("score.") else abs(mean) or 1.0
    differences = ((after - before)[known] / unit).tolist()
    interval = _spread(differences)
    if column == "speedup":
        interval = _apart(rows["key"].tolist(), others["key"].tolist(), intervals, unit)
    share = sum(differences) / len(differences)
    if interval is not None and interval[0] <= 0 <= interval[1]:
        verdict: Verdict = "noise"
    else:
        verdict = "better" if (share > 0) == (meaning.better == "higher") else "worse"
    row = rows.iloc[0]
    return Change(str(row["method"]), float(row["rate"]), column, mean,
                  float(after[known].mean()), share, interval, verdict)  # fmt: skip


def _spread(differences: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % interval of the mean of paired differences."""
    from statistics import fmean, stdev

    count = len(differences)
    if count < 2:
        return None
    from scipy.stats import t

    half = float(t.ppf(0.975, count - 1)) * stdev(differences) / math.sqrt(count)
    return fmean(differences) - half, fmean(differences) + half


def _apart(
    keys: Sequence[str],
    others: Sequence[str],
    intervals: Sequence[dict[str, tuple[float, float]]],
    unit: float,
) -> tuple[float, float] | None:
    """How far two speed-ups are apart at least and at most, by their own intervals."""
    pairs = [
        (intervals[0][a], intervals[1][b])
        for a, b in zip(keys, others, strict=True)
        if a in intervals[0] and b in intervals[1]
    ]
    if not pairs:
        return None
    lows = [(after[0] - before[1]) / unit for before, after in pairs]
    highs = [(after[1] - before[0]) / unit for before, after in pairs]
    return sum(lows) / len(lows), sum(highs) / len(highs)


def _intervals(records: Sequence[Record]) -> dict[str, tuple[float, float]]:
    """The interval of each point's speed-up, by its key."""
    found = {}
    for record in records:
        section = record.sections.get("profile.latency")
        if section is not None and INTERVAL in section.details:
            low, high = section.details[INTERVAL]
            found[record.point.key] = (float(low), float(high))
    return found
