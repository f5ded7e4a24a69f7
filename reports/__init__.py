"""Figures drawn from records alone. No torch."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    """`reports.draw`, whose module needs matplotlib, is imported when it is first asked for."""
    if name == "draw":
        from reports.figure import draw

        return draw
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
