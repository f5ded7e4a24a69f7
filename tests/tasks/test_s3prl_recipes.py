"""The recipes' settings are SUPERB's, and what they read is looked for before s3prl starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch

from core.errors import InputError
from results.superb import CONVENTIONS, METRICS
from tasks.s3prl import data, libriphone, recipes, snips
from tasks.s3prl.recipes import RECIPES, SETTINGS, flatten, settings

#: task: updates, accumulated batches, utterances of a batch, learning rate, updates between tests.
PUBLISHED = {
    "pr": (100_000, 2, 16, 1e-2, 1000), "asr": (200_000, 1, 32, 1e-4, 2000),
    "ks": (200_000, 1, 32, 1e-4, 5000), "sid": (200_000, 4, 8, 1e-4, 5000),
    "sv": (200_000, 5, 10, 1e-4, 10_000), "sd": (30_000, 4, 8, 1e-4, 500),
    "ic": (200_000, 1, 32, 1e-4, 5000), "sf": (200_000, 1, 32, 1e-4, 2000),
    "er": (30_000, 8, 4, 1e-4, 1000),
}  # fmt: skip

#: What every corpus has to have: files, and folders.
LAYOUT = (
    [f"LibriSpeech/{name}/" for name in data.LIBRISPEECH]
    + ["lexicon/librispeech-lexicon-200k-g2p.txt"]
    + ["speech_commands_v0.01/_background_noise_/", "speech_commands_test_set_v0.01/_silence_/"]
    + [f"quesst14Database/scoring/language_key_{n}.lst" for n in ("utterances", "dev", "eval")]
    + [f"VoxCeleb1/{n}" for n in ("dev/wav/", "test/wav/", "iden_split.txt", "veri_test2.txt")]
    + [f"diarization/{part}/{name}" for part in ("train", "dev", "test")
       for name in ("wav.scp", "segments", "utt2spk", "reco2dur", "rttm")]
    + [f"fluent_speech_commands_dataset/data/{p}_data.csv" for p in ("train", "valid", "test")]
    + [f"SNIPS/{n}" for n in ("train/", "valid/", "test/", "all.iob.snips.txt", "slots.txt")]
    + [f"IEMOCAP/meta_data/Session{n}/{p}_meta_data.json" for n in range(1, 6)
       for p in ("train", "test")]
)  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in LAYOUT:
        path = tmp_path / name
        if name.endswith("/"):
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return tmp_path


def test_ten_recipes_report_superbs_metrics() -> None:
    assert set(RECIPES) == set(CONVENTIONS["leaderboard"].tasks)
    assert {m.name for recipe in RECIPES.values() for m in recipe.metrics} == set(METRICS)


@pytest.mark.parametrize("task", PUBLISHED)
def test_settings_are_those_of_superb(task: str) -> None:
    whole = settings(RECIPES[task])
    runner, batches = whole["runner"], dict(flatten(whole["downstream_expert"]))
    names = ("corpus.batch_size", "datarc.train_batch_size", "datarc.batch_size",
             "loaderrc.train_batchsize")  # fmt: skip
    size = next(batches[name] for name in names if name in batches)
    found = (runner["total_steps"], runner["gradient_accumulate_steps"], size,
             whole["optimizer"]["lr"], runner["eval_step"])  # fmt: skip
    assert found == PUBLISHED[task]
    assert runner["total_steps"] % runner["save_step"] == 0  # or there is no last checkpoint
    assert runner["max_keep"] > 1  # or a kill while one is written leaves none
    assert RECIPES[task].workers in dict(flatten(whole))


@pytest.mark.parametrize("task", RECIPES)
def test_every_path_of_the_settings_is_filled_in(task: str, root: Path) -> None:
    whole = dict(flatten(settings(RECIPES[task])))
    empty = {key for key, value in whole.items() if value is None}
    found = data.locate(RECIPES[task], root)
    free = {"bucket_file", "frame_shift", "train_meta_data", "max_workers", "silence_frame"}
    assert {key for key in empty if key.rpartition(".")[2] not in free} <= set(found)
    assert set(found) <= set(whole)
    for value in found.values():
        for path in value if isinstance(value, list) else [value]:
            assert Path(path).exists()


@pytest.mark.parametrize(("task", "missing"), [
    ("pr", "lexicon/librispeech-lexicon-200k-g2p.txt"), ("asr", "LibriSpeech/dev-clean"),
    ("ks", "speech_commands_test_set_v0.01/_silence_"),
    ("qbe", "quesst14Database/scoring/language_key_eval.lst"),
    ("sid", "VoxCeleb1/iden_split.txt"), ("sv", "VoxCeleb1/veri_test2.txt"),
    ("sd", "diarization/test/rttm"), ("sf", "SNIPS/slots.txt"),
    ("ic", "fluent_speech_commands_dataset/data/valid_data.csv"),
    ("er", "IEMOCAP/meta_data/Session5/test_meta_data.json"),
])  # fmt: skip
def test_a_missing_file_is_named_with_its_place(task: str, missing: str, root: Path) -> None:
    path = root / missing
    path.rmdir() if path.is_dir() else path.unlink()
    with pytest.raises(InputError, match=f"{path} is missing"):
        data.locate(RECIPES[task], root)


def test_vocabularies_are_as_large_as_s3prls() -> None:
    phones = (SETTINGS / "phones.txt").read_text().split()
    letters = [line.split(" ")[0] for line in (SETTINGS / "letters.txt").read_text().splitlines()]
    characters = (SETTINGS / "characters.txt").read_text().split("\n")[:-1]
    assert [len(set(symbols)) for symbols in (phones, letters, characters)] == [71, 28, 28]
    assert characters[0] == " "
    assert letters[0] == "|"


@pytest.mark.parametrize(("text", "expected"), [
    ("a.lr=1e-3", ("a.lr", 1e-3)), ("config.runner.eval_step=5", ("runner.eval_step", 5)),
    ("a.b=[1, 2]", ("a.b", [1, 2])), ("a=x=y", ("a", "x=y")), ("a=true", ("a", True)),
    ("a=cosine", ("a", "cosine")), ("a=", ("a", None)),
])  # fmt: skip
def test_overrides_are_read_as_yaml(text: str, expected: tuple[str, Any]) -> None:
    assert recipes.read_override(text) == expected


@pytest.mark.parametrize(("changes", "said"), [
    ({"runner.eval_stop": 5}, "did you mean 'runner.eval_step'"),
    ({"runner.eval_step": "often"}, "expected a number"),
    ({"downstream_expert.datarc.batch_size": 8}, "settings of pr"),
])  # fmt: skip
def test_overrides_that_no_recipe_has_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        recipes.check_overrides(changes, recipes.select("pr"))


def test_a_short_run_is_tested_and_saved() -> None:
    found = recipes.shortened(settings(RECIPES["ks"]), 700)
    assert found == {"runner.total_steps": 700, "runner.log_step": 100, "runner.eval_step": 700,
                     "runner.save_step": 700}  # fmt: skip


def test_unknown_tasks_are_refused_with_the_closest() -> None:
    assert [recipe.task for recipe in recipes.select("sid, pr,sid")] == ["sid", "pr"]
    with pytest.raises(InputError, match="unknown task 'asv'"):
        recipes.select("pr,asv")


def test_lengths_are_of_the_longest_first(tmp_path: Path) -> None:
    folder = tmp_path / "dev-clean" / "1" / "2"
    folder.mkdir(parents=True)
    for name, length in (("1-2-0", 300), ("1-2-1", 500)):
        soundfile.write(folder / f"{name}.flac", torch.zeros(length).numpy(), 16_000)
    data.write_lengths(tmp_path, ["dev-clean"], tmp_path / "lengths")
    assert (tmp_path / "lengths" / "dev-clean.csv").read_text().splitlines() == [
        ",file_path,length,label",
        "0,dev-clean/1/2/1-2-1.flac,500,",
        "1,dev-clean/1/2/1-2-0.flac,300,",
    ]


class Spelling:
    """A tokenizer whose labels can be read."""

    def encode(self, text: str) -> list[str]:
        return text.split()


def test_libriphone_reads_words_by_lexicon(tmp_path: Path) -> None:
    folder = tmp_path / "dev-clean" / "1" / "2"
    folder.mkdir(parents=True)
    for name in ("1-2-0", "1-2-1", "1-2-2"):
        (folder / f"{name}.flac").touch()
    (folder / "1-2.trans.txt").write_text("1-2-0 A\n1-2-1 A DOG A\n1-2-2 DOG\n")
    (tmp_path / "a.txt").write_text("A\tAH0\nDOG\tD AO1 G\nA\tEY1\n")
    arguments = (["dev-clean"], Spelling())
    lexicon = [str(tmp_path / "a.txt")]
    single = libriphone.LibriPhoneDataset(*arguments, 1, str(tmp_path), lexicon, name="libriphone")
    assert [single[i][1] for i in range(3)] == [["AH0", "D", "AO1", "G", "AH0"],
                                                ["D", "AO1", "G"], ["AH0"]]  # fmt: skip
    buckets = libriphone.LibriPhoneDataset(*arguments, 2, str(tmp_path), lexicon)
    assert [[len(label) for _, label in buckets[i]] for i in range(3)] == [[5, 3], [3, 1], [3, 1]]
    (tmp_path / "a.txt").write_text("A\tAH0\n")
    with pytest.raises(InputError, match="'DOG' stands in none of"):
        libriphone.LibriPhoneDataset(*arguments, 1, str(tmp_path), lexicon)
    with pytest.raises(InputError, match=r"no \.flac"):
        libriphone.LibriPhoneDataset(["test-clean"], Spelling(), 1, str(tmp_path), lexicon)


def test_snips_reads_the_speakers_of_a_split(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    for name in ("Ivy-1", "Amy-1", "Ivy-2"):
        (tmp_path / "train" / f"{name}.wav").touch()
    (tmp_path / snips.LABELS).write_text("Ivy-1 BOS A EOS\tO O O\nAmy-1 BOS B EOS\tO O O\n")
    given = {"train_speakers": ["Ivy"], "path": str(tmp_path)}
    found = snips.SnipsDataset(["train"], Spelling(), 1, **given)
    assert len(found) == 1
    assert found[0] == (str(tmp_path / "train" / "Ivy-1.wav"), ["BOS", "A", "EOS", "O", "O", "O"])
    with pytest.raises(InputError, match="of a speaker Joey"):
        snips.SnipsDataset(["train"], Spelling(), 1, path=str(tmp_path), train_speakers=["Joey"])
