"""Is smaller always faster? MACs saved against time saved, and the roofline that says why not.

Left: how many times fewer MACs than the dense model, against how many times faster; on the diagonal
a method saves as much time as MACs. Right: the roofline of Williams et al. 2009: MACs per byte of
weights against MACs per second, below what the device's memory and its matrix products allow.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from dataclasses import dataclass
from math import nan
from typing import Any, ClassVar

import numpy as np
from matplotlib.axes import Axes
from pandas import DataFrame

from core.errors import InputError
from core.point import DENSE, FBANK, RANDOM
from reports._drawing import Drawing, Page, Runs
from reports._looks import Look
from reports._page import PAGE, caption, curve, divided, empty, legend, points, scale, sheet
from results import axes as naming
from results.curves import check_comparable, over_seeds

#: What a row of the figure's table tells, each with the range of its seeds. intensity: MACs per
#: byte of weights; macs_per_s: achieved; product_rate (MAC/s) and bandwidth (byte/s): measured
#: limits of the device.
NUMBERS = (
    "mac_reduction", "speedup", "intensity", "macs_per_s", "product_rate", "bandwidth",
)  # fmt: skip

#: Ratios that span more than this have logarithmic axes.
WIDE = 3.0

_NO_LIMIT = "timed before limits were recorded; time it again"


@dataclass(frozen=True)
class Speedup(Drawing):
    """Two panels: speed-up against MAC reduction, and the roofline."""

    reads: ClassVar[tuple[str, ...]] = ("speedup_interval95", "limit", "unavailable")

    def page(self, runs: Runs) -> Page:
        frame = _measured(runs)
        shown = frame[frame["speedup"].notna() & frame["mac_reduction"].notna()]
        if shown.empty:
            raise InputError(_lacking(runs, "point with both a speed-up and the dense MACs"))
        table = _table(shown)
        reasons = Counter(shown.loc[shown["intensity"].isna(), "no_limit"])
        figure, (left, right) = sheet(2, 2, 2.8)
        _compare(left, table, runs.looks)
        _roofline(right, table, runs.looks, list(reasons))
        legend(figure)
        told = caption(frame, table, ["speedup"], PAGE, _remarks(shown, reasons))
        figure.suptitle(told)
        return Page(figure, table)


def _measured(runs: Runs) -> DataFrame:
    """The points with the numbers of the figure, NaN where one lacks them.

    Raises:
        InputError: nothing was timed in turns with the dense model or no MACs were counted, or
            speed-ups are of several devices.
    """
    sections, frame = runs.frame.attrs["sections"], runs.frame
    if "speedup" not in sections:
        raise InputError(_lacking(runs, "speed-up"))
    macs = next((c for c in naming.ALIASES["macs"] if c in sections), None)
    if macs is None:
        raise InputError(_lacking(runs, "count of MACs"))
    frame = frame[~frame["method"].isin([FBANK, RANDOM])]
    check_comparable(frame, "speedup")
    dense = frame[frame["method"] == DENSE].groupby(["run", "model"])[macs].mean()
    full = [dense.get(pair, nan) for pair in zip(frame["run"], frame["model"], strict=True)]
    details = runs.details("profile.latency")
    shares = frame["limit_share"] if "limit_share" in frame else [nan] * len(frame)
    told = DataFrame(
        _timed(details.get((run, key), {}), share)
        for run, key, share in zip(frame["run"], frame["key"], shares, strict=True)
    ).set_index(frame.index)
    return frame.assign(mac_reduction=full / frame[macs], **{str(c): told[c] for c in told})


def _lacking(runs: Runs, what: str) -> str:
    return f"{runs.names} has no {what}; sweep it again with --profilers macs,latency"


def _timed(details: dict[str, Any], limit_share: float) -> dict[str, Any]:
    """What the details of a latency section add to its values."""
    low, high = details.get("speedup_interval95", (nan, nan))
    limit = details.get("limit")
    reason = details.get("unavailable", {}).get("limit_share", _NO_LIMIT)
    best = {} if limit is None else {
        "intensity": limit["macs"] / limit["bytes"],
        "macs_per_s": limit["macs"] * limit_share / limit["seconds"],
        "product_rate": limit["macs_per_s"],
        "bandwidth": limit["bytes_per_s"],
    }  # fmt: skip
    blank = dict.fromkeys(NUMBERS[2:], nan)
    return {"low": low, "high": high, "no_limit": reason, **blank, **best}


def _table(shown: DataFrame) -> DataFrame:
    """A row per run, method and rate; the interval of a speed-up spans those of its seeds."""
    table = over_seeds(shown, {name: name for name in NUMBERS})
    groups = shown.groupby(["run", "model", "method", "rate"], sort=False)
    place = table.columns.tolist().index("speedup_high") + 1
    table.insert(place, "interval95_low", groups["low"].min().to_numpy())
    table.insert(place + 1, "interval95_high", groups["high"].max().to_numpy())
    return table


def _compare(axes: Axes, table: DataFrame, looks: dict[tuple[str, str], Look]) -> None:
    """The left panel. Where ratios span much, both axes are logarithmic: halves are as twices."""
    for (run, method), rows in table.groupby(["run", "method"], sort=False):
        look, rows = looks[str(run), str(method)], rows.sort_values("rate")
        curve(axes, rows, look, "mac_reduction", "speedup")
        axes.vlines(
            rows["mac_reduction"], rows["interval95_low"], rows["interval95_high"],
            color=look.colour, linewidth=0.6, alpha=0.8, zorder=2.4,
        )  # fmt: skip
    ratios = np.concatenate([table["mac_reduction"], table["speedup"], [1.0]])
    ends = [min(1.0, table["mac_reduction"].min()), ratios.max()]
    axes.plot(
        ends, ends, color="#A0A0A0", linewidth=2.5, zorder=1.5, label="as much faster as smaller"
    )
    axes.axhline(1.0, color="#A0A0A0", linewidth=0.8, linestyle=":", label="as fast as dense")
    for which in "xy":
        scale(axes, which, ratios, WIDE)
    axes.set_xlabel("MAC reduction (x)")
    axes.set_ylabel("Measured speed-up (x)")


def _roofline(
    axes: Axes, table: DataFrame, looks: dict[tuple[str, str], Look], reasons: list[str]
) -> None:
    """The right panel. reasons: why points are not on it."""
    axes.set_xlabel("MACs per byte of weights")
    placed = table[table["intensity"].notna()]
    if placed.empty:
        empty(axes, "\n".join(textwrap.fill(f"no limits: {reason}", 36) for reason in reasons))
        axes.set_yticks([])
        return
    divisor, prefix = naming.scale("", placed["product_rate"].max())
    for column in ("macs_per_s", "product_rate", "bandwidth"):
        placed = divided(placed, column, divisor)
    for (run, method), rows in placed.groupby(["run", "method"], sort=False):
        look = looks[str(run), str(method)]
        curve(axes, rows.sort_values("rate"), look, "intensity", "macs_per_s")
    _ceilings(axes, placed, prefix)
    axes.set_ylabel(f"Achieved rate ({prefix}MAC/s)")


def _ceilings(axes: Axes, placed: DataFrame, prefix: str) -> None:
    """What memory and matrix products allow: medians over the points, the band their range."""
    rate, bandwidth = placed["product_rate"].median(), placed["bandwidth"].median()
    ridge = rate / bandwidth
    reached = [ridge, *placed["intensity"]]
    x = np.geomspace(min(reached) / 1.5, max(reached) * 1.5, 100)
    slope, flat = np.append(x[x < ridge], ridge), np.append(ridge, x[x > ridge])
    axes.plot(
        slope, slope * bandwidth, color="black", linewidth=1.2, linestyle="--",
        label=f"memory: {_range(placed, 'bandwidth')} {prefix}B/s",
    )  # fmt: skip
    axes.plot(
        flat, np.full(len(flat), rate), color="black", linewidth=1.2,
        label=f"products: {_range(placed, 'product_rate')} {prefix}MAC/s",
    )  # fmt: skip
    lowest, highest = placed.min(numeric_only=True), placed.max(numeric_only=True)
    low = np.minimum(x * lowest["bandwidth_low"], lowest["product_rate_low"])
    high = np.minimum(x * highest["bandwidth_high"], highest["product_rate_high"])
    axes.fill_between(x, low, high, color="black", alpha=0.1, linewidth=0)
    drawn = np.concatenate([placed["macs_per_s"], low, high])
    scale(axes, "x", x, 1.0)
    scale(axes, "y", drawn, 1.0)


def _range(placed: DataFrame, column: str) -> str:
    """`97.6`, or `43.2 to 103` where the points differ."""
    ends = (placed[f"{column}_low"].min(), placed[f"{column}_high"].max())
    return " to ".join(dict.fromkeys(f"{end:.3g}" for end in ends))


def _remarks(shown: DataFrame, reasons: Counter[str]) -> list[str]:
    """What the reader should know of the points, for the caption."""
    caps = ", caps: range of seeds" if shown["seed"].nunique() > 1 else ""
    told = [f"bars: 95 % interval of the speed-up{caps}"]
    told += [f"{points(n)} without a limit ({reason})" for reason, n in reasons.items()]
    disturbed = int(shown["disturbed"].eq(True).sum())
    return told + [f"{points(disturbed)} marked as disturbed while timed"] * bool(disturbed)
