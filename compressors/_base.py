"""What every compressor is: options as fields, and a track from a dense encoder over the rates."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

from core.errors import Unsupported
from core.spec import ModelSpec
from encoders.corpora import Corpus
from encoders.model import Encoder


class Compressor(ABC):
    """One compression method. A subclass is a dataclass whose fields are its options.

    acts_on: what the rate is a fraction of. reduces: the cost that the method claims to lower.
    """

    acts_on: ClassVar[str]
    reduces: ClassVar[str]

    def supports(self, spec: ModelSpec) -> str | None:
        """Why the method does not exist for such a model, or None."""
        return None if spec.layers else "the model has no Transformer layers"

    def track(
        self, encoder: Encoder, rates: Sequence[float], corpus: Corpus | None = None, seed: int = 0
    ) -> Iterator[tuple[float, Encoder | Unsupported]]:
        """Each rate with the encoder compressed that far, or with the reason why there is none.

        The input is left as it is. Here every rate starts from it, with what `prepare` found out
        once; a method that trains from rate to rate overrides this. The same arguments give the
        same encoders.
        """
        shrink = self.prepare(encoder, seed)
        for rate in rates:
            try:
                yield rate, shrink(rate)
            except Unsupported as reason:
                yield rate, reason

    @abstractmethod
    def prepare(self, encoder: Encoder, seed: int) -> Callable[[float], Encoder]:
        """Score once what could be removed; the function returned removes a fraction of it."""

    @abstractmethod
    def achieved(self, dense: Encoder, compressed: Encoder) -> float:
        """The fraction of what the method acts on that is gone from its input `dense`."""


def nearest(rate: float, total: int) -> int:
    """How many of `total` a rate removes: the nearest whole number, halves upwards."""
    return math.floor(rate * total + 0.5 + 1e-9)
