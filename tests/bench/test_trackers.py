"""`--tracker`: from the command line to the training, and into no record."""

from __future__ import annotations

import pytest

from bench.cli import run

BRIEF = "steps=2,batch_seconds=0.5,crop_seconds=0.3,clusters=4"


def test_a_sweep_tells_its_trackers_and_records_know_nothing_of_it(arguments, tmp_path, capsys):
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    line = arguments(methods=f"weight-pruning[schedule=retrain,{BRIEF}]", profilers="none")
    assert run([*line, "--tracker", "tensorboard"]) == 0
    (told,) = (path.parent.name for path in tmp_path.glob("run/tracks/*/tensorboard/*/events*"))
    assert told.startswith("weight-pruning[")
    assert told.endswith("], seed 0, to 0.5")
    capsys.readouterr()
    assert run([*line, "--dry-run"]) == 0
    assert "missing" not in capsys.readouterr().out


def test_compress_keeps_what_trackers_write_beside_the_model(small_model, small_data, tmp_path):
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    line = ["compress", str(small_model), "--data", str(small_data), "--rate", "0.2",
            "--method", f"continue-training[{BRIEF}]", "--out", str(tmp_path / "m"),
            "--tracker", "tensorboard"]  # fmt: skip
    assert run(line) == 0
    told = {path.parent.name for path in tmp_path.glob("m.trackers/tensorboard/*/events*")}
    assert {name.split(", ")[-1] for name in told} == {"to 0.1", "to 0.2"}
    assert not (tmp_path / "m.partial").exists()


@pytest.mark.parametrize(
    "line",
    [
        "sweep --dry-run",
        "compress builtin --method low-rank --rate 0.5 --out OUT",
        "finetune builtin --out OUT",
        "pretrain --out OUT",
    ],
)
def test_a_tracker_that_does_not_exist_is_one_sentence(line, tmp_path, capsys):
    words = [str(tmp_path / "out") if word == "OUT" else word for word in line.split()]
    assert run([*words, "--tracker", "wanbd"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: tracker 'wanbd' does not exist (did you mean 'wandb'?)")
    assert not (tmp_path / "out").exists()
