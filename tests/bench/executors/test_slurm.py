from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from executors.cluster import cluster
from running import MAIN, start, wait_until

from bench import heartbeat
from bench.cli import run
from bench.executors import slurm
from core.errors import InputError
from core.runtime import Runtime
from results.store import RunFolder

pytest.importorskip("submitit", reason="pip install '.[slurm]'")

#: The command line with submitit's local executor in SLURM's place.
LOCAL = (
    "import shutil; from bench.executors import slurm; submit = slurm.submit; "
    "slurm.check = lambda *_: None; "
    f"slurm.submit = lambda *given: submit(*given, cluster='local'); {MAIN}"
)


def finish(arguments, code: str = MAIN, **options) -> tuple[int, str, str]:
    process = start(arguments, code, **options)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def made(folder: Path) -> dict:
    """What is known of each section but for times: method, rate, name -> status and values."""
    return {
        (r.point.method, r.point.rate, name): (
            s.status, s.fingerprint, None if name == "profile.latency" else s.values,
            s.details.get("weights"),
        )
        for r in RunFolder(folder).records() for name, s in r.sections.items()
    }  # fmt: skip


def states(folder: Path) -> list[str]:
    return list(slurm.states(folder).values())


def over(folder: Path) -> bool:
    return not any(map(slurm.waits, states(folder)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90", 90), ("90:30", 90), ("2:00:00", 120), ("1-12", 2160), ("1-0:30", 1470)],
)
def test_times_are_written_as_slurm_does(text, expected):
    assert slurm.minutes(text) == expected


@pytest.mark.parametrize("text", ["soon", "", "0", "1:2:3:4"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(InputError, match="time"):
        slurm.minutes(text)


def test_resources_are_what_sbatch_gets():
    asked = slurm.Resources("gpu", 2, 4, "16GB", "1:00:00", 8, ("account=speech",))
    parameters = asked.parameters(threads=1)
    assert parameters["timeout_min"] == 60
    assert parameters["mem_gb"] == 16
    assert (parameters["gpus_per_node"], parameters["cpus_per_task"]) == (2, 4)
    assert parameters["slurm_additional_parameters"] == {"requeue": True, "account": "speech"}
    assert slurm.Resources(cpus=2).parameters(threads=3)["cpus_per_task"] == 3
    assert slurm.Resources(cpus=5).workers(Runtime(threads=2)) == 2
    assert slurm.Resources().workers(Runtime(), processes=2) == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"slurm": "account"}, "KEY=VALUE"),
        ({"time": "soon"}, "12:00:00"),
        ({"gpus": "1"}, "--device cpu"),
        ({"processes-per-track": "3"}, "give --workers 3"),
        ({"gpus": "2", "device": "cuda", "processes-per-track": "4"}, "give --gpus 4"),
        ({}, "no sbatch here"),
    ],
)
def test_what_cannot_be_submitted_is_one_sentence(arguments, capsys, monkeypatch, options, said):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert run(arguments(executor="slurm", **options)) == 2
    assert said in capsys.readouterr().err


def test_options_of_slurm_are_not_taken_for_nothing(arguments, capsys):
    assert run(arguments(partition="gpu")) == 2
    assert "--executor slurm" in capsys.readouterr().err


