"""The parts that figures are put together from: curves, scales, titles, legend, caption."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from core.point import DENSE, FBANK
from reports._looks import Look
from results import axes as naming
from results.curves import devices, metric
from results.published import ANCHORS
from results.published import METHOD as PUBLISHED
from results.superb import CONVENTIONS, OFFICIAL

if TYPE_CHECKING:
    from pandas import DataFrame

#: SUPERB's tasks, as they are told of a score.
ALL_TEN = " ".join(sorted(CONVENTIONS[ANCHORS].tasks))

#: Inches of one column and of both columns of a page.
COLUMN, PAGE = 3.5, 7.16


def sheet(count: int, columns: int, height: float, **shared: Any) -> tuple[Figure, list[Axes]]:
    """A figure of so many panels, `columns` in a row, each `height` inches high, and a caption.

    One column of panels fits a column of a page. shared: `sharex`, `sharey`.
    """
    rows = -(-count // columns)
    width = COLUMN if columns == 1 else PAGE
    figure = Figure(figsize=(width, height * rows + 0.5), layout="constrained")
    flat = list(figure.subplots(rows, columns, squeeze=False, **shared).flat)
    for axes in flat[count:]:
        axes.remove()
    return figure, flat[:count]


def abreast(count: int) -> int:
    """In how many columns so many small panels look well."""
    return 3 if count in (5, 6) else min(count, 4)


def divided(table: DataFrame, column: str, divisor: float) -> DataFrame:
    """The table with the column and its range in another unit."""
    parts = [c for c in (column, f"{column}_low", f"{column}_high") if c in table]
    return table.assign(**{part: table[part] / divisor for part in parts})


def curve(axes: Axes, rows: DataFrame, look: Look, x: str = "x", y: str = "y") -> None:
    """A method's points in the order of their rates, with the range of their seeds."""
    dense = look.label.endswith(DENSE)
    axes.plot(
        rows[x], rows[y], label=look.label, linewidth=1.0, markersize=8 if dense else 3.8,
        zorder=4 if dense else 3, **look.marks(),
    )  # fmt: skip
    if (rows["seeds"] > 1).any():
        axes.errorbar(
            rows[x], rows[y], xerr=_reach(rows, x), yerr=_reach(rows, y), fmt="none",
            ecolor=look.colour, elinewidth=0.6, capsize=1.2, capthick=0.6, zorder=2.5,
        )  # fmt: skip


def level(axes: Axes, rows: DataFrame, look: Look) -> None:
    """A reference whose cost says nothing: its score as a line across, its range as a band."""
    axes.axhline(
        rows["y"].mean(), label=look.label, color=look.colour, linestyle=look.stroke, linewidth=1.0
    )
    low, high = rows["y_low"].min(), rows["y_high"].max()
    if high > low:
        axes.axhspan(low, high, color=look.colour, alpha=0.12, linewidth=0)


def _reach(rows: DataFrame, column: str) -> list[Any]:
    """How far the range reaches down and up; the mean of equal values may miss them by a bit."""
    middle = rows[column]
    return [(middle - rows[f"{column}_low"]).clip(0), (rows[f"{column}_high"] - middle).clip(0)]


def scale(axes: Axes, which: str, values: Any, decade: float = 10.0) -> None:
    """Few and plain tick labels, logarithmic where the values span more than `decade`.

    which: "x" or "y".
    """
    axis = {"x": axes.xaxis, "y": axes.yaxis}[which]
    low, high = values.min(), values.max()
    if low > 0 and high > decade * low:
        axes.set(**{f"{which}scale": "log"})
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    elif low == high:
        axis.set_major_locator(FixedLocator([float(low)]))
        axis.set_major_formatter(StrMethodFormatter("{x:.4g}"))
    else:
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))


