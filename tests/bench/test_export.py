"""Models on their way out, from the command line: exported, verified, described, pushed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.cli import run
from core.metric import Metric
from core.point import Point
from core.record import Section
from encoders import card, exports, store
from encoders.exports import _parity
from results.store import RunFolder


@pytest.fixture
def compressed(tmp_path: Path, small_model: Path, small_data: Path) -> Path:
    shutil.copytree(small_model, tmp_path / "teacher")
    text = card.licensed((tmp_path / "teacher" / card.FILE).read_text(), "mit")
    (tmp_path / "teacher" / card.FILE).write_text(text)
    line = "compress {0}/teacher --method low-rank --rate 0.5 --out {0}/small --data {1}"
    assert run(line.format(tmp_path, small_data).split()) == 0
    return tmp_path / "small"


def test_a_compressed_model_tells_how_it_was_made(compressed: Path) -> None:
    made = card.read(compressed / card.FILE)
    assert made.model == "teacher"  # a folder by its name: where it lies is nobody's business
    assert made.method.startswith("low-rank")
    assert (made.rate, made.seed, made.licence) == (0.5, 0, "mit")
    assert made.achieved_rate == pytest.approx(0.5, abs=0.1)
    assert str(compressed.parent) not in (compressed / card.FILE).read_text()


def test_export_checks_and_describes_what_it_wrote(compressed: Path, capsys: Any) -> None:
    out = compressed.parent / "exported"
    assert run(["export", str(compressed), "--to", "torchscript", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("1e-03") == len(_parity.ALONE) + len(_parity.TOGETHER)
    text = (out / card.FILE).read_text()
    assert "torch.jit.load" in text
    assert 'license: "mit"' in text
    assert "by `low-rank" in text
    scope: dict[str, Any] = {"waveforms": torch.zeros(1, 8000).numpy(),
                             "lengths": torch.tensor([8000]).numpy()}  # fmt: skip
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert code is not None
    exec(code[1].replace("model.ts", str(out / "model.ts")), scope)
    assert scope["frames"].tolist() == [store.read_spec(compressed).frames(8000)]


def test_an_export_that_differs_is_not_saved(
    compressed: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = exports.write

    def wrong(encoder: Any, target: str, folder: Path) -> Any:
        usage = write(encoder, target, folder)
        with torch.no_grad():
            encoder.norm.bias += 0.5
        return usage

    monkeypatch.setattr(exports, "write", wrong)
    out = compressed.parent / "exported"
    assert run(["export", str(compressed), "--to", "s3prl", "--out", str(out)]) == 1
    captured = capsys.readouterr()
    assert captured.out.count("differs") == len(_parity.ALONE) + len(_parity.TOGETHER)
    assert "nothing is saved" in captured.err
    assert not out.exists()


def test_verify_tells_a_changed_model(compressed: Path, capsys: Any) -> None:
    assert run(["verify", str(compressed)]) == 0
    assert "is what was saved" in capsys.readouterr().out
    tensors = load_file(compressed / store.WEIGHTS)
    tensors["norm.bias"] += 0.2
    save_file(tensors, compressed / store.WEIGHTS)
    assert run(["verify", str(compressed)]) == 1
    assert "is not what was saved" in capsys.readouterr().out


@pytest.fixture
def in_run(tmp_path: Path, small_model: Path) -> Path:
    """A model within a run that has measured it."""
    sweep, point = RunFolder(tmp_path / "run"), Point("builtin", "head-pruning", 0.4, 1, "builtin")
    sweep.write_run({"task_data": "fsdd"})
    sweep.write_point(point)
    for name, metric, value in (
        ("compress", Metric("achieved_rate", "", "higher"), 0.375),
        ("profile.macs", Metric("macs_dense", "", "lower", "MACs"), 1.25e9),
        ("task.ks", Metric("ks_acc", "%", "higher", "keywords"), 93.5),
    ):
        section = Section(name, "done", "x", {metric.name: value}, {metric.name: metric})
        sweep.write_section(point.key, section)
    failed = Section("task.pr", "failed", "x", {"pr_per": 1.0}, {}, reason="no")
    sweep.write_section(point.key, failed)
    shutil.copytree(small_model, sweep.model_folder(point.key))
    return sweep.model_folder(point.key)


def test_the_card_of_a_run_takes_what_was_measured(in_run: Path, capsys: Any) -> None:
    assert run(["card", str(in_run)]) == 0
    text = (in_run / card.FILE).read_text()
    assert "| macs_dense | 1.25e+09 | MACs | builtin |" in text
    assert "| ks_acc | 93.5 % | keywords | fsdd |" in text
    assert "pr_per" not in text
    made = card.read(in_run / card.FILE)
    assert (made.method, made.rate, made.achieved_rate) == ("head-pruning", 0.4, 0.375)
    assert made.licence == "apache-2.0"


class Hub:
    """What `push` sends, kept."""

    sent: dict[str, Any]

    def create_repo(self, name: str, private: bool, exist_ok: bool) -> str:
        assert exist_ok
        Hub.sent = {"name": name, "private": private}
        return f"https://hub/{name}"

    def upload_folder(self, repo_id: str, folder_path: Path) -> None:
        Hub.sent |= {path.name: path.read_bytes() for path in Path(folder_path).iterdir()}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> type[Hub]:
    huggingface_hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    Hub.sent = {}
    return Hub


def test_push_sends_a_model_whose_card_says_how_to_load_it(
    in_run: Path, hub: type[Hub], capsys: Any
) -> None:
    before = (in_run / card.FILE).read_text()
    assert run(["push", str(in_run), "hf:me/small", "--private"]) == 0
    assert capsys.readouterr().out.strip() == "https://hub/me/small"
    assert (hub.sent["name"], hub.sent["private"]) == ("me/small", True)
    assert set(hub.sent) >= {store.SPEC, store.WEIGHTS, store.CHECK, card.FILE}
    sent = hub.sent[card.FILE].decode()
    assert "load('hf:me/small')" in sent
    assert 'license: "apache-2.0"' in sent
    assert "ks_acc" in sent
    assert (in_run / card.FILE).read_text() == before


def test_push_sends_an_export(
    compressed: Path, hub: type[Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_parity, "compare", lambda *_: [_parity.Compared((16_000,), 49, 0.0)])
    out = compressed.parent / "exported"
    assert run(["export", str(compressed), "--to", "s3prl", "--out", str(out)]) == 0
    assert run(["push", str(out), "hf:me/small", "--licence", "cc0-1.0"]) == 0
    assert set(hub.sent) >= {"expert.py", "encoder.json", "model.safetensors", card.FILE}
    assert 'license: "cc0-1.0"' in hub.sent[card.FILE].decode()


BAD = [
    ("export random:tiny --to onxn --out {tmp}/x", "did you mean 'onnx'"),
    ("export nothing --to onnx --out {tmp}/x", "unknown model"),
    ("export random:tiny --to onnx --out {tmp}/file", "is a file"),
    ("export random:tiny --to torchscript --out {tmp}/other", "other files"),
    ("export random:tiny --out {tmp}/x", "--to"),
    ("verify {tmp}/other", "holds no model"),
    ("verify builtin2", "unknown model"),
    ("card {tmp}/other", "holds no model"),
    ("push {model} me/small", "hf:USER/NAME"),
    ("push {model} hf:small", "hf:USER/NAME"),
    ("push {model} hf:me/small", "licence"),
    ("push {tmp}/other hf:me/small", "holds no model"),
]


@pytest.mark.parametrize(("line", "says"), BAD)
def test_bad_input_is_one_sentence(
    line: str, says: str, tmp_path: Path, small_model: Path, hub: type[Hub], capsys: Any
) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    assert run(line.format(tmp=tmp_path, model=small_model).split()) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert says in error
    assert not (tmp_path / "x").exists()
    assert not hub.sent


def test_push_sends_no_file_of_elsewhere(compressed: Path, hub: type[Hub], capsys: Any) -> None:
    (compressed.parent / "secret").write_text("mine")
    (compressed / "notes.txt").symlink_to(compressed.parent / "secret")
    assert run(["push", str(compressed), "hf:me/small"]) == 2
    assert "notes.txt is a link" in capsys.readouterr().err
    assert not hub.sent


def test_push_sends_no_model_that_was_changed(
    compressed: Path, hub: type[Hub], capsys: Any
) -> None:
    tensors = load_file(compressed / store.WEIGHTS)
    tensors["norm.bias"] += 0.2
    save_file(tensors, compressed / store.WEIGHTS)
    assert run(["push", str(compressed), "hf:me/small"]) == 2
    assert "not what was saved" in capsys.readouterr().err
    assert not hub.sent
