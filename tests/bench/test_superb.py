"""`bench superb`: what is refused, what is chosen, what is recorded. s3prl itself runs in
test_superb_recipes.py; here a stand-in writes what s3prl would."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from bench import superb
from bench.cli import run
from bench.superb_trial import Trial, last_lines
from encoders import store
from results.superb import score_file

#: Scores on dev by learning rate: 1e-3 is the best.
DEV = {1e-4: 0.3, 1e-3: 0.5, 1e-2: 0.4}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """What ks, er and sv look for before s3prl starts."""
    root = tmp_path / "root"
    for name in ("speech_commands_v0.01/_background_noise_", "VoxCeleb1/dev/wav",
                 "speech_commands_test_set_v0.01/_silence_", "VoxCeleb1/test/wav"):  # fmt: skip
        (root / name).mkdir(parents=True)
    (root / "VoxCeleb1" / "veri_test2.txt").touch()
    for session in range(1, 6):
        folder = root / "IEMOCAP" / "meta_data" / f"Session{session}"
        folder.mkdir(parents=True)
        for part in ("train", "test"):
            (folder / f"{part}_meta_data.json").touch()
    return root


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The processes that would have been started; what s3prl leaves of a training is written."""
    begun: list[str] = []

    def fake(trial: Trial, log: str, *arguments: str) -> None:
        begun.append(f"{trial.recipe.task} {log} {trial.folder.name}")
        if trial.recipe.task == "sv":
            for steps in (4, 8):
                (trial.folder / f"states-{steps}.ckpt").touch()
            if log != "train":  # the first checkpoint is the better one
                value = {"states-4/test": 0.25, "states-8/test": 0.5}[log]
                (trial.folder / f"{log}.log").write_text(f"sv-voxceleb1/test-EER: {value}\n")
            return
        dev = DEV[trial.settings["optimizer"]["lr"]]
        lines = ["dev at step 4: 0", f"New best on dev at step 4: {dev}",
                 f"test at step 4: {dev - 0.1}"]  # fmt: skip
        (trial.folder / "log.log").write_text("\n".join(lines) + "\n")
        state = {"Downstream": {"best_score": torch.tensor([dev])}, "Step": 4}
        torch.save(state, trial.folder / "dev-best.ckpt")

    monkeypatch.setattr(Trial, "_run", fake)
    monkeypatch.setattr(superb, "_check_modules", lambda *_: None)
    return begun


@pytest.fixture
def call(small_model: Path, root: Path, tmp_path: Path) -> Callable[..., int]:
    """The exit code of the command with these arguments added."""

    def build(*arguments: str) -> int:
        line = ["superb", "--model", str(small_model), "--data-root", str(root),
                "--out", str(tmp_path / "out"), "--device", "cpu"]  # fmt: skip
        return run([*line, *arguments])

    return build


def record(tmp_path: Path, task: str) -> dict:
    return json.loads((tmp_path / "out" / f"{task}.json").read_text())


@pytest.mark.usefixtures("started")
def test_a_score_is_recorded_with_all_that_has_to_be_known(
    call: Callable[..., int], tmp_path: Path
) -> None:
    assert call("--task", "ks", "--steps", "4", "--seed", "7") == 0
    found = record(tmp_path, "ks")
    assert found["name"] == "superb.ks"
    assert found["status"] == "done"
    assert found["values"] == {"ks_acc": pytest.approx(20)}  # at the recipe's own 1e-4
    assert found["metrics"]["ks_acc"]["unit"] == "%"
    details = found["details"]
    assert details["grade"] == "official"
    assert (details["learning_rate"], details["steps"], details["seed"]) == (1e-4, 4, 7)
    assert details["checkpoint"] == ["ks/lr-0.0001/dev-best.ckpt"]
    assert details["log"] == ["ks/lr-0.0001/train.log"]
    assert details["changed"]["runner.total_steps"] == 4
    assert "not SUPERB's settings" in details["notes"][0]
    trial = json.loads((tmp_path / "out" / "ks" / "lr-0.0001" / "trial.json").read_text())
    assert trial["settings"]["downstream_expert.datarc.batch_size"] == 32
    used = yaml.safe_load((tmp_path / "out" / "ks" / "lr-0.0001" / "settings.yaml").read_text())
    assert used["runner"]["eval_step"] == 4


