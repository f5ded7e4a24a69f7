"""`bench export`, `verify`, `push` and `card`: models on their way out."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from bench import cards
from core.errors import InputError
from encoders import card, exports, store

if TYPE_CHECKING:
    from encoders.exports._parity import Compared
    from encoders.exports._usage import Usage


def export(model: str, target: str, out: Path, licence: str | None) -> Iterator[str]:
    """Write a model as the target takes it, lines to print on the way.

    The folder appears when what lies in it gave the encoder's hidden states, in an interpreter
    without this package.

    Raises:
        InputError: there is no such model or target, it cannot express the model, or does not run.
        Differs: the hidden states are others.
    """
    from encoders.check import tolerance
    from encoders.exports._parity import compare

    exports.check(target)
    encoder = store.load(model)
    with store.replacing(out) as made:
        usage = exports.write(encoder, target, made)
        rows = compare(encoder, usage, made)
        most = tolerance(encoder.spec)
        table = [_HEADER, *(_row(row, most) for row in rows)]
        yield from table
        if not all(row.difference <= most for row in rows):
            raise Differs(f"the hidden states differ by more than {most:g} of their level")
        text = _card(model, encoder.spec, usage, licence, "\n".join(table))
        (made / card.FILE).write_text(text, encoding="utf-8")
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    yield f"saved in {out}, {size:,} bytes; {card.FILE} there says how to run it"
    if usage.note:
        yield f"note: {usage.note}"


class Differs(ArithmeticError):
    """What was exported computes something else."""


_HEADER = f"{'utterances':>10} {'longest':>9} {'frames':>7} {'difference':>11} {'at most':>8}"


def _row(row: Compared, most: float) -> str:
    verdict = "" if row.difference <= most else "  differs"
    return (
        f"{len(row.samples):>10} {max(row.samples) / 16_000:>7.3f} s {row.frames:>7} "
        f"{row.difference:>11.1e} {most:>8.0e}{verdict}"
    )


def _card(model: str, spec: object, usage: Usage, licence: str | None, table: str) -> str:
    found = cards.known(model, licence)
    code = (
        "# waveforms: (batch, samples), float32 at 16 kHz, 0 behind their lengths (batch,), int64\n"
        f"{usage.code}\n# states: (layers + 1, batch, frames, dim); frames: valid ones (batch,)"
    )
    checked = (
        "## Checked\n\nAgainst the model that it was made from; a difference is that of the frame "
        f"where it is largest, as a fraction of the state's level.\n\n```\n{table}\n```"
    )
    snippet = card.Snippet(code, usage.install, usage.note)
    return card.write(spec, found.origin, found.results, snippet, checked)  # type: ignore[arg-type]


def verify(folder: Path) -> tuple[str, bool]:
    """What to tell of a saved model's hidden states, and whether they are what they were.

    Raises:
        InputError: the folder holds no sound model, or no numbers to check it by.
    """
    differences, most = store.verify(folder)
    lines = [f"{'state':>5} {'difference':>11} {'at most':>8}"]
    lines += [f"{i:>5} {value:>11.1e} {most:>8.0e}" for i, value in enumerate(differences)]
    same = all(value <= most for value in differences)
    told = "the model is what was saved" if same else "the model is not what was saved"
    return "\n".join([*lines, told]), same


def describe(folder: Path, licence: str | None) -> Path:
    """Write the card of a saved model anew, with all that its run measured; where it is.

    Raises:
        InputError: the folder holds no model, or cannot be written.
    """
    store.read_spec(folder)
    return cards.refresh(folder, cards.known(str(folder), licence))


def push(folder: Path, to: str, licence: str | None, private: bool) -> str:
    """Upload a saved model or an export to the hub; its address.

    A saved model is verified first, and its card says how to load it from there.

    Raises:
        InputError: it is no `hf:USER/NAME`, huggingface_hub is missing, the model is not what was
            saved, its source's licence is not known, or the hub refuses.
    """
    source, _, name = to.partition(":")
    if source != "hf" or name.count("/") != 1 or not all(name.split("/")):
        raise InputError(f"{to!r} is no place on the hub; expected hf:USER/NAME")
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as error:
        raise InputError("bench push needs huggingface_hub: pip install huggingface_hub") from error
    with TemporaryDirectory() as scratch:
        copy = Path(scratch) / "model"
        _prepare(folder, copy, to, licence)
        api = HfApi()
        try:
            url = api.create_repo(name, private=private, exist_ok=True)
            api.upload_folder(repo_id=name, folder_path=copy)
        except (HfHubHTTPError, OSError, ValueError) as error:
            raise InputError(f"the hub takes no {to}: {_first(error)}") from error
    return str(url)


def _prepare(folder: Path, copy: Path, to: str, licence: str | None) -> None:
    """A copy of a folder that may be published, its card brought up to date."""
    for path in folder.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise InputError(f"{path} is a link or no regular file, which `push` sends nothing of")
    exported = not (folder / store.SPEC).is_file() and card.is_ours(folder / card.FILE)
    if not exported and not verify(folder)[1]:
        raise InputError(f"{folder} is not what was saved; `bench verify {folder}` shows where")
    found = cards.known(str(folder), licence)
    if not found.origin.licence:
        raise InputError(
            "the licence of the source's weights is not known; give it as --licence, such as "
            "apache-2.0, mit or cc-by-sa-3.0"
        )
    shutil.copytree(folder, copy)
    if exported:
        text = (copy / card.FILE).read_text(encoding="utf-8")
        (copy / card.FILE).write_text(card.licensed(text, found.origin.licence), encoding="utf-8")
    else:
        cards.refresh(copy, found, to)


def _first(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
