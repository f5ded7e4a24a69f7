"""Trains a smaller student to predict what its teacher knows (Chang et al. 2022, arXiv 2110.01900).

`recipe=multi-layer` is theirs, DistilHuBERT: heads on the last layer predict the teacher's layers
at a third, two thirds and all of its depth. `posteriors` is Lin et al. 2022 (arXiv 2211.09949): the
student matches the teacher's posteriors of its pre-training's clusters, unmasked. A model that
brings no head of its pre-training (any but the built-in one) has posteriors from its states'
distances to the centroids of k-means. `layer-to-layer` is FitHuBERT (Lee et al. 2022, arXiv
2207.00555), meant for thin and deep students (`by=dim` or `by=width`): each layer predicts the
teacher's through a linear map.

The rate is the fraction of the parameters of the Transformer layers that the student does without,
by having fewer layers, fewer heads, fewer heads and inner units (`width`), or narrower hidden
states as well (`dim`); rates that mean the same student share one training. The teacher hears clean
speech, the student the augmented.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from compressors._base import Setting
from compressors._imitation import Clusters, LayerToLayer, MultiLayer, Posteriors, Teacher
from compressors._students import Students, begin, size
from compressors._trained import corpus_of
from core.spec import ModelSpec
from encoders.model import Encoder
from encoders.objectives import Objective


@dataclass
class Distillation(Students):
    #: As released: 200 epochs of 360 hours, 32 utterances an update, for Lin et al.; 100 epochs of
    #: 960 hours, 24 an update, for FitHuBERT. Lin et al. hold the learning rate, here it falls.
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "untrained": {"steps": 0},
        "paper": {
            "recipe": "posteriors", "start": "random", "by": "depth", "clusters": 512,
            "steps": 650_000, "learning_rate": 1e-4, "warm_up": 0.0, "batch_seconds": 480.0,
            "crop_seconds": 15.0, "precision": "no", "augment": False,
        },
        "distilhubert": {
            "recipe": "multi-layer", "start": "teacher", "by": "depth",
            "steps": 200_000, "learning_rate": 2e-4, "warm_up": 0.07, "batch_seconds": 374.4,
            "crop_seconds": 15.6, "precision": "fp16", "augment": False,
        },
        "fithubert": {
            "recipe": "layer-to-layer", "start": "random", "by": "dim",
            "steps": 1_170_000, "learning_rate": 1e-3, "warm_up": 0.05, "batch_seconds": 374.4,
            "crop_seconds": 15.6, "precision": "no", "augment": False,
        },
    }  # fmt: skip

    #: Tuned for the built-in model: small batches and a high rate, as students have little time.
    steps: int = 200  # updates of a training; 0 trains nothing
    learning_rate: float = 2e-3  # peak, after which it falls linearly
    batch_seconds: float = 8.0  # audio of a batch
    recipe: Literal["multi-layer", "posteriors", "layer-to-layer"] = "multi-layer"  # the targets
    start: Literal["teacher", "random"] = "teacher"  # its first layers, or from scratch
    clusters: int = 500  # of a model that brings no pre-training head

    def school(self, encoder: Encoder, setting: Setting) -> Callable[[ModelSpec], Encoder]:
        objective = self._objective(encoder, setting)

        def teach(spec: ModelSpec) -> Encoder:
            student = begin(spec, encoder, setting.seed, self.start)
            self.train(student, objective(spec), setting, f"student of {size(spec)}")
            return student

        return teach

    def _objective(self, encoder: Encoder, setting: Setting) -> Callable[[ModelSpec], Objective]:
        """What a student of that shape is asked for; its teacher is there once."""
        if not self.steps:
            return lambda spec: Objective()  # nothing will be asked of it
        if self.recipe == "posteriors":
            known = Clusters(encoder, corpus_of(setting), setting.seed, self.clusters)
            return lambda spec: Posteriors(known, spec.dim, setting.seed)
        teacher = Teacher(encoder)
        if self.recipe == "multi-layer":
            return lambda spec: MultiLayer(teacher, spec.dim, setting.seed)
        return lambda spec: LayerToLayer(teacher, spec.dim, len(spec.layers), setting.seed)