def empty(axes: Axes, why: str) -> None:
    """Say inside the axes why there is nothing in them."""
    axes.text(
        0.5, 0.5, why, ha="center", va="center", transform=axes.transAxes, color="#666666"
    )  # fmt: skip
    axes.xaxis.set_major_locator(NullLocator())


def title(frame: DataFrame, column: str, values: Any) -> str:
    """An axis label: what it is, in which unit, and which way is better where that is not up."""
    meaning = metric(frame, column)
    largest = values.abs().max() if values.notna().any() else 0.0
    _, unit = naming.scale(meaning.unit, largest)
    text = naming.TITLES.get(column, column) + (f" ({unit})" if unit else "")
    if column == "superb_s":
        tasks = " ".join(sorted({t for text in frame["superb_tasks"] for t in text.split()}))
        text = f"superb_s ({'all ten tasks' if tasks == ALL_TEN else f'mean of {tasks}'})"
    elif frame.attrs["sections"].get(column, "").startswith(("task.", OFFICIAL)):
        text += f", {meaning.better} is better"
    return text


def legend(figure: Figure) -> None:
    """One legend below, for what any of the axes shows; the figure grows by its height."""
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    em = _points(rcParams["legend.fontsize"]) / 72
    widest = (0.52 * max(map(len, handles)) + 4.2) * em
    columns = max(1, min(len(handles), int(figure.get_figwidth() / widest)))
    figure.set_figheight(figure.get_figheight() + 1.65 * em * -(-len(handles) // columns))
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=columns,
        columnspacing=1.2, handlelength=2.2,
    )  # fmt: skip


def caption(
    frame: DataFrame,
    table: DataFrame,
    measured: Sequence[str],
    width: float,
    remarks: Sequence[str] = (),
    spread: str = "mean and range",
) -> str:
    """What is drawn, on which terms, and what is missing from it.

    frame: the points that should be drawn. table: those that are, with `seeds` and `keys`.
    measured: the columns whose devices are to be named. width: of the figure, in inches. spread:
    how several seeds are shown.
    """
    outside = frame["run"] == PUBLISHED
    parts = [_published(frame[outside], table)] if outside.any() else []
    frame = frame[~outside]
    names = {model.rpartition("/")[2] for model in set(frame["model"]) - {FBANK}}
    if models := ", ".join(sorted(names)):
        most = int(table["seeds"].max())
        seeds = f"{spread} of {most} seeds" if most > 1 else "one seed"
        parts.insert(0, f"{models}: {seeds}")
    parts += sorted({f"timed on {d}" for column in measured for d in devices(frame, column) if d})
    drawn = {key for keys in table["keys"] for key in keys.split()}
    lost = frame[~frame["key"].isin(drawn)]
    if len(lost):
        statuses = lost["status"].replace("done", "without these numbers").value_counts()
        counts = ", ".join(f"{n} {status}" for status, n in statuses.items())
        parts.append(f"{points(len(lost))} not drawn ({counts})")
    text = textwrap.fill("; ".join([*parts, *remarks]), _letters(width), break_on_hyphens=False)
    if frame["random_weights"].any():
        text = f"RANDOM WEIGHTS: costs are real, scores mean nothing\n{text}"
    return text


def _published(frame: DataFrame, table: DataFrame) -> str:
    """How many published models are drawn, and what their superb_s is relative to."""
    there = table[(table["run"] == PUBLISHED) & table["x"].notna() & table["y"].notna()]
    anchors = ", ".join(sorted(set(frame["anchors"])))
    return f"{there['model'].nunique()} of {len(frame)} published models drawn ({anchors})"


def _letters(width: float) -> int:
    """How many letters of a caption fit that many inches."""
    return int(width * 136 / _points(rcParams["figure.titlesize"]))


def _points(size: float | str) -> float:
    """A font size in points, which matplotlib's own style gives in words."""
    return FontProperties(size=size).get_size_in_points()


def points(count: int) -> str:
    """`1 point is` or `2 points are`."""
    return "1 point is" if count == 1 else f"{count} points are"
