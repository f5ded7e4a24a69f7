"""What a run lacks: what failed, what does not exist, what was never made, what was disturbed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from core.point import DENSE, FBANK, RANDOM, REFERENCES
from core.record import Record
from results.table import Run

#: In the order in which they are listed.
STATUSES = ("failed", "missing", "disturbed", "unsupported")

DISTURBED = "something else ran on the machine while it was timed"
UNRECORDED = "run.json asks for it and there is no record; the same sweep goes on from there"


def gaps(run: Run) -> list[dict[str, Any]]:
    """One entry per status, sections and reason, with the points that it is about.

    Points are texts: `low-rank at 0.5 (seed 0)`.
    """
    found: dict[tuple[str, str, str], list[str]] = {}
    for record in sorted(run.records, key=_order):
        sections: dict[tuple[str, str], list[str]] = {}
        for status, section, reason in [*_undone(record), *_unrecorded(record, run.info)]:
            sections.setdefault((status, reason), []).append(section)
        for (status, reason), names in sections.items():
            gap = status, ", ".join(sorted(names)), reason
            found.setdefault(gap, []).append(str(record.point))
    if absent := _absent(run.records, run.info):
        found["missing", "point", UNRECORDED] = absent
    ranked = sorted(found, key=lambda gap: (STATUSES.index(gap[0]), gap[1:]))
    return [
        {
            "run": run.name,
            "status": gap[0],
            "sections": gap[1],
            "reason": gap[2],
            "points": found[gap],
        }
        for gap in ranked
    ]


def _order(record: Record) -> tuple[str, float, int]:
    return record.point.method, record.point.rate, record.point.seed


def _undone(record: Record) -> Iterator[tuple[str, str, str]]:
    """Sections that were tried and came to nothing, or that something else disturbed."""
    for section in record.sections.values():
        if section.status != "done":
            yield section.status, section.name, " ".join(section.reason.split())
        elif section.details.get("disturbed") is True:
            yield "disturbed", section.name, DISTURBED


def _unrecorded(record: Record, info: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Sections that the sweep should have come to; a model that was not made has none."""
    made = record.sections.get("compress")
    if made is not None and made.status != "done":
        return
    profilers = info.get("profilers", ()) if record.point.method != RANDOM else ()
    wanted = [*(f"profile.{p}" for p in profilers), *(f"task.{t}" for t in info.get("tasks", ()))]
    for section in ["compress", *wanted] if info.get("methods") else []:
        if section not in record.sections:
            yield "missing", section, UNRECORDED


def _absent(records: Sequence[Record], info: Mapping[str, Any]) -> list[str]:
    """Points of the sweep's grid without any record."""
    references = REFERENCES if info.get("tasks") else (DENSE, FBANK)
    grid = [*product(references, (0.0,)), *product(info.get("methods", ()), info.get("rates", ()))]
    there = {(r.point.method, r.point.rate, r.point.seed) for r in records}
    return [
        f"{method}{'' if method in REFERENCES else f' at {rate:g}'} (seed {seed})"
        for method, rate in (grid if info.get("methods") else ())
        for seed in info.get("seeds", ())
        if (method, rate, seed) not in there
    ]
