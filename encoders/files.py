"""Reads files that anybody may have written. Whatever is wrong with one ends in one sentence.

Nothing here imports torch until tensors are read. No file can run code: pickles are read by torch's
own reader of tensors, numbers, text and containers alone. Links are followed, to regular files.
"""

from __future__ import annotations

import json
import re
import zipfile
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

#: No description of a model is longer, in bytes; a larger one is not read.
LONGEST = 1 << 24


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        InputError: the file cannot be read, is absurdly long or not JSON.
    """
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is not JSON: {one_line(error)}") from error


def read_text(path: Path) -> str:
    """A description of a model.

    Raises:
        InputError: the file cannot be read, is absurdly long or not UTF-8.
    """
    try:
        _refuse_long(path)
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text in UTF-8: {one_line(error)}") from error


def read_numpy(path: Path) -> np.ndarray:
    """The array of a small .npy file.

    Raises:
        InputError: the file cannot be read, or is no array of numbers.
    """
    import numpy as np

    try:
        _refuse_long(path)
        array = np.load(path, allow_pickle=False)
    except InputError:
        raise
    except Exception as error:  # what a hostile header makes the reader raise is anybody's guess
        raise InputError(f"{path} is truncated or no .npy file ({one_line(error)})") from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path} holds more than one array; expected a .npy file")
    return array


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        InputError: the file cannot be read, or its header does not fit it.
    """
    from safetensors.torch import load_file

    try:
        _size(path)
        return load_file(path)
    except Exception as error:  # what a hostile header makes the reader raise is anybody's guess
        raise InputError(
            f"{path} is truncated or no safetensors file ({one_line(error)}); save or fetch it "
            "again"
        ) from error


def read_torch(path: Path, allowed: Sequence[Any] = ()) -> Any:
    """What `torch.save` has written, of tensors, numbers, text and containers.

    allowed: what else may be built, as `torch.serialization.safe_globals` takes it; the holder of a
    program's arguments, which many checkpoints carry along, always may.

    Raises:
        InputError: the file cannot be read, or needs pickle to build something else.
    """
    import torch

    try:
        _size(path)
        archive = zipfile.is_zipfile(path)
        if archive:
            _check_archive(path)
        # Mapped, a tensor that claims to be longer than its record ends with the file.
        with torch.serialization.safe_globals([Namespace, *allowed]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except InputError:
        raise
    except Exception as error:  # what a hostile file makes the reader raise is anybody's guess
        raise InputError(_reason(path, error)) from error


def _size(path: Path) -> int:
    """The length of a regular file in bytes."""
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is no regular file")
    return path.stat().st_size


def _refuse_long(path: Path) -> None:
    if _size(path) > LONGEST:
        raise InputError(f"{path} is longer than {LONGEST} bytes; expected a few thousand")


def _check_archive(path: Path) -> None:
    """Refuse an archive that would grow when it is unpacked: torch.save compresses nothing."""
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise InputError(f"{path} is compressed, which nothing that torch.save wrote is")


def _reason(path: Path, error: Exception) -> str:
    if not path.is_file():
        return f"{path} is no file; expected a checkpoint"
    needed = re.search(r"GLOBAL (\S+)|function (<.*?>)|got (<class .*?>)", str(error))
    if needed is None:
        return f"{path} is truncated or nothing that torch.save wrote ({one_line(error)})"
    name = next(filter(None, needed.groups()))
    return (
        f"{path} needs pickle to build {name}, which may run any code; where you trust the file, "
        "save its tensors and settings alone, as docs/checkpoints.md shows"
    )


def one_line(error: Exception) -> str:
    """An error's message on one line, cut where it runs on."""
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:197] + "..."
