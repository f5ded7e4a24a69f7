"""Reading much that stays, without looking through it for garbage."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Objects that are made within are not searched for cycles meanwhile; also a decorator.

    Python searches the more often the more there are, and all that it knows: it took a quarter of
    the time of planning four thousand points that were done.
    """
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()
