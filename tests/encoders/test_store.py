"""Models survive the disk, and what is no model is refused in one sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import encoders
from core.errors import InputError
from encoders import build, cut, store, zoo


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    store.save(build(zoo.tiny(), seed=4), tmp_path / "model")
    return tmp_path / "model"


def test_a_cut_model_comes_back_exactly(tmp_path: Path) -> None:
    encoder = cut.keep_heads(build(zoo.tiny(), seed=0), [[], [1], *[range(8)] * 4])
    encoder.front_end.mean.fill_(0.5)
    store.save(encoder, tmp_path / "deep" / "model")
    again = encoders.load(tmp_path / "deep" / "model")
    assert again.spec == encoder.spec
    assert not again.training
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
    assert all(parameter.requires_grad for parameter in again.parameters())
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["model"]


def test_saving_again_replaces(folder: Path) -> None:
    before = store.fingerprint(folder)
    store.save(build(zoo.tiny(), seed=4), folder)
    assert store.fingerprint(folder) == before
    store.save(build(zoo.tiny(), seed=5), folder)
    assert store.fingerprint(folder) != before


def test_half_precision_files_are_cast_to_the_spec(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({name: t.half() for name, t in tensors.items()}, folder / "model.safetensors")
    loaded = encoders.load(folder)
    assert {tensor.dtype for tensor in loaded.state_dict().values()} == {torch.float32}


def test_random_models_are_seeded() -> None:
    zero, default, one = (encoders.load(f"random:tiny{at}") for at in ("@0", "", "@1"))
    assert torch.equal(zero.layers[0].fc1.weight, default.layers[0].fc1.weight)
    assert not torch.equal(zero.layers[0].fc1.weight, one.layers[0].fc1.weight)
    assert store.fingerprint("random:tiny") == store.fingerprint("random:tiny@0")
    assert store.fingerprint("random:tiny") != store.fingerprint("random:tiny@1")
    assert store.read_spec("random:hubert_base") == zoo.hubert_base()


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("random:hubert_bse", "did you mean 'hubert_base'"),
        ("random:tiny@x", "expected a whole number"),
        ("random:tiny@", "expected a whole number"),
        ("random:tiny@-1", "expected a whole number"),
        ("builtim", "did you mean 'builtin'"),
        ("no/such/folder", "unknown model"),
        ("", "holds no model"),
    ],
)
def test_unknown_references_are_refused(
    ref: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for function in (encoders.load, store.fingerprint, store.read_spec):
        with pytest.raises(InputError, match=message) as caught:
            function(ref)
        assert "\n" not in str(caught.value)


def test_a_missing_builtin_model_says_how_to_make_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "BUILTIN", tmp_path)
    with pytest.raises(InputError, match="bench pretrain"):
        encoders.load("builtin")


SPEC = zoo.tiny().to_json()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 100_000,
        "\xff",
        json.dumps({"family": "x"}),
        json.dumps({**SPEC, "colour": "red"}),
        json.dumps({**SPEC, "dim": 256}),
        json.dumps({**SPEC, "dim": -1}),
        json.dumps({**SPEC, "dim": 10**30}),
        json.dumps({**SPEC, "dim": "wide"}),
        json.dumps({**SPEC, "dim": None}),
        json.dumps({**SPEC, "dtype": "float99"}),
        json.dumps({**SPEC, "total_heads": 10**12}),
        json.dumps({**SPEC, "layers": 6}),
        json.dumps({**SPEC, "layers": SPEC["layers"][:2]}),
        json.dumps({**SPEC, "head_dim": 0}),
        json.dumps({**SPEC, "head_dim": "16"}),
        json.dumps({**SPEC, "front_end": {"kind": "mel", "bins": 0}}),
        json.dumps({**SPEC, "front_end": {"kind": "mel", "stack": 0}}),
        json.dumps({**SPEC, "front_end": {"kind": "conv", "strides": [0] * 7}}),
        json.dumps({**SPEC, "positions": {"conv_kernel": -3}}),
        json.dumps({**SPEC, "positions": {"conv_kernel": 4, "conv_groups": 0}}),
        json.dumps({**SPEC, "positions": {"gated_buckets": 1}}),
    ],
    ids=lambda text: text[-30:],
)
def test_absurd_specs_are_refused_in_one_sentence(folder: Path, text: str) -> None:
    (folder / "spec.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError) as caught:
        encoders.load(folder)
    assert "spec.json" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def _leaves(data: Any, path: tuple = ()) -> Iterator[tuple]:
    items = data.items() if isinstance(data, dict) else enumerate(data)
    for key, value in items:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from _leaves(value, (*path, key))


ABSURD = [None, True, -1, 0, 0.5, 7, 10**20, "x", [], [1], [-1], [[]], {}, {"a": 1}]


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("name", ["tiny", "wavlm_base", "fbank"])
def test_no_change_of_a_spec_escapes_as_another_error(tmp_path: Path, name: str) -> None:
    """Entries are replaced by absurdities: the model loads, or is refused in one sentence."""
    spec = zoo.SPECS[name]()
    spec = replace(spec, layers=spec.layers[:1])
    with torch.device("meta"):
        shapes = {n: t.shape for n, t in build(spec).state_dict().items()}
    save_file({n: torch.zeros(1).expand(s).clone() for n, s in shapes.items() if s.numel() < 1e5},
              tmp_path / "model.safetensors")  # fmt: skip
    whole = json.loads(json.dumps(spec.to_json()))
    for index, path in enumerate(_leaves(whole)):
        for value in ABSURD[index % 3 :: 3]:
            broken = json.loads(json.dumps(whole))
            inner = broken
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = value
            (tmp_path / "spec.json").write_text(json.dumps(broken))
            assert "\n" not in _refusal(tmp_path)


def _refusal(folder: Path) -> str:
    """Why the folder does not load, empty where it does; any error but InputError escapes."""
    try:
        encoders.load(folder)
    except InputError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, 0.999])
def test_truncated_weights_are_refused(folder: Path, keep: float) -> None:
    path = folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if keep < 1 else int(keep)])
    with pytest.raises(InputError, match="truncated or no safetensors file") as caught:
        encoders.load(folder)
    assert "\n" not in str(caught.value)


def test_missing_and_surplus_tensors_are_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    save_file({**tensors, "surplus": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="surplus"):
        encoders.load(folder)
    del tensors["norm.weight"]
    save_file(tensors, path)
    with pytest.raises(InputError, match=r"norm\.weight"):
        encoders.load(folder)


def test_an_unwritable_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot be written"):
        store.save(build(zoo.tiny()), tmp_path / "file" / "model")


def test_store_and_zoo_import_no_torch() -> None:
    code = (
        "import sys, encoders, encoders.zoo, encoders.store as s; s.fingerprint('random:tiny');"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_spec_dtype_decides_the_numeric_type(tmp_path: Path) -> None:
    store.save(build(replace(zoo.tiny(), dtype="bfloat16"), seed=0), tmp_path / "half")
    assert encoders.load(tmp_path / "half").layers[0].fc1.weight.dtype == torch.bfloat16
