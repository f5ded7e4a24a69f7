"""How figures look: one colour and marker per method, told apart in grey and by the colour-blind.

The colours are those of Okabe and Ito (2008), without black and yellow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.point import DENSE, FBANK, RANDOM, REFERENCES
from results.published import METHOD as PUBLISHED

if TYPE_CHECKING:
    from pandas import DataFrame

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", "p", ">", "h")
STROKES = ("-", "--", ":", "-.")

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "figure.titlesize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "svg.hashsalt": "bench",
}

#: By the name of a style: for the columns of a paper, for slides, whose figures are 16:9.
STYLES: dict[str, dict[str, Any]] = {
    "paper": STYLE,
    "slides": STYLE
    | {name: 1.25 * size for name, size in STYLE.items() if name.endswith("size")}
    | {"axes.linewidth": 0.9, "grid.linewidth": 0.7},
}


@dataclass(frozen=True)
class Look:
    """How one curve looks. hollow: of another run than the first."""

    label: str
    colour: str
    marker: str
    stroke: str
    hollow: bool = False

    def marks(self) -> dict[str, Any]:
        return {
            "color": self.colour,
            "marker": self.marker,
            "linestyle": self.stroke,
            "markerfacecolor": "white" if self.hollow else self.colour,
            "markeredgewidth": 0.8,
        }


def appearances(frame: DataFrame) -> dict[tuple[str, str], Look]:
    """A look for each method of each run.

    It depends on all methods of the runs, not on those that are drawn, so that a method looks the
    same in every figure of a run.
    """
    runs = [run for run in dict.fromkeys(frame["run"]) if run != PUBLISHED]
    looks = {}
    if PUBLISHED in set(frame["run"]):
        looks[PUBLISHED, PUBLISHED] = Look("published models", "#555555", "d", "none", hollow=True)
    for index, run in enumerate(runs):
        prefix = f"{run}: " if len(runs) > 1 else ""
        stroke, hollow = STROKES[index % len(STROKES)], index > 0
        looks[run, DENSE] = Look(f"{prefix}{DENSE}", "black", "*", "none", hollow)
        looks[run, FBANK] = Look(FBANK, "black", "", "--")
        looks[run, RANDOM] = Look(RANDOM, "#555555", "", ":")
        for place, method in enumerate(sorted(set(frame["method"]) - set(REFERENCES))):
            colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
            looks[run, method] = Look(f"{prefix}{method}", colour, marker, stroke, hollow)
    return looks
