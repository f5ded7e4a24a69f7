from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time

import pytest
from running import start, wait_until
from synthetic_run import make

from bench import heartbeat, run_sweep, status
from bench.cli import run
from bench.executors._base import Ended, Said
from bench.jobs import Source, Started
from bench.plan import Plan
from bench.sweep import Sweep
from core.record import Section
from core.runtime import Runtime
from results.store import RunFolder

INFO = {
    "methods": ["low-rank"], "rates": [0.3, 0.6], "seeds": [0], "tasks": ["pr"],
    "profilers": ["params", "macs", "latency"],
}  # fmt: skip


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    """Five finished points: 3 references, of which FBANK has no costs, and a method at 2 rates."""
    return make(tmp_path / "run", methods=("low-rank",), rates=(0.3, 0.6), tasks=("pr",), info=INFO)


def key_of(folder: RunFolder, method: str, rate: float = 0.0) -> str:
    return next(r.point.key for r in folder.records() if (r.point.method, r.point.rate) ==
                (method, rate))  # fmt: skip


def sign(folder: RunFolder, **changes) -> None:
    """What a sweep says of itself that is at work here and now."""
    now = time.time()
    told = {
        "name": "sweep", "host": socket.gethostname(), "pid": os.getpid(), "workers": 2,
        "began": now - 65, "updated": now, "left": 7, "work": [], **changes,
    }  # fmt: skip
    path = folder.path / "status" / f"{told['name']}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(told))


def told(folder: RunFolder) -> str:
    return status.as_text(status.look(folder))


def test_a_finished_run_says_so(folder, capsys):
    assert run(["status", str(folder.path)]) == 0
    out = capsys.readouterr().out
    assert "5 points" in out
    assert "22 done, 3 unsupported" in out
    assert "nothing is left" in out


def test_what_is_missing_is_told_with_the_time_that_it_takes(folder):
    for record in folder.records():
        for section in record.sections.values():
            section.seconds = 100.0
            folder.write_section(record.point.key, section)
    (folder.path / "points" / key_of(folder, "low-rank", 0.6) / "task.pr.json").unlink()
    (folder.path / "points" / key_of(folder, "low-rank", 0.3) / "task.pr.json").write_text("{")
    assert "20 done, 2 missing, 3 unsupported" in told(folder)
    assert "nobody is at work; the same `bench sweep` goes on, about 3 min 20 s" in told(folder)
    sign(folder, workers=2)
    assert "2 sections to go, about 1 min 40 s of work left" in told(folder)


def test_who_works_where_at_what_and_since_when(folder):
    key = key_of(folder, "low-rank", 0.3)
    (folder.path / "points" / key / "task.pr.json").unlink()
    sign(folder, work=[(key, "task.pr", time.time() - 10)])
    said = told(folder)
    assert f"at work for 1 min 05 s: sweep on {socket.gethostname()}" in said
    assert "low-rank at 0.3 (seed 0): task.pr, for 10 s" in said
    assert "21 done, 1 running" in said


def test_who_was_killed_is_not_at_work(folder):
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    sign(folder, pid=done.pid, updated=time.time() - 30)
    assert "not heard from for 30 s: sweep on" in told(folder)
    sign(folder, host="elsewhere", pid=1, updated=time.time() - 3600)
    assert "not heard from for 1 h 00 min: sweep on elsewhere" in told(folder)
    sign(folder, host="elsewhere", pid=1)
    assert "at work for 1 min 05 s: sweep on elsewhere" in told(folder)


def test_a_clock_that_jumped_back_gives_no_negative_times(folder):
    later = time.time() + 100
    key = key_of(folder, "low-rank", 0.3)
    sign(folder, began=later, updated=later, work=[(key, "task.pr", later)])
    assert "at work for 0 s" in told(folder)
    assert "task.pr, for 0 s" in told(folder)


def test_equal_reasons_are_told_once(folder):
    for record in folder.records():
        name = "task.pr" if record.point.rate else "profile.params"
        folder.write_section(record.point.key, Section(name, "failed", "f", reason="no luck"))
    lines = told(folder).splitlines()
    assert lines.count("failed (5): no luck") == 1
    assert "  and 2 more" in lines
    assert any("points in" in line and "5 failed" in line for line in lines)


def test_what_a_failed_model_would_have_been_measured_for_is_not_missing(folder):
    key = key_of(folder, "low-rank", 0.6)
    for path in (folder.path / "points" / key).glob("[pt]*.*.json"):
        path.unlink()
    folder.write_section(key, Section("compress", "failed", "f", reason="no luck"))
    assert "missing" not in told(folder)
    assert "5 failed" in told(folder)


