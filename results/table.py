"""Runs as one table: a row per point, a column per number, superb_s worked out on the way."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from core.metric import Metric
from core.point import DENSE, FBANK, REFERENCES, Point
from core.record import Record, Section
from results import published as publications
from results.store import RunFolder
from results.superb import OFFICIAL, QUICK, Score, official_superb_s, quick_superb_s

if TYPE_CHECKING:
    from pandas import DataFrame

#: Columns that every table begins with; the measured numbers follow, sorted by name.
LEADING = (
    "run", "model", "method", "rate", "achieved_rate", "seed", "status", "reason", "superb_s",
    "superb_tasks", "anchors", "random_weights", "device", "threads", "dtype", "compile", "tf32",
    "attention", "cuda_graphs", "disturbed", "data", "task_data", "key",
)  # fmt: skip

#: Sections whose numbers are the same on every machine. Those of any other profiler are not.
MACHINE_FREE = ("profile.params", "profile.macs")

#: By how many points of a hundred the dense model must be better than FBANK, in each metric of a
#: task, for it to count in a run. Below that, the noise of a few hundred test items is blown up to
#: hundreds of superb_s.
MARGIN = 5.0

#: What scores of `bench superb` are called whose recipe was not SUPERB's own.
CHANGED = "changed"

#: A machine that slows down for a minute slows the dense model too, which is timed in turns with
#: the compressed one: their ratio is free of that drift, a median by itself is not.
PAIRED = Metric(
    "latency_s_paired", "s", "lower", "the dense model's median latency over the speed-up"
)

SUPERB_S = Metric("superb_s", "", "higher", "0 for FBANK, 1000 for the dense model")


class Run(NamedTuple):
    """A run as it was read: its short name, its folder, its points, and where it comes from."""

    name: str
    folder: RunFolder
    records: Sequence[Record]
    info: Mapping[str, Any]


def read(run_folders: Iterable[str | Path]) -> list[Run]:
    """Read runs, each once, in the order in which they are given.

    Raises:
        InputError: a folder holds no run, or a file that no sweep writes.
    """
    folders = [RunFolder.existing(path) for path in dict.fromkeys(map(Path, run_folders))]
    return [
        Run(name, folder, folder.records(), folder.run_info())
        for name, folder in zip(labels(folders), folders, strict=True)
    ]


def load(run_folders: Iterable[str | Path]) -> DataFrame:
    """`tabulate` of the runs in those folders.

    Raises:
        InputError: a folder holds no run, or a file that no sweep writes.
    """
    return tabulate(read(run_folders))


def tabulate(runs: Iterable[Run], anchors: str = QUICK, published: bool = False) -> DataFrame:
    """One row per point of one or more runs, references first, then by method, rate and seed.

    Columns: LEADING, each task's normalised score as `score.TASK`, each measured metric.
    `frame.attrs` holds `metrics` (each one's unit and direction), `sections` (where each comes
    from), `meant` (tasks made for superb_s) and `anchors` as it was asked for.

    anchors: of superb_s, whose grades never mix. `quick` is relative to the dense and FBANK points
    of the same run and seed, and left empty where a task that counts in the run was not scored for
    the point. `leaderboard` and `wang2023` score what `bench superb` measured; which tasks that is
    over stands beside it. published: published models are rows as well, the method `published`;
    beside quick scores they have the anchors `leaderboard`.

    Raises:
        InputError: there is no such grade.
    """
    from pandas import DataFrame

    chosen, quick = sorted(runs, key=lambda run: run.name), anchors == QUICK
    rows = [row for run in chosen for row in _rows(run, None if quick else anchors)]
    metrics, sections, meant = _columns(chosen)
    if any(PAIRED.name in row for row in rows):
        metrics[PAIRED.name], sections[PAIRED.name] = PAIRED, "profile.latency"
    if published:
        rows += publications.rows(publications.ANCHORS if quick else anchors)
        sections = publications.sections() | sections
        metrics = publications.metrics() | metrics
    numbers = sorted({column for row in rows for column in row} - set(LEADING))
    frame = DataFrame(rows, columns=[*LEADING, *numbers])
    frame.attrs.update(metrics=metrics, sections=sections, meant=meant, anchors=anchors)
    return frame


def _rows(run: Run, anchors: str | None) -> Iterator[dict[str, Any]]:
    """The points of a run. anchors: of official scores, None for quick ones."""
    yardstick = _Official(run.records, anchors) if anchors else _Yardstick(run.records)
    for record in sorted(run.records, key=lambda record: order(record.point)):
        yield {"run": run.name, **_row(record, yardstick, run.info)}


def _columns(runs: Iterable[Run]) -> tuple[dict[str, Metric], dict[str, str], set[str]]:
    """What the runs' columns mean, the section that each is from, and the tasks for superb_s."""
    metrics, meant = {SUPERB_S.name: SUPERB_S}, set[str]()
    sections: dict[str, str] = {}
    for record in (record for run in runs for record in run.records):
        for section in (s for s in record.sections.values() if s.status == "done"):
            metrics.update(_meanings(section))
            meant |= {_task(section)} if section.details.get("in_score") else set()
            named = [c for c in (*section.metrics, *section.values) if c in section.values]
            sections |= dict.fromkeys((_column(section, c) for c in named), _home(section))
    return metrics, sections, meant


