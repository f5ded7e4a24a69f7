"""Folders and cached repositories of the hub become the encoder that transformers would load."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from parity import (
    assert_same,
    assert_same_alone,
    speech_like,
    transformers_model,
    transformers_states,
)
from safetensors.torch import load_file, save_file
from torch import nn

import encoders
from core.errors import InputError
from encoders import build, cut, store, zoo
from encoders.exports import huggingface

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def hubert() -> nn.Module:
    return transformers_model("hubert", "group", False)


@pytest.fixture
def folder(tmp_path: Path, hubert: nn.Module) -> Path:
    hubert.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def _assert_parity(ref: str, theirs: nn.Module) -> None:
    with torch.no_grad():
        hidden = encoders.load(ref)(speech_like()[:1])
        assert_same(hidden.states, transformers_states(theirs, speech_like()[:1]), hidden.lengths)


@pytest.mark.parametrize("family", ["wav2vec2", "wavlm", "data2vec-audio"])
@pytest.mark.parametrize("head", ["Model", "ForCTC"])
def test_what_save_pretrained_wrote(tmp_path: Path, family: str, head: str) -> None:
    theirs = transformers_model(family, "layer", False, head, vocab_size=8)
    theirs.save_pretrained(tmp_path)
    ours, waveforms = encoders.load(f"hf:{tmp_path}"), speech_like()
    assert ours.spec == store.read_spec(f"hf:{tmp_path}")
    assert ours.spec.family == family
    assert not ours.training
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"do_normalize": False}))
    plain = encoders.load(f"hf:{tmp_path}")
    assert (ours.spec.normalize_waveform, plain.spec.normalize_waveform) == (True, False)
    lengths = torch.tensor([2600, 2000, 1234])
    with torch.no_grad():
        hidden = plain(waveforms, lengths)
        assert_same_alone(hidden.states, hidden.lengths, lambda w: transformers_states(theirs, w))


def test_a_group_norm_is_trained_on_waveforms_as_they_are(folder: Path) -> None:
    (folder / "preprocessor_config.json").write_text(json.dumps({"do_normalize": True}))
    assert not store.read_spec(f"hf:{folder}").normalize_waveform


def _sharded(folder: Path, hubert: nn.Module) -> None:
    hubert.save_pretrained(folder, max_shard_size="20KB")
    (folder / "model.safetensors").unlink()
    assert len(list(folder.glob("model-*.safetensors"))) > 2


def _pickled(folder: Path, hubert: nn.Module) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(hubert.state_dict(), folder / "pytorch_model.bin")


def _pickled_of_old(folder: Path, hubert: nn.Module) -> None:
    (folder / "model.safetensors").unlink()
    old = {
        n.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): t
        for n, t in hubert.state_dict().items()
    }
    torch.save(old, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)


def _pickled_shards(folder: Path, hubert: nn.Module) -> None:
    _sharded(folder, hubert)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    for shard in set(index["weight_map"].values()):
        torch.save(load_file(folder / shard), folder / shard.replace(".safetensors", ".bin"))
        (folder / shard).unlink()
    (folder / "model.safetensors.index.json").unlink()
    places = {n: s.replace(".safetensors", ".bin") for n, s in index["weight_map"].items()}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))


@pytest.mark.parametrize("write", [_sharded, _pickled, _pickled_of_old, _pickled_shards])
def test_weights_in_other_files(folder: Path, hubert: nn.Module, write: Any) -> None:
    before = store.fingerprint(f"hf:{folder}")
    write(folder, hubert)
    _assert_parity(f"hf:{folder}", hubert)
    assert store.fingerprint(f"hf:{folder}") == before


def test_the_fingerprint_is_of_the_content(folder: Path, tmp_path: Path) -> None:
    before = store.fingerprint(f"hf:{folder}")
    folder.rename(tmp_path / "elsewhere")
    assert store.fingerprint(f"hf:{tmp_path / 'elsewhere'}") == before
    tensors = load_file(tmp_path / "elsewhere" / "model.safetensors")
    tensors["encoder.layers.1.final_layer_norm.bias"][3] += 1e-6
    save_file(tensors, tmp_path / "elsewhere" / "model.safetensors")
    assert store.fingerprint(f"hf:{tmp_path / 'elsewhere'}") != before


def test_a_loaded_model_does_not_change_with_its_file(folder: Path) -> None:
    ours = encoders.load(f"hf:{folder}")
    before = ours.layers[0].fc1.weight.clone()
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-4096, os.SEEK_END)
        file.write(bytes(4096))
    assert torch.equal(ours.layers[0].fc1.weight, before)


def test_a_model_of_ours_is_one_too(tmp_path: Path) -> None:
    """What was pushed to the hub as it lies in the folder."""
    saved = build(zoo.tiny(), seed=3)
    store.save(saved, tmp_path / "own")
    again = encoders.load(f"hf:{tmp_path / 'own'}")
    assert again.spec == saved.spec
    assert torch.equal(again.layers[5].fc2.weight, saved.layers[5].fc2.weight)


def test_what_was_exported_comes_back(tmp_path: Path) -> None:
    """A model that transformers has no class for: of heads cut away, and of int4 weights."""
    cut_away = cut.keep_heads(build(zoo.tiny(), seed=3), [[], [1], *[range(8)] * 4])
    layers = tuple(replace(layer, numeric="int4", group=32) for layer in cut_away.spec.layers)
    saved = build(replace(cut_away.spec, layers=layers), seed=0)
    huggingface.write(saved, tmp_path)
    again = encoders.load(f"hf:{tmp_path}")
    assert again.spec == saved.spec
    for name, tensor in saved.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)


def _cached(home: Path, folder: Path) -> Path:
    """The hub's cache as huggingface_hub leaves it: blobs, and links to them by commit."""
    repository = home / "hub" / "models--org--hubert"
    snapshot = repository / "snapshots" / COMMIT
    for made in (repository / "refs", repository / "blobs", snapshot):
        made.mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    for number, name in enumerate(("config.json", "model.safetensors")):
        (folder / name).rename(repository / "blobs" / f"{number}")
        (snapshot / name).symlink_to(f"../../blobs/{number}")
    return snapshot


def test_a_repository_in_the_cache_needs_no_network(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = store.fingerprint(f"hf:{folder}")
    snapshot = _cached(tmp_path / "home", folder)
    assert store.fingerprint(f"hf:{snapshot}") == expected
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for revision in ("", "@main", f"@{COMMIT}"):
        assert store.fingerprint(f"hf:org/hubert{revision}") == expected
    for absent in ("hf:org/absent", "hf:org/hubert@other"):
        with pytest.raises(InputError, match=r"cannot be fetched.*disabled"):
            store.fingerprint(absent)


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("hf:", "names no checkpoint"),
        ("hf:../../no-such", "neither a folder nor ORG/NAME"),
        ("hf:a/b/c", "neither a folder nor ORG/NAME"),
        ("hf:org/na me", "neither a folder nor ORG/NAME"),
        ("hf:./no/such/folder", "neither a folder nor ORG/NAME"),
    ],
)
def test_what_is_no_place(ref: str, message: str) -> None:
    for function in (encoders.load, store.fingerprint, store.read_spec):
        with pytest.raises(InputError, match=message):
            function(ref)


def test_a_folder_without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"has no weights; expected model\.safetensors or"):
        encoders.load(f"hf:{folder}")
