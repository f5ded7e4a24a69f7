"""The numbers kept beside a model tell a changed copy from a true one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.errors import InputError
from encoders import build, check, cut, store, zoo

TINY = replace(zoo.tiny(), layers=zoo.tiny().layers[:2])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    store.save(build(TINY, seed=4), tmp_path / "model")
    return tmp_path / "model"


def test_a_model_that_was_saved_is_the_same(folder: Path) -> None:
    differences, most = store.verify(folder)
    assert len(differences) == len(TINY.layers) + 1
    assert max(differences) < 1e-6 < most == 1e-3


@pytest.mark.parametrize(
    "name", ["projection.weight", "layers.1.fc2.weight", "position_bias.table"]
)
def test_one_changed_tensor_shows_in_all_states_behind_it(folder: Path, name: str) -> None:
    tensors = load_file(folder / store.WEIGHTS)
    tensors[name] += 0.3 * torch.randn(
        tensors[name].shape, generator=torch.Generator().manual_seed(0)
    )
    save_file(tensors, folder / store.WEIGHTS)
    differences, most = store.verify(folder)
    first = {"projection.weight": 0, "layers.1.fc2.weight": 2, "position_bias.table": 1}[name]
    assert all(value > most for value in differences[first:])
    assert all(value < 1e-6 for value in differences[:first])


@pytest.mark.parametrize("numeric", ["int8", "int8-dynamic"])
def test_integers_are_checked_too(tmp_path: Path, numeric: str) -> None:
    made = cut.quantize(build(TINY, seed=0), numeric)
    store.save(made, tmp_path / "model")
    differences, most = store.verify(tmp_path / "model")
    assert max(differences) < 1e-6
    assert most == (check.DYNAMIC if numeric == "int8-dynamic" else 1e-3)


def test_a_numeric_type_of_less_digits_may_differ_more(tmp_path: Path) -> None:
    store.save(build(replace(TINY, dtype="bfloat16"), seed=0), tmp_path / "model")
    assert store.verify(tmp_path / "model")[1] == check.TOLERANCES["bfloat16"]


@pytest.mark.parametrize("kept", [None, [], {}, {"states": []}, {"states": [{"level": "x"}] * 3},
                                  {"states": [{"level": 1, "values": []}] * 3},
                                  {"states": [{"level": 10**400, "values": [0] * 16}] * 3},
                                  ])  # fmt: skip
def test_numbers_that_are_none_are_refused(folder: Path, kept: object) -> None:
    (folder / store.CHECK).write_text(json.dumps(kept))
    with pytest.raises(InputError, match="save the model again"):
        store.verify(folder)


def test_a_model_without_numbers_cannot_be_checked(folder: Path) -> None:
    (folder / store.CHECK).unlink()
    with pytest.raises(InputError, match="save the model again"):
        store.verify(folder)


def test_a_spec_that_is_not_true_is_not_saved(tmp_path: Path) -> None:
    encoder = build(TINY, seed=0)
    encoder.spec = zoo.tiny()
    with pytest.raises(RuntimeError, match="Missing key"):
        store.save(encoder, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_folder_of_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# mine\n")
    with pytest.raises(InputError, match="other files"):
        store.save(build(TINY, seed=0), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