def order(point: Point) -> tuple:
    """Sort key of points: references as in REFERENCES, then methods by name, rate and seed."""
    method = point.method
    place = REFERENCES.index(method) if method in REFERENCES else len(REFERENCES)
    return place, method, point.model, point.rate, point.seed, point.data


def _row(record: Record, yardstick: _Yardstick, info: Mapping[str, Any]) -> dict[str, Any]:
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
        "task_data": Path(info.get("task_data") or "").name,
        "key": point.key,
        **{f"score.{task}": value for task, value in yardstick.terms(record).items()},
        **_numbers(record),
        **yardstick.paired_latency(record),
    }


def _numbers(record: Record) -> dict[str, float]:
    """All measured numbers of the sections that are done, by column."""
    done = [section for section in record.sections.values() if section.status == "done"]
    return {_column(s, name): value for s in done for name, value in s.values.items()}


def _column(section: Section, name: str) -> str:
    """Official scores have columns of their own: a quick task may call its metric the same."""
    kind = _home(section).partition(".")[0]
    return f"{kind}.{name}" if kind in (OFFICIAL[:-1], CHANGED) else name


def _home(section: Section) -> str:
    """The section's name. A recipe with other settings than SUPERB's gives no official score."""
    if section.name.startswith(OFFICIAL) and section.details.get("changed"):
        return f"{CHANGED}.{section.name.removeprefix(OFFICIAL)}"
    return section.name


def _meanings(section: Section) -> dict[str, Metric]:
    """What the columns of the section mean."""
    named = {_column(section, name): metric for name, metric in section.metrics.items()}
    return {column: replace(metric, name=column) for column, metric in named.items()}


class _Yardstick:
    """What a run's scores are relative to: its tasks, and its dense and FBANK points by seed."""

    def __init__(self, records: Sequence[Record]) -> None:
        done = [
            section
            for record in records
            for section in record.sections.values()
            if section.name.startswith("task.") and section.status == "done" and section.values
        ]
        self.metrics = {_task(s): tuple(s.metrics or s.values) for s in done}
        self.dense = {
            (r.point.model, r.point.seed): _numbers(r) for r in records if r.point.method == DENSE
        }
        self.fbank = {r.point.seed: _numbers(r) for r in records if r.point.method == FBANK}
        meant = {_task(s): s.metrics for s in done if s.details.get("in_score")}
        self.counting = {
            task: names
            for task, names in self.metrics.items()
            if task in meant
            and min(self._margin(meant[task].get(name), name) for name in names) >= MARGIN
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
        point, values = record.point, _numbers(record)
        dense = self.dense.get((point.model, point.seed), {}).get("latency_s_p50")
        if dense is None or "speedup" not in values:
            return {}
        return {PAIRED.name: dense / (1.0 if point.method == DENSE else values["speedup"])}

    def _score(self, record: Record, metrics: dict[str, tuple[str, ...]]) -> Score:
        point = record.point
        dense = self.dense.get((point.model, point.seed), {})
        return quick_superb_s(_numbers(record), self.fbank.get(point.seed, {}), dense, metrics)


class _Official(_Yardstick):
    """What official scores are relative to: rows of published anchors."""

    def __init__(self, records: Sequence[Record], anchors: str) -> None:
        super().__init__(records)
        self.anchors = anchors

    def score(self, record: Record) -> Score | None:
        """superb_s over the tasks that were measured, None where none was."""
        score = self._official(record)
        return score if score.terms else None

    def terms(self, record: Record) -> dict[str, float]:
        return self._official(record).terms

    def _official(self, record: Record) -> Score:
        values = {name.removeprefix(OFFICIAL): value for name, value in _numbers(record).items()
                  if name.startswith(OFFICIAL)}  # fmt: skip
        return official_superb_s(values, self.anchors)


def _task(section: Section) -> str:
    return section.name.removeprefix("task.")


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
