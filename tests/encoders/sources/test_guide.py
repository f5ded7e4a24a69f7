"""The code of docs/checkpoints.md runs as it stands."""

from __future__ import annotations

import importlib.util
import re
import sys
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from parity import transformers_model

import encoders
from core.errors import InputError
from core.spec import LayerSpec, MelFrontEnd, ModelSpec
from encoders import build, sources, store

GUIDE = (Path(__file__).parents[3] / "docs" / "checkpoints.md").read_text(encoding="utf-8")
LOADING, REWRITING, SOURCE = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)


def test_loading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    transformers_model("hubert", "group", False).save_pretrained("my-hubert")
    exec(compile(LOADING, "guide", "exec"), {})
    assert capsys.readouterr().out.startswith("4 torch.Size([1, ")


def test_rewriting_what_needs_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    held = {"Config": {"distiller": {}}, "Distiller": {"x": torch.zeros(1)}}
    torch.save(held | {"Scheduler": Fraction(1, 2)}, "states.ckpt")
    refused = r"needs pickle to build fractions\.Fraction.*docs/checkpoints\.md"
    with pytest.raises(InputError, match=refused):
        encoders.load("s3prl:states.ckpt")
    exec(compile(REWRITING, "guide", "exec"), {})
    with pytest.raises(InputError, match="unknown tensors: x"):  # read, though of no model
        encoders.load("s3prl:plain.ckpt")


def test_a_source_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mylab.py"
    file.write_text(SOURCE, encoding="utf-8")
    monkeypatch.setattr(sources, "FOLDER", tmp_path)
    assert sources.usage("mylab") == (
        "mylab:PATH.pt",
        "A checkpoint of our lab: log-mel frames, post-norm, FFNs of unequal width (an example).",
    )
    module_spec = importlib.util.spec_from_file_location("encoders.sources.mylab", file)
    module = importlib.util.module_from_spec(module_spec)
    monkeypatch.setitem(sys.modules, "encoders.sources.mylab", module)
    module_spec.loader.exec_module(module)

    layers = tuple(LayerSpec.dense(4, 8, ffn) for ffn in (64, 48))
    theirs = build(
        ModelSpec("our-lab", MelFrontEnd(40, stack=2), 32, 4, 8, layers, feature_norm=False), seed=1
    )
    torch.save({"config": {"width": 32, "heads": 4, "ffn": [64, 48]},
                "state": _renamed(theirs.state_dict())}, tmp_path / "lab.pt")  # fmt: skip
    ours = encoders.load(f"mylab:{tmp_path / 'lab.pt'}")
    wave = torch.randn(1, 8000)
    assert torch.equal(ours(wave).states[2], theirs.eval()(wave).states[2])
    assert store.read_spec(f"mylab:{tmp_path / 'lab.pt'}") == theirs.spec


def _renamed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Our tensors by the lab's names, and one of a head."""
    for ours, lab in (("front_end.", ""), ("projection", "input"), ("layers", "blocks"),
                      ("attention_norm", "attn_norm"), ("attention", "attn"),
                      ("ffn_norm", "mlp_norm"), ("fc1", "mlp.0"), ("fc2", "mlp.2")):  # fmt: skip
        state = {name.replace(ours, lab): value for name, value in state.items()}
    return state | {"head.weight": torch.zeros(3)}
