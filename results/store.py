"""A run on disk: every file is written whole or not at all, so a sweep may stop at any moment.

    RUN/run.json                  where the run comes from: model, data, tasks, machine, flags
    RUN/points/KEY/point.json     what is compressed, by what, how far
    RUN/points/KEY/SECTION.json   one thing that was done with that point
    RUN/models/KEY/               the compressed encoder
    RUN/tracks/TRACK/             of methods that train: log.csv, and checkpoints while it goes on
    RUN/logs/KEY/SECTION.log      what was printed while that was done, where anything was

Reading needs the standard library alone. A file that a crash left half-written counts as never
written, and the log says so; a file that is something else is refused by name.

A section that took long is waited for until the disk has it, with its point and its model; one that
is made again as soon as it would be waited for is not. So a machine that loses its power loses of
what was finished short sections alone, on Linux those of the last half minute.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import shutil
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from core.errors import InputError
from core.point import Point
from core.record import Record, Section

_log = logging.getLogger(__name__)

#: Files that are not complete yet, as `replaced` names them.
_TEMPORARY = ".*.tmp"

#: A section that took so many seconds is waited for until the disk has it.
DEAR = 0.1

#: How a measurement's file begins where it is done, and how every file ends that is whole.
_DONE = re.compile(
    rb'{\n "name": "((?:profile|task)\.[^"\\]+)",\n "status": "done",\n "fingerprint": "(\w+)",\n'
)
_END = b"\n}\n"


class RunFolder:
    """The records and models of one sweep."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @classmethod
    def existing(cls, path: str | Path) -> RunFolder:
        """The run in that folder.

        Raises:
            InputError: there is no folder, or no run in it.
        """
        run = cls(path)
        if not (run.path / "run.json").is_file() and not (run.path / "points").is_dir():
            raise InputError(f"{run.path} holds no run; give a folder that a sweep has written")
        return run

    def write_run(self, info: dict[str, Any]) -> None:
        """Store where the run comes from.

        Raises:
            InputError: the folder cannot be written.
        """
        _write_json(self.path / "run.json", info)

    def run_info(self) -> dict[str, Any]:
        """What `write_run` stored, empty where nothing was.

        Raises:
            InputError: run.json is something else.
        """
        info = _read_json(self.path / "run.json")
        if not isinstance(info, dict | None):
            raise InputError(_foreign(self.path / "run.json", "the description of a run"))
        return info or {}

    def write_point(self, point: Point) -> None:
        """Store what the point is.

        Raises:
            InputError: the folder cannot be written.
        """
        _write_json(self._folder(point.key) / "point.json", point.to_json(), wait=False)

    def write_section(self, key: str, section: Section) -> None:
        """Store, or replace, one section of the point with that key, which was written before.

        Raises:
            InputError: the folder cannot be written, or somebody has removed it.
        """
        folder = self._folder(key)
        if not folder.is_dir():
            raise InputError(f"{folder} is gone; the same command begins anew what was in it")
        dear = section.seconds >= DEAR or section.status == "failed"
        if dear:
            model = self.model_folder(key).glob("*") if section.name == "compress" else ()
            _settle([folder / "point.json", *model])
        _write_json(folder / f"{section.name}.json", section.to_json(), wait=dear)

    def read(self, key: str) -> Record:
        """The point with that key and the sections it has so far.

        Raises:
            InputError: there is no such point, or one of its files is something else.
        """
        record = self.find(key)
        if record is None:
            raise InputError(f"{self.path} has no point {key!r}; a sweep writes its points there")
        return record

    def find(self, key: str) -> Record | None:
        """As `read`; None where there is no such point.

        Raises:
            InputError: one of its files is something else.
        """
        folder = self._folder(key)
        data = _read_json(folder / "point.json")
        if data is None:
            return None
        record = Record(_point(folder, data))
        for name in _section_names(folder):
            if section := self.section(key, name):
                record.sections[name] = section
        return record

    def glance(self, point: Point) -> Record:
        """What there is of the point in brief; without sections where there is no such point.

        Of a measurement that is done the beginning and the end of its file are looked at: a plan
        of ten thousand points reads five times as many files.

        Raises:
            InputError: a file is something else, as far as one can see.
        """
        folder, record = self._folder(point.key), Record(point)
        data = _read_json(folder / "point.json")
        if data is None:
            return record
        if data != point.to_json():
            _point(folder, data)
        for name in _section_names(folder):
            if section := _glance(folder, name):
                record.sections[name] = section
        return record

    def section(self, key: str, name: str) -> Section | None:
        """That section of that point, None where it is not there.

        Raises:
            InputError: its file is something else.
        """
        path = f"{self.path}/points/{key}/{name}.json"  # a Path takes as long as the reading
        data = _read_json(path)
        return None if data is None else _section(path, name, data)

    def keys(self) -> list[str]:
        """The keys of all points, sorted."""
        points = f"{self.path}/points"
        names = os.listdir(points) if os.path.isdir(points) else []
        kept = (n for n in names if not n.startswith("."))
        return sorted(n for n in kept if os.path.exists(f"{points}/{n}/point.json"))

    def records(self, told: Container[str] | None = None) -> list[Record]:
        """All points with their sections, in the order of their keys.

        told: names of what is kept of the sections' details and environments, all by default; of
        ten thousand points they take more memory than all the rest.

        Raises:
            InputError: a file is something else than what a sweep writes there.
        """
        found = []
        for key in self.keys():
            if record := self.find(key):
                if told is not None:
                    record.pare(told)
                found.append(record)
        return found

    def model_folder(self, key: str) -> Path:
        """Where the compressed encoder of that point lies, once it is saved."""
        return self.path / "models" / key

    def track_folder(self, track: str) -> Path:
        """Where the trainings of a method and seed keep their log and checkpoints."""
        return self.path / "tracks" / track

    def drop_checkpoints(self, track: str) -> None:
        """Remove what a track that came to its end needs no more.

        A single training that all rates were taken from stays: other rates may be asked of it.
        """
        checkpoints = sorted(self.track_folder(track).rglob("*.pt"))
        if len(checkpoints) > 1:
            os.sync()  # what was made of them may have been too quick to be waited for
            for checkpoint in checkpoints:
                checkpoint.unlink(missing_ok=True)

    def log(self, key: str, section: str) -> Path:
        """Where stands what was printed while that section was in work, if anything was."""
        return self.path / "logs" / key / f"{section}.log"

    def tidy(self) -> None:
        """Remove what killed processes had half-made. Nobody may be writing here meanwhile."""
        for folder in ("points/*", "models/*", "logs"):
            for left in self.path.glob(f"{folder}/{_TEMPORARY}"):
                left.unlink(missing_ok=True)
        for left in self.path.glob("models/.*.*/"):
            shutil.rmtree(left, ignore_errors=True)

    def _folder(self, key: str) -> Path:
        return self.path / "points" / key


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A file beside it that takes its place when all has gone well, and is gone otherwise."""
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes, wait: bool = True) -> None:
    """Write a file so that it has its old content or the new one, whatever happens meanwhile.

    wait: until the disk has it.

    Raises:
        InputError: the folder cannot be written, or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as temporary, temporary.open("wb") as file:
            file.write(content)
            file.flush()
            if wait:
                os.fsync(file.fileno())
    except OSError as error:
        raise InputError(
            f"cannot write {path.name} into {path.parent} ({error.strerror}); "
            "free space there or choose another folder"
        ) from error


