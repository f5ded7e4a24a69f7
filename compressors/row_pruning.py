"""Removes the FFN units of smallest L1 norm (Lin et al. 2022, arXiv 2211.09949).

A unit weighs what its row and bias of fc1 and its column of fc2 sum to in magnitude. One shot,
without the training that the paper continues between its steps of 128 rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from compressors._base import Compressor
from compressors._scores import keep_highest, unit_norms
from core.spec import ModelSpec
from encoders.cut import keep_units
from encoders.model import Encoder


@dataclass
class RowPruning(Compressor):
    acts_on: ClassVar[str] = "FFN units"
    reduces: ClassVar[str] = "params_total"

    scope: Literal["layer", "model"] = "layer"  # as many from each layer, or the lowest of all

    def supports(self, spec: ModelSpec) -> str | None:
        if spec.layers and all(layer.ffn <= 1 for layer in spec.layers):
            return "no layer has more than the one FFN unit that it always keeps"
        return super().supports(spec)

    def prepare(self, encoder: Encoder, seed: int) -> Callable[[float], Encoder]:
        norms = unit_norms(encoder)
        return lambda rate: keep_units(encoder, keep_highest(norms, rate, self.scope))

    def achieved(self, dense: Encoder, compressed: Encoder) -> float:
        return 1 - _units(compressed.spec) / _units(dense.spec)


def _units(spec: ModelSpec) -> int:
    return sum(layer.ffn for layer in spec.layers)
