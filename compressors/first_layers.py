"""Keeps the first Transformer layers and drops the others: the small-model baseline.

What DistilHuBERT starts from (Chang et al. 2022, arXiv 2110.01900), without distillation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from compressors._base import Compressor, Setting, nearest
from core.spec import ModelSpec
from encoders.cut import keep_layers
from encoders.model import Encoder


@dataclass
class FirstLayers(Compressor):
    acts_on: ClassVar[str] = "Transformer layers"
    reduces: ClassVar[str] = "params_total"

    def supports(self, spec: ModelSpec) -> str | None:
        if len(spec.layers) == 1:
            return "the model has only the one layer that is always kept"
        return super().supports(spec)

    def prepare(self, encoder: Encoder, setting: Setting) -> Callable[[float], Encoder]:
        count = len(encoder.layers)
        return lambda rate: keep_layers(encoder, range(max(1, count - nearest(rate, count))))

    def achieved(self, dense: Encoder, compressed: Encoder) -> float:
        return 1 - len(compressed.layers) / len(dense.layers)
