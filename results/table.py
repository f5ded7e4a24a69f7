"""Runs as one table: a row per point, a column per number, superb_s worked out on the way."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.metric import Metric
from core.point import DENSE, FBANK, REFERENCES, Point
from core.record import Record, Section
from results.store import RunFolder
from results.superb import Score, quick_superb_s

if TYPE_CHECKING:
    from pandas import DataFrame

#: Columns that every table begins with; the measured numbers follow, sorted by name.
LEADING = (
    "run", "model", "method", "rate", "achieved_rate", "seed", "status", "reason", "superb_s",
    "superb_tasks", "anchors", "random_weights", "device", "threads", "dtype", "compile", "tf32",
    "attention", "cuda_graphs", "disturbed", "data", "key",
)  # fmt: skip

#: Sections whose numbers are the same on every machine. Those of any other profiler are not.
MACHINE_FREE = ("profile.params", "profile.macs")

#: By how many points of a hundred the dense model must be better than FBANK for a task to count in
#: a run. Below that, the noise of a few hundred test items is blown up to hundreds of superb_s.
MARGIN = 5.0

#: A machine that slows down for a minute slows the dense model too, which is timed in turns with
#: the compressed one: their ratio is free of that drift, a median by itself is not.
PAIRED = Metric(
    "latency_s_paired", "s", "lower", "the dense model's median latency over the speed-up"
)

SUPERB_S = Metric("superb_s", "", "higher", "0 for FBANK, 1000 for the dense model")


def load(run_folders: Iterable[str | Path]) -> DataFrame:
    """One row per point of one or more runs, references first, then by method, rate and seed.

    Columns: LEADING, each task's normalised score as `score.TASK`, each measured metric.
    `frame.attrs` holds `metrics` (each one's unit and direction), `sections` (where each comes
    from) and `meant` (tasks made for superb_s). superb_s is relative to the dense and FBANK points
    of the same run and seed; it is left empty where a task that counts in the run was not scored
    for the point.

    Raises:
        InputError: a folder holds no run, or a file that no sweep writes.
    """
    from pandas import DataFrame

    runs = [RunFolder.existing(path) for path in dict.fromkeys(map(Path, run_folders))]
    rows: list[dict[str, Any]] = []
    metrics, sections, meant = {SUPERB_S.name: SUPERB_S}, {}, set[str]()
    for label, run in sorted(zip(labels(runs), runs, strict=True), key=lambda pair: pair[0]):
        records, info = run.records(), run.run_info()
        yardstick = _Yardstick(records)
        for record in sorted(records, key=lambda record: order(record.point)):
            rows.append({"run": label, **_row(record, yardstick, info)})
            for section in (s for s in record.sections.values() if s.status == "done"):
                metrics.update(section.metrics)
                meant |= {_task(section)} if section.details.get("in_score") else set()
                named = [c for c in (*section.metrics, *section.values) if c in section.values]
                sections.update(dict.fromkeys(named, section.name))
    if any(PAIRED.name in row for row in rows):
        metrics[PAIRED.name], sections[PAIRED.name] = PAIRED, "profile.latency"
    numbers = sorted({column for row in rows for column in row} - set(LEADING))
    frame = DataFrame(rows, columns=[*LEADING, *numbers])
    frame.attrs.update(metrics=metrics, sections=sections, meant=meant)
    return frame


def order(point: Point) -> tuple:
    """Sort key of points: references as in REFERENCES, then methods by name, rate and seed."""
    method = point.method
    place = REFERENCES.index(method) if method in REFERENCES else len(REFERENCES)
    return place, method, point.model, point.rate, point.seed, point.data


def _row(record: Record, yardstick: _Yardstick, info: dict[str, Any]) -> dict[str, Any]:
    point, score = record.point, yardstick.score(record)
    status, reason = _status(record)
    return {
        "model": point.model,
        "method": point.method,
        "rate": point.rate,
        "seed": point.seed,
        "status": status,
        "reason": reason,
        "superb_s": score.value if score else math.nan,
        "superb_tasks": " ".join(sorted(score.terms)) if score else "",
        "anchors": score.anchors if score else "",
        "random_weights": bool(info.get("random_weights")) or point.model.startswith("random:"),
        **_conditions(record),
        "data": point.data,
        "key": point.key,
        **{f"score.{task}": value for task, value in yardstick.terms(record).items()},
        **record.values(),
        **yardstick.paired_latency(record),
    }


class _Yardstick:
    """What a run's scores are relative to: its tasks, and its dense and FBANK points by seed."""

    def __init__(self, records: Sequence[Record]) -> None:
        done = [
            section
            for record in records
            for section in record.sections.values()
            if section.name.startswith("task.") and section.status == "done" and section.values
        ]
        self.metrics = {_task(s): _metric(s) for s in done}
        self.dense = {
            (r.point.model, r.point.seed): r.values() for r in records if r.point.method == DENSE
        }
        self.fbank = {r.point.seed: r.values() for r in records if r.point.method == FBANK}
        meant = {_task(s): s.metrics for s in done if s.details.get("in_score")}
        self.counting = {
            task: name
            for task, name in self.metrics.items()
            if task in meant and self._margin(meant[task].get(name), name) >= MARGIN
        }

    def _margin(self, metric: Metric | None, name: str) -> float:
        """How much better the dense models are than FBANK, over the seeds that have both."""
        sign = -1 if metric is not None and metric.better == "lower" else 1
        gaps = [
            sign * (values[name] - self.fbank[seed][name])
            for (_, seed), values in self.dense.items()
            if name in values and name in self.fbank.get(seed, {})
        ]
        return sum(gaps) / len(gaps) if gaps else math.inf

    def score(self, record: Record) -> Score | None:
        """superb_s, None where a task that counts in the run is not scored for the point."""
        score = self._score(record, self.counting)
        return None if score.missing or not score.terms else score

    def terms(self, record: Record) -> dict[str, float]:
        """The normalised score of every task, whether it counts or not."""
        return self._score(record, self.metrics).terms

    def paired_latency(self, record: Record) -> dict[str, float]:
        """PAIRED, where both the dense model and this one were timed."""
        point, values = record.point, record.values()
        dense = self.dense.get((point.model, point.seed), {}).get("latency_s_p50")
        if dense is None or "speedup" not in values:
            return {}
        return {PAIRED.name: dense / (1.0 if point.method == DENSE else values["speedup"])}

    def _score(self, record: Record, metrics: dict[str, str]) -> Score:
        point = record.point
        dense = self.dense.get((point.model, point.seed), {})
        return quick_superb_s(record.values(), self.fbank.get(point.seed, {}), dense, metrics)


