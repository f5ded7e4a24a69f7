"""A point of a sweep: what is compressed, by what, how far. Its key is its identity."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

#: Methods that are not plug-ins: what every sweep is compared with.
DENSE, FBANK, RANDOM = "dense", "fbank", "random-init"
REFERENCES = (DENSE, FBANK, RANDOM)


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def canonical_json(data: Any) -> str:
    """One line of JSON, equal for equal data."""
    return _ENCODER.encode(data)


def digest(data: Any) -> str:
    """16 hexadecimal digits that identify JSON data."""
    return hashlib.blake2b(canonical_json(data).encode(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class Point:
    """One model to be made and measured.

    model: what `encoders.load` takes. method: a method expression in its canonical form, or one of
    REFERENCES. rate: the fraction requested to be removed, 0 for a reference. data: the corpus that
    the compressor may look at or train on.
    """

    model: str
    method: str
    rate: float
    seed: int
    data: str

    @cached_property
    def key(self) -> str:
        return digest(self.to_json())

    def to_json(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __str__(self) -> str:
        rate = "" if self.method in REFERENCES else f" at {self.rate:g}"
        return f"{self.method}{rate} (seed {self.seed})"