def test_the_rate_that_is_best_on_dev_is_tested(
    call: Callable[..., int], tmp_path: Path, started: list[str]
) -> None:
    assert call("--task", "ks,sv", "--lr-grid", "1e-4,1e-3,1e-2", "--override",
                "runner.max_keep=3") == 0  # fmt: skip
    found = record(tmp_path, "ks")
    assert found["details"]["learning_rate"] == 1e-3
    assert found["values"] == {"ks_acc": pytest.approx(40)}
    tried = {each["learning_rate"]: each["dev"] for each in found["details"]["tried"]}
    assert tried == pytest.approx(DEV)
    batches = {json.loads(file.read_text())["settings"]["downstream_expert.datarc.batch_size"]
               for file in (tmp_path / "out" / "ks").glob("*/trial.json")}  # fmt: skip
    assert batches == {32}
    spoken = record(tmp_path, "sv")
    assert spoken["values"] == {"sv_eer": 25}
    assert spoken["details"]["learning_rate"] == 1e-4
    assert any("no dev split" in note for note in spoken["details"]["notes"])
    assert [line for line in started if line.startswith("sv")] == [
        "sv train lr-0.0001", "sv states-4/test lr-0.0001", "sv states-8/test lr-0.0001",
    ]  # fmt: skip
    assert spoken["details"]["checkpoint"] == ["sv/lr-0.0001/states-4.ckpt"]


def test_five_folds_are_one_score(
    call: Callable[..., int], tmp_path: Path, started: list[str]
) -> None:
    assert call("--task", "er", "--lr", "1e-2") == 0
    assert [line.split()[-1] for line in started] == [f"fold{n}" for n in range(1, 6)]
    found = record(tmp_path, "er")
    assert found["values"] == {"er_acc": pytest.approx(30)}
    assert len(found["details"]["checkpoint"]) == 5
    folds = [json.loads(file.read_text())["settings"]["downstream_expert.datarc.test_fold"]
             for file in sorted((tmp_path / "out" / "er").glob("*/*/trial.json"))]  # fmt: skip
    assert folds == [f"fold{n}" for n in range(1, 6)]


