"""What remains of each layer after structured pruning, by granularity (Wang et al. 2023, fig. 3b).

Whole sub-layers, heads, the q/k and the v/out dimensions of all heads, FFN units: each as a share
of the dense layer's. arXiv 2306.01385.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import ClassVar, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from pandas import DataFrame

from core.errors import InputError
from core.point import DENSE, REFERENCES
from reports._drawing import Drawing, Page, Runs
from reports._page import caption, sheet
from results.curves import POINT, keys

#: The parts of a layer, from the top of a panel.
PARTS = ("MHA", "heads", "q/k", "v/out", "FFN", "units")

#: So many methods are drawn unless they are named.
METHODS = 4

#: Layers up to which shares are written into the cells.
LEGIBLE = 14


@dataclass(frozen=True)
class Layers(Drawing):
    """A heat map per method and rate, the method with the most irregular layers first.

    rates: the middle one by default.
    """

    reads: ClassVar[tuple[str, ...]] = ("layers",)

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
    shaped = list(_shaped(runs))
    if not shaped:
        raise InputError(
            f"the records of {runs.names} do not tell the layers of its models, as those of older "
            "sweeps; sweep it again into another folder"
        )
    changed = {(point.run, point.method) for point in shaped if point.smaller}
    if not changed:
        raise InputError(
            f"in {runs.names} no method takes anything out of layers; sweep structured-l0 or "
            "head-pruning there"
        )
    drawn = [point for point in shaped if (point.run, point.method) in changed]
    columns = [*POINT, "seed", "layer", "part", "size", "dense", "share"]
    cells = DataFrame((cell for point in drawn for cell in _cells(point)), columns=columns)
    groups = cells.groupby([*POINT, "layer", "part"], sort=False)
    table = groups.agg(
        seeds=("seed", "nunique"), size=("size", "mean"), dense=("dense", "first"),
        share=("share", "mean"), share_low=("share", "min"), share_high=("share", "max"),
    ).reset_index()  # fmt: skip
    return table.join(keys(DataFrame(drawn)), on=POINT)


class _Shaped(NamedTuple):
    """A point with the sizes of PARTS in each layer, and those of the dense model."""

    run: str
    model: str
    method: str
    rate: float
    seed: int
    key: str
    sizes: list[tuple[int, ...]]
    dense: list[tuple[int, ...]]

    @property
    def layers(self) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
        """The layers of the dense model and what is left of each, nothing of one that is gone."""
        left = self.sizes[: len(self.dense)]
        return zip_longest(self.dense, left, fillvalue=(0,) * len(PARTS))

    @property
    def smaller(self) -> bool:
        return any(has < had for whole, left in self.layers
                   for had, has in zip(whole, left, strict=True))  # fmt: skip


def _shaped(runs: Runs) -> Iterator[_Shaped]:
    """The points whose shape is told, and whose dense model's is."""
    sizes = {
        pair: [_sizes(layer) for layer in told["layers"]]
        for pair, told in runs.details("compress").items()
        if "layers" in told
    }
    points = [
        (run, model, method, rate, seed, key)
        for run, model, method, rate, seed, key in runs.frame[[*POINT, "seed", "key"]].itertuples(
            index=False
        )
        if (run, key) in sizes
    ]
    dense = {
        (run, model): sizes[run, key] for run, model, method, *_, key in points if method == DENSE
    }
    for run, model, method, rate, seed, key in points:
        if method not in REFERENCES and (whole := dense.get((run, model))):
            yield _Shaped(run, model, method, rate, seed, key, sizes[run, key], whole)


def _sizes(layer: Mapping[str, int]) -> tuple[int, ...]:
    """The size of each of PARTS."""
    return (
        int(layer["vo"] > 0), layer["heads"], layer["qk"], layer["vo"], int(layer["ffn"] > 0),
        layer["ffn"],
    )  # fmt: skip


def _cells(point: _Shaped) -> Iterator[tuple]:
    """A row per layer and part."""
    for layer, (whole, left) in enumerate(point.layers, 1):
        for part, had, has in zip(PARTS, whole, left, strict=True):
            share = has / had if had else 1.0
            yield *point[:5], layer, part, has, had, share


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
