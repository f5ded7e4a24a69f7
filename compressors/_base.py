"""What every compressor is: options as fields, and a track from a dense encoder over the rates."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from core.errors import Unsupported
from core.spec import ModelSpec
from encoders.corpora import Corpus
from encoders.model import Encoder
from encoders.tracking import UNTRACKED, Tracking
from encoders.training_log import Report, silent


@dataclass(frozen=True)
class Setting:
    """What a track has beside the encoder.

    corpus: speech that may be looked at or trained on. folder: where checkpoints and log.csv go, a
    temporary one where there is none. report: is told how trainings go, and so are the trackers.
    """

    corpus: Corpus | None = None
    seed: int = 0
    folder: Path | None = None
    report: Report = silent
    tracking: Tracking = UNTRACKED


class Compressor(ABC):
    """One compression method. A subclass is a dataclass whose fields are its options.

    acts_on: what the rate is a fraction of. reduces: the cost that the method claims to lower.
    uses_data: whether its models depend on the corpus, or the values of options with which they do
    not. presets: values of options by the preset's name; the defaults are the preset `quick`.
    """

    acts_on: ClassVar[str]
    reduces: ClassVar[str]
    uses_data: ClassVar[bool | dict[str, Any]] = False
    presets: ClassVar[dict[str, dict[str, Any]]] = {}

    def supports(self, spec: ModelSpec) -> str | None:
        """Why the method does not exist for such a model, or None."""
        if any(layer.numeric != "float" for layer in spec.layers):
            return "the weights of the model are integers, which nothing follows; quantize last"
        return None if spec.layers else "the model has no Transformer layers"

    def track(
        self, encoder: Encoder, rates: Sequence[float], setting: Setting | None = None
    ) -> Iterator[tuple[float, Encoder | Unsupported]]:
        """Each rate with the encoder compressed that far, or with the reason why there is none.

        The input is left as it is. Here every rate starts from it, with what `prepare` found out
        once; a method that trains from rate to rate overrides this. The same arguments give the
        same encoders, and a rate's encoder does not depend on the other rates.
        """
        shrink = self.prepare(encoder, setting or Setting())
        for rate in rates:
            try:
                yield rate, shrink(rate)
            except Unsupported as reason:
                yield rate, reason

    def prepare(self, encoder: Encoder, setting: Setting) -> Callable[[float], Encoder]:
        """Score once what could be removed; the function returned removes a fraction of it."""
        raise NotImplementedError(f"{type(self).__name__} overrides neither prepare nor track")

    @abstractmethod
    def achieved(self, dense: Encoder, compressed: Encoder) -> float:
        """The fraction of what the method acts on that is gone from its input `dense`."""


def nearest(rate: float, total: int) -> int:
    """How many of `total` a rate removes: the nearest whole number, halves upwards."""
    return math.floor(rate * total + 0.5 + 1e-9)
