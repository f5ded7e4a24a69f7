"""`bench plot`: which figures, with which options, into which files."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import reports
from bench.rates import parse_rates
from core.errors import InputError
from reports._drawing import FORMATS

ALL = "all"


def plot(
    runs: Sequence[Path],
    figure: str,
    given: Mapping[str, str | bool | None],
    out: Path | None,
    formats: str | None,
    methods: str | None,
    style: str,
) -> bool:
    """Draw a figure, or all that the runs have data for, and print the files; whether any was.

    given: the figures' own options as they were typed; `all` hands each to the figures that have
    it. out: a file, for `all` a folder.

    Raises:
        InputError: there is nothing to draw, or a name is unknown.
    """
    options = _options(given)
    chosen = _names(methods) if methods else None
    wanted = [part.strip() for part in formats.split(",")] if formats else None
    if figure != ALL:
        drawing = reports.figure(figure, **options)
        target = out or _folder(runs) / f"{drawing.stem}.png"
        wanted = wanted or ([target.suffix[1:]] if target.suffix else ["png", "pdf"])
        _tell(reports.draw(drawing, runs, target, wanted, chosen, style))
        return True
    if out and out.suffix[1:] in FORMATS:
        raise InputError(f"--out {out} is one file; for all figures name a folder")
    drawings = {
        name: reports.figure(name, **{k: options[k] for k in options if k in reports.options(name)})
        for name in reports.names()
    }
    found = reports.draw_all(
        list(drawings.values()), runs, out or _folder(runs), wanted or ["png"], chosen, style
    )
    told = [_told(name, files) for name, files in zip(drawings, found, strict=True)]
    return any(told)


def _options(given: Mapping[str, str | bool | None]) -> dict[str, Any]:
    """The options as the figures take them."""
    read: dict[str, Callable[[Any], Any]] = {"x": _names, "rates": parse_rates}
    return {name: read.get(name, lambda own: own)(own) for name, own in given.items() if own}


def _folder(runs: Sequence[Path]) -> Path:
    """Where figures go unless it is said: beside the first run's records."""
    return runs[0] if runs else Path()


def _names(text: str) -> list[str]:
    """A comma list; commas in the brackets of a method are its own."""
    return [part.strip() for part in re.split(r",(?![^\[]*\])", text) if part.strip()]


def _told(name: str, files: Sequence[Path] | InputError) -> bool:
    """Say what became of one figure of all; whether it was drawn."""
    if isinstance(files, InputError):
        print(f"left out {name}: {' '.join(str(files).split())}", file=sys.stderr)
        return False
    _tell(files)
    return True


def _tell(files: Sequence[Path]) -> None:
    for path in files:
        print(path)
