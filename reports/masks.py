"""When training decides what goes: mask averages over its steps (Wang et al. 2023, fig. 3a).

Drawn from the logs of methods that learn masks, which name their averages mask_SOMETHING, with the
sparsity that these amount to and the target that it is held at. arXiv 2306.01385.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from matplotlib.axes import Axes
from pandas import DataFrame, Series

from core.errors import InputError
from reports._drawing import Drawing, Page, Runs
from reports._looks import COLOURS, STROKES
from reports._page import abreast, caption, legend, scale, sheet

#: Known averages by their name in the log; others keep it.
TITLES = {
    "mask_qk": "q/k dimensions", "mask_vo": "v/out dimensions", "mask_int": "FFN units",
    "mask_mha": "attention sub-layers", "mask_ffn": "FFN sub-layers",
    "sparsity": "sparsity", "target": "target sparsity",
}  # fmt: skip

MARKERS = "os^Dv"

#: What a line of the table is of.
GROUP = ["run", "model", "method", "training"]


@dataclass(frozen=True)
class Masks(Drawing):
    """A panel per training."""

    reads: ClassVar[tuple[str, ...]] = ("training_logs",)

    def page(self, runs: Runs) -> Page:
        table = _table(runs)
        trainings = list(table.groupby(GROUP, sort=False))
        figure, flat = sheet(len(trainings), abreast(len(trainings)), 2.2, sharey=True)
        for axes, (_, rows) in zip(flat, trainings, strict=True):
            _draw(axes, rows)
            axes.set_title(_title(table, rows.iloc[0]))
        flat[0].set_ylabel("Mean of masks, sparsity")
        legend(figure)
        pruned = runs.frame[runs.frame["method"].isin(table["method"])]
        figure.suptitle(caption(pruned, table, [], figure.get_figwidth()))
        return Page(figure, table)


def _table(runs: Runs) -> DataFrame:
    """A row per training, step and average, over the seeds: mean, lowest and highest value.

    Raises:
        InputError: no training of the runs logged masks.
    """
    logged = DataFrame(_logged(runs))
    if logged.empty:
        raise InputError(
            f"{runs.names} has no log of a training that learns masks; sweep structured-l0 there, "
            "or bring the run's folder tracks/ where the run was copied without it"
        )
    groups = logged.groupby([*GROUP, "step", "metric"], sort=False)
    return groups.agg(
        seeds=("seed", "nunique"), value=("value", "mean"), value_low=("value", "min"),
        value_high=("value", "max"), keys=("keys", lambda keys: " ".join(dict.fromkeys(keys))),
    ).reset_index()  # fmt: skip


def _logged(runs: Runs) -> Iterator[dict[str, Any]]:
    """Every value that belongs on the figure, once per log; a log serves the points of a track."""
    for (run, log), keys in _logs(runs).items():
        first = runs.frame[runs.frame["key"] == keys[0]].iloc[0]
        path = runs.labelled[run].path / log
        for training, lines in _read(path).items():
            if any(metric.startswith("mask_") for _, metric in lines):
                for (step, metric), value in lines.items():
                    if metric.startswith("mask_") or metric in TITLES:
                        yield {
                            "run": run, "model": first["model"], "method": first["method"],
                            "training": training, "step": step, "metric": metric,
                            "seed": first["seed"], "value": value, "keys": " ".join(keys),
                        }  # fmt: skip


def _logs(runs: Runs) -> dict[tuple[str, str], list[str]]:
    """The logs that the drawn points' records name, each with the keys of those points."""
    made = runs.details("compress")
    found: dict[tuple[str, str], list[str]] = {}
    for run, key in runs.frame[["run", "key"]].itertuples(index=False):
        for log in made.get((run, key), {}).get("training_logs", ()):
            found.setdefault((run, log), []).append(key)
    return found


def _read(path: Path) -> dict[str, dict[tuple[int, str], float]]:
    """Values by step and metric, by training; nothing where the file is gone.

    Raises:
        InputError: the file is something else than the log of trainings.
    """
    if not path.is_file():
        return {}
    trainings: dict[str, dict[tuple[int, str], float]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        try:
            for row in csv.DictReader(file):
                values = trainings.setdefault(row["training"], {})
                values[int(row["step"]), row["metric"]] = float(row["value"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{path} is not the log of a training ({error!r}); remove it or restore it"
            ) from error
    return trainings


def _title(table: DataFrame, row: Series) -> str:
    """The method; the run and the training where there are several."""
    own = table[(table["run"] == row["run"]) & (table["method"] == row["method"])]
    run = [row["run"]] if table["run"].nunique() > 1 else []
    return "\n".join([*run, row["method"], *[row["training"]] * (own["training"].nunique() > 1)])


def _draw(axes: Axes, rows: DataFrame) -> None:
    """One training: averages with a marker each, the sparsity below its dashed target."""
    masks = 0
    for metric, line in rows.groupby("metric", sort=False):
        look: dict[str, Any] = {"target": {"color": "black", "linestyle": "--"}}.get(
            str(metric), {"color": "#7F7F7F", "linewidth": 2.0}
        )
        if str(metric).startswith("mask_"):
            look = {
                "color": COLOURS[masks % len(COLOURS)], "marker": MARKERS[masks % len(MARKERS)],
                "linestyle": STROKES[masks % len(STROKES)], "markersize": 3.5,
                "markevery": (0.02 * masks, 0.14),
            }  # fmt: skip
            masks += 1
        axes.plot(line["step"], line["value"], label=TITLES.get(str(metric), metric), **look)
        if (line["seeds"] > 1).any():
            axes.fill_between(
                line["step"], line["value_low"], line["value_high"], color=look["color"],
                alpha=0.15, linewidth=0,
            )  # fmt: skip
    axes.set(xlabel="Updates", ylim=(-0.03, 1.03))
    scale(axes, "x", rows["step"], float("inf"))
