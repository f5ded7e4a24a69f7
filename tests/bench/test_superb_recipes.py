"""s3prl's ten recipes on real speech in small: each trains some updates, is tested and recorded.

Minutes: every process imports s3prl. The corpora are imitations, so the scores say nothing.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from running import start, wait_until
from superb_corpora import build

from bench.cli import run
from core.spec import ConvFrontEnd, LayerSpec, ModelSpec, Positions
from encoders import store
from encoders.model import build as build_encoder
from tasks.s3prl.recipes import RECIPES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("s3prl") is None, reason="s3prl is not installed"),
]

#: What makes the recipes small; the rest is as shipped.
SMALL = {
    "pr": ["downstream_expert.corpus.batch_size=4"],
    "asr": ["downstream_expert.datarc.batch_size=4", "downstream_expert.modelrc.project_dim=16",
            "downstream_expert.modelrc.RNNs.dim=[16, 16]"],
    "sf": ["downstream_expert.corpus.batch_size=4", "downstream_expert.model.project_dim=16",
           "downstream_expert.model.RNNs.dim=[16, 16]"],
    "sv": ["downstream_expert.datarc.vad_config.min_sec=16000"],
}  # fmt: skip


@pytest.fixture(scope="module")
def root(speech_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(speech_data, tmp_path_factory.mktemp("superb"))


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Convolutions as HuBERT's, and layers of which one has lost heads and units."""
    layers = (LayerSpec.dense(4, 6, 40), LayerSpec.dense(2, 6, 16))
    spec = ModelSpec("hubert", ConvFrontEnd((16,) * 7), 24, 4, 6, layers, Positions(8, 4))
    folder = tmp_path_factory.mktemp("model") / "pruned"
    store.save(build_encoder(spec, seed=0), folder)
    return folder


@pytest.fixture
def line(
    root: Path, pruned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[str]]:
    """The command line for a task, with updates of one batch."""
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))

    def build(task: str, steps: int = 4, *changes: str) -> list[str]:
        changes = (*SMALL.get(task, []), *changes)
        changes += ("runner.gradient_accumulate_steps=1",) if task != "qbe" else ()
        overrides = [part for change in changes for part in ("--override", change)]
        return ["superb", "--model", str(pruned), "--task", task, "--data-root", str(root),
                "--out", str(tmp_path / "out"), "--steps", str(steps), "--device", "cpu",
                "--workers", "0", *overrides]  # fmt: skip

    return build


@pytest.mark.parametrize("task", RECIPES)
def test_a_recipe_trains_and_its_score_is_recorded(
    task: str, line: Callable[..., list[str]], tmp_path: Path
) -> None:
    assert run(line(task)) == 0
    found = json.loads((tmp_path / "out" / f"{task}.json").read_text())
    assert found["status"] == "done"
    assert found["details"]["grade"] == "official"
    assert set(found["values"]) == {metric.name for metric in RECIPES[task].metrics}
    for name, value in found["values"].items():
        assert 0 <= value <= (1e4 if name.endswith(("per", "wer", "cer")) else 100)
    if task != "qbe":
        assert found["details"]["steps"] == 4
        assert found["details"]["checkpoint"]
        for path in (*found["details"]["checkpoint"], *found["details"]["log"]):
            assert (tmp_path / "out" / path).stat().st_size
    assert run(["superb", "gather", str(tmp_path / "out"), "--out", str(tmp_path)]) == 0
    with (tmp_path / "runs.csv").open() as file:
        rows = {row["metric"]: float(row["value"]) for row in csv.DictReader(file)}
    assert rows == pytest.approx(found["values"], rel=1e-4)


def test_a_run_that_was_killed_goes_on(line: Callable[..., list[str]], tmp_path: Path) -> None:
    command = line("ks", 60, "runner.save_step=3", "downstream_expert.datarc.batch_size=4")
    folder = tmp_path / "out" / "ks" / "lr-0.0001"
    process = start(command)
    wait_until(lambda: list(folder.glob("states-*.ckpt")), "a checkpoint", 300)
    process.kill()
    process.wait()
    assert run(command) == 2  # what it had started still works in the folder
    os.killpg(process.pid, signal.SIGKILL)
    saved = max(int(file.stem.partition("-")[2]) for file in folder.glob("states-*.ckpt"))
    assert saved < 60
    wait_until(lambda: run(command) == 0, "the rest of the run", 600)
    log = (folder / "train.log").read_text(errors="replace")
    assert "Start a new experiment" in log
    assert f"Resume from {folder}/states-{saved}.ckpt" in log
    assert json.loads((tmp_path / "out" / "ks.json").read_text())["details"]["steps"] == 60


def test_our_upstream_works_from_s3prls_own_command_line(
    line: Callable[..., list[str]], pruned: Path, tmp_path: Path
) -> None:
    """The same recipe gives the same score, and gather finds it."""
    assert run(line("ks")) == 0
    settings = tmp_path / "out" / "ks" / "lr-0.0001" / "settings.yaml"
    command = [
        sys.executable, "-m", "tasks.s3prl", "run_downstream", "-m", "train", "-u", "bench_local",
        "-k", str(pruned), "-d", "speech_commands", "-c", str(settings), "-p",
        str(tmp_path / "out" / "by-hand"), "--device", "cpu",
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=600)
    assert run(["superb", "gather", str(tmp_path / "out")]) == 0
    with (tmp_path / "out" / "runs.csv").open() as file:
        rows = {row["started_by"]: row for row in csv.DictReader(file)}
    assert rows["s3prl"]["value"] == rows["bench"]["value"]
    assert rows["s3prl"]["model"] == f"bench_local:{pruned}"
