"""Removes the FFN units of smallest L1 norm (Lin et al. 2022, arXiv 2211.09949).

A unit weighs what its row and bias of fc1 and its column of fc2 sum to in magnitude. Iterative, the
model is trained on between the cuts and its units are weighed anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from compressors._base import Setting
from compressors._iterative import Pruning
from compressors._scores import keep_highest, unit_norms
from core.spec import ModelSpec
from encoders.cut import keep_units
from encoders.model import Encoder
from encoders.objectives import Objective


@dataclass
class RowPruning(Pruning):
    acts_on: ClassVar[str] = "FFN units"
    reduces: ClassVar[str] = "params_total"
    #: The paper's code: 20 steps of 128 of 3072 units, 4 utterances at a time.
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {
            "schedule": "iterative", "stages": "1/24:20/24:1/24", "scope": "layer",
            "steps": 25_000, "learning_rate": 1e-5, "clusters": 512, "batch_seconds": 48.0,
            "crop_seconds": 12.0, "precision": "no", "augment": False,
        }
    }  # fmt: skip

    learning_rate: float = 1.5e-3  # peak, after which it falls linearly
    scope: Literal["layer", "model"] = "layer"  # as many from each layer, or the lowest of all

    def supports(self, spec: ModelSpec) -> str | None:
        if spec.layers and all(layer.ffn <= 1 for layer in spec.layers):
            return "no layer has more than the one FFN unit that it always keeps"
        return super().supports(spec)

    def pruner(
        self, encoder: Encoder, dense: Encoder, setting: Setting, objective: Objective | None
    ) -> Callable[[float], Encoder]:
        norms = unit_norms(encoder)
        sizes = [layer.ffn for layer in dense.spec.layers]
        return lambda rate: keep_units(encoder, keep_highest(norms, rate, self.scope, sizes))

    def achieved(self, dense: Encoder, compressed: Encoder) -> float:
        return 1 - _units(compressed.spec) / _units(dense.spec)


def _units(spec: ModelSpec) -> int:
    return sum(layer.ffn for layer in spec.layers)