def test_what_is_done_is_not_done_again(
    call: Callable[..., int], started: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("--task", "ks") == 0
    first = capsys.readouterr().out.splitlines()[-1]
    assert call("--task", "ks", "--workers", "1") == 0
    assert capsys.readouterr().out.splitlines() == [first]
    assert len(started) == 1
    assert call("--task", "ks", "--seed", "3") == 2  # another run has the folder
    assert "holds another run (seed: 1337, not 3)" in capsys.readouterr().err


@pytest.mark.usefixtures("started")
def test_a_model_of_a_sweep_gets_the_score_beside_its_others(
    call: Callable[..., int], small_model: Path, tmp_path: Path
) -> None:
    from core.point import Point
    from results.store import RunFolder

    point = Point("builtin", "first-layers", 0.5, 0, "builtin")
    sweep = RunFolder(tmp_path / "sweep")
    sweep.write_point(point)
    sweep.model_folder(point.key).parent.mkdir()
    sweep.model_folder(point.key).symlink_to(small_model)
    assert call("--task", "ks", "--model", str(sweep.model_folder(point.key))) == 0
    assert sweep.read(point.key).sections["superb.ks"].values == {"ks_acc": pytest.approx(20)}


def test_a_failure_of_s3prl_is_told_with_its_last_lines(
    call: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """A real process, of a checkout in which s3prl breaks."""
    package = tmp_path / "checkout" / "s3prl"
    settings = package / "downstream" / "speech_commands" / "config.yaml"
    settings.parent.mkdir(parents=True)
    from tasks.s3prl.recipes import SETTINGS

    settings.write_text((SETTINGS / "ks.yaml").read_text())
    (package / "__init__.py").touch()
    script = "import sys\nprint('here is', sys.argv[1:3])\nraise KeyError('no such word')\n"
    (package / "run_downstream.py").write_text(script)
    monkeypatch.setitem(superb.MODULES, "", ("s3prl",))
    assert call("--task", "ks", "--s3prl-root", str(tmp_path / "checkout")) == 1
    (line,) = capsys.readouterr().out.splitlines()[1:]
    assert line.startswith("ks   failed: s3prl's train of ks ended with exit code 1: ")
    assert "KeyError: 'no such word'" in line
    log = tmp_path / "out" / "ks" / "lr-0.0001" / "train.log"
    assert str(log) in line
    assert "here is ['-m', 'train']" in log.read_text()
    assert record(tmp_path, "ks")["status"] == "failed"


@pytest.mark.usefixtures("started")
@pytest.mark.parametrize(("arguments", "said"), [
    ("--task kss", "did you mean 'ks'"),
    ("--task pr", "librispeech-lexicon-200k-g2p.txt is missing"),
    ("--task ks --lr 0", "expected numbers above 0"),
    ("--task ks --lr-grid 1e-3,high", "expected numbers above 0"),
    ("--task ks --lr 1e-3 --lr-grid 1e-3,1e-4", "exclude each other"),
    ("--task ks --override runner.steps=4", "did you mean 'runner.log_step'"),
    ("--task ks --override runner.log_step", "expected KEY=VALUE"),
    ("--task ks --model nowhere", "nowhere"),
    ("--task ks --device tpu", "expected cpu, cuda or cuda:N"),
    ("--task ks --data-root /nowhere", "/nowhere is missing"),
])  # fmt: skip
def test_bad_input_is_one_sentence(
    arguments: str, said: str, call: Callable[..., int], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert call(*arguments.split()) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert len(captured.err.splitlines()) == 1
    assert not captured.out
    assert not list((tmp_path / "out").glob("*"))


def test_a_data_root_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["superb", "--task", "ks"]) == 2
    assert "--data-root" in capsys.readouterr().err


def test_a_package_that_is_missing_is_named(
    call: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(superb.MODULES, "ks", ("no_such_package",))
    monkeypatch.setitem(superb.MODULES, "", ())
    assert call("--task", "ks") == 2
    assert "ks needs no_such_package" in capsys.readouterr().err


def test_a_checkout_that_is_none_is_refused(
    call: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("--task", "ks", "--s3prl-root", str(tmp_path)) == 2
    assert "takes a git checkout of s3prl" in capsys.readouterr().err


@pytest.mark.usefixtures("started")
def test_two_runs_do_not_share_a_folder(
    call: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with superb._alone(tmp_path / "out"):
        assert call("--task", "ks") == 2
    assert "another run is at work" in capsys.readouterr().err
    assert call("--task", "ks") == 0


def test_last_lines_are_without_bars(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("one\n\rtrain: 50%|##  | 1/2 [00:01, 1.0it/s]\rtwo\n\nthree\n")
    assert last_lines(tmp_path / "log") == "one | two | three"


@pytest.mark.usefixtures("started")
def test_gather_makes_tables_of_ours_and_of_s3prls_own(
    call: Callable[..., int], small_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("--task", "ks,sv") == 0
    by_hand(tmp_path / "out" / "theirs", "speech_commands", {}, "test at step 9: 0.75\n")
    for fold in range(1, 5):
        own = {"datarc": {"test_fold": f"fold{fold}"}}
        by_hand(tmp_path / "out" / f"e{fold}", "emotion", own, f"test at step 9: 0.{fold}\n")
    by_hand(tmp_path / "out" / "other", "mosei", {}, "test at step 9: 0.1\n")
    capsys.readouterr()
    assert run(["superb", "gather", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    with (tmp_path / "out" / "runs.csv").open() as file:
        rows = {(row["started_by"], row["metric"]): row for row in csv.DictReader(file)}
    assert {key: float(row["value"]) for key, row in rows.items()} == {
        ("bench", "ks_acc"): 20, ("bench", "sv_eer"): 25, ("s3prl", "ks_acc"): 75,
        ("s3prl", "er_acc"): 25,
    }  # fmt: skip
    assert {row["grade"] for row in rows.values()} == {"official"}
    assert rows["s3prl", "er_acc"]["notes"] == "4 of 5 folds"
    assert rows["s3prl", "ks_acc"]["model"] == "hubert"
    assert rows["bench", "ks_acc"]["checkpoint"] == "ks/lr-0.0001/dev-best.ckpt"
    scores = score_file(tmp_path / "out" / "superb.csv")  # what bench superb-s reads
    assert set(scores["hubert"].terms) == {"ks", "er"}
    with (tmp_path / "out" / "superb.csv").open() as file:
        costs = {row["model"]: row for row in csv.DictReader(file)}
    size = sum(parameter.numel() for parameter in store.load(small_model).parameters())
    assert float(costs[str(small_model)]["params_millions"]) == pytest.approx(size / 1e6, rel=1e-5)
    assert float(costs[str(small_model)]["macs_giga"]) > 0
    assert costs["hubert"]["params_millions"] == ""
    with (tmp_path / "out" / "scores.csv").open() as file:
        table = {(row["model"], row["convention"]): row for row in csv.DictReader(file)}
    theirs = table["hubert", "leaderboard"]
    assert float(theirs["superb_s"]) == pytest.approx(scores["hubert"].value, rel=1e-5)
    assert theirs["anchors"] == "leaderboard:fbank-leaderboard"
    assert "asr" in theirs["missing"].split()
    assert "wang2023:fbank-wavlm_large" in shown


def by_hand(folder: Path, downstream: str, settings: dict, log: str) -> None:
    """What s3prl leaves of a training that it was started for itself."""
    folder.mkdir()
    arguments = {"downstream": downstream, "upstream": "hubert", "upstream_ckpt": None, "seed": 1}
    (folder / "args_2026-01-01-00-00-00.yaml").write_text(yaml.safe_dump(arguments))
    whole = {"runner": {"total_steps": 9}, "optimizer": {"lr": 1e-4}, "downstream_expert": settings}
    (folder / "config_2026-01-01-00-00-00.yaml").write_text(yaml.safe_dump(whole))
    (folder / "log.log").write_text(log)


def test_nothing_to_gather_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["superb", "gather", str(tmp_path)]) == 2
    assert "holds no finished run" in capsys.readouterr().err
