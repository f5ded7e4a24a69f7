"""Hidden states on disk: bounded, sound, whole, and nobody's who reads them."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest
import torch

from core.errors import InputError
from encoders import store
from encoders.hidden_cache import Cache, hidden_folder, name_of

ROOM = 1e6
FRAMES = {"a": torch.randn(2, 50, 8), "b": torch.randn(2, 30, 8)}  # 5 kB


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    return hidden_folder()


@pytest.fixture(autouse=True)
def models(monkeypatch) -> None:
    """A model's name is its fingerprint."""
    monkeypatch.setattr(store, "fingerprint", str)


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.safetensors"))


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in shards(folder))


def keep(model: str, *batches: str, limit: float = ROOM) -> None:
    with Cache(limit).open(model) as disk:
        for batch in batches:
            disk.add("frames", [batch], FRAMES)


def kept(model: str, *batches: str) -> list[bool]:
    with Cache(ROOM).open(model) as disk:
        return [disk.find("frames", [batch], FRAMES) is not None for batch in batches]


def test_what_was_kept_is_read_bit_by_bit(folder):
    keep("m", "batch")
    with Cache(ROOM).open("m") as disk:
        found = disk.find("frames", ["batch"], ["b", "a"])
        assert disk.find("frames", ["batch"], ["a", "c"]) is None
        assert disk.find("means", ["batch"], ["a"]) is None
        assert disk.find("frames", ["other"], ["a"]) is None
    assert [torch.equal(*pair) for pair in zip(found, (FRAMES["b"], FRAMES["a"]), strict=True)]
    assert [path.name[:7] for path in shards(folder)] == ["frames-"]


def test_nothing_is_written_without_a_limit(folder):
    with Cache().open("m") as disk:
        assert disk is None
    assert not folder.exists()


@pytest.mark.parametrize("other", [("n",), ("m", "cuda")], ids=["weights", "runtime"])
def test_states_of_another_model_or_runtime_are_others(other):
    keep("m", "batch")
    with Cache(ROOM).open(*other) as disk:
        assert disk.find("frames", ["batch"], FRAMES) is None


def test_states_of_another_dtype_are_others():
    keep("m", "batch")
    with Cache(ROOM, "float16").open("m") as disk:
        assert disk.find("frames", ["batch"], FRAMES) is None


def test_waveforms_are_told_apart_by_their_samples():
    wave = torch.randn(100)
    changed = wave.clone()
    changed[50] += 1e-6
    assert name_of(wave) == name_of(wave.clone())
    assert len({name_of(wave), name_of(changed), name_of(wave[:-1])}) == 3


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)


def _blank(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [_cut, _flip, _blank])
def test_damaged_shard_is_thrown_away_and_made_again(damage, folder):
    keep("m", "batch")
    (path,) = shards(folder)
    damage(path)
    assert kept("m", "batch") == [False]
    assert not path.exists()
    keep("m", "batch")
    assert kept("m", "batch") == [True]


def test_limit_holds_and_the_one_used_longest_ago_goes(folder):
    paths: dict[str, Path] = {}
    for age, model in enumerate("mno"):
        keep(model, "batch")
        (paths[model],) = {*shards(folder)} - {*paths.values()}
        os.utime(paths[model], (age, age))
    assert kept("m", "batch") == [True]  # which makes it the one used last
    limit = 1.1 * size(folder)
    keep("p", "batch", limit=limit)
    assert [paths[model].exists() for model in "mno"] == [True, False, True]
    assert kept("p", "batch") == [True]
    assert size(folder) <= limit


def test_means_go_after_all_frames(folder):
    with Cache(ROOM).open("m") as disk:
        disk.add("means", ["batch"], FRAMES)
    keep("m", "batch")
    means, frames = sorted(shards(folder), key=lambda path: not path.name.startswith("means"))
    os.utime(means, (0, 0))
    keep("n", "batch", limit=1.2 * size(folder))
    assert means.exists()
    assert not frames.exists()


def test_what_is_in_use_stays(folder):
    keep("m", "batch")
    limit = 1.5 * size(folder)
    with Cache(limit).open("m"):
        keep("n", "batch", limit=limit)
        assert kept("m", "batch") == [True]
        assert kept("n", "batch") == [False]
    keep("n", "batch", limit=limit)
    assert kept("n", "batch") == [True]
    assert len(shards(folder)) == 1


def test_shard_that_is_made_again_takes_no_room_twice(folder):
    keep("m", "batch")
    limit = 1.1 * size(folder)
    keep("m", "batch", limit=limit)
    with Cache(limit).open("m") as disk:
        disk.add("frames", ["batch"], {"b": FRAMES["b"]})
        assert disk.find("frames", ["batch"], ["b"]) is not None
    assert size(folder) < limit / 2


def test_nothing_is_removed_in_vain(folder):
    keep("m", "batch")
    keep("n", "batch", limit=size(folder) / 2)
    assert kept("m", "batch") == [True]


def test_disk_that_takes_no_more_keeps_nothing(folder, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    keep("m", "batch")
    assert [path for path in folder.glob("*/*") if path.is_file() and path.stat().st_size] == []
    assert kept("m", "batch") == [False]


def test_folder_that_cannot_be_written_keeps_nothing(folder):
    folder.parent.mkdir(parents=True)
    folder.write_text("a file is in the way")
    with Cache(ROOM).open("m") as disk:
        assert disk is None


def _work(seed: int, limit: float) -> None:
    with Cache(limit).open(f"model {seed % 2}") as disk:
        for batch in map(str, range(20)):
            if disk.find("frames", [batch], FRAMES) is None:
                disk.add("frames", [batch], FRAMES)


def test_processes_side_by_side_keep_the_limit_and_whole_shards(folder):
    keep("m", "batch")
    limit = 30 * size(folder)
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_work, args=(seed, limit)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert size(folder) <= limit
    whole = kept("model 0", *map(str, range(20))) + kept("model 1", *map(str, range(20)))
    assert sum(whole) == len(shards(folder)) > 20
    assert not list(folder.glob("*/.*.tmp"))


@pytest.mark.parametrize("wrong", [{"limit": -1}, {"dtype": "float8"}, {"dtype": "float"}])
def test_settings_that_do_not_exist_are_refused(wrong):
    with pytest.raises(InputError, match="cache"):
        Cache(**wrong)
