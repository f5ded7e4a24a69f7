"""LibriSpeech with phone labels by lexicon: the reader that s3prl's `ctc` recipe asks for by name.

s3prl's package on PyPI comes without `downstream/ctc/corpus`. Same utterances, labels, order and
batches: utterances by falling number of phones, a batch of neighbours from a random place on.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from core.errors import InputError

Labelled = tuple[str, list[int]]


class Bucketed(Dataset[Any]):
    """Labelled files by falling length of the label; an index gives one, or a bucket from there."""

    def __init__(self, labelled: Sequence[Labelled], bucket_size: int) -> None:
        self.labelled = sorted(labelled, key=lambda pair: len(pair[1]), reverse=True)
        self.bucket_size = bucket_size

    def __len__(self) -> int:
        return len(self.labelled)

    def __getitem__(self, index: int) -> Labelled | list[Labelled]:
        if self.bucket_size <= 1:
            return self.labelled[index]
        start = max(0, min(len(self) - self.bucket_size, index))
        return self.labelled[start : start + self.bucket_size]


class LibriPhoneDataset(Bucketed):
    """Subsets of LibriSpeech (path) with the phones of their words.

    Raises:
        InputError: a subset has no audio, or a word stands in no lexicon.
    """

    def __init__(
        self,
        split: Sequence[str],
        tokenizer: Any,
        bucket_size: int,
        path: str,
        lexicon: Sequence[str],
        **_: Any,
    ) -> None:
        phones = read_lexicons(lexicon)
        labelled = []
        for subset in split:
            texts = read_texts(Path(path) / subset)
            for file in sorted((Path(path) / subset).rglob("*.flac")):
                words = [_phones(word, phones, lexicon) for word in texts[file.stem].split()]
                labelled.append((str(file), tokenizer.encode(" ".join(words))))
        if not labelled:
            raise InputError(f"no .flac file in {' or '.join(split)} of {path}; give LibriSpeech")
        super().__init__(labelled, bucket_size)


def read_lexicons(files: Sequence[str]) -> dict[str, str]:
    """The first pronunciation of every word in files with lines `WORD PHONE PHONE ...`."""
    phones: dict[str, str] = {}
    for file in files:
        for line in Path(file).read_text(encoding="utf-8").splitlines():
            word, *spoken = line.split() or [""]
            phones.setdefault(word, " ".join(spoken))
    return phones


def read_texts(subset: Path) -> dict[str, str]:
    """The transcript of every utterance of a subset of LibriSpeech."""
    texts = {}
    for file in subset.rglob("*.trans.txt"):
        for line in file.read_text(encoding="utf-8").splitlines():
            name, _, text = line.partition(" ")
            texts[name] = text
    return texts


def _phones(word: str, phones: dict[str, str], lexicon: Sequence[str]) -> str:
    if word not in phones:
        raise InputError(f"word {word!r} stands in none of {', '.join(lexicon)}; add it there")
    return phones[word]
