"""Where SUPERB's corpora are expected below one root, looked at before s3prl starts.

Layouts are those that s3prl's `downstream/docs/superb.md` prepares.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import soundfile

from core.errors import InputError
from tasks.s3prl.recipes import SETTINGS, Recipe

LIBRISPEECH = ("train-clean-100", "dev-clean", "test-clean")


def locate(recipe: Recipe, root: Path, checkout: Path | None = None) -> dict[str, Any]:
    """The settings of a recipe that are paths, by dotted key.

    Raises:
        InputError: a file or folder is not where it is expected.
    """
    needed(root, f"the data root of {recipe.task}")
    inner = "corpus." if recipe.downstream == "ctc" else "datarc."
    found = LOCATORS[recipe.task](root)
    placed = {key if "." in key else inner + key: value for key, value in found.items()}
    vocabulary = _vocabulary(recipe.task, checkout)
    return {
        f"downstream_expert.{key}": [str(part) for part in value]
        if isinstance(value, list)
        else str(value)
        for key, value in {**placed, **vocabulary}.items()
    }


def needed(path: Path, purpose: str) -> Path:
    """The path itself, where there is something.

    Raises:
        InputError: there is nothing.
    """
    if not path.exists():
        raise InputError(f"{path} is missing, which is {purpose}; docs/superb.md has the layout")
    return path


def write_lengths(libri_root: Path, subsets: Iterable[str], folder: Path) -> None:
    """The tables of lengths that the asr recipe forms its batches by, the longest first."""
    folder.mkdir(parents=True, exist_ok=True)
    for subset in subsets:
        files = sorted((libri_root / subset).rglob("*.flac"))
        rows = sorted(((soundfile.info(f).frames, f) for f in files), key=lambda row: -row[0])
        with (folder / f"{subset}.csv").open("w", newline="", encoding="utf-8") as out:
            table = csv.writer(out)
            table.writerow(("", "file_path", "length", "label"))
            for index, (length, file) in enumerate(rows):
                table.writerow((index, file.relative_to(libri_root), length, ""))


def _vocabulary(task: str, checkout: Path | None) -> dict[str, Path]:
    """The symbols of the recipes that spell, ours or the checkout's."""
    key, ours, theirs = {
        "pr": ("text.vocab_file", "phones.txt", "ctc/vocab/phoneme.txt"),
        "sf": ("text.vocab_file", "characters.txt", "ctc/vocab/character.txt"),
        "asr": ("datarc.dict_path", "letters.txt", "asr/char.dict"),
    }.get(task, ("", "", ""))
    if not key:
        return {}
    if checkout is None:
        return {key: SETTINGS / ours}
    return {key: needed(checkout / "s3prl" / "downstream" / theirs, "s3prl's own vocabulary")}


def _librispeech(root: Path, task: str) -> Path:
    for subset in LIBRISPEECH:
        needed(root / "LibriSpeech" / subset, f"a part of LibriSpeech that {task} reads")
    return root / "LibriSpeech"


def _pr(root: Path) -> dict[str, Any]:
    main = needed(
        root / "lexicon" / "librispeech-lexicon-200k-g2p.txt",
        "the lexicon of pr (s3prl/g2p on huggingface.co)",
    )
    others = main.with_name("librispeech-lexicon-allothers-g2p.txt")
    lexicons = [main, others] if others.is_file() else [main]
    return {"path": _librispeech(root, "pr"), "lexicon": lexicons}


def _asr(root: Path) -> dict[str, Any]:
    return {"libri_root": _librispeech(root, "asr")}


def _ks(root: Path) -> dict[str, Any]:
    train, test = root / "speech_commands_v0.01", root / "speech_commands_test_set_v0.01"
    needed(train / "_background_noise_", "a part of Speech Commands that ks takes silence from")
    needed(test / "_silence_", "a part of the test set of Speech Commands")
    return {"speech_commands_root": train, "speech_commands_test_root": test}


def _qbe(root: Path) -> dict[str, Any]:
    database = root / "quesst14Database"
    for name in ("utterances", "dev", "eval"):
        needed(database / "scoring" / f"language_key_{name}.lst", "a list of QUESST 2014")
    return {"dataset_root": database}


def _voxceleb(root: Path, task: str) -> Path:
    for part in ("dev", "test"):
        needed(root / "VoxCeleb1" / part / "wav", f"a part of VoxCeleb1 that {task} reads")
    return root / "VoxCeleb1"


def _sid(root: Path) -> dict[str, Any]:
    corpus = _voxceleb(root, "sid")
    named = corpus / "veri_test_class.txt"  # s3prl's name for it; VoxCeleb's is the other one
    split = named if named.is_file() else corpus / "iden_split.txt"
    return {"file_path": corpus, "meta_data": needed(split, "the split of sid, by VoxCeleb")}


def _sv(root: Path) -> dict[str, Any]:
    corpus = _voxceleb(root, "sv")
    named = corpus / "voxceleb1_test_v2.txt"
    trials = named if named.is_file() else corpus / "veri_test2.txt"
    needed(trials, "the trials of sv, by VoxCeleb")
    return {"file_path": corpus, "test_meta_data": trials, "dev_meta_data": trials}


def _sd(root: Path) -> dict[str, Any]:
    folders = {part: root / "diarization" / part for part in ("train", "dev", "test")}
    for folder in folders.values():
        for name in ("wav.scp", "segments", "utt2spk", "reco2dur"):
            needed(folder / name, "a list of sd, by prepare_diarization.py of LibriMix")
    needed(folders["test"] / "rttm", "who spoke when in the test set of sd")
    return {f"loaderrc.{part}_dir": folder for part, folder in folders.items()}


def _ic(root: Path) -> dict[str, Any]:
    corpus = root / "fluent_speech_commands_dataset"
    for part in ("train", "valid", "test"):
        needed(corpus / "data" / f"{part}_data.csv", "a list of Fluent Speech Commands")
    return {"file_path": corpus}


def _sf(root: Path) -> dict[str, Any]:
    corpus = root / "SNIPS"
    for name in ("train", "valid", "test", "all.iob.snips.txt", "slots.txt"):
        needed(corpus / name, "a part of Audio SNIPS as s3prl prepares it")
    return {"path": corpus, "text.slots_file": corpus / "slots.txt"}


def _er(root: Path) -> dict[str, Any]:
    lists = root / "IEMOCAP" / "meta_data"
    for session in range(1, 6):
        for part in ("train", "test"):
            needed(
                lists / f"Session{session}" / f"{part}_meta_data.json",
                "a list of IEMOCAP, by s3prl's downstream/emotion/IEMOCAP_preprocess.py",
            )
    return {"root": root / "IEMOCAP", "meta_data": lists}


LOCATORS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "pr": _pr, "asr": _asr, "ks": _ks, "qbe": _qbe, "sid": _sid,
    "sv": _sv, "sd": _sd, "ic": _ic, "sf": _sf, "er": _er,
}  # fmt: skip