def test_a_run_with_jobs_in_line_is_not_swept_twice(arguments, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "run" / "slurm"
    folder.mkdir(parents=True)
    (folder / "jobs.json").write_text(
        json.dumps({"cluster": "slurm", "host": "x", "jobs": {"12_0": "a", "12_1": "b", "13": "c"}})
    )
    squeue = tmp_path / "bin" / "squeue"
    squeue.parent.mkdir()
    squeue.write_text("#!/bin/sh\necho 12_0 COMPLETED; echo 12_1 PENDING; echo 13 PENDING\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{squeue.parent}{os.pathsep}{os.environ['PATH']}")
    assert slurm.states(tmp_path / "run") == {
        "12_0": "COMPLETED", "12_1": "PENDING", "13": "PENDING"
    }  # fmt: skip
    assert run(arguments()) == 2
    assert "`scancel 12 13`" in capsys.readouterr().err
    squeue.write_text(
        "#!/bin/sh\necho 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1\n"
    )
    assert set(states(tmp_path / "run")) == {"COMPLETED"}


@pytest.mark.slow
def test_a_job_that_is_taken_off_goes_on_where_it_was(arguments, unruly, tmp_path):
    line = arguments(methods="unruly", rates="0.01,0.02,0.09,0.3,0.5", executor="slurm")
    folder = tmp_path / "run"
    submitting = start(line, LOCAL, env=unruly)
    assert submitting.wait(timeout=200) == 0  # not for its outputs, which its jobs hold
    assert f"bench status {folder}" in submitting.stdout.readline()

    def at_work() -> list[heartbeat.Sign]:
        signs = [s for s in heartbeat.signs(RunFolder(folder)) if s.name.startswith("unruly")]
        return [
            s for s in signs if s.alive and len(list(folder.glob("points/*/compress.json"))) > 3
        ]

    wait_until(at_work, "the third rate", 300)
    before = {p: p.stat().st_mtime_ns for p in folder.glob("points/*/[cp]*.*.json")}
    assert finish(line, env=unruly)[0] == 2, "jobs are at work"
    os.kill(at_work()[0].pid, signal.SIGUSR2)
    wait_until(lambda: "is preempted" in "".join(
        p.read_text() for p in folder.glob("slurm/*_log.*")), "the job to be put back")  # fmt: skip
    (tmp_path / "go").touch()
    wait_until(lambda: over(folder), "the jobs", 400)
    assert set(states(folder)) == {"COMPLETED"}
    assert {status for status, *_ in made(folder).values()} == {"done"}
    assert before.items() <= {p: p.stat().st_mtime_ns for p in before}.items()
    assert len(made(folder)) == 7 * 2
    assert finish(["collect", str(folder)], env=unruly)[0] == 0
    assert (folder / "leaderboard.csv").is_file()


@pytest.fixture(scope="module")
def slurmctld(tmp_path_factory):
    with cluster(tmp_path_factory.mktemp("slurm")) as environment:
        yield environment


@pytest.mark.slow
def test_a_real_cluster_makes_what_this_machine_does(arguments, slurmctld, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_CONF", slurmctld["SLURM_CONF"])
    brief = "steps=3,precision=no,batch_seconds=0.5,crop_seconds=0.3,clusters=4"
    wanted = {"methods": f"head-pruning,low-rank[{brief}]", "rates": "0.3,0.5",
              "profilers": "params,macs,latency", "processes-per-track": "2"}  # fmt: skip
    code, _, err = finish(arguments(**wanted, executor="slurm", time="10"), env=slurmctld)
    assert code == 0, err
    folder = tmp_path / "run"
    wait_until(lambda: over(folder), "the jobs", 400)
    assert finish(["collect", str(folder)], env=slurmctld)[0] == 0
    assert finish(arguments(**wanted, out=str(tmp_path / "here")))[0] == 0
    assert made(folder) == made(tmp_path / "here")
    assert next(iter(slurm.jobs(folder)["jobs"].values())).startswith("low-rank"), "longest first"
    code, _, err = finish(arguments(executor="slurm", partition="none", out=str(tmp_path / "no")),
                          env=slurmctld)  # fmt: skip
    assert code == 2
    assert "SLURM refused the jobs: sbatch: error:" in err


@pytest.mark.slow
@pytest.mark.parametrize("how", ["requeue", "signal"])
def test_a_real_cluster_takes_a_job_off_and_loses_nothing(
    arguments, unruly, slurmctld, tmp_path, monkeypatch, how
):
    monkeypatch.setenv("SLURM_CONF", slurmctld["SLURM_CONF"])
    environment = {**unruly, "SLURM_CONF": slurmctld["SLURM_CONF"], "PATH": slurmctld["PATH"]}
    line = arguments(methods="unruly", rates="0.01,0.02,0.09,0.3", executor="slurm", time="10")
    code, _, err = finish(line, env=environment)
    assert code == 0, err
    folder = tmp_path / "run"
    wait_until(lambda: len(list(folder.glob("points/*/compress.json"))) > 3, "the third rate", 300)
    before = {p: p.stat().st_mtime_ns for p in folder.glob("points/*/compress.json")}
    jobs = slurm.jobs(folder)["jobs"]
    (job,) = (job for job, piece in jobs.items() if piece.startswith("unruly"))
    command = ["scontrol", "requeue", job] if how == "requeue" else ["scancel", "-s", "USR2", job]
    subprocess.run(command, env=environment, check=True)
    wait_until(lambda: "PENDING" in states(folder), "the job to be in line")
    (tmp_path / "go").touch()
    wait_until(lambda: over(folder), "the jobs", 400)
    assert {status for status, *_ in made(folder).values()} == {"done"}
    assert len(made(folder)) == 6 * 2
    assert before.items() <= {p: p.stat().st_mtime_ns for p in before}.items()
