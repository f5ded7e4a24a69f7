"""Whether an exporter follows the encoder: it knows the sizes of what passes, and no numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_EXPORTING = ContextVar("exporting", default=False)


def exporting() -> bool:
    """Whether to decide nothing by numbers, but for the same states by sizes alone."""
    return _EXPORTING.get()


@contextmanager
def export() -> Iterator[None]:
    """An exporter follows for a while."""
    token = _EXPORTING.set(True)
    try:
        yield
    finally:
        _EXPORTING.reset(token)
