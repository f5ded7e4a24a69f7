"""Numbers as people write them: `30M`, `800G`, `50ms`, `1.5GB`, into the units of a metric."""

from __future__ import annotations

import re

from core.errors import InputError

_PREFIXES = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_TIMES = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "m": 60.0, "min": 60.0, "h": 3600.0}
_BINARY = {"KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}

_TEXT = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([A-Za-zµ%/]*)\s*")


def read_quantity(text: str, unit: str, what: str) -> float:
    """The number in the metric's own unit: seconds, bytes, plain counts.

    Raises:
        InputError: it is no number, or its suffix is none of that unit.
    """
    found = _TEXT.fullmatch(text)
    factors = _factors(unit)
    if not found or found[2] not in factors:
        known = ", ".join(f"1{suffix}" for suffix in factors if suffix)
        raise InputError(f"{what} {text!r}: expected a number{f' such as {known}' * bool(known)}")
    return float(found[1]) * factors[found[2]]


def _factors(unit: str) -> dict[str, float]:
    """What each suffix stands for."""
    if unit == "s":
        return {"": 1.0, **_TIMES}
    if unit == "%":
        return {"": 1.0, "%": 1.0}
    if unit == "B":
        return {**_PREFIXES, **{f"{prefix}B": n for prefix, n in _PREFIXES.items()}, **_BINARY}
    named = {f"{prefix}{unit}": n for prefix, n in _PREFIXES.items()} if unit else {}
    return {**_PREFIXES, **named}
