"""Lexicons: phones for those texts whose words they have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from core.errors import InputError
from encoders.corpora import open_corpus

LEXICON = ";;; a comment\nTEN  T EH1 N\nTEN(2)  T IH1 N\n\nten T AX N\nMEN M EH1 N\n"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = ["path,split,text,phones", "0.wav,train,ten men,", "1.wav,dev,ten cows,",
            "2.wav,test,ten men,X Y", "3.wav,test,,"]  # fmt: skip
    for number in range(4):
        soundfile.write(tmp_path / f"{number}.wav", np.full(8_000, 0.1), 16_000)
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "table.csv"


def write(folder: Path, text: str, name: str = "words.txt") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_texts_of_known_words_get_phones(table: Path) -> None:
    plain = open_corpus(str(table))
    made = open_corpus(str(table), lexicon=write(table.parent, LEXICON))
    phones = [item.labels.get("phones") for item in made.items]
    assert phones == ["T EH1 N M EH1 N", None, "X Y", None]
    assert made.notes == (
        "1 of 2 utterances have no phones: words that words.txt lacks, such as 'cows'",
    )
    assert made.fingerprint != plain.fingerprint
    changed = open_corpus(str(table), lexicon=write(table.parent, LEXICON + "COWS K AW1 Z\n"))
    assert changed.fingerprint != made.fingerprint
    assert not changed.notes


def test_a_lexicon_of_the_usual_name_is_taken_by_itself(table: Path) -> None:
    write(table.parent, LEXICON, "lexicon.txt")
    assert open_corpus(str(table)).items[0].labels["phones"] == "T EH1 N M EH1 N"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("TEN\n", "line 1 of lexicon"),
        ("COWS K AW1 Z\n", "no utterance of corpus 'table'; it lacks 'ten'"),
        ("", "no utterance of corpus 'table'; it lacks 'ten'"),
    ],
)
def test_bad_lexicons_are_refused(table: Path, text: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        open_corpus(str(table), lexicon=write(table.parent, text))


def test_a_missing_lexicon_is_named(table: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.txt' cannot be read"):
        open_corpus(str(table), lexicon="gone.txt")
