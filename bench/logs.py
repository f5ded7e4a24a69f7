"""What a process prints while it works at a section, kept as the section's log.

While that is in work the log lies beside the others under a name of its own, so that a section that
prints nothing, as most do, leaves no folder behind and a process that dies leaves what it said.
"""

from __future__ import annotations

import faulthandler
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from core.errors import InputError

#: Whatever writes to these, be it Python, a library in C or a program that was started.
_OUTPUTS = (1, 2)


@contextmanager
def kept(log: Path, leads: bool = True) -> Iterator[None]:
    """Send the outputs of this process to a file meanwhile, for `settle`.

    Of a crash the interpreter prints its stack there. leads: or another process has begun the file,
    and this one adds to it.

    Raises:
        InputError: the file cannot be made.
    """
    file = _open(_in_work(log)) if leads else _join(_in_work(log))
    _flush()
    before = [os.dup(output) for output in _OUTPUTS]
    for output in _OUTPUTS:
        os.dup2(file, output)
    os.close(file)
    if not faulthandler.is_enabled():
        faulthandler.enable(_OUTPUTS[-1])
    try:
        yield
    finally:
        _flush()
        for output, own in zip(_OUTPUTS, before, strict=True):
            os.dup2(own, output)
            os.close(own)


def settle(log: Path, final: Path | None = None) -> bool:
    """Put what was printed in its place; False where nothing was, and no older log stays then.

    final: where the log belongs, if the section is called otherwise in the end.
    """
    made, final = _in_work(log), final or log
    with suppress(FileNotFoundError):
        if made.stat().st_size:
            final.parent.mkdir(exist_ok=True)
            os.replace(made, final)
            return True
        made.unlink()
        final.unlink()
    return False


def _in_work(log: Path) -> Path:
    """`logs/.KEY.SECTION.tmp`."""
    return log.parent.with_name(f".{log.parent.name}.{log.stem}.tmp")


def _open(path: Path) -> int:
    try:
        with suppress(FileExistsError):
            path.parent.mkdir()  # but no more than this: a run that was removed stays so
        return os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_APPEND, 0o644)
    except OSError as error:
        raise InputError(
            f"cannot write into {path.parent} ({error.strerror}); "
            "free space there or choose another folder"
        ) from error


def _join(path: Path) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_APPEND)
    except FileNotFoundError:  # the section is over already
        return os.open(os.devnull, os.O_WRONLY)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # closed, or there is none
            stream.flush()
