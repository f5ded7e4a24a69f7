"""`bench adapt`: lambda of a once-for-all model is learned on a task and saved with the model."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from bench.cli import run
from encoders.store import read_spec


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    """Twelve half seconds of noise that say one of two words, in a manifest."""
    folder = tmp_path_factory.mktemp("spoken")
    draw, lines = np.random.default_rng(0), ["path,split,word"]
    for index in range(12):
        wave = draw.normal(0, 0.02 + 0.1 * (index % 2), 8_000)
        soundfile.write(folder / f"{index}.wav", wave, 16_000)
        split = ("train", "train", "dev", "test")[index // 3]
        lines.append(f"{index}.wav,{split},{('soft', 'loud')[index % 2]}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder / "manifest.csv"


@pytest.fixture(scope="module")
def joined(small_model, spoken, tmp_path_factory):
    folder = tmp_path_factory.mktemp("joined") / "model"
    line = ["compress", str(small_model), "--method", "ofa-sequence@untrained", "--rate", "0.5",
            "--data", str(spoken), "--out", str(folder)]  # fmt: skip
    assert run(line) == 0
    return folder


def test_lambda_moves_and_is_saved(joined, spoken, tmp_path, capsys):
    out = tmp_path / "adapted"
    line = ["adapt", str(joined), "--task", "ks", "--data", str(spoken), "--out", str(out),
            "--lambda-rate", "1"]  # fmt: skip
    assert run(line) == 0
    before, after = (read_spec(folder).shortening for folder in (joined, out))
    assert after.strength != before.strength
    assert 0 < after.strength < 2
    said = capsys.readouterr().out
    assert f"lambda {after.strength:.3f} for ks" in said
    assert f"{40 * after.factor / 2:.0f} ms per frame" in said


@pytest.mark.parametrize(
    ("model", "task", "said"),
    [("joined", "pr", "ks, ic and sid do"), ("small_model", "ks", "ofa-sequence")],
)
def test_what_cannot_be_adapted_is_one_sentence(
    model, task, said, spoken, tmp_path, capsys, request
):
    folder = str(request.getfixturevalue(model))
    out = str(tmp_path / "m")
    assert run(["adapt", folder, "--task", task, "--data", str(spoken), "--out", out]) == 2
    assert said in capsys.readouterr().err
