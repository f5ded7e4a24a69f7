"""A user's own data as a CSV: `path`, `split`, any labels, and `TASK_split` where a task's differ.

    path,split,label
    audio/yes_01.wav,train,yes

Paths are relative to the CSV. A label that a row leaves empty is one that the utterance has not.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path

from core import plugins
from core.errors import InputError, closest
from encoders.corpora.audio import Header, read_header
from encoders.corpora.base import LABELS, SPLITS, Corpus, Item, corpus_of_files


def columns() -> tuple[str, ...]:
    """What the header may name. `TASK_split` is the split of an utterance for that task alone."""
    own = [f"{task}_split" for task in plugins.names("task")]
    return ("path", "split", *LABELS, *own)


def open_manifest(table: Path) -> Corpus:
    """The utterances that the CSV lists, in its order; an item's key is its path from the CSV.

    Raises:
        InputError: columns are unknown, repeated or missing, a split is none, or a file is missing,
            corrupt or listed twice.
    """
    pairs = [_utterance(table, line, row) for line, row in _rows(table)]
    if not pairs:
        raise InputError(f"manifest {str(table)!r} has a header but no rows; list some files")
    items = [item for item, _ in pairs]
    headers = [header for _, header in pairs]
    return corpus_of_files(table.stem, table.parent, items, headers, also=[table])


def _rows(table: Path) -> list[tuple[int, dict[str, str]]]:
    """The rows as column -> cell, with their line numbers."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            lines = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"manifest {str(table)!r} cannot be read ({error}); expected a CSV in UTF-8"
        ) from error
    header = lines[0][1] if lines else []
    _check_header(table, header)
    for line, cells in lines[1:]:
        if len(cells) != len(header):
            raise _wrong(table, line, f"has {len(cells)} cells; expected {len(header)}")
    return [(line, dict(zip(header, cells, strict=True))) for line, cells in lines[1:]]


def _check_header(table: Path, header: list[str]) -> None:
    known = columns()
    for column in header:
        if column not in known:
            raise InputError(
                f"manifest {str(table)!r} has an unknown column {column!r}"
                f"{closest(column, known)}; expected path, split and any of {', '.join(LABELS)}, "
                "TASK_split"
            )
        if header.count(column) > 1:
            raise InputError(f"manifest {str(table)!r} has column {column!r} twice; drop one")
    for column in ("path", "split"):
        if column not in header:
            raise InputError(
                f"manifest {str(table)!r} has no column {column!r}; its first line must name path, "
                f"split and any of {', '.join(LABELS)}"
            )


def _utterance(table: Path, line: int, row: dict[str, str]) -> tuple[Item, Header]:
    for column, cell in row.items():
        if column.endswith("split") and cell not in SPLITS and (cell or column == "split"):
            hint = closest(cell, SPLITS)
            raise _wrong(table, line, f"has {column} {cell!r}{hint}; expected {', '.join(SPLITS)}")
    if not row["path"]:
        raise _wrong(table, line, "has no path; name an audio file")
    key = os.path.normpath(row["path"])
    try:
        header = read_header(table.parent / key)
    except InputError as error:
        raise _wrong(table, line, f"names a file that cannot be used: {error}") from error
    labels = {name: cell for name, cell in row.items() if cell and name not in ("path", "split")}
    return Item(key, header.seconds, labels, row["split"], table.parent / key), header


def _wrong(table: Path, line: int, what: str) -> InputError:
    return InputError(f"line {line} of manifest {str(table)!r} {what}")
