"""Method expressions: `head-pruning[scope=model]`, chained with `+`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from core import plugins
from core.errors import InputError

_STEP = re.compile(r"^\s*([\w-]+)\s*(?:\[([^\]]*)\])?\s*$")


@dataclass(frozen=True)
class Step:
    """One compressor with the options that differ from its defaults."""

    name: str
    options: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        if not self.options:
            return self.name
        return f"{self.name}[{','.join(f'{k}={v}' for k, v in self.options)}]"


@dataclass(frozen=True)
class Method:
    """One step, or a chain of steps applied from left to right."""

    steps: tuple[Step, ...]

    def __str__(self) -> str:
        return "+".join(map(str, self.steps))

    @classmethod
    def parse(cls, text: str) -> Method:
        """Read one expression.

        Raises:
            InputError: the expression is malformed, or names an unknown method or option.
        """
        return cls(tuple(_step(part) for part in _split(text, "+")))


def parse_methods(text: str) -> list[Method]:
    """Read a comma list of expressions; `all` stands for every method with its defaults."""
    if text.strip() == "all":
        return [Method((Step(name),)) for name in plugins.names("method")]
    methods = [Method.parse(part) for part in _split(text, ",") if part.strip()]
    if not methods:
        raise InputError(f"methods {text!r} name none; give names, a comma list or 'all'")
    return list(dict.fromkeys(methods))


def _step(text: str) -> Step:
    match = _STEP.match(text)
    if not match:
        raise InputError(
            f"method {text!r} cannot be read; write name, name[option=value,...] or name+name"
        )
    name, inside = match.group(1), match.group(2) or ""
    pairs: dict[str, str] = {}
    for pair in filter(None, (p.strip() for p in inside.split(","))):
        key, equals, value = pair.partition("=")
        if not equals:
            raise InputError(f"option {pair!r} of {name!r} has no value; write option=value")
        pairs[key.strip()] = value.strip()
    plugins.check("method", name)
    options = plugins.card("method", name).read_options(pairs)
    return Step(name, tuple(sorted(options.items())))


def _split(text: str, separator: str) -> list[str]:
    """Split at a separator that stands outside brackets."""
    return re.split(rf"\{separator}(?![^\[]*\])", text)