def _settle(paths: Iterable[Path]) -> None:
    """Wait until the disk has these files, as far as they are there."""
    for path in paths:
        with suppress(OSError):  # what is wrong with the disk, the record that follows will tell
            file = os.open(path, os.O_RDONLY)
            try:
                os.fsync(file)
            finally:
                os.close(file)


def _write_json(path: Path, data: dict[str, Any], wait: bool = True) -> None:
    text = json.dumps(_finite(data), indent=1, ensure_ascii=False, allow_nan=False)
    write_whole(path, f"{text}\n".encode(), wait)


def _finite(data: Any) -> Any:
    """The data with None for what JSON has no number for."""
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def _read_json(path: Path | str) -> Any:
    """What the file holds, None where it is missing or half-written."""
    content = _read(path)
    return None if content is None else _parse(path, content)


def _read(path: Path | str) -> bytes | None:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.readall()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror}); mend its permissions") from error


def _parse(path: Path | str, content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        _log.warning("%s is half-written: it counts as never written", path)
        return None


def _section_names(folder: Path) -> list[str]:
    return [
        name.removesuffix(".json")
        for name in sorted(os.listdir(folder))
        if name.endswith(".json") and not name.startswith(".") and name != "point.json"
    ]


def _glance(folder: Path, name: str) -> Section | None:
    """A section in brief, None where it is half-written."""
    path = f"{folder}/{name}.json"
    content = _read(path)
    if content is None:
        return None
    begun = _DONE.match(content)
    if begun and content.endswith(_END) and name == begun[1].decode():
        return Section(name, "done", begun[2].decode())
    data = _parse(path, content)
    return None if data is None else _section(path, name, data).brief()


def _point(folder: Path, data: Any) -> Point:
    try:
        point = Point(**data)
        if point.key == folder.name:
            return point
    except TypeError:
        pass
    raise InputError(_foreign(folder / "point.json", f"the point with key {folder.name!r}"))


def _section(path: str, name: str, data: Any) -> Section:
    try:
        section = Section.from_json(data)
        if section.name == name:
            nan = float("nan")
            section.values = {k: nan if v is None else v for k, v in section.values.items()}
            return section
    except (TypeError, AttributeError):
        pass
    raise InputError(_foreign(path, f"the section {name!r}"))


def _foreign(path: Path | str, expected: str) -> str:
    return f"{path} is not {expected} as a sweep writes it; remove it or restore it"
