"""The figures on the page: each that can be drawn of the runs, and those that lie in them."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import reports
from core.errors import InputError
from results import axes
from results.table import Run

#: Costs that the Pareto figure has a panel for, where they were measured.
COSTS = ("params", "macs", "latency")

#: Of two images with one name the latter is taken.
TYPES = {".png": "image/png", ".svg": "image/svg+xml"}


def figures(runs: Sequence[Run], sections: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Each figure as a data URI (`image`), or why there is none (`why`).

    sections: by column, where the runs' numbers come from.

    Figures of the harness are drawn anew, of all runs together, as PNG: with thousands of points an
    SVG has megabytes. Other SVG and PNG files are taken from the run folders as they are.
    """
    known = {*reports.names(), *(reports.figure(name).stem for name in reports.names())}
    with TemporaryDirectory() as scratch:
        for name, drawn in _drawn([run.folder.path for run in runs], sections, scratch):
            about = import_module(f"reports.{name.replace('-', '_')}").__doc__ or ""
            told = (
                {"why": _why(drawn, runs)}
                if isinstance(drawn, InputError)
                else {"image": _uri(drawn)}
            )
            yield {"name": name, "about": " ".join(about.split("\n\n")[0].split()), **told}
    for run in runs:
        for file in _files(run.folder.path):
            if file.stem not in known:
                about = f"{file.name} of {run.name}"
                yield {"name": file.stem, "about": about, "image": _uri(file)}


def _drawn(
    folders: Sequence[Path], sections: Mapping[str, str], scratch: str
) -> Iterator[tuple[str, Path | InputError]]:
    """Every figure by its name: its file, or why the runs have no such figure."""
    costs = [cost for cost in COSTS if set(axes.ALIASES[cost]) & set(sections)]
    options = {"pareto": {"x": costs}} if costs else {}
    drawings = [reports.figure(name, **options.get(name, {})) for name in reports.names()]
    found: list[list[Path] | InputError]
    try:
        found = list(reports.draw_all(drawings, folders, scratch, ["png"]))
    except InputError as error:
        found = [error] * len(drawings)
    for name, files in zip(reports.names(), found, strict=True):
        yield name, files if isinstance(files, InputError) else files[0]


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


def _uri(file: Path) -> str:
    return f"data:{TYPES[file.suffix]};base64,{b64encode(file.read_bytes()).decode()}"
