"""A checkpoint's configuration, read with suspicion: an entry may be missing or be anything."""

from __future__ import annotations

import re
from collections.abc import Mapping
from reprlib import repr as short
from typing import Any

from core.errors import InputError, Unsupported
from core.spec import MOST, MOST_LAYERS, ConvFrontEnd, LayerSpec

_TUPLE = r"\(\s*\d{1,6}\s*,\s*\d{1,6}\s*,\s*\d{1,6}\s*,?\s*\)"
_TERM = re.compile(rf"\s*\[\s*({_TUPLE}(?:\s*,\s*{_TUPLE})*)\s*,?\s*\]\s*(?:\*\s*(\d{{1,2}})\s*)?")


class Settings:
    """Entries by name; where: what an error calls them.

    Every reader takes a default for a missing entry and, without one, raises InputError.
    """

    def __init__(self, entries: Any, where: str = "config") -> None:
        if not isinstance(entries, Mapping):
            raise InputError(f"{where} is {short(entries)}; expected settings by name")
        self.entries, self.where = entries, where

    def any(self, name: str, default: Any = None) -> Any:
        value = self.entries.get(name, default)
        if value is None:
            raise InputError(f"{self.where} has no {name!r}; expected that of a speech encoder")
        return value

    def whole(self, name: str, default: int | None = None, most: int = MOST) -> int:
        return self._whole(name, self.any(name, default), most)

    def layers(self, name: str, default: int | None = None) -> int:
        return self.whole(name, default, MOST_LAYERS)

    def wholes(self, name: str, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
        return tuple(self._whole(name, value, MOST) for value in self._list(name, default))

    def flag(self, name: str, default: bool | None = None) -> bool:
        value = self.any(name, default)
        if not isinstance(value, bool):
            raise self._wrong(name, value, "true or false")
        return value

    def flags(self, name: str) -> tuple[bool, ...]:
        return tuple(bool(value) for value in self._list(name, None))

    def choice(self, name: str, choices: Mapping[str, Any], default: str | None = None) -> Any:
        """What the entry stands for."""
        value = self.any(name, default)
        if not isinstance(value, str) or value not in choices:
            raise self._wrong(name, value, " or ".join(choices))
        return choices[value]

    def require(self, wanted: Mapping[str, Any]) -> None:
        """Refuse the variants that do not exist here: entries that are there and another value.

        Raises:
            Unsupported: there is one.
        """
        for name, value in wanted.items():
            found = self.entries.get(name, value)
            if found != value:
                raise Unsupported(
                    f"{self.where} has {name}={short(found)}; only {value!r} exists here"
                )

    def convolutions(self, name: str) -> tuple[tuple[int, ...], ...]:
        """Channels, kernels and strides of the front end, by layer.

        The entry is a list of (channels, kernel, stride), or fairseq's text of one, such as
        "[(512,10,5)] + [(512,3,2)] * 4", which fairseq evaluates and here is only read.
        """
        value = self.any(name)
        rows = self._terms(name, value) if isinstance(value, str) else self._list(name, None)
        if not rows or any(not isinstance(row, list | tuple) or len(row) != 3 for row in rows):
            raise self._wrong(name, value, "a list of (channels, kernel, stride)")
        return tuple(tuple(self._whole(name, row[i], MOST) for row in rows) for i in range(3))

    def dense_layer(self, heads: int, dim: int, ffn: int) -> LayerSpec:
        """A layer nobody has cut."""
        if not heads or dim % heads:
            raise InputError(f"{self.where} has {heads} heads, which do not divide width {dim}")
        return LayerSpec.dense(heads, dim // heads, ffn)

    def _terms(self, name: str, text: str) -> list[list[int]]:
        rows = []
        for term in text[:10_000].split("+"):
            matched = _TERM.fullmatch(term)
            if matched is None:
                raise self._wrong(name, text, "a sum of lists of (channels, kernel, stride)")
            own = [[int(n) for n in re.findall(r"\d+", row)] for row in re.findall(_TUPLE, term)]
            rows += own * int(matched[2] or 1)
        return rows

    def _list(self, name: str, default: Any) -> Any:
        value = self.any(name, default)
        if not isinstance(value, list | tuple) or len(value) > MOST_LAYERS:
            raise self._wrong(name, value, "a short list")
        return value

    def _whole(self, name: str, value: Any, most: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            raise self._wrong(name, value, f"a whole number up to {most}")
        return value

    def _wrong(self, name: str, value: Any, expected: str) -> InputError:
        return InputError(f"{self.where} has {name}={short(value)}; expected {expected}")


def front_end(
    shapes: tuple[tuple[int, ...], ...], norm: str, bias: bool, scaled: bool = False
) -> ConvFrontEnd:
    """The front end of those channels, kernels and strides, by layer.

    Raises:
        InputError: they are not as many of each, or one is 0.
    """
    if len({len(row) for row in shapes}) != 1 or not shapes[0] or not all(map(all, shapes)):
        raise InputError(f"convolutions {short(shapes)}: expected as many of each size, none of 0")
    channels, kernels, strides = shapes
    return ConvFrontEnd(channels, kernels, strides, norm, bias, scaled)  # type: ignore[arg-type]
