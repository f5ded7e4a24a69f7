"""The Pareto figure: score against one or more costs, a curve per method, the front behind them.

Drawn from records alone, and the same bytes each time: no dates, no software versions.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from core.errors import InputError, closest
from core.point import DENSE, FBANK, RANDOM, REFERENCES
from reports.curves import curves, devices, metric
from reports.looks import STYLE, Look, appearances
from results import axes as naming
from results.store import write_whole
from results.table import load

if TYPE_CHECKING:
    from pandas import DataFrame

FORMATS = ("png", "pdf", "svg")

#: Without dates and versions, a figure drawn again is the same file.
_METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
    "svg": {"Date": None, "Creator": None},
}


def draw(
    run_folders: Sequence[str | Path],
    x: Sequence[str],
    y: str,
    out: str | Path,
    formats: Sequence[str] = ("png", "pdf"),
    methods: Sequence[str] | None = None,
) -> list[Path]:
    """Draw score `y` against each cost in `x`, and write what was drawn as CSV beside it.

    x, y: a metric, a task, or params, macs, latency, memory. out: the files' common path; a suffix
    such as .png is dropped. methods: which to draw, all by default; references always are.

    Returns:
        The files: one per format, then the CSV, which names the records behind each point.

    Raises:
        InputError: there is nothing to draw, a name is unknown, an axis would mix what does not
            compare, or the files cannot be written.
    """
    _check_formats(formats)
    frame = _filled(load(run_folders), run_folders)
    looks = appearances(frame)
    frame = _only(frame, methods)
    panels = _panels(frame, x, y)
    with style.context(["default", STYLE]):
        figure = _figure(frame, panels, looks)
        images = {suffix: _bytes(figure, suffix) for suffix in dict.fromkeys(formats)}
    out = Path(out)
    stem = out.with_suffix("") if out.suffix[1:] in (*FORMATS, "csv") else out
    contents = {**images, "csv": _csv(panels)}
    paths = {suffix: stem.with_name(f"{stem.name}.{suffix}") for suffix in contents}
    for suffix, content in contents.items():
        write_whole(paths[suffix], content)
    return list(paths.values())


@dataclass
class Panel:
    """One pair of axes: the columns, and the table of points drawn on them."""

    x: str
    y: str
    table: DataFrame


def _panels(frame: DataFrame, x: Sequence[str], y: str) -> list[Panel]:
    """What is drawn on each pair of axes; a cost that this run has not measured leaves a gap."""
    columns = {c: "" for c in map(str, frame) if c.startswith("score.")}
    columns |= frame.attrs["sections"]
    if frame["superb_s"].notna().any():
        columns["superb_s"] = ""
    y = naming.resolve(y, columns)
    panels, unmeasured = [], []
    for name in dict.fromkeys(x):
        try:
            column = naming.resolve(name, columns)
        except InputError as error:
            if name not in (*naming.ALIASES, *naming.TITLES):
                raise
            unmeasured.append(error)
            column = naming.ALIASES.get(name, (name,))[0]
            frame = frame.assign(**{column: float("nan")})
        panels.append(Panel(column, y, curves(frame, column, y)))
    if not panels:
        raise InputError("no cost to draw the score against; name one or more with --x")
    if len(unmeasured) == len(panels):
        raise unmeasured[0]
    return panels


def _figure(frame: DataFrame, panels: list[Panel], looks: dict[tuple[str, str], Look]) -> Figure:
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    width = 3.5 if columns == 1 else 7.16
    entries = len(panels[0].table.groupby(["run", "method"])) + 1
    legend_columns = 2 if columns == 1 else 5
    height = 2.5 * rows + 0.5 + 0.16 * -(-entries // legend_columns)
    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    flat = list(grid.flat)
    for axes, panel in zip(flat, panels, strict=False):
        _draw_panel(axes, frame, panel, looks)
    for axes in flat[len(panels) :]:
        axes.remove()
    for axes in grid[:, 0]:
        axes.set_ylabel(_title(frame, panels[0].y, frame[panels[0].y]))
    if metric(frame, panels[0].y).better == "lower":
        flat[0].invert_yaxis()
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=legend_columns,
        columnspacing=1.2, handlelength=2.2,
    )  # fmt: skip
    figure.suptitle(_caption(frame, panels, width), fontsize=8)
    return figure


def _draw_panel(
    axes: Axes, frame: DataFrame, panel: Panel, looks: dict[tuple[str, str], Look]
) -> None:
    table = panel.table
    costs = table.loc[~table["method"].isin([FBANK, RANDOM]), "x"].dropna()
    divisor, _ = naming.scale(metric(frame, panel.x).unit, costs.abs().max() if len(costs) else 0)
    for (run, method), rows in table.groupby(["run", "method"], sort=False):
        look = looks[str(run), str(method)]
        if method in (FBANK, RANDOM):
            _level(axes, rows, look)
        elif rows["x"].notna().any():
            _curve(axes, rows.sort_values("rate"), divisor, look)
    _front(axes, table, divisor, metric(frame, panel.x).better == "higher")
    axes.set_xlabel(_title(frame, panel.x, costs))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    if costs.empty:
        axes.text(
            0.5, 0.5, f"{panel.x}\nnot measured", ha="center", va="center",
            transform=axes.transAxes, color="#666666",
        )  # fmt: skip
        axes.xaxis.set_major_locator(NullLocator())
    else:
        _scale_x(axes, costs / divisor)


def _curve(axes: Axes, rows: DataFrame, divisor: float, look: Look) -> None:
    """A method's points in the order of their rates, with the range of their seeds."""
    x, y = rows["x"] / divisor, rows["y"]
    dense = look.label.endswith(DENSE)
    axes.plot(
        x, y, label=look.label, linewidth=1.0, markersize=8 if dense else 3.8,
        zorder=4 if dense else 3, **look.marks(),
    )  # fmt: skip
    # clip: the mean of equal values may miss them by a rounding error
    x_error = [(x - rows["x_low"] / divisor).clip(0), (rows["x_high"] / divisor - x).clip(0)]
    y_error = [(y - rows["y_low"]).clip(0), (rows["y_high"] - y).clip(0)]
    if (rows["seeds"] > 1).any():
        axes.errorbar(
            x, y, xerr=x_error, yerr=y_error, fmt="none", ecolor=look.colour, elinewidth=0.6,
            capsize=1.2, capthick=0.6, zorder=2.5,
        )  # fmt: skip


