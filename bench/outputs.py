"""Where results go: refused before the work is done, not after."""

from __future__ import annotations

import os
from pathlib import Path

from core.errors import InputError


def check_folder(folder: Path) -> Path:
    """The folder itself, where it is one or can be made one, and can be written.

    Raises:
        InputError: a file is in the way, or this user may not write there.
    """
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise InputError(f"cannot write into {folder}: {place} is a file; choose another --out")
    if not os.access(place, os.W_OK | os.X_OK):
        raise InputError(
            f"cannot write into {folder}: {place} does not let you; choose another --out"
        )
    return folder
