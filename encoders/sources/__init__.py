"""Checkpoints of other libraries, by references such as `hf:facebook/hubert-base-ls960`.

A file here is a source and its name what stands in front of the colon. It has `read(place)`, which
gives a spec and tensors by the names that `build(spec)` has, and `PLACE`, what may stand behind the
colon. Files that begin with an underscore are shared parts. Loads no torch by itself.
"""

from __future__ import annotations

import ast
import importlib
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import InputError
from core.spec import ModelSpec
from encoders.files import one_line

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """All sources, sorted."""
    return sorted(file.stem for file in FOLDER.glob("*.py") if not file.stem.startswith("_"))


def usage(name: str) -> tuple[str, str]:
    """How a source is referred to and what it is, from its file without importing it."""
    tree = ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))
    place = next(
        ast.literal_eval(line.value)
        for line in tree.body
        if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "PLACE"
    )
    return f"{name}:{place}", (ast.get_docstring(tree) or "").split("\n", 1)[0]


def split(ref: str | Path) -> tuple[str, str] | None:
    """The source and the place that a reference names, None for any other reference."""
    source, colon, place = str(ref).partition(":")
    return (source, place) if colon and source in names() else None


def read(ref: str) -> tuple[ModelSpec, dict[str, Tensor]]:
    """Spec and tensors of a checkpoint, the tensors as they lie on the disk.

    Raises:
        InputError: there is no such checkpoint, or it is not what its source expects.
    """
    source, place = split(ref) or (ref, "")
    if not place:
        raise InputError(
            f"model {ref!r} names no checkpoint; expected "
            f"{', '.join(usage(name)[0] for name in names())}"
        )
    try:
        return importlib.import_module(f"encoders.sources.{source}").read(place)
    except InputError:
        raise
    except (RuntimeError, ValueError, TypeError, LookupError, ArithmeticError) as error:
        # From building what the settings describe: sizes that are each sound but do not fit.
        raise InputError(f"model {ref!r} describes no encoder: {one_line(error)}") from error


@lru_cache(maxsize=8)
def read_spec(ref: str) -> ModelSpec:
    """The spec alone, kept: a sweep asks for it again and again.

    Raises:
        InputError: as `read`.
    """
    return read(ref)[0]
