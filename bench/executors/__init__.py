"""Where jobs run: one file per place. They start what is submitted and tell what became of it."""

from __future__ import annotations

from core.errors import InputError, closest

#: What `--executor` takes; each is a file here, imported when it is asked for.
NAMES = ("local", "ray", "slurm")


def check(name: str) -> None:
    """Refuse a place that there is not.

    Raises:
        InputError: it is none of NAMES.
    """
    if name not in NAMES:
        raise InputError(
            f"unknown executor {name!r}{closest(name, NAMES)}; expected {', '.join(NAMES)}"
        )
