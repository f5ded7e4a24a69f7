"""Tracks that several processes train: the same models everywhere, and nobody left behind."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from running import start, wait_until
from test_crashes import TRAINED, children

from bench.cli import run
from core.record import Section
from results.store import RunFolder

BRIEF = "precision=no,batch_seconds=0.5,crop_seconds=0.3,clusters=4"
TOGETHER = {"processes-per-track": "2"}


def compressions(folder: Path) -> dict[tuple[str, float], Section]:
    """By the method's name and the rate."""
    return {
        (record.point.method.partition("[")[0], record.point.rate): record.sections["compress"]
        for record in RunFolder(folder).records()
    }


def test_two_processes_make_the_models_of_one_with_twice_the_batches(arguments, tmp_path, capsys):
    wanted = {"methods": f"low-rank[steps=3,workers=1,{BRIEF}],first-layers", "profilers": "none"}
    alone = {"methods": f"low-rank[steps=3,accumulate=2,{BRIEF}]", "profilers": "none"}
    assert run(arguments(**wanted, **TOGETHER)) == 0
    assert run(arguments(**alone, out=str(tmp_path / "alone"))) == 0
    made, expected = compressions(tmp_path / "run"), compressions(tmp_path / "alone")
    trained = made["low-rank", 0.5].details
    assert trained["weights"] == expected["low-rank", 0.5].details["weights"]
    assert [key for key, section in made.items() if section.details.get("processes") == 2] == [
        ("low-rank", 0.5)
    ]
    capsys.readouterr()
    assert run([*arguments(**wanted), "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    states = {line.partition("[")[0].partition(" ")[0]: line for line in lines}
    assert "stale: compress" in states["low-rank"], "one process makes another model"
    assert "done: compress" in states["first-layers"]


def test_more_processes_than_workers_are_refused(arguments, tmp_path, capsys):
    assert run(arguments(**{"processes-per-track": "3"})) == 2
    assert "there are 2; give --workers 3" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_sweep_that_loses_a_process_of_a_track_fails_it_and_goes_on(arguments, tmp_path):
    wanted = {"methods": f"{TRAINED},first-layers", "rates": "0.3,0.5,0.7", **TOGETHER}
    assert run(arguments(**wanted, out=str(tmp_path / "whole"))) == 0
    line, folder = arguments(**wanted), tmp_path / "run"
    process = start(line)
    wait_until(lambda: list(folder.glob("tracks/*/to-0.1.pt")), "a stage", 120)
    crew = [pid for pid in children(process.pid) if pid not in children(process.pid, 1)]
    os.kill(max(crew), signal.SIGKILL)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1, err
    failed = [section for section in compressions(folder).values() if section.status == "failed"]
    assert len(failed) == 1
    assert "SIGKILL" in failed[0].reason
    assert "of 2 that train together" in failed[0].reason
    wait_until(lambda: not any(map(alive, crew)), "the others to end")
    assert run([*line, "--retry-failed"]) == 0
    assert weights(folder) == weights(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_a_sweep_and_its_training_goes_on(arguments, tmp_path, how):
    wanted = {"methods": TRAINED, "rates": "0.5", **TOGETHER}
    assert run(arguments(**wanted, out=str(tmp_path / "whole"))) == 0
    line, folder = arguments(**wanted), tmp_path / "run"
    process = start(line)
    wait_until(lambda: list(folder.glob("tracks/*/to-0.2.pt")), "two stages", 120)
    crew = children(process.pid)
    assert len(crew) >= 2
    process.send_signal(how)
    process.communicate(timeout=60)
    wait_until(lambda: not any(map(alive, crew)), "all to end")
    assert run(line) == 0
    assert weights(folder) == weights(tmp_path / "whole")


def weights(folder: Path) -> dict:
    return {key: section.details["weights"] for key, section in compressions(folder).items()}


def alive(pid: int) -> bool:
    """Whether there is such a process, and it is more than a name that nobody has asked after."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
