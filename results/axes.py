"""How the columns of a table are named, titled and scaled where people read them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from core.errors import InputError, closest

#: Short names, each with the columns that it may stand for: the first one measured is taken.
ALIASES = {
    "params": ("params_total",),
    "macs": ("macs_per_second", "macs_superb32", "macs_dense"),
    "latency": ("latency_s_paired", "latency_s_p50"),
    "memory": ("peak_bytes",),
}

TITLES = {
    "achieved_rate": "Achieved rate",
    "params_total": "Parameters",
    "params_nonzero": "Non-zero parameters",
    "bytes_stored": "Stored size",
    "macs_dense": "MACs",
    "macs_nonzero": "Non-zero MACs",
    "macs_per_second": "MACs per second of audio",
    "macs_superb32": "MACs, 32 SUPERB utterances",
    "latency_s_p50": "Latency, median",
    "latency_s_paired": "Latency against dense",
    "latency_s_p90": "Latency, 90th percentile",
    "rtf": "Real-time factor",
    "speedup": "Speed-up",
    "peak_bytes": "Peak memory",
}

_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"))

#: Units that take the prefixes above, with the text that stands for them beside a prefix.
_SCALED = {"s": "s", "byte": "B", "bytes": "B", "B": "B"}


def resolve(name: str, sections: Mapping[str, str]) -> str:
    """The column that a metric, a task (`pr`, `superb.pr`) or a short name (`macs`) stands for.

    sections: for each column that holds numbers, the section they come from, `task.pr` for one. A
    task stands for the first of its columns, in the quick suite if it is there.

    Raises:
        InputError: no column has that name.
    """
    if name in sections:
        return name
    homes = (name, f"task.{name}", f"superb.{name}")
    own = [column for home in homes for column, s in sections.items() if s == home]
    for column in (*ALIASES.get(name, ()), *own):
        if column in sections:
            return column
    short = {alias for alias, columns in ALIASES.items() if set(columns) & set(sections)}
    scored = [s.partition(".") for s in sections.values()]
    tasks = {task for kind, _, task in scored if kind in ("task", "superb")}
    known = sorted({*sections, *short, *tasks})
    raise InputError(
        f"{name!r} was not measured in this run{closest(name, known)}; "
        f"measured: {', '.join(known) or 'nothing'}"
    )


def scale(unit: str, largest: float) -> tuple[float, str]:
    """What to divide values by so that the largest is readable, and the unit they then have.

    Ratios, percentages and small plain numbers stay as they are.
    """
    symbol = _SCALED.get(unit, "")
    counted = not symbol and largest >= 1e4 and unit != "%"
    if not (symbol or counted) or largest <= 0:
        return 1.0, unit
    factor, prefix = next(((f, p) for f, p in _PREFIXES if largest >= f), _PREFIXES[-1])
    return factor, prefix + symbol


def spread(values: Iterable[float], digits: int) -> str:
    """The mean over seeds as text, with the range where there is one; empty for no values."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return ""
    some = min(known), sum(known) / len(known), max(known)
    low, mean, high = (f"{x:.{digits}f}" for x in some)
    return mean if low == high else f"{mean} ({low}..{high})"
