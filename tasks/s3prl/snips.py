"""Audio SNIPS with slot labels: the reader that s3prl's `ctc` recipe asks for by name.

s3prl's package on PyPI comes without it. A split's utterances are those of its speakers that
`all.iob.snips.txt` labels: `NAME BOS word ... EOS<tab>O slot ... O`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.errors import InputError
from tasks.s3prl.libriphone import Bucketed

LABELS = "all.iob.snips.txt"


class SnipsDataset(Bucketed):
    """Splits of SNIPS (path) by its settings `SPLIT_speakers`.

    Raises:
        InputError: a split has no labelled utterance of its speakers.
    """

    def __init__(
        self, split: Sequence[str], tokenizer: Any, bucket_size: int, path: str, **settings: Any
    ) -> None:
        lines = (Path(path) / LABELS).read_text(encoding="utf-8").splitlines()
        labels = dict(line.strip().split(" ", 1) for line in lines if line.strip())
        speakers = tuple(settings[f"{split[0]}_speakers"])
        labelled = [
            (str(file), tokenizer.encode(labels[file.stem]))
            for part in split
            for file in sorted((Path(path) / part).rglob("*.wav"))
            if file.stem in labels and file.stem.startswith(speakers)
        ]
        if not labelled:
            raise InputError(
                f"no .wav file in {' or '.join(split)} of {path} is labelled in {LABELS} and of a "
                f"speaker {', '.join(speakers)}; give SNIPS as s3prl prepares it"
            )
        super().__init__(labelled, bucket_size)