def test_status_is_told_where_slurm_does_not_answer(folder, tmp_path, monkeypatch):
    (folder.path / "slurm").mkdir()
    (folder.path / "slurm" / "jobs.json").write_text(
        json.dumps({"cluster": "slurm", "host": "x", "jobs": {"12_0": "a", "12_1": "b"}})
    )
    squeue = tmp_path / "bin" / "squeue"
    squeue.parent.mkdir()
    squeue.write_text("#!/bin/sh\nexit 1\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{squeue.parent}{os.pathsep}{os.environ['PATH']}")
    assert "jobs: 2 unknown" in told(folder)
    squeue.write_text("#!/bin/sh\necho 12_0 FAILED; echo 12_1 PENDING\n")
    assert "jobs: 1 failed, 1 pending" in told(folder)
    assert f"failed: a, see {folder.path}/slurm/12_0_0_log.err" in told(folder)


def test_no_run_is_refused(tmp_path, capsys):
    assert run(["status", str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err


def test_watching_ends_with_the_work(folder, capsys, monkeypatch):
    sign(folder)
    monkeypatch.setattr(
        status.time, "sleep", lambda _: (folder.path / "status/sweep.json").unlink()
    )
    assert run(["status", str(folder.path), "--watch"]) == 0
    assert capsys.readouterr().out.count("5 points") == 2


def test_status_needs_no_torch(folder):
    code = (
        "import sys; from bench.cli import run; run(sys.argv[1:]); "
        "assert 'torch' not in sys.modules"
    )
    process = start(["status", str(folder.path)], code)
    assert (process.communicate()[1], process.returncode) == ("", 0)


def test_a_heartbeat_tells_what_is_in_work_and_goes_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(heartbeat, "SHORTEST", 0.01)
    folder = RunFolder(tmp_path)
    with heartbeat.Heartbeat(folder, workers=2, left=9) as beat:
        beat.started("k", "compress")
        beat.left(8)
        wait_until(lambda: [s.work for s in heartbeat.signs(folder)] != [[]], "a beat")
        (found,) = heartbeat.signs(folder)
        assert found.work[0][:2] == ["k", "compress"]
        assert (found.left, found.workers, found.name, found.alive) == (8, 2, "sweep", True)
        beat.finished("k")
        wait_until(lambda: [s.work for s in heartbeat.signs(folder)] == [[]], "another beat")
    assert not list(heartbeat.signs(folder))


class Looking:
    """An executor whose jobs begin and are gone; it looks at the run meanwhile."""

    workers = 3

    def __init__(self, folder: RunFolder) -> None:
        self.folder, self.jobs, self.seen = folder, [], []

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        pass

    def submit(self, job) -> None:
        self.jobs.append(job)

    def events(self):
        while self.jobs:
            job = self.jobs.pop(0)
            ((key, name), *_) = job.todo
            yield Said(job, Started(key, name))
            wait_until(lambda key=key: key in [w[0] for s in heartbeat.signs(self.folder)
                                               for w in s.work], "a beat")  # fmt: skip
            self.seen.append(told(self.folder))
            yield Ended(job, "no luck")


def test_a_sweep_gives_signs_of_life(tmp_path, small_model, small_data, monkeypatch):
    monkeypatch.setattr(heartbeat, "SHORTEST", 0.01)
    request = run_sweep.request(
        model=str(small_model), methods="low-rank", rates="0.5", seeds="0", tasks="none",
        source=Source(str(small_data)), task_source=Source("builtin"), profilers="params",
        runtime=Runtime(),
    )  # fmt: skip
    looking = Looking(RunFolder(tmp_path / "run"))
    Sweep(Plan.of(request, tmp_path / "run"), looking).run()
    dense, _, low_rank = looking.seen
    assert "dense (seed 0): compress, for 0 s" in dense
    assert "6 sections to go" in dense
    assert "low-rank at 0.5 (seed 0): compress, for 0 s" in low_rank
    assert "2 sections to go" in low_rank
    assert "nobody is at work" not in low_rank
    assert not list(heartbeat.signs(looking.folder))


@pytest.mark.slow
def test_a_sweep_is_seen_while_it_runs_and_after_it_was_killed(arguments, unruly, tmp_path, capsys):
    process = start(arguments(methods="unruly", rates="0.09", workers="1"), env=unruly)
    folder = RunFolder(tmp_path / "run")
    wait_until(
        lambda: process.poll() or any(s.work for s in heartbeat.signs(folder)), "a sign of life"
    )
    wait_until(lambda: "unruly at 0.09 (seed 0): compress, for" in told(folder), "the point")
    process.kill()
    process.communicate()
    assert "not heard from" in told(folder)
    assert "nobody is at work" in told(folder)
