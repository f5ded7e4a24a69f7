"""Runs as one table: a row per point, a column per number, superb_s worked out on the way."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
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

#: What a table needs of the details and environments of sections.
CONDITIONS = frozenset({
    "attention_kernels", "changed", "cpu", "device", "disturbed", "dtype", "in_score", "runtime",
    "threads",
})  # fmt: skip

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


def read(run_folders: Iterable[str | Path], details: Collection[str] | None = None) -> list[Run]:
    """Read runs, each once, in the order in which they are given.

    details: of those of the sections, what is kept beside what `tabulate` needs; all by default.

    Raises:
        InputError: a folder holds no run, or a file that no sweep writes.
    """
    folders = [RunFolder.existing(path) for path in dict.fromkeys(map(Path, run_folders))]
    told = None if details is None else CONDITIONS.union(details)
    return [
        Run(name, folder, folder.records(told), folder.run_info())
        for name, folder in zip(labels(folders), folders, strict=True)
    ]


def load(run_folders: Iterable[str | Path]) -> DataFrame:
    """`tabulate` of the runs in those folders.

    Raises:
        InputError: a folder holds no run, or a file that no sweep writes.
    """
    return tabulate(read(run_folders, ()))


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
    told: dict[str, Section] = {}
    for section in (s for run in runs for record in run.records for s in _done(record)):
        if section.details.get("in_score"):
            meant.add(_task(section))
        home = _home(section)
        if home not in told or not _alike(section, told[home]):
            told[home] = section
            metrics.update(_meanings(section))
            named = [c for c in (*section.metrics, *section.values) if c in section.values]
            sections |= dict.fromkeys((_prefix(section) + c for c in named), home)
    return metrics, sections, meant


def _alike(one: Section, other: Section) -> bool:
    """Whether they have the same columns, as most sections of a name have."""
    return one.metrics == other.metrics and one.values.keys() == other.values.keys()


def _done(record: Record) -> list[Section]:
    return [section for section in record.sections.values() if section.status == "done"]


def order(point: Point) -> tuple:
    """Sort key of points: references as in REFERENCES, then methods by name, rate and seed."""
    method = point.method
    place = REFERENCES.index(method) if method in REFERENCES else len(REFERENCES)
    return place, method, point.model, point.rate, point.seed, point.data


def _row(record: Record, yardstick: _Yardstick, info: Mapping[str, Any]) -> dict[str, Any]:
    point, numbers = record.point, _numbers(record)
    score, terms = yardstick.scores(point, numbers)
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
        **{f"score.{task}": value for task, value in terms.items()},
        **numbers,
        **yardstick.paired_latency(point, numbers),
    }


def _numbers(record: Record) -> dict[str, float]:
    """All measured numbers of the sections that are done, by column."""
    numbers: dict[str, float] = {}
    for section in _done(record):
        prefix = _prefix(section)
        numbers |= {prefix + name: value for name, value in section.values.items()}
    return numbers


def _prefix(section: Section) -> str:
    """Official scores have columns of their own: a quick task may call its metric the same."""
    kind, dot, _ = _home(section).partition(".")
    return kind + dot if kind in (OFFICIAL[:-1], CHANGED) else ""


def _home(section: Section) -> str:
    """The section's name. A recipe with other settings than SUPERB's gives no official score."""
    if section.name.startswith(OFFICIAL) and section.details.get("changed"):
        return f"{CHANGED}.{section.name.removeprefix(OFFICIAL)}"
    return section.name


def _meanings(section: Section) -> dict[str, Metric]:
    """What the columns of the section mean."""
    named = {_prefix(section) + name: metric for name, metric in section.metrics.items()}
    return {column: replace(metric, name=column) for column, metric in named.items()}


class _Yardstick:
    """What a run's scores are relative to: its tasks, and its dense and FBANK points by seed."""

    def __init__(self, records: Sequence[Record]) -> None:
        done = [
            section
            for record in records
            for section in _done(record)
            if section.name.startswith("task.") and section.values
        ]
        self.metrics = {_task(s): tuple(s.metrics or s.values) for s in done}
        self.dense = {
            (r.point.model, r.point.seed): _numbers(r) for r in records if r.point.method == DENSE
        }
        self.fbank = {r.point.seed: _numbers(r) for r in records if r.point.method == FBANK}
        meant = {_task(s): s.metrics for s in done if s.details.get("in_score")}
        self.counting = {
            task
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

    def scores(
        self, point: Point, numbers: Mapping[str, float]
    ) -> tuple[Score | None, dict[str, float]]:
        """superb_s, and the normalised score of every task, whether it counts or not.

        superb_s is None where a task that counts in the run is not scored for the point.
        """
        dense, fbank = self.dense.get((point.model, point.seed), {}), self.fbank.get(point.seed, {})
        each = quick_superb_s(numbers, fbank, dense, self.metrics)
        score = each.over(self.counting)
        return None if score.missing or not score.terms else score, each.terms

    def paired_latency(self, point: Point, numbers: Mapping[str, float]) -> dict[str, float]:
        """PAIRED, where both the dense model and this one were timed."""
        dense = self.dense.get((point.model, point.seed), {}).get("latency_s_p50")
        if dense is None or "speedup" not in numbers:
            return {}
        return {PAIRED.name: dense / (1.0 if point.method == DENSE else numbers["speedup"])}


class _Official(_Yardstick):
    """What official scores are relative to: rows of published anchors."""

    def __init__(self, records: Sequence[Record], anchors: str) -> None:
        super().__init__(records)
        self.anchors = anchors

    def scores(
        self, point: Point, numbers: Mapping[str, float]
    ) -> tuple[Score | None, dict[str, float]]:
        """superb_s over the tasks that were measured, None where none was, and its terms."""
        values = {name.removeprefix(OFFICIAL): value for name, value in numbers.items()
                  if name.startswith(OFFICIAL)}  # fmt: skip
        score = official_superb_s(values, self.anchors)
        return score if score.terms else None, score.terms


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
        for section in _done(record)
        if section.name.startswith("profile.") and section.name not in MACHINE_FREE
    ]
    if not profiles:
        return {"device": ""}
    section = min(profiles, key=lambda section: (section.name != "profile.latency", section.name))
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
