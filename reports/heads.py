"""Which heads go first? Attention maps of the dense model, and how diagonal heads were that went.

As a figure of Lin et al. 2022 (arXiv 2211.09949), who find that the heads which survive pruning are
the diagonal ones. Diagonality (Yang et al. 2020, arXiv 2006.03265) is 0 where a head attends to its
own frame alone and falls with the distance, which is a share of the utterance. A head went at the
lowest rate from which on no model of the method has it.
"""

from __future__ import annotations

import textwrap
from base64 import b64decode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import nan
from typing import Any, ClassVar

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from core.errors import InputError
from core.point import DENSE, REFERENCES
from reports._drawing import Drawing, Page, Runs
from reports._page import PAGE, caption

#: So many methods are drawn unless they are named.
METHODS = 3

#: Pixels of the frame around a map.
FRAME = 3

#: Light is what went first; in grey it is as well.
SHADES = colormaps["cividis_r"]

#: What a panel is of.
GROUP = ["run", "model", "method"]


@dataclass(frozen=True)
class Heads(Drawing):
    """Left the map of every head, framed by when the first method removed it; right each method."""

    reads: ClassVar[tuple[str, ...]] = ("layers", "maps", "map_side", "reach")

    def page(self, runs: Runs) -> Page:
        pruned = _table(runs)
        shown = pruned["method"].unique()[: METHODS if runs.methods is None else None]
        table = pruned[pruned["method"].isin(shown)]
        panels = [rows for _, rows in table.groupby(GROUP, sort=False)]
        figure = Figure(figsize=(PAGE, 0.6 + max(2.8, 1.45 * len(panels))), layout="constrained")
        grid = figure.add_gridspec(len(panels), 2)
        first = panels[0][panels[0]["seed"] == panels[0]["seed"].min()]
        _draw_maps(figure.add_subplot(grid[:, 0]), first)
        for place, rows in enumerate(panels):
            _draw_order(figure.add_subplot(grid[place, 1]), rows, place == len(panels) - 1)
        frame = runs.frame[runs.frame["method"].isin(shown)]
        hidden = sorted(set(pruned["method"]) - set(shown))
        told = [f"{', '.join(hidden)} removed heads too (--methods draws them)"] * bool(hidden)
        table = table.assign(seeds=table.groupby(GROUP)["seed"].transform("nunique"))
        remarks = [f"frames: when {first['method'].iloc[0]} removed the head", *told]
        figure.suptitle(caption(frame, table, [], PAGE, remarks, "marks"))
        return Page(figure, table)


def _table(runs: Runs) -> DataFrame:
    """A row per method, seed and head of the dense model: diagonality, and when the head went.

    went: a rate, NaN for heads that stayed. map: base64, `map_side` rows of as many bytes.

    Raises:
        InputError: nobody looked at the dense model's attention, the records do not tell which
            heads were kept, or no method removed any.
    """
    looked = runs.details("profile.attention")
    made = runs.details("compress")
    found = DataFrame(_heads(runs.frame, looked, made))
    if found.empty:
        dense = runs.frame[runs.frame["method"] == DENSE]
        keys = list(zip(dense["run"], dense["key"], strict=True))
        if not any(looked.get(key, {}).get("maps") for key in keys):
            raise InputError(
                f"{runs.names} has no attention maps of the dense model; sweep it again with "
                "--profilers attention"
            )
        raise InputError(
            f"the records of {runs.names} do not tell which heads its models kept, as those of "
            "older sweeps; sweep it again into another folder"
        )
    gone = found.groupby(GROUP)["went"].transform("count") > 0
    if not gone.any():
        raise InputError(f"in {runs.names} no method removes heads; sweep head-pruning there")
    return found[gone]


