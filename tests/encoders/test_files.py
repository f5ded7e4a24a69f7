"""Files that nobody should trust: whatever is in them, reading ends well or in one sentence."""

from __future__ import annotations

import ast
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parity import (
    DIM,
    FFN,
    HEADS,
    config_of,
    torchaudio_arguments,
    torchaudio_model,
    transformers_model,
)

import encoders
from core.errors import InputError
from core.spec import MOST, MOST_LAYERS
from encoders import build, store, zoo
from encoders.files import read_json, read_numpy, read_safetensors, read_torch

ROOT = Path(__file__).parents[2]
SOURCES = [
    file
    for package in ("bench", "compressors", "core", "encoders", "profilers", "reports", "results",
                    "tasks")
    for file in sorted((ROOT / package).rglob("*.py"))
]  # fmt: skip


def _refusal(act: Callable[[], Any]) -> str:
    """Why it was refused, empty where it was not; any error but InputError escapes."""
    said = ""
    try:
        act()
    except InputError as error:
        said = str(error)
    assert "\n" not in said
    assert len(said) < 1000
    return said


def test_every_torch_load_of_the_tree_reads_weights_only() -> None:
    calls = 0
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("torch.load"):
                calls += 1
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert given.get("weights_only") == "True", f"{file}:{node.lineno}"
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in ("eval", "exec", "yaml.load"), file
    assert calls > 1


class Planted:
    """Something that pickle would build by a call."""

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return os.system, ("touch planted",)


def _pickled(file: Path) -> None:
    file.write_bytes(pickle.dumps({"model": Planted()}))


def _saved(file: Path) -> None:
    torch.save({"model": Planted()}, file)


def _saved_as_once(file: Path) -> None:
    torch.save({"model": Planted()}, file, _use_new_zipfile_serialization=False)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("write", [_pickled, _saved, _saved_as_once])
@pytest.mark.parametrize("source", ["s3prl", "melhubert", "dphubert"])
def test_nothing_that_needs_pickle_is_built(
    source: str, write: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "file.pt")
    said = _refusal(lambda: encoders.load(f"{source}:file.pt"))
    assert "needs pickle to build posix.system" in said or "nothing that torch.save wrote" in said
    assert write is _pickled or "docs/checkpoints.md" in said
    assert not (tmp_path / "planted").exists()


def test_an_archive_that_would_grow_is_not_unpacked(tmp_path: Path) -> None:
    torch.save({"model": torch.zeros(4)}, tmp_path / "small.pt")
    with (
        zipfile.ZipFile(tmp_path / "small.pt") as small,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for entry in small.namelist():
            large = entry.endswith("data/0")
            bomb.writestr(entry, bytes(1 << 24) if large else small.read(entry))
    assert (tmp_path / "bomb.pt").stat().st_size < 1 << 16
    assert "is compressed" in _refusal(lambda: read_torch(tmp_path / "bomb.pt"))


def test_a_tensor_longer_than_its_record_stays_within_the_file(tmp_path: Path) -> None:
    torch.save({"a": torch.arange(10.0)}, tmp_path / "honest.pt")
    with (
        zipfile.ZipFile(tmp_path / "honest.pt") as honest,
        zipfile.ZipFile(tmp_path / "lying.pt", "w") as lying,
    ):
        for entry in honest.namelist():
            content = honest.read(entry)
            if entry.endswith("data.pkl"):  # 10 numbers -> 2 ** 30, of the record and the tensor
                large = b"J" + (1 << 30).to_bytes(4, "little")
                content = content.replace(b"K\x0a", large)
            lying.writestr(entry, content)
    said = _refusal(lambda: read_torch(tmp_path / "lying.pt"))
    assert "nothing that torch.save wrote" in said


def _loop(file: Path) -> None:
    file.symlink_to(file)


def _nowhere(file: Path) -> None:
    file.symlink_to("no/such/file")


def _endless(file: Path) -> None:
    file.symlink_to("/dev/zero")


def _pipe(file: Path) -> None:
    os.mkfifo(file)


@pytest.mark.parametrize("make", [_loop, _nowhere, _endless, _pipe, Path.mkdir])
@pytest.mark.parametrize("read", [read_json, read_numpy, read_safetensors, read_torch])
def test_what_is_no_regular_file(
    read: Callable[[Path], Any], make: Callable[[Path], None], tmp_path: Path
) -> None:
    make(tmp_path / "file")
    assert str(tmp_path / "file") in _refusal(lambda: read(tmp_path / "file"))


@pytest.mark.parametrize("name", ["spec.json", "model.safetensors"])
@pytest.mark.parametrize("make", [_loop, _nowhere, _endless, _pipe, Path.mkdir])
def test_a_folder_of_ours_with_what_is_no_regular_file(
    name: str, make: Callable[[Path], None], tmp_path: Path
) -> None:
    store.save(build(zoo.tiny(), seed=0), tmp_path / "model")
    (tmp_path / "model" / name).unlink()
    make(tmp_path / "model" / name)
    assert "holds no model" in _refusal(lambda: encoders.load(tmp_path / "model"))


@pytest.mark.parametrize(
    "shard",
    ["../../x.safetensors", "/etc/passwd", "a/b.safetensors", "..", ".safetensors", "x.pickle",
     "x.safetensors\n", 3, None, ["x.safetensors"], "x" * 10_000],
)  # fmt: skip
def test_an_index_names_files_beside_it_alone(shard: Any, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "x.safetensors").write_bytes(b"secret")
    (tmp_path / "model" / "config.json").write_text("{}")
    index = tmp_path / "model" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"encoder.layer_norm.weight": shard}}))
    said = _refusal(lambda: encoders.load(f"hf:{tmp_path / 'model'}"))
    assert "expected files beside it alone" in said


