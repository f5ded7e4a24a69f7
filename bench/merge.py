"""Joins runs of several machines into one: points, models and what trainings left.

What two runs know of a point in the same way is taken once. Where they differ, the first run's
stays and the difference is told. A point's sections are all of one model: measurements of a model
that came out differently are left where they are. Timings are comparable on one device alone, so
runs that were timed on different ones are joined only with the timings of one of them.
"""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.collect import report
from bench.outputs import check_folder
from bench.plan import exclusive
from bench.run_sweep import IDENTITY
from bench.sweep import alone
from core.errors import InputError
from core.point import Point
from core.record import Record, Section
from encoders import store
from results.store import RunFolder, replaced, write_whole

#: section name -> the run that it is taken from, and what it says.
Kept = dict[str, tuple[Path, Section]]

#: What run.json lists that a merged run has all of.
_LISTS = ("methods", "rates", "seeds", "tasks", "profilers")


@dataclass(frozen=True)
class Conflict:
    """A section that two runs know differently; what the first of them says is kept."""

    point: Point
    sections: tuple[Section, Section]
    runs: tuple[Path, Path]

    def __str__(self) -> str:
        told = zip(_differences(*self.sections), self.runs, strict=True)
        name = self.sections[0].name
        return f"{self.point}: {name}: " + ", ".join(f"{what} in {run}" for what, run in told)


@dataclass
class Merged:
    """What came of it. again: timings that several runs have of a point; the first is taken."""

    points: int = 0
    sections: int = 0
    again: int = 0
    conflicts: list[Conflict] = field(default_factory=list)


def merge(paths: Sequence[Path], out: Path, timings: Path | None = None) -> Merged:
    """Write what the runs know into `out`; what is there already counts as the first run.

    Interrupted, the same call goes on.

    Args:
        timings: the only run whose timings are taken.

    Raises:
        InputError: the runs are not of one model and data, or were timed on several devices.
    """
    runs = [RunFolder.existing(path) for path in dict.fromkeys(paths)]
    target = RunFolder(check_folder(out))
    if any(run.path.resolve() == out.resolve() for run in runs):
        raise InputError(f"{out} is one of the runs to be merged; choose another --out")
    timed = [run for run in runs if timings in (None, run.path)]
    if not timed:
        raise InputError(f"timings {str(timings)!r}: expected one of the runs to be merged")
    if target.run_info():
        runs, timed = [target, *runs], [target, *timed]
    _check_identity(runs)
    _check_devices(timed)
    with alone(target):
        target.write_run(_info(runs, target))
        merger = _Merger(target, {run.path for run in timed})
        for key, those in _by_key(runs).items():
            merger.join(key, those)
    return merger.found


def execute(paths: Sequence[Path], out: Path, timings: Path | None = None) -> bool:
    """Merge, say what came of it, and finish the run as a sweep does.

    Returns:
        Whether there are conflicts.

    Raises:
        InputError: as `merge`.
    """
    found = merge(paths, out, timings)
    info = RunFolder(out).run_info()
    report(out, info["tasks"], info["profilers"])
    print(f"\n{found.points} points with {found.sections} sections from {len(set(paths))} runs")
    if found.again:
        print(f"timings that were there again, the first run's are taken: {found.again}")
    if found.conflicts:
        print(f"conflicts, in which the first run's stays: {len(found.conflicts)}")
    for conflict in found.conflicts:
        print(f"  {conflict}")
    return bool(found.conflicts)


class _Merger:
    """Joins what runs know, point by point. timed: the runs whose timings are taken."""

    def __init__(self, target: RunFolder, timed: set[Path]) -> None:
        self.found = Merged()
        self._target = target
        self._timed = timed
        self._weights: dict[str, Path] = {}

    def join(self, key: str, runs: Sequence[RunFolder]) -> None:
        """Write the point, its model, and the sections that are of this model."""
        records = {run.path: run.read(key) for run in runs}
        first = next((path for path in records if _made(records[path])), runs[0].path)
        kept = {name: (first, s) for name, s in records[first].sections.items()
                if self._wanted(name, first)}  # fmt: skip
        holders = [first]
        for path, record in records.items():
            if path != first and self._same_model(record, path, kept):
                self._add(record, path, kept)
                holders.append(path)
        self._target.write_point(records[first].point)
        if _made(records[first]):
            weights = records[first].sections["compress"].details.get("weights", key)
            for path in holders:
                self._take_model(key, path, weights)
        for name, (path, section) in kept.items():
            self._take_section(key, name, path, section)
        self.found.points += 1
        self.found.sections += len(kept)

    def _wanted(self, name: str, run: Path) -> bool:
        return run in self._timed or not exclusive(name)

    def _same_model(self, record: Record, path: Path, kept: Kept) -> bool:
        """Whether what the record measured is the model that is kept; tells where it is not."""
        theirs = record.sections.get("compress")
        if theirs is None or theirs.status != "done":
            return False
        where, ours = kept["compress"]
        if ours.details.get("weights") == theirs.details.get("weights"):
            return True
        self.found.conflicts.append(Conflict(record.point, (ours, theirs), (where, path)))
        return False

    def _add(self, record: Record, path: Path, kept: Kept) -> None:
        """Take what is not known yet, and compare what is."""
        for name, section in record.sections.items():
            where, ours = kept.get(name, (path, section))
            if not self._wanted(name, path) or name == "compress":
                continue
            if section.status == "done" != ours.status or name not in kept:
                kept[name] = path, section
            elif section.status != "done" or _equal(ours, section):
                continue
            elif exclusive(name) and ours.fingerprint == section.fingerprint:
                self.found.again += 1
            else:
                self.found.conflicts.append(Conflict(record.point, (ours, section), (where, path)))

    def _take_model(self, key: str, run: Path, weights: str) -> None:
        """The files of the model that are not there yet; equal weights lie on the disk once."""
        ours = self._target.model_folder(key)
        for file in sorted(RunFolder(run).model_folder(key).glob("[!.]*")):
            if file.name == store.WEIGHTS:
                _take(self._weights.get(weights, file), ours / file.name)
                self._weights[weights] = ours / file.name
            else:
                _take(file, ours / file.name)

    def _take_section(self, key: str, name: str, run: Path, section: Section) -> None:
        """The section's file as it is, and the logs that it speaks of."""
        if run == self._target.path:
            return
        ours = self._target.path
        if (log := run / "logs" / key / f"{name}.log").is_file():
            _take(log, ours / log.relative_to(run))
        for track in {Path(log).parts[1] for log in section.details.get("training_logs", ())}:
            for file in (run / "tracks" / track).rglob("[!.]*"):
                if file.is_file():
                    _take(file, ours / file.relative_to(run))
        file = run / "points" / key / f"{name}.json"
        write_whole(ours / file.relative_to(run), file.read_bytes())


