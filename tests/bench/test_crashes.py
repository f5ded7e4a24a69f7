"""Nothing is lost: whatever ends a process at whatever moment, records are whole or absent."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import idle
import pytest
from pretending import Pretending
from running import MAIN, start, wait_until

from bench.jobs import Compress, Job, Source
from bench.plan import Plan, Request
from bench.sweep import Sweep, alone
from core.errors import InputError
from core.method import parse_methods
from core.point import Point
from core.record import Section
from encoders import store
from results.store import RunFolder

POINT = Point("builtin", "low-rank", 0.5, 0, "builtin")
BRIEF = "batch_seconds=0.5,crop_seconds=0.3,clusters=4"
TRAINED = f"weight-pruning[schedule=iterative,steps=20,{BRIEF}]"


def section(name: str, size: int = 4) -> Section:
    return Section(name, "done", "f" * 16, {"a": 1.5}, details={"raw": list(range(size))})


def write_for_ever(run: RunFolder) -> None:
    """What workers do to a run, over and over."""
    for turn in range(1_000_000):
        run.write_point(POINT)
        run.write_section(POINT.key, section(f"task.{turn % 7}", 1000 * (turn % 3)))
        with store.replacing(run.model_folder(POINT.key)) as made:
            (made / store.SPEC).write_text("{}")
            (made / store.WEIGHTS).write_bytes(os.urandom(1 << 16))


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".*") if not path.name.startswith(".lock")]


def test_kill_9_while_files_are_written_leaves_them_whole_and_the_rest_is_tidied(tmp_path):
    run, draw, littered = RunFolder(tmp_path / "run"), random.Random(0), 0
    run.write_point(POINT)
    for _ in range(30):
        child = os.fork()
        if not child:
            try:
                write_for_ever(run)
            finally:
                os._exit(1)
        time.sleep(draw.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        (record,) = run.records()
        for found in record.sections.values():
            assert found == section(found.name, len(found.details["raw"]))
        model = run.model_folder(POINT.key)
        assert not model.is_dir() or (model / store.WEIGHTS).stat().st_size == 1 << 16
        littered += bool(leftovers(run.path))
        with alone(run):
            assert not leftovers(run.path)
    assert littered, "no kill came in the middle of anything"


def test_what_others_write_meanwhile_is_not_tidied_away(tmp_path):
    run = RunFolder(tmp_path)
    left = tmp_path / "points" / POINT.key / ".task.pr.json.0badf00d.tmp"
    run.write_point(POINT)
    left.touch()
    with alone(run, "piece-1"), alone(run, "piece-2"):
        assert left.exists()
    with alone(run):
        assert not left.exists()


@pytest.mark.parametrize("name", ["point", "task.ks"])
def test_a_record_cut_at_any_byte_is_whole_or_absent(tmp_path, name, caplog):
    run = RunFolder(tmp_path)
    run.write_point(POINT)
    run.write_section(POINT.key, section("task.ks"))
    path = tmp_path / "points" / POINT.key / f"{name}.json"
    content = path.read_bytes()
    for end in range(len(content)):
        path.write_bytes(content[:end])
        record = run.find(POINT.key)
        whole = end == len(content) - 1  # but for the line break
        if name == "point":
            assert (record is not None) == whole
        else:
            assert record.sections == ({"task.ks": section("task.ks")} if whole else {})


@pytest.fixture
def asked(small_model, small_data) -> Request:
    return Request(
        str(small_model), tuple(parse_methods("low-rank")), (0.25, 0.5), (0,),
        Source(str(small_data)), (), Source(str(small_data)), ("params",),
    )  # fmt: skip


def test_a_point_that_was_cut_is_made_again(asked, tmp_path):
    Sweep(Plan.of(asked, tmp_path), Pretending()).run()
    for path in tmp_path.glob("points/*/point.json"):
        path.write_bytes(path.read_bytes()[:20])
    again = Sweep(Plan.of(asked, tmp_path), Pretending())
    assert again.left == 2 * 4
    again.run()
    assert len(RunFolder(tmp_path).records()) == 4


class Removing(Pretending):
    """Somebody removes the run's folder in the middle."""

    def events(self):
        for count, event in enumerate(super().events()):
            if count == 3:
                shutil.rmtree(self.line[0].run_path)
            yield event