def _heads(
    frame: DataFrame,
    looked: Mapping[tuple[str, str], dict[str, Any]],
    made: Mapping[tuple[str, str], dict[str, Any]],
) -> Iterator[dict[str, Any]]:
    """The rows of the table; methods that change the number of layers have none."""
    for (run, model, seed), points in frame.groupby(["run", "model", "seed"], sort=False):
        run, (dense, *_) = str(run), [*points.loc[points["method"] == DENSE, "key"], ""]
        seen, whole = looked.get((run, dense), {}), _kept(made.get((run, dense), {}))
        if not seen.get("maps") or whole is None:
            continue
        for method, own in points.groupby("method", sort=False):
            told = {
                rate: kept
                for rate, key in own.sort_values("rate")[["rate", "key"]].itertuples(index=False)
                if (kept := _kept(made.get((run, key), {}))) is not None and len(kept) == len(whole)
            }
            if method in REFERENCES or not told:
                continue
            for layer, head, place in _every(whole):
                yield {
                    "run": run, "model": model, "method": method, "seed": seed,
                    "layer": layer + 1, "head": head + 1,
                    "diagonality": -seen["reach"][layer][place],
                    "went": _went(told, layer, head), "last": max(told),
                    "map_side": seen["map_side"], "map": seen["maps"][layer][place],
                    "keys": " ".join([dense, *own["key"]]),
                }  # fmt: skip


def _kept(made: Mapping[str, Any]) -> list[list[int]] | None:
    """By layer the heads of a model, None where its record does not tell."""
    layers = made.get("layers", [{}])
    return [own["kept"] for own in layers] if all("kept" in own for own in layers) else None


def _every(whole: list[list[int]]) -> Iterator[tuple[int, int, int]]:
    for layer, heads in enumerate(whole):
        for place, head in enumerate(heads):
            yield layer, head, place


def _went(told: Mapping[float, list[list[int]]], layer: int, head: int) -> float:
    """The lowest rate from which on the head is gone, NaN for one that stays."""
    went = nan
    for rate in sorted(told, reverse=True):
        if head in told[rate][layer]:
            return went
        went = rate
    return went


def _shade(rows: DataFrame) -> Any:
    """A colour per head, from the lowest rate to those that stay."""
    last = rows["last"].max() * 1.25
    return SHADES((rows["went"].fillna(last) / last).to_numpy())


def _draw_maps(axes: Axes, rows: DataFrame) -> None:
    """All maps as one picture: layers downwards, heads to the right; dark is where a head looks."""
    side = int(rows["map_side"].iloc[0])
    cell = side + 3 * FRAME
    picture = np.ones((cell * rows["layer"].max(), cell * rows["head"].max(), 3))
    corners = cell * (rows[["layer", "head"]].to_numpy() - 1) + FRAME // 2
    for (top, left), text, colour in zip(corners, rows["map"], _shade(rows), strict=True):
        pixels = np.frombuffer(b64decode(text), np.uint8).reshape(side, side, 1) / 255
        framed = np.ones((side + 2 * FRAME, side + 2 * FRAME, 3)) * colour[:3]
        framed[FRAME:-FRAME, FRAME:-FRAME] = 1 - pixels
        picture[top : top + len(framed), left : left + len(framed)] = framed
    axes.imshow(picture, interpolation="nearest")
    for axis, count in ((axes.xaxis, rows["head"].max()), (axes.yaxis, rows["layer"].max())):
        places = range(count)
        axis.set_ticks([cell * (at + 0.5) for at in places], [str(1 + at) for at in places])
    axes.set(xlabel="Head", ylabel="Layer", title="Attention, dense model (queries down)")
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _draw_order(axes: Axes, rows: DataFrame, lowest: bool) -> None:
    """Diagonality against when a head went: a mark per head, bars for means."""
    rates = sorted(rows["went"].dropna().unique())
    place = rows["went"].map({rate: at for at, rate in enumerate(rates)}).fillna(len(rates))
    layers = rows["layer"].max()
    aside = 0.7 * ((rows["layer"] - 0.5) / layers - 0.5)
    axes.scatter(place + aside, rows["diagonality"], s=14, c=_shade(rows), edgecolors="#333333",
                 linewidths=0.5, zorder=3)  # fmt: skip
    means = rows.groupby(place)["diagonality"].mean()
    axes.hlines(means, means.index - 0.42, means.index + 0.42, color="#D55E00", linewidth=1.4)
    axes.set_xticks(range(len(rates) + 1), [*(f"{rate:g}" for rate in rates), "kept"])
    axes.set_ylabel("Diagonality")
    rank = place.corr(rows["diagonality"], method="spearman")
    told = [f"rank correlation {rank:+.2f}"] if rank == rank else []
    axes.set_title(
        "\n".join([*textwrap.wrap(rows["method"].iloc[0].replace(",", ", "), 50), *told])
    )
    if lowest:
        axes.set_xlabel("Rate at which a head went (within: by layer)")
