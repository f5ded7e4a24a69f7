"""What a number means: its name, its unit and which way is better."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Literal


@dataclass(frozen=True)
class Metric:
    """A measured quantity. Records carry it beside the value: reports need no plug-in code."""

    name: str
    unit: str
    better: Literal["lower", "higher"]
    about: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Metric:
        return _shared(tuple(data.items()))


@cache
def _shared(facts: tuple[tuple[str, Any], ...]) -> Metric:
    """The same object for the same metric: ten thousand records tell of a few."""
    return Metric(**dict(facts))
