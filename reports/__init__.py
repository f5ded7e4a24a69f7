"""Figures drawn from records alone, without torch: `reports/speedup.py` is the figure `speedup`.

Files that begin with an underscore are shared parts, not figures.
"""

from __future__ import annotations

from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import InputError, closest

if TYPE_CHECKING:
    from reports._drawing import Drawing


def names() -> list[str]:
    """All figures, sorted."""
    files = Path(__file__).parent.glob("[!_]*.py")
    return sorted(file.stem.replace("_", "-") for file in files)


def figure(name: str, **chosen: Any) -> Drawing:
    """The figure of that name (imports its module), for `draw`.

    Raises:
        InputError: there is none, or it has no such option; the sentence says what there is.
    """
    kind, known = _kind(name), options(name)
    for option in chosen:
        if option not in known:
            listing = ", ".join(f"--{name}" for name in known) or "none"
            raise InputError(f"figure {name!r} has no option --{option}; its options: {listing}")
    return kind(**chosen)


def options(name: str) -> list[str]:
    """The options of the figure of that name.

    Raises:
        InputError: there is none.
    """
    return [field.name for field in fields(_kind(name))]


def _kind(name: str) -> Any:
    if name not in names():
        raise InputError(
            f"unknown figure {name!r}{closest(name, names())}; known: {', '.join(names())}"
        )
    module = import_module(f"reports.{name.replace('-', '_')}")
    wanted = name.replace("-", "")
    return next(v for v in vars(module).values() if getattr(v, "__name__", "").lower() == wanted)


def __getattr__(name: str) -> Any:
    """`draw` and `draw_all`, whose module needs matplotlib, are imported when first asked for."""
    if name in ("draw", "draw_all"):
        return getattr(import_module("reports._drawing"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
