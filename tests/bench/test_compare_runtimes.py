"""`bench compare-runtimes`: rows of all runtimes, or why one is missing, and what is written."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest
import torch

from bench import compare_runtimes
from bench.cli import run
from core.spec import ConvFrontEnd, LayerSpec, ModelSpec, Positions
from encoders import store
from encoders.counterparts import Torchaudio
from encoders.model import build

#: A hop of 10 ms, so that a second takes no time.
FRONT_END = ConvFrontEnd((8, 8, 12), (10, 8, 4), (5, 8, 4))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A HuBERT and a WavLM of two layers, in folders."""
    folder = tmp_path_factory.mktemp("models")
    for family, buckets in (("hubert", 0), ("wavlm", 16)):
        layers = (LayerSpec.dense(4, 6, 40),) * 2
        positions = Positions(8, 4, gated_buckets=buckets)
        spec = ModelSpec(family, FRONT_END, 24, 4, 6, layers, positions)
        store.save(build(spec, seed=0), folder / family)
    return {family: str(folder / family) for family in ("hubert", "wavlm")}


@pytest.fixture
def no_s3prl(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("s3prl")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "s3prl", None)


def _compare(out: Path, data: Path, *options: str) -> list[dict[str, str]]:
    """The rows that the command wrote."""
    line = ["compare-runtimes", "--data", str(data), "--repeats", "1", "--out", str(out)]
    assert run([*line, *options]) == 0
    with (out / "runtimes.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_runtime_has_a_row_per_model_and_mode(
    models: dict[str, str], small_data: Path, tmp_path: Path, no_s3prl: None,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    pytest.importorskip("transformers")
    rows = _compare(tmp_path, small_data, "--models", ",".join(models.values()))
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 1 + len(rows) == 17
    for name in ("ours", "torchaudio", "transformers"):
        for row in (row for row in rows if row["runtime"] == name):
            assert float(row["seconds"]) > 0
            assert not row["reason"]
            low, ratio, high = (float(row[c]) for c in ("ratio_low", "ratio", "ratio_high"))
            assert low <= ratio <= high
            assert name == "ours" or 0 < float(row["difference"]) < 1e-4
    missing = [row for row in rows if row["runtime"] == "s3prl"]
    assert len(missing) == 4
    for row in missing:
        assert row["reason"].startswith("unavailable: ")
        assert "pip install --no-deps s3prl" in row["reason"]
        assert not row["seconds"]


def test_ratios_are_of_the_samples_that_are_kept(
    models: dict[str, str], small_data: Path, tmp_path: Path
) -> None:
    options = ["--models", models["hubert"], "--runtimes", "torchaudio", "--dtype", "bfloat16"]
    _compare(tmp_path, small_data, *options)
    whole = json.loads((tmp_path / "runtimes.json").read_text(encoding="utf-8"))
    assert whole["run"]["dtype"] == "bfloat16"
    assert whole["environment"]["cpu"]
    ours, theirs, batch, _ = whole["rows"]
    assert [row["runtime"] for row in whole["rows"]] == ["ours", "torchaudio"] * 2
    sums = [sum(sample for (sample,) in row["samples_s"]) for row in (ours, theirs)]
    assert theirs["seconds"] == pytest.approx(sums[1])
    assert theirs["ratio"] == pytest.approx(sums[0] / sums[1])
    assert ours["rtf"] == pytest.approx(sums[0] / 4)  # four utterances of a second
    assert ours["conditions"]["utterances"] == [0, 1, 2, 3]
    assert batch["conditions"]["samples"] == 16_000
    assert len(batch["samples_s"]) == 1
    assert ours["conditions"]["attention_kernels"]
    assert theirs["conditions"]["attention_kernels"]


def test_other_weights_are_not_timed(
    models: dict[str, str], small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(self: Torchaudio, name: str) -> torch.Tensor:
        return right(self, name) * (2 if name.endswith("layers.1.final_layer_norm.weight") else 1)

    right = Torchaudio._weight
    monkeypatch.setattr(Torchaudio, "_weight", wrong)
    options = ["--models", models["wavlm"], "--runtimes", "torchaudio"]
    for row in _compare(tmp_path, small_data, *options)[1::2]:
        assert float(row["difference"]) > 1e-3
        assert "differ from ours" in row["reason"]
        assert not row["seconds"]


def test_a_runtime_that_breaks_leaves_the_others(
    models: dict[str, str], small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no kernel\nfor this")

    monkeypatch.setattr(Torchaudio, "_states", fail)
    rows = _compare(tmp_path, small_data, "--models", models["hubert"], "--runtimes", "torchaudio")
    assert [row["reason"] for row in rows] == ["", "failed: RuntimeError: no kernel"] * 2
    assert float(rows[0]["seconds"]) > 0


def test_models_that_no_library_has_are_timed_alone(small_data: Path, tmp_path: Path) -> None:
    ours, theirs, *_ = _compare(tmp_path, small_data, "--models", "random:tiny")
    assert float(ours["seconds"]) > 0
    assert theirs["reason"] == "unavailable: the libraries have no melhubert model"


def test_nan_is_no_agreement(models: dict[str, str]) -> None:
    encoder = store.load(models["hubert"])
    theirs = Torchaudio(encoder)
    theirs.model.encoder.transformer.layers[0].final_layer_norm.bias = torch.nn.Parameter(
        torch.full((24,), torch.nan)
    )
    reads = [compare_runtimes.Input(torch.randn(1, 16_000))]
    found = compare_runtimes._difference(encoder, theirs, reads, compare_runtimes.Runtime())
    assert not found <= compare_runtimes.TOLERANCE


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--runtimes torchaudoi", "did you mean 'torchaudio'"),
        ("--runtimes ours,", "unknown runtime ''"),
        ("--models random:hubert", "did you mean 'hubert_base'"),
        ("--models nowhere", "nowhere"),
        ("--device tpu", "expected cpu, cuda or cuda:N"),
        ("--repeats 0", "repeats"),
    ],
)
def test_bad_input_is_one_sentence(
    options: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["compare-runtimes", *options.split()]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert len(captured.err.splitlines()) == 1
    assert not captured.out
