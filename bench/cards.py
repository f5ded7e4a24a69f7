"""What a model's card says: at saving how it was made, afterwards what its run measured too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from core.method import Method
from core.point import DENSE, REFERENCES, Point
from core.record import Record
from encoders import card, store
from encoders.card import Origin, Result
from results.store import RunFolder, write_whole


@dataclass(frozen=True)
class Known:
    """All that is known of a saved model."""

    origin: Origin
    results: tuple[Result, ...] = ()


def origin(point: Point, achieved_rate: float) -> Origin:
    """How the model of a sweep's point is made."""
    if point.method == DENSE:
        return card.of(point.model)
    if point.method in REFERENCES:
        return Origin(method=point.method, seed=point.seed)
    return card.of(
        point.model,
        method=point.method,
        rate=point.rate,
        achieved_rate=round(achieved_rate, 6),
        seed=point.seed,
        data=_base(point.data) if Method.parse(point.method).uses_data else "",
    )


def known(model: str, licence: str | None = None) -> Known:
    """What the card and, of a model within a run, the records tell.

    licence: of the source's weights, where the user knows better.
    """
    folder = store.BUILTIN if model == "builtin" else Path(model)
    own = card.read(folder / card.FILE) if folder.is_dir() else Origin()
    found = Known(own if own.known() else card.of(model))
    record, data = _record(folder)
    if record is not None:
        rate = record.values().get("achieved_rate", 0.0)
        found = Known(origin(record.point, rate), tuple(_results(record, data)))
    return replace(found, origin=replace(found.origin, licence=licence or found.origin.licence))


def refresh(folder: Path, found: Known, place: str | None = None) -> Path:
    """Write the card of a saved model anew; where it is. place: what `load` takes, if not it."""
    code = card.loading(place or ".")
    text = card.write(store.read_spec(folder), found.origin, found.results, code)
    path = folder / card.FILE
    write_whole(path, text.encode())
    return path


def _record(folder: Path) -> tuple[Record | None, str]:
    """The record of a model that lies in a run, and what the run's tasks were scored on."""
    folder = folder.resolve()
    run = RunFolder(folder.parent.parent)
    keys = set(run.keys()) if run.model_folder(folder.name) == folder else set()
    if folder.name not in keys:
        return None, ""
    return run.read(folder.name), _base(str(run.run_info().get("task_data", "")))


def _results(record: Record, task_data: str) -> Iterator[Result]:
    for name, section in sorted(record.sections.items()):
        kind = {"profile": "cost", "task": "score"}.get(name.partition(".")[0])
        if kind is None or section.status != "done":
            continue
        data = task_data if kind == "score" else _base(record.point.data)
        for metric in section.metrics.values():
            if metric.name in section.values:
                yield Result(kind, metric, section.values[metric.name], data)


def _base(data: str) -> str:
    """Data as a card names it: where a folder lies is nobody's business."""
    place, _, subset = data.partition(":")
    name = Path(place).name if Path(place).exists() else place
    return f"{name}:{subset}" if subset else name
