"""Encoders for elsewhere. What is exported runs without this package.

A file here is a target and its name, with hyphens, what `--to` takes. It has `write(encoder,
folder)`, which fills a folder and says how what lies in it is run, and NEEDS where writing needs
more than this package does. Files that begin with an underscore are shared parts. Loads no torch by
itself.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import InputError, closest

if TYPE_CHECKING:
    from encoders.exports._usage import Usage
    from encoders.model import Encoder

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """All targets, sorted."""
    files = (file.stem for file in FOLDER.glob("*.py") if not file.stem.startswith("_"))
    return sorted(name.replace("_", "-") for name in files)


def check(target: str) -> str:
    """The target itself, where there is one.

    Raises:
        InputError: there is none of that name.
    """
    if target not in names():
        raise InputError(
            f"unknown target {target!r}{closest(target, names())}; expected {', '.join(names())}"
        )
    return target


def write(encoder: Encoder, target: str, folder: Path) -> Usage:
    """Fill an empty folder with the encoder as that target takes it.

    Raises:
        InputError: there is no such target, or a library that it needs is missing.
        Unsupported: the target cannot express the encoder.
    """
    module = importlib.import_module(f"encoders.exports.{check(target).replace('-', '_')}")
    try:
        usage: Usage = module.write(encoder, folder)
    except ImportError as error:
        raise InputError(
            f"--to {target} needs a library that is missing ({error}); install it with "
            f"{getattr(module, 'NEEDS', module.INSTALL)}"
        ) from error
    return usage
