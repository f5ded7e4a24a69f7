"""The Free Spoken Digit Dataset: `recordings/{digit}_{speaker}_{index}.wav` at 8 kHz.

The official test split is `index < 5` (github.com/Jakobovski/free-spoken-digit-dataset); the next
five of each digit and speaker are taken for dev, the others for train.
"""

from __future__ import annotations

import re
from pathlib import Path

from core.errors import InputError
from encoders.corpora.audio import read_header
from encoders.corpora.base import Corpus, Item, corpus_of_files
from encoders.corpora.folder import audio_files

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_NAME = re.compile(r"(\d)_(\w+)_(\d+)\.wav")


def is_fsdd(root: Path) -> bool:
    """Whether the folder, or its `recordings`, holds files named in that way."""
    return any(_NAME.fullmatch(file.name) for file in _recordings(root).glob("[0-9]_*_*.wav"))


def open_fsdd(root: Path) -> Corpus:
    """The recordings, labelled with `word` (the digit's name) and `speaker`.

    Raises:
        InputError: a file is corrupt or named otherwise.
    """
    folder = _recordings(root)
    files = audio_files(folder)
    headers = [read_header(file) for file in files]
    items = [_item(file, header.seconds) for file, header in zip(files, headers, strict=True)]
    return corpus_of_files("fsdd", folder, items, headers)


def _recordings(root: Path) -> Path:
    inner = root / "recordings"
    return inner if inner.is_dir() else root


def _item(file: Path, seconds: float) -> Item:
    match = _NAME.fullmatch(file.name)
    if not match:
        raise InputError(
            f"recording {str(file)!r} is not named {{digit}}_{{speaker}}_{{index}}.wav as the "
            "others are; rename or remove it"
        )
    digit, speaker, index = match.groups()
    labels = {"word": DIGITS[int(digit)], "speaker": speaker}
    return Item(file.name, seconds, labels, _split(int(index)), file)


def _split(index: int) -> str:
    return "test" if index < 5 else "dev" if index < 10 else "train"