def _task(section: Section) -> str:
    return section.name.removeprefix("task.")


def _metric(section: Section) -> str:
    """The task's own metric: the first that it declares."""
    return next(iter(section.metrics or section.values))


def _status(record: Record) -> tuple[str, str]:
    """The point's status, and why each of its sections is not done.

    A point is what its compression is; once compressed, it failed where one of its sections did. A
    section that does not exist for it (unsupported) takes nothing away from the others.
    """
    open_ = [s for s in record.sections.values() if s.status != "done"]
    reason = "; ".join(f"{s.name}: {' '.join(s.reason.split())}" for s in open_)
    statuses = [s.status for s in record.sections.values()]
    compress = record.sections.get("compress")
    if compress is not None and compress.status != "done":
        return compress.status, reason
    for status in ("failed", "done", "unsupported"):
        if status in statuses:
            return status, reason
    return "missing", "nothing was done yet"


def _conditions(record: Record) -> dict[str, Any]:
    """Under which the point's machine-dependent costs were measured, empty where there are none.

    One device per point: that of its latency where there is one.
    """
    profiles = [
        section
        for name, section in sorted(record.sections.items())
        if name.startswith("profile.") and name not in MACHINE_FREE and section.status == "done"
    ]
    if not profiles:
        return {"device": ""}
    section = min(profiles, key=lambda section: section.name != "profile.latency")
    told, runtime = section.details, section.details.get("runtime", {})
    return {
        **runtime,
        "device": _device(section, runtime),
        "dtype": told.get("dtype", ""),
        "attention": " ".join(told.get("attention_kernels", ())),
        "disturbed": told.get("disturbed", ""),
    }


def _device(section: Section, runtime: dict[str, Any]) -> str:
    """The device with all that sets its numbers apart from others of the same device."""
    device, where = str(section.details.get("device", "cpu")), section.environment
    parts = [device]
    if device.startswith("cpu"):
        parts = [str(where.get("cpu") or where.get("device") or device)]
        if threads := runtime.get("threads", section.details.get("threads")):
            parts.append(f"{threads} thread{'s' * (threads != 1)}")
    parts += [runtime["dtype"]] if runtime.get("dtype") else []
    kernel = runtime.get("attention", "auto")
    parts += [f"{kernel} attention"] if kernel != "auto" else []
    switches = {"compile": "compiled", "tf32": "TF32", "cuda_graphs": "CUDA graphs"}
    return ", ".join([*parts, *(word for name, word in switches.items() if runtime.get(name))])


def labels(runs: Sequence[RunFolder]) -> list[str]:
    """Short names of runs: the folders' own, or whole paths where those are not distinct."""
    names = [run.path.resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [run.path.as_posix() for run in runs]
