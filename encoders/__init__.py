"""Speech encoders: one model for every shape, its cuts, its store. Loads no torch by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from encoders.model import build
    from encoders.store import load

__all__ = ["build", "load"]


def __getattr__(name: str) -> Any:
    if name == "build":
        from encoders.model import build

        return build
    if name == "load":
        from encoders.store import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