def _made(record: Record) -> bool:
    return "compress" in record.sections and record.sections["compress"].status == "done"


def _equal(one: Section, other: Section) -> bool:
    """Whether two sections say the same; how long they took and where does not matter."""
    values = ({k: repr(v) for k, v in section.values.items()} for section in (one, other))
    first, second = values
    return one.fingerprint == other.fingerprint and first == second


def _differences(one: Section, other: Section) -> Iterator[str]:
    """What each of the sections says that the other does not."""
    names = [n for n in one.values | other.values if one.values.get(n) != other.values.get(n)]
    for section in (one, other):
        if names:
            yield ", ".join(
                f"{name} {section.values.get(name, float('nan')):.6g}" for name in names
            )
        elif section.name == "compress":
            processes = section.details.get("processes", 1)
            yield f"weights {section.details.get('weights')}" + (
                f" (trained by {processes} processes)" if processes > 1 else ""
            )
        else:
            yield f"fingerprint {section.fingerprint}"


def _take(source: Path, target: Path) -> None:
    """Link the file, or copy it where links are not possible; one that is there stays."""
    if target.exists():
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with suppress(OSError):
            os.link(source, target)
            return
        with replaced(target) as temporary:
            shutil.copyfile(source, temporary)
    except OSError as error:
        raise InputError(
            f"cannot write {target.name} into {target.parent} ({error.strerror}); "
            "free space there or choose another --out"
        ) from error


def _by_key(runs: Sequence[RunFolder]) -> dict[str, list[RunFolder]]:
    """The runs that know each point."""
    found: dict[str, list[RunFolder]] = defaultdict(list)
    for run in runs:
        for key in run.keys():  # noqa: SIM118 (it is no mapping)
            found[key].append(run)
    return found


def _check_identity(runs: Sequence[RunFolder]) -> None:
    first, *others = runs
    for run in others:
        for name in IDENTITY:
            ours, theirs = first.run_info().get(name), run.run_info().get(name)
            if ours != theirs:
                raise InputError(
                    f"{run.path} is a sweep of {name.replace('_', ' ')} {theirs!r}, {first.path} "
                    f"of {ours!r}; such runs stay apart: `bench report {first.path} {run.path}` "
                    "shows both"
                )


def _check_devices(runs: Sequence[RunFolder]) -> None:
    """Refuse timings of several devices."""
    seen: dict[str, Path] = {}
    for run in runs:
        for record in run.records():
            for name, section in record.sections.items():
                if section.status == "done" and exclusive(name):
                    seen.setdefault(_device(section), run.path)
    if len(seen) > 1:
        (one, first), (other, second), *_ = seen.items()
        raise InputError(
            f"{first} was timed on {one}, {second} on {other}: timings of several devices stay "
            f"apart; take those of one run with --timings {first}, or show both with "
            f"`bench report {first} {second}`"
        )


def _device(section: Section) -> str:
    """What timings must have in common."""
    device, where = str(section.details.get("device", "cpu")), section.environment
    return str(where.get("cpu", "a CPU")) if device.startswith("cpu") else device


def _info(runs: Sequence[RunFolder], target: RunFolder) -> dict[str, Any]:
    """What run.json says: all that the runs were asked for, and where each comes from."""
    infos = [run.run_info() for run in runs]
    lists = {
        name: list(dict.fromkeys(item for info in infos for item in info.get(name, ())))
        for name in _LISTS
    }
    lists |= {name: sorted(lists[name]) for name in ("rates", "seeds")}
    merged = {entry["run"]: entry for entry in target.run_info().get("merged", ())}
    merged |= {
        str(run.path): {"run": str(run.path), "machine": info.get("machine")}
        for run, info in zip(runs, infos, strict=True)
        if run is not target
    }
    return {**infos[0], **lists, "merged": list(merged.values())}
