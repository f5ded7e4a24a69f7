"""What goes wrong because of what the user gave us, as opposed to what is our bug."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Bad input: one sentence that names the value, what was expected and how to mend it.

    The command line prints the sentence and exits with 2; a sweep writes it into the record.
    """


class Unsupported(InputError):
    """The combination asked for is sound but does not exist, for the reason given."""


class Diverged(ArithmeticError):
    """A training whose loss is no longer a finite number."""


def closest(name: str, known: Iterable[str]) -> str:
    """A hint such as " (did you mean 'low-rank'?)", empty where nothing is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""
