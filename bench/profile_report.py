"""What `bench profile` prints."""

from __future__ import annotations

from collections.abc import Iterator

from bench.profile import Profile

#: Parts of a total that stand below it, by profiler: the metric, and where its parts are.
_PARTS = {"macs": ("macs_dense", ("buckets", "modules"))}


def as_text(found: Profile) -> str:
    """A line per metric, with its parts where it has any, then what is missing and why."""
    return "\n".join([*_numbers(found), *_missing(found)])


def compared(first: Profile, second: Profile) -> str:
    """Two measurements side by side, and by how much the second differs from the first."""
    lines = [f"{'':<18} {'first':>14} {'second':>14} {'difference':>11}"]
    for name, value in first.values.items():
        again = second.values[name]
        difference = f"{100 * (again / value - 1):+.1f} %" if value else "-"
        lines.append(f"{name:<18} {value:>14,.6g} {again:>14,.6g} {difference:>11}")
    return "\n".join([*lines, *_missing(first)])


def _numbers(found: Profile) -> Iterator[str]:
    parts = dict(_PARTS[name] for name in found.details if name in _PARTS)
    for name, value in found.values.items():
        metric = found.metrics[name]
        yield f"{name:<18} {value:>16,.6g} {metric.unit:<6} {metric.about}".rstrip()
        profiler = next((p for p, (whole, _) in _PARTS.items() if whole == name), "")
        for kind in parts.get(name, ()):
            for part, amount in found.details[profiler][kind].items():
                if amount:
                    yield f"  {part:<16} {amount:>16,.6g} {metric.unit}"


def _missing(found: Profile) -> Iterator[str]:
    for name, reason in found.unavailable.items():
        yield f"{name:<18} {'-':>16} {reason}"
