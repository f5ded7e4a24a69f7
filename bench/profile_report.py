"""What `bench profile` prints."""

from __future__ import annotations

from collections.abc import Iterator

from bench.profile import Profile

#: Parts of a total that stand below it: the metric -> its profiler, and where its parts are.
_PARTS = {"macs_dense": ("macs", ("buckets", "modules"))}


def as_text(found: Profile) -> str:
    """A line per metric, with its parts where it has any, then what is missing and why."""
    lines = _engine(found)
    for name, value in found.values.items():
        metric = found.metrics[name]
        lines.append((name, f"{value:,.6g}", f"{metric.unit:<6} {metric.about}"))
        lines += [(f"  {part}", f"{n:,.6g}", metric.unit) for part, n in _parts(found, name)]
    return _aligned([*lines, *_missing(found)])


def compared(first: Profile, second: Profile) -> str:
    """Two measurements side by side, and by how much the second differs from the first."""
    lines = [("", "first", f"{'second':>12} {'difference':>12}")]
    for name, value in first.values.items():
        again = second.values[name]
        difference = f"{100 * (again / value - 1):+.1f} %" if value else "-"
        lines.append((name, f"{value:,.6g}", f"{again:>12,.6g} {difference:>12}"))
    return _aligned([*lines, *_missing(first)])


def _engine(found: Profile) -> list[tuple[str, str, str]]:
    """What ran the model, where that was not torch, and what has to be known of it."""
    engines = {own.get("runtime", {}).get("engine") for own in found.details.values()} - {None}
    notes = {own["note"] for own in found.details.values() if "note" in own}
    lines = [("runtime", f"{engine}; torch for --against, params, macs") for engine in engines]
    return [(name, "", text) for name, text in [*lines, *(("note", text) for text in notes)]]


def _parts(found: Profile, name: str) -> Iterator[tuple[str, float]]:
    profiler, kinds = _PARTS.get(name, ("", ()))
    for kind in kinds:
        yield from ((part, n) for part, n in found.details[profiler][kind].items() if n)


def _missing(found: Profile) -> list[tuple[str, str, str]]:
    return [(name, "-", reason) for name, reason in found.unavailable.items()]


def _aligned(lines: list[tuple[str, str, str]]) -> str:
    width = max(len(name) for name, *_ in lines)
    return "\n".join(f"{name:<{width}} {n:>14} {rest}".rstrip() for name, n, rest in lines)