def test_a_run_that_vanishes_is_one_sentence_and_does_not_come_back_by_halves(asked, tmp_path):
    with pytest.raises(InputError, match="is gone"):
        Sweep(Plan.of(asked, tmp_path / "run"), Removing()).run()
    assert not [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    Sweep(Plan.of(asked, tmp_path / "run"), Pretending()).run()
    assert Plan.of(asked, tmp_path / "run").todo()[4:] == []


def test_a_job_whose_run_vanishes_says_so(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.write_point(POINT)
    job = Job(run.path, (POINT,), {(POINT.key, "task.ks"): "f"})
    with (
        pytest.raises(InputError, match="is gone"),
        job.section(lambda _: None, POINT.key, "task.ks"),
    ):
        shutil.rmtree(run.path)
    assert not run.path.exists()


def test_a_clock_that_jumps_changes_no_duration(asked, tmp_path, monkeypatch):
    days = iter(range(10**6))
    monkeypatch.setattr(time, "time", lambda: 86400.0 * (-1) ** next(days) * next(days))
    plan = Plan.of(asked, tmp_path)
    (point,) = next(asked.tracks())
    plan.run.write_point(point)
    said = []
    todo = {(point.key, "compress"): "f"}
    Compress(tmp_path, (point,), todo, source=asked.source, track="t").run(said.append)
    assert 0 <= plan.run.read(point.key).sections["compress"].seconds < 60


def test_two_locks_are_one_too_many(tmp_path):
    run = RunFolder(tmp_path)
    with alone(run), pytest.raises(InputError, match="another sweep"), alone(run):
        pass


# The rest is thorough: whole sweeps in processes that are killed over and over.


def children(pid: int, generations: int = 9) -> list[int]:
    """All that descend from a process."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found, front = [], [pid]
    for _ in range(generations):
        front = [child for child, parent in parents.items() if parent in front]
        found += front
    return found


def check(folder: Path) -> int:
    """How many sections are there, all of them whole; a model that was made is there too."""
    run = RunFolder(folder)
    for path in folder.glob("points/*/*.json"):
        json.loads(path.read_text())
    for record in run.records():
        made = record.sections.get("compress")
        if made and made.status == "done":
            place = run.model_folder(record.point.key)
            assert store.fingerprint(place) == made.details["weights"]
    return sum(len(record.sections) for record in run.records())


def made(folder: Path) -> int:
    return len([*folder.glob("points/*/compress.json"), *folder.glob("points/*/*.*.json")])


@pytest.fixture
def many(arguments, tmp_path):
    """Starts a sweep of 100 points that take no time, and goes on with it."""
    env = idle.install(tmp_path / "path")
    line = arguments(methods="idle,idle[number=1]", rates="0.02:0.98:0.02", tasks="idle",
                     profilers="idle,idle-timer")  # fmt: skip
    return lambda: start([*line, "--retry-failed"], MAIN, env=env)


def complete(process: subprocess.Popen, folder: Path) -> None:
    """The sweep comes to its end, and nothing is missing or left over."""
    _, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    records = RunFolder(folder).records()
    assert len(records) == 3 + 2 * 49
    assert {s.status for record in records for s in record.sections.values()} == {"done"}
    assert not leftovers(folder)
    check(folder)


@pytest.mark.slow
def test_a_sweep_that_is_killed_over_and_over_comes_to_its_end(many, tmp_path):
    draw, folder, killed = random.Random(0), tmp_path / "run", 0
    for _ in range(10):
        process, before = many(), made(folder)
        wait_until(lambda p=process, n=before: p.poll() is not None or made(folder) > n,
                   "some work", 300)  # fmt: skip
        time.sleep(draw.uniform(0, 0.5))
        killed += process.poll() is None
        process.kill()
        process.communicate()
        assert check(folder) >= before, "what was written is gone"
    assert killed > 3
    complete(many(), folder)


@pytest.mark.slow
def test_workers_that_are_killed_over_and_over_take_one_section_each(many, tmp_path):
    draw, folder, killed = random.Random(0), tmp_path / "run", 0
    process = many()
    while process.poll() is None:
        direct = children(process.pid, 1)
        workers = [pid for pid in children(process.pid) if pid not in direct]
        if killed < 5 and workers and made(folder):
            os.kill(draw.choice(workers), signal.SIGKILL)
            killed += 1
        time.sleep(draw.uniform(0, 0.5))
    _, err = process.communicate()
    assert process.returncode == 1, err
    sections = [s for record in RunFolder(folder).records() for s in record.sections.values()]
    failed = [section for section in sections if section.status == "failed"]
    assert 0 < len(failed) <= killed
    assert all("SIGKILL" in section.reason for section in failed)
    complete(many(), folder)


@pytest.mark.slow
def test_a_training_that_is_killed_over_and_over_gives_the_same_models(arguments, tmp_path):
    def weights(folder: Path) -> dict[str, str]:
        return {
            record.point.key: record.sections["compress"].details["weights"]
            for record in RunFolder(folder).records()
        }

    whole = arguments(methods=TRAINED, rates="0.1:0.9", out=str(tmp_path / "whole"))
    process = start(whole)
    assert process.wait(900) == 0, process.communicate()
    line, draw = arguments(methods=TRAINED, rates="0.1:0.9"), random.Random(1)
    for _ in range(8):
        process = start(line)
        logs = [*tmp_path.glob("run/tracks/*/log.csv")]
        begun = sum(log.stat().st_size for log in logs)
        wait_until(
            lambda p=process, size=begun: (
                p.poll() is not None
                or sum(log.stat().st_size for log in tmp_path.glob("run/tracks/*/log.csv")) > size
            ),
            "an update",
            300,
        )
        time.sleep(draw.uniform(0, 0.3))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        check(tmp_path / "run")
    process = start(line)
    _, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, and how to mount it again with other options."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "bench-test", str(folder)],
                       check=True, capture_output=True)  # fmt: skip

    try:
        mount("size=256k")
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system can be mounted here, which takes root: {error}")
    yield folder, mount
    subprocess.run(["umount", "-l", str(folder)], check=True)


def refused(err: str) -> str:
    """The one sentence that a sweep ends with."""
    (sentence,) = [text for text in err.splitlines() if text.startswith("error: ")]
    assert "Traceback" not in err
    return sentence


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_the_sweep_goes_on_when_there_is_room(
    arguments, small_disk
):
    folder, mount = small_disk
    line = arguments(methods="row-pruning", rates="0.1:0.9", out=str(folder / "run"))
    process = start(line)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 2, err
    assert "free space there" in refused(err)
    kept = check(folder / "run")
    mount("remount,size=64m")
    process = start(line)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert check(folder / "run") > kept > 0
    assert not leftovers(folder / "run")


@pytest.mark.slow
def test_a_run_that_is_moved_away_meanwhile_goes_on_when_it_is_back(arguments, tmp_path):
    folder, away = tmp_path / "run", tmp_path / "away"
    line = arguments(methods="row-pruning", rates="0.01:0.99:0.01")
    process = start(line)
    wait_until(lambda: len([*folder.glob("points/*/compress.json")]) > 3, "some work", 300)
    folder.rename(away)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 2, err
    assert refused(err)
    assert not [path for path in folder.rglob("*.json") if path.parent.parent.name == "points"]
    shutil.rmtree(folder, ignore_errors=True)
    away.rename(folder)
    kept = check(folder)
    process = start(line)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert check(folder) > kept > 0
    assert not leftovers(folder)