def _level(axes: Axes, rows: DataFrame, look: Look) -> None:
    """A reference whose cost says nothing: its score as a line across, its range as a band."""
    axes.axhline(
        rows["y"].mean(), label=look.label, color=look.colour, linestyle=look.stroke, linewidth=1.0
    )
    low, high = rows["y_low"].min(), rows["y_high"].max()
    if high > low:
        axes.axhspan(low, high, color=look.colour, alpha=0.12, linewidth=0)


def _front(axes: Axes, table: DataFrame, divisor: float, descending: bool) -> None:
    """The front as a staircase: the best score to be had at each cost."""
    rows = table[table["on_front"]].sort_values("x", ascending=not descending)
    if len(rows):
        axes.plot(
            rows["x"] / divisor, rows["y"], label="Pareto front", color="#C8C8C8", linewidth=3,
            drawstyle="steps-post", zorder=1.5, solid_capstyle="round",
        )  # fmt: skip


def _scale_x(axes: Axes, costs: Any) -> None:
    """Logarithmic where the costs span more than a decade, with few and plain tick labels."""
    low, high = costs.min(), costs.max()
    if low > 0 and high > 10 * low:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    elif low == high:
        axes.xaxis.set_major_locator(FixedLocator([float(low)]))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:.4g}"))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))


def _title(frame: DataFrame, column: str, values: Any) -> str:
    """An axis label: what it is, in which unit, and which way is better where that is not up."""
    meaning = metric(frame, column)
    largest = values.abs().max() if values.notna().any() else 0.0
    _, unit = naming.scale(meaning.unit, largest)
    title = naming.TITLES.get(column, column) + (f" ({unit})" if unit else "")
    if column == "superb_s":
        tasks = " ".join(sorted({t for text in frame["superb_tasks"] for t in text.split()}))
        title = f"superb_s (mean of {tasks})"
    elif frame.attrs["sections"].get(column, "").startswith("task."):
        title += f", {meaning.better} is better"
    return title


def _caption(frame: DataFrame, panels: list[Panel], width: float) -> str:
    """What is drawn, on which terms, and what is missing from it."""
    models = ", ".join(sorted(set(frame["model"]) - {FBANK}))
    most = max(int(p.table["seeds"].max()) for p in panels)
    spread = f"mean and range of {most} seeds" if most > 1 else "one seed"
    parts = [f"{models}: {spread}"]
    parts += sorted({f"timed on {d}" for p in panels for d in devices(frame, p.x) if d})
    drawn = {key for p in panels for keys in p.table["keys"] for key in keys.split()}
    lost = frame[~frame["key"].isin(drawn)]
    if len(lost):
        counts = ", ".join(f"{n} {status}" for status, n in lost["status"].value_counts().items())
        subject = "1 point is" if len(lost) == 1 else f"{len(lost)} points are"
        parts.append(f"{subject} not drawn ({counts})")
    caption = textwrap.fill("; ".join(parts), int(width * 17))
    if frame["random_weights"].any():
        caption = f"RANDOM WEIGHTS: costs are real, scores mean nothing\n{caption}"
    return caption


def _filled(frame: DataFrame, run_folders: Sequence[str | Path]) -> DataFrame:
    """The table itself where there is something to draw.

    Raises:
        InputError: there are no points, or none of them was measured.
    """
    names = ", ".join(map(str, run_folders))
    if frame.empty:
        raise InputError(f"{names or 'no run'} has no points yet; run the sweep first")
    if not (frame["status"] == "done").any() and not frame.attrs["sections"]:
        first = frame.iloc[0]
        raise InputError(
            f"none of the {len(frame)} points of {names} was measured "
            f"(the first is {first['status']}: {first['reason']}); mend that and sweep again"
        )
    return frame


def _only(frame: DataFrame, methods: Sequence[str] | None) -> DataFrame:
    if methods is None:
        return frame
    known = sorted(set(frame["method"]) - set(REFERENCES))
    for method in methods:
        if method not in known:
            raise InputError(
                f"method {method!r} is not in this run{closest(method, known)}; "
                f"it has: {', '.join(known) or 'none'}"
            )
    return frame[frame["method"].isin([*methods, *REFERENCES])]


def _check_formats(formats: Sequence[str]) -> None:
    for suffix in formats:
        if suffix not in FORMATS:
            raise InputError(f"unknown figure format {suffix!r}; known: {', '.join(FORMATS)}")


def _bytes(figure: Figure, suffix: str) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format=suffix, dpi=220, metadata=_METADATA[suffix])
    return buffer.getvalue()


def _csv(panels: list[Panel]) -> bytes:
    """All that was drawn: a row per point and panel."""
    tables = [p.table.assign(x_metric=p.x, y_metric=p.y) for p in panels]
    table = pd.concat(tables, ignore_index=True)
    leading = ["x_metric", "y_metric"]
    ordered = table[leading + [c for c in table if c not in leading]]
    return ordered.to_csv(index=False, lineterminator="\n", float_format="%.10g").encode()