def test_a_long_description_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(1 << 40)
    assert "is longer than" in _refusal(lambda: read_json(tmp_path / "config.json"))


@pytest.mark.parametrize("shape", ["(1000000000000000,)", "(2, 10)", "(" * 500, "(-1,)"])
def test_an_array_that_its_header_does_not_fit(shape: str, tmp_path: Path) -> None:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(40)
    (tmp_path / "a.npy").write_bytes(content)
    assert "no .npy file" in _refusal(lambda: read_numpy(tmp_path / "a.npy"))
    np.savez(tmp_path / "b", a=np.zeros(3))
    assert "more than one array" in _refusal(lambda: read_numpy(tmp_path / "b.npz"))


TINY = zoo.tiny().to_json()


@pytest.mark.parametrize(
    "change",
    [
        {"dim": MOST + 1},
        {"dim": 10**400},
        {"head_dim": float("nan")},
        {"total_heads": float("inf")},
        {"layers": TINY["layers"][:1] * (MOST_LAYERS + 1)},
        {"layers": [{**TINY["layers"][0], "ffn": MOST + 1}]},
        {"layers": [{**TINY["layers"][0], "ffn": MOST}] * MOST_LAYERS},
        {"front_end": {**TINY["front_end"], "gain": float("inf")}},
        {"front_end": {**TINY["front_end"], "window": "boxcar"}},
        {"positions": {"bias_reach": -(10**9)}},
    ],
    ids=lambda change: str(change)[:40],
)
def test_no_absurd_size_is_built(change: dict[str, Any], tmp_path: Path) -> None:
    store.save(build(zoo.tiny(), seed=0), tmp_path / "model")
    (tmp_path / "model" / "spec.json").write_text(json.dumps({**TINY, **change}))
    for act in (encoders.load, store.read_spec, store.fingerprint):
        assert _refusal(lambda act=act: act(tmp_path / "model"))


# --- anything ---------------------------------------------------------------------------------

ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**20), 10**20), st.integers(0, 64),
    st.floats(), st.text(max_size=5), st.lists(st.integers(0, 9), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(0, 9), max_size=2),
)  # fmt: skip


LAYERS = 1


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One small checkpoint of each kind of file, by what stands in front of it."""
    folder = tmp_path_factory.mktemp("checkpoints")
    transformers_model("wavlm", "group", False, num_hidden_layers=LAYERS).save_pretrained(
        folder / "hf"
    )
    sizes = {"encoder_num_layers": LAYERS}
    theirs = torchaudio_model("wav2vec2", "group", False, **sizes)
    lists = {"use_attention": True, "use_feed_forward": True, "num_heads": HEADS,
             "ff_interm_features": FFN}  # fmt: skip
    config = torchaudio_arguments("wav2vec2", "group", False) | sizes
    config |= {f"encoder_{name}": [value] * LAYERS for name, value in lists.items()}
    config |= {"encoder_head_dim": DIM // HEADS, "normalize_waveform": False}
    torch.save({"config": config, "state_dict": theirs.state_dict()}, folder / "dphubert.pth")
    tiny = replace(zoo.tiny(), layers=zoo.tiny().layers[:LAYERS])
    store.save(build(tiny, seed=0), folder / "own")
    places = {"hf:": folder / "hf", "dphubert:": folder / "dphubert.pth", "": folder / "own"}
    for source, place in places.items():
        encoders.load(f"{source}{place}")
    return places


FILES = [("", "spec.json"), ("", "model.safetensors"), ("dphubert:", ""), ("hf:", "config.json"),
         ("hf:", "model.safetensors")]  # fmt: skip


@settings(max_examples=60)
@given(st.sampled_from(FILES), st.floats(0, 1), st.binary(max_size=12), st.booleans())
def test_a_file_with_anything_in_it(
    places: dict[str, Path], which: tuple[str, str], place: float, put: bytes, cut: bool
) -> None:
    """Bytes of every kind of file are overwritten, or the file ends there."""
    source, name = which
    file = places[source] / name if name else places[source]
    content = file.read_bytes()
    start = int((place if name.endswith("json") else place**4) * len(content))  # heads in front
    broken = content[:start] + put + (b"" if cut else content[start + len(put) :])
    try:
        file.write_bytes(broken)
        _refusal(lambda: encoders.load(f"{source}{places[source]}"))
    finally:
        file.write_bytes(content)


@settings(max_examples=40)
@given(st.sampled_from(sorted(config_of("wavlm", "group", False))), ODD)
def test_a_config_with_anything_in_it(places: dict[str, Path], name: str, value: Any) -> None:
    file = places["hf:"] / "config.json"
    content = file.read_text()
    try:
        file.write_text(json.dumps({**json.loads(content), name: value}))
        _refusal(lambda: encoders.load(f"hf:{places['hf:']}"))
    finally:
        file.write_text(content)


@settings(max_examples=40)
@given(st.data(), ODD)
def test_settings_with_anything_in_them(
    places: dict[str, Path], data: st.DataObject, value: Any
) -> None:
    held = torch.load(places["dphubert:"], weights_only=True)
    part = data.draw(st.sampled_from(["config", "state_dict"]))
    held[part][data.draw(st.sampled_from(sorted(held[part])))] = value
    torch.save(held, places["dphubert:"].with_name("odd.pth"))
    _refusal(lambda: encoders.load(f"dphubert:{places['dphubert:'].with_name('odd.pth')}"))
