"""Methods that train, in a sweep: one training for all rates, cuts, NaN losses, logs."""

from __future__ import annotations

import csv
import json
import os
import signal
from pathlib import Path

import pytest
from running import start, wait_until

from bench.cli import run
from results.store import RunFolder

BRIEF = "batch_seconds=0.5,crop_seconds=0.3,clusters=4"
STAGED = f"weight-pruning[schedule=iterative,steps=3,{BRIEF}]"


def compressions(folder: Path) -> dict[float, dict]:
    """The compress sections of the method, by rate."""
    return {
        record.point.rate: record.sections["compress"].to_json()
        for record in RunFolder(folder).records()
        if record.point.rate
    }


def trainings(folder: Path) -> list[str]:
    """The names of all trainings, in the order in which they ran."""
    (log,) = folder.glob("tracks/*/log.csv")
    with log.open(newline="") as file:
        return list(dict.fromkeys(row["training"] for row in csv.DictReader(file)))


def test_nine_rates_of_a_once_for_all_method_take_one_training(arguments, tmp_path):
    method = f"early-exit[steps=3,policy=confidence,{BRIEF}]"
    assert run(arguments(methods=method, rates="0.05:0.45:0.05")) == 0
    made = compressions(tmp_path / "run")
    assert len(made) == 9
    assert {section["status"] for section in made.values()} == {"done"}
    assert len(trainings(tmp_path / "run")) == 1
    logs = {log for section in made.values() for log in section["details"]["training_logs"]}
    assert all((tmp_path / "run" / log).is_file() for log in logs)
    assert len(list(tmp_path.glob("run/tracks/*/*.pt"))) == 1
    before = {p: p.stat().st_mtime_ns for p in tmp_path.glob("run/tracks/*/*")}
    assert run(arguments(methods=method, rates="0.05:0.45:0.05,0.33")) == 0
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.glob("run/tracks/*/*")}


def test_an_iterative_method_trains_one_trajectory(arguments, tmp_path):
    assert run(arguments(methods=STAGED, rates="0.1:0.9")) == 0
    assert trainings(tmp_path / "run") == [f"to 0.{tenths}" for tenths in range(1, 10)]
    assert not list(tmp_path.glob("run/tracks/*/*.pt")), "stages are not kept"


def test_kill_9_in_the_middle_of_a_track_changes_nothing(arguments, tmp_path):
    line = arguments(methods=STAGED, rates="0.1:0.9")
    assert run(arguments(methods=STAGED, rates="0.1:0.9", out=str(tmp_path / "whole"))) == 0
    process = start(line)
    wait_until(lambda: len(list(tmp_path.glob("run/tracks/*/*.pt"))) > 2, "three stages")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = len(list(tmp_path.glob("run/points/*/compress.json")))
    assert run(line) == 0
    assert done < 11
    weights = [
        {rate: section["details"]["weights"] for rate, section in compressions(folder).items()}
        for folder in (tmp_path / "whole", tmp_path / "run")
    ]
    assert weights[0] == weights[1]
    assert trainings(tmp_path / "run") == trainings(tmp_path / "whole")


def test_a_loss_that_is_no_number_stops_that_track_alone(arguments, tmp_path, capsys):
    wild = STAGED.replace("steps=3", "steps=3,learning_rate=1e30")
    assert run(arguments(methods=f"{wild},first-layers", rates="0.3,0.5")) == 1
    records = {(r.point.method[:6], r.point.rate): r.sections for r in RunFolder(
        tmp_path / "run").records()}  # fmt: skip
    reasons = [records["weight", rate]["compress"].reason for rate in (0.3, 0.5)]
    assert {records["weight", rate]["compress"].status for rate in (0.3, 0.5)} == {"failed"}
    assert reasons[0] == reasons[1]
    assert "became nan" in reasons[0]
    assert "learning_rate" in reasons[0]
    assert records["first-", 0.5]["profile.params"].status == "done"
    assert "points failed" in capsys.readouterr().out


def test_compress_trains_and_cleans_up(small_model, small_data, tmp_path, capsys):
    line = ["compress", str(small_model), "--data", str(small_data), "--rate", "0.5",
            "--method", f"continue-training[steps=2,{BRIEF}]", "--out",
            str(tmp_path / "m")]  # fmt: skip
    assert run(line) == 0
    assert "achieved 0.0000" in capsys.readouterr().out
    left = sorted(file.name for file in (tmp_path / "m").iterdir())
    assert left == ["README.md", "check.json", "model.safetensors", "spec.json"]
    assert not (tmp_path / "m.partial").exists()
    assert json.loads((tmp_path / "m" / "spec.json").read_text())["dim"] == 32


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("sweep --preset papre", "did you mean 'paper'"),
        ("sweep --methods row-pruning@swift", "its presets: quick"),
        ("sweep --methods row-pruning[schedule=slow]", "'one-shot' or"),
    ],
)
def test_bad_presets_and_options_are_one_sentence(line, said, capsys):
    assert run(line.split()) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1


def test_a_method_lists_its_presets(capsys):
    assert run(["list", "methods", "weight-pruning"]) == 0
    out = capsys.readouterr().out
    assert "paper: " in out
    assert "untrained: steps=0" in out
