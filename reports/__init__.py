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


def figure(name: str, **options: Any) -> Drawing:
    """The figure of that name (imports its module), for `draw`.

    Raises:
        InputError: there is none, or it has no such option; the sentence says what there is.
    """
    if name not in names():
        raise InputError(
            f"unknown figure {name!r}{closest(name, names())}; known: {', '.join(names())}"
        )
    module = import_module(f"reports.{name.replace('-', '_')}")
    wanted = name.replace("-", "")
    kind = next(v for v in vars(module).values() if getattr(v, "__name__", "").lower() == wanted)
    known = [field.name for field in fields(kind)]
    for option in options:
        if option not in known:
            listing = ", ".join(f"--{name}" for name in known) or "none"
            raise InputError(f"figure {name!r} has no option --{option}; its options: {listing}")
    return kind(**options)


def __getattr__(name: str) -> Any:
    """`reports.draw`, whose module needs matplotlib, is imported when it is first asked for."""
    if name == "draw":
        from reports._drawing import draw

        return draw
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
