"""Corpora: the built-in one, and the layouts that are read as they lie on disk."""

from __future__ import annotations

from pathlib import Path

from core.errors import InputError, closest
from encoders.corpora.base import Corpus, Item
from encoders.corpora.folder import audio_files, open_folder
from encoders.corpora.fsdd import is_fsdd, open_fsdd
from encoders.corpora.lexicon import LEXICON, with_phones
from encoders.corpora.librispeech import is_librispeech, is_subset, open_librispeech
from encoders.corpora.manifest import open_manifest

__all__ = ["Corpus", "Item", "open_corpus"]

BUILTIN = "builtin"


def open_corpus(text: str, subset: str | None = None, lexicon: str | None = None) -> Corpus:
    """The corpus that the text names: `builtin`, a CSV manifest, or a folder of audio.

    A folder is read as LibriSpeech (its root or one subset), as the Free Spoken Digit Dataset, or
    else as plain files. `subset` names a part of LibriSpeech. `lexicon` is a file that gives texts
    their phones; one of the name `lexicon.txt` in the folder, or beside the manifest, is taken by
    itself.

    Raises:
        InputError: there is no such path or subset, it holds no audio, or a file is corrupt.
    """
    corpus = _open(text, subset)
    folder = Path(text).expanduser().absolute()
    beside = (folder if folder.is_dir() else folder.parent) / LEXICON
    if lexicon is None and (text == BUILTIN or not beside.is_file()):
        return corpus
    return with_phones(corpus, Path(lexicon).expanduser() if lexicon else beside)


def _open(text: str, subset: str | None) -> Corpus:
    if text == BUILTIN:
        _refuse_subset(text, subset)
        from encoders.corpora.builtin import open_builtin

        return open_builtin()
    path = Path(text).expanduser().absolute()
    if not path.exists():
        raise InputError(
            f"data {text!r} does not exist{closest(text, [BUILTIN])}; expected {BUILTIN!r}, a CSV "
            "manifest or a folder of audio"
        )
    if path.is_dir():
        return _open_folder(path, subset)
    _refuse_subset(text, subset)
    if path.suffix.lower() != ".csv":
        raise InputError(f"data {text!r} is a file but no .csv; give a manifest or a folder")
    return open_manifest(path)


def _open_folder(path: Path, subset: str | None) -> Corpus:
    if is_librispeech(path):
        return open_librispeech(path, subset)
    if not audio_files(path):
        return open_folder(path)  # says that it is empty, which matters more than the subset
    _refuse_subset(str(path), subset)
    if is_subset(path):
        return open_librispeech(path.parent, path.name)
    return open_fsdd(path) if is_fsdd(path) else open_folder(path)


def _refuse_subset(text: str, subset: str | None) -> None:
    if subset is not None:
        raise InputError(
            f"data {text!r} has no subsets, so {subset!r} names none; subsets are folders of "
            "LibriSpeech, such as test-other"
        )
