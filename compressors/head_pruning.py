"""Removes the attention heads of smallest L1 norm (Lin et al. 2022, arXiv 2211.09949).

A head weighs what its q, k, v and out weights and its q, k, v biases sum to in magnitude. One shot,
without the training that the paper continues between its steps of 12 heads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from compressors._base import Compressor
from compressors._scores import head_norms, keep_highest
from core.spec import ModelSpec
from encoders.cut import keep_heads
from encoders.model import Encoder


@dataclass
class HeadPruning(Compressor):
    acts_on: ClassVar[str] = "attention heads"
    reduces: ClassVar[str] = "params_total"

    scope: Literal["layer", "model"] = "layer"  # as many from each layer, or the lowest of all

    def supports(self, spec: ModelSpec) -> str | None:
        if spec.layers and all(len(layer.heads) <= 1 for layer in spec.layers):
            return "no layer has more than the one head that it always keeps"
        return super().supports(spec)

    def prepare(self, encoder: Encoder, seed: int) -> Callable[[float], Encoder]:
        norms = head_norms(encoder)
        return lambda rate: keep_heads(encoder, keep_highest(norms, rate, self.scope))

    def achieved(self, dense: Encoder, compressed: Encoder) -> float:
        return 1 - _heads(compressed.spec) / _heads(dense.spec)


def _heads(spec: ModelSpec) -> int:
    return sum(len(layer.heads) for layer in spec.layers)
