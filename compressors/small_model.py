"""Trains a smaller model from scratch as its dense model was: the baseline of every compression.

Its layers, or heads, are fewer, or it is narrower; nothing but the frozen front end is taken over
(MelHuBERT's loss, Lin et al. 2022, arXiv 2211.09944, or APC's, Chung et al. 2019, arXiv
1904.03240). The rate is the fraction of the parameters of the Transformer layers that the model
does without; rates that mean the same model share one training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from compressors._base import Setting
from compressors._students import Students, begin, size
from compressors._trained import Pretrained
from core.spec import ModelSpec
from encoders.model import Encoder


@dataclass
class SmallModel(Students, Pretrained):
    #: The budget of `distillation@paper`.
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "untrained": {"steps": 0},
        "paper": {
            "by": "depth", "clusters": 512, "steps": 650_000, "learning_rate": 1e-4,
            "warm_up": 0.0, "batch_seconds": 480.0, "crop_seconds": 15.0, "precision": "no",
            "augment": False,
        },
    }  # fmt: skip

    #: Tuned for the built-in model, on as much speech as `distillation` hears.
    steps: int = 300  # updates of a training; 0 trains nothing
    learning_rate: float = 2e-3  # peak, after which it falls linearly
    batch_seconds: float = 4.0  # audio of a batch

    def school(self, encoder: Encoder, setting: Setting) -> Callable[[ModelSpec], Encoder]:
        def teach(spec: ModelSpec) -> Encoder:
            small = begin(spec, encoder, setting.seed)
            # Clusters are the dense model's; what APC predicts depends on the features alone.
            source = encoder if self.loss == "masked-clusters" else small
            objective = self.objective(source, setting, spec.dim)
            self.train(small, objective, setting, f"model of {size(spec)}")
            return small

        return teach
