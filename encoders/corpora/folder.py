"""Any folder of audio files: searched to the bottom, in sorted order, without labels.

Without labels there is nothing to train on, so every utterance is of the split `test`.
"""

from __future__ import annotations

import os
from pathlib import Path

from core.errors import InputError
from encoders.corpora.audio import SUFFIXES, read_header
from encoders.corpora.base import Corpus, Item, corpus_of_files


def open_folder(root: Path) -> Corpus:
    """The audio files under that folder; an item's key is its path below `root`.

    Raises:
        InputError: a folder cannot be read, there is no audio file, or one is corrupt.
    """
    files = audio_files(root)
    if not files:
        raise InputError(
            f"folder {str(root)!r} holds no audio files; expected {', '.join(SUFFIXES)}, directly "
            "or in folders below"
        )
    headers = [read_header(file) for file in files]
    items = [
        Item(file.relative_to(root).as_posix(), header.seconds, path=file)
        for file, header in zip(files, headers, strict=True)
    ]
    return corpus_of_files(root.name, root, items, headers)


def audio_files(root: Path) -> list[Path]:
    """All audio files under `root`, sorted by path; hidden ones are passed over."""

    def refuse(error: OSError) -> None:
        raise InputError(f"folder {error.filename!r} cannot be read: {error.strerror}") from error

    return sorted(
        Path(folder, name)
        for folder, _, names in os.walk(root, onerror=refuse)
        for name in names
        if name.lower().endswith(SUFFIXES) and not name.startswith(".")
    )
