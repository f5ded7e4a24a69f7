"""The figures on the page: each that can be drawn of the runs, and those that lie in them."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import reports
from core.errors import InputError
from reports._drawing import Drawing, Runs, images
from results import axes
from results.table import Run

if TYPE_CHECKING:
    from pandas import DataFrame

#: Costs that the Pareto figure has a panel for, where they were measured.
COSTS = ("params", "macs", "latency")

#: Of two images with one name the latter is taken.
TYPES = {".png": "image/png", ".svg": "image/svg+xml"}


def figures(runs: Sequence[Run], frame: DataFrame) -> Iterator[dict[str, str]]:
    """Each figure as a data URI (`image`), or why there is none (`why`).

    frame: `results.table.tabulate` of the runs.

    Figures of the harness are drawn anew, of all runs together, as PNG: with thousands of points an
    SVG has megabytes. Other SVG and PNG files are taken from the run folders as they are.
    """
    drawings = {name: _drawing(name, frame) for name in reports.names()}
    for name, drawing in drawings.items():
        about = import_module(f"reports.{name.replace('-', '_')}").__doc__ or ""
        told = {"name": name, "about": " ".join(about.split("\n\n")[0].split())}
        try:
            drawn, _ = images(drawing, Runs.of(runs, frame), ["png"])
        except InputError as refusal:
            yield {**told, "why": _why(refusal, runs)}
        else:
            yield {**told, "image": _uri(".png", drawn["png"])}
    known = {*drawings, *(reports.figure(name).stem for name in drawings)}
    for run in runs:
        for file in _files(run.folder.path):
            if file.stem not in known:
                image = _uri(file.suffix, file.read_bytes())
                yield {"name": file.stem, "about": f"{file.name} of {run.name}", "image": image}


def _drawing(name: str, frame: DataFrame) -> Drawing:
    costs = [cost for cost in COSTS if set(axes.ALIASES[cost]) & set(frame.attrs["sections"])]
    return reports.figure(name, **{"x": costs} if name == "pareto" and costs else {})


def _why(refusal: InputError, runs: Sequence[Run]) -> str:
    """The refusal with the runs' names for their folders: those are of the machine that drew."""
    text = str(refusal)
    for run in runs:
        text = text.replace(str(run.folder.path), run.folder.path.resolve().name)
    return text


def _files(folder: Path) -> list[Path]:
    """Images beside the records, one per name."""
    images = {file.stem: file for suffix in TYPES for file in folder.glob(f"*{suffix}")}
    return [images[stem] for stem in sorted(images)]


def _uri(suffix: str, content: bytes) -> str:
    return f"data:{TYPES[suffix]};base64,{b64encode(content).decode()}"
