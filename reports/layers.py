"""What remains of each layer after structured pruning, by granularity (Wang et al. 2023, fig. 3b).

Whole sub-layers, heads, the q/k and the v/out dimensions of all heads, FFN units: each as a share
of the dense layer's. arXiv 2306.01385.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from pandas import DataFrame

from core.errors import InputError
from core.point import DENSE, REFERENCES
from reports._drawing import Drawing, Page, Runs
from reports._page import caption, sheet

#: The parts of a layer, from the top of a panel.
PARTS = ("MHA", "heads", "q/k", "v/out", "FFN", "units")

#: A layer that was cut off whole.
GONE = dict.fromkeys(PARTS, 0)

#: So many methods are drawn unless they are named.
METHODS = 4

#: Layers up to which shares are written into the cells.
LEGIBLE = 14


@dataclass(frozen=True)
class Layers(Drawing):
    """A heat map per method and rate, the method with the most irregular layers first.

    rates: the middle one by default.
    """

    rates: Sequence[float] = ()

    def page(self, runs: Runs) -> Page:
        pruned = _table(runs)
        table = _chosen(pruned, self.rates)
        maps = list(table.groupby(["run", "model", "method", "rate"], sort=False))
        figure, flat = sheet(len(maps), min(2, len(maps)), 1.75)
        for axes, (_, rows) in zip(flat, maps, strict=True):
            shades = _draw(axes, rows)
            first = rows.iloc[0]
            where = f"{first['run']}: " if table["run"].nunique() > 1 else ""
            axes.set_title(f"{where}{first['method']} at {first['rate']:g}")
        if table["layer"].max() > LEGIBLE:
            figure.colorbar(shades, ax=flat, label="% that remain", aspect=40)
        frame = runs.frame
        shown = frame[frame["method"].isin(table["method"]) & frame["rate"].isin(table["rate"])]
        told = caption(shown, table, [], figure.get_figwidth(), _remarks(pruned, table))
        figure.suptitle(told)
        return Page(figure, table)


def _table(runs: Runs) -> DataFrame:
    """A row per run, method, rate, layer and part: its mean size over the seeds, of the dense size.

    Methods that leave every width as it was are left out.

    Raises:
        InputError: the records do not tell the shape of layers, or no method changed it.
    """
    shapes = {which: told.get("layers") for which, told in runs.details("compress").items()}
    found = DataFrame(_cells(runs.frame, shapes))
    if found.empty:
        raise InputError(
            f"the records of {runs.names} do not tell the layers of its models, as those of older "
            "sweeps; sweep it again into another folder"
        )
    groups = found.groupby(["run", "model", "method", "rate", "layer", "part"], sort=False)
    table = groups.agg(
        seeds=("seed", "nunique"), size=("size", "mean"), dense=("dense", "first"),
        share=("share", "mean"), share_low=("share", "min"), share_high=("share", "max"),
        keys=("key", " ".join),
    ).reset_index()  # fmt: skip
    changed = table.groupby(["run", "method"])["share"].transform("min") < 1
    if not changed.any():
        raise InputError(
            f"in {runs.names} no method takes anything out of layers; sweep structured-l0 or "
            "head-pruning there"
        )
    return table[changed]


def _cells(
    frame: DataFrame, shapes: Mapping[tuple[str, str], Sequence[dict[str, int]] | None]
) -> Iterator[dict[str, Any]]:
    """Every part of every layer of the points whose shape is told, beside the dense one's."""
    points: list[dict[Any, Any]] = [
        {**point, "parts": [_parts(layer) for layer in shape]}
        for point in frame[["run", "model", "method", "rate", "seed", "key"]].to_dict("records")
        if (shape := shapes.get((point["run"], point["key"]))) is not None
    ]
    dense = {(p["run"], p["model"]): p["parts"] for p in points if p["method"] == DENSE}
    for point in points:
        whole = dense.get((point["run"], point["model"]), [])
        if point["method"] in REFERENCES:
            continue
        left = point.pop("parts")
        for index, (had, has) in enumerate(zip_longest(whole, left[: len(whole)], fillvalue=GONE)):
            for part, size in has.items():
                of = had[part]
                yield {**point, "layer": index + 1, "part": part, "size": size, "dense": of,
                       "share": size / of if of else 1.0}  # fmt: skip


def _parts(layer: Mapping[str, int]) -> dict[str, int]:
    """The size of each of PARTS."""
    sizes = (
        int(layer["vo"] > 0), layer["heads"], layer["qk"], layer["vo"], int(layer["ffn"] > 0),
        layer["ffn"],
    )  # fmt: skip
    return dict(zip(PARTS, sizes, strict=True))


def _chosen(table: DataFrame, rates: Sequence[float]) -> DataFrame:
    """The rows at those rates of the methods whose layers differ most, these in front.

    Layers that are cut off whole do not count for that.

    Raises:
        InputError: nothing was pruned at one of the rates.
    """
    known = sorted(table["rate"].unique())
    for rate in rates:
        if rate not in known:
            listing = ", ".join(f"{one:g}" for one in known)
            raise InputError(f"rate {rate:g} has no structured pruning; it is there at: {listing}")
    table = table[table["rate"].isin(rates or [known[(len(known) - 1) // 2]])]
    kept = table[table.groupby(["run", "method", "rate", "layer"])["share"].transform("max") > 0]
    uneven = kept.groupby(["run", "method", "rate", "part"])["share"].std().groupby("method").mean()
    order = uneven.sort_values(ascending=False, kind="stable").index[:METHODS]
    table = table[table["method"].isin(order)]
    return table.sort_values("method", key=lambda m: m.map(list(order).index), kind="stable")


def _draw(axes: Axes, rows: DataFrame) -> QuadMesh:
    """One method at one rate: dark is what remains, the number its share in per cent."""
    share = rows.pivot(index="part", columns="layer", values="share").loc[list(PARTS)].to_numpy()
    layers = share.shape[1]
    shades = axes.pcolormesh(
        100 * share, cmap="Blues", vmin=0, vmax=125, edgecolor="white", linewidth=0.8
    )
    axes.set_xticks([at + 0.5 for at in range(layers)], [str(1 + at) for at in range(layers)])
    axes.set_yticks([at + 0.5 for at in range(len(PARTS))], PARTS)
    axes.set_xlabel("Layer")
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if layers <= LEGIBLE:
        for (part, layer), value in np.ndenumerate(share):
            axes.text(
                layer + 0.5, part + 0.5, f"{100 * value:.0f}", ha="center", va="center",
                fontsize="small", color="white" if value > 0.7 else "black",
            )  # fmt: skip
    return shades


def _remarks(pruned: DataFrame, drawn: DataFrame) -> list[str]:
    hidden = sorted(set(pruned["method"]) - set(drawn["method"]))
    told = [f"{', '.join(hidden)} changed layers too (--methods draws them)"] * bool(hidden)
    return ["per cent of the dense layer that remain", *told]
