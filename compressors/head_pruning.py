"""Removes the attention heads that matter least (Lin et al. 2022, arXiv 2211.09949).

By L1 norm, a head weighs what its q, k, v and out weights and its q, k, v biases sum to in
magnitude. By gradient, it weighs how much the loss of pre-training changes with what it says. By
diagonality (arXiv 2006.03265), how near to the diagonal its attention is: the paper finds that the
heads which survive are the diagonal ones. Random scores are the control. Iterative, the model is
trained on between the cuts and its heads are weighed anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from compressors._base import Setting
from compressors._calibration import calibration
from compressors._gradient_scores import gradient_scores
from compressors._iterative import Pruning
from compressors._scores import head_norms, keep_highest
from compressors._trained import copy_of, corpus_of
from core.spec import ModelSpec
from encoders.attention_maps import diagonality_scores
from encoders.cut import keep_heads
from encoders.model import Encoder
from encoders.objectives import Objective


@dataclass
class HeadPruning(Pruning):
    acts_on: ClassVar[str] = "attention heads"
    reduces: ClassVar[str] = "params_total"
    uses_data: ClassVar[dict[str, Any]] = {"schedule": "one-shot", "score": "l1"}
    #: The paper's code: one head of each layer by L1, 4 utterances at a time.
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {
            "schedule": "iterative", "stages": "1/12:11/12:1/12", "score": "l1", "scope": "layer",
            "score_share": 0.25, "steps": 25_000, "learning_rate": 1e-5, "clusters": 512,
            "batch_seconds": 48.0, "crop_seconds": 12.0, "precision": "no", "augment": False,
        },
        "paper-data-driven": {
            "schedule": "iterative", "stages": "1/12:11/12:1/12", "score": "gradient",
            "scope": "model", "score_share": 0.25, "steps": 25_000, "learning_rate": 1e-5,
            "clusters": 512, "batch_seconds": 48.0, "crop_seconds": 12.0, "precision": "no",
            "augment": False,
        },
    }  # fmt: skip

    score: Literal["l1", "gradient", "diagonality", "random"] = "l1"  # what a head is weighed by
    scope: Literal["layer", "model"] = "layer"  # as many from each layer, or the lowest of all
    diagonal: Literal["keep", "drop"] = "keep"  # which heads score=diagonality keeps or drops
    score_share: float = 0.05  # of the training speech, which gradient and diagonality are seen on

    def supports(self, spec: ModelSpec) -> str | None:
        if spec.layers and all(len(layer.heads) <= 1 for layer in spec.layers):
            return "no layer has more than the one head that it always keeps"
        return super().supports(spec)

    def pruner(
        self, encoder: Encoder, dense: Encoder, setting: Setting, objective: Objective | None
    ) -> Callable[[float], Encoder]:
        scores = self._scores(encoder, setting, objective)
        sizes = [len(layer.heads) for layer in dense.spec.layers]
        return lambda rate: keep_heads(encoder, keep_highest(scores, rate, self.scope, sizes))

    def achieved(self, dense: Encoder, compressed: Encoder) -> float:
        return 1 - _heads(compressed.spec) / _heads(dense.spec)

    def _scores(
        self, encoder: Encoder, setting: Setting, objective: Objective | None
    ) -> list[Tensor]:
        """Per layer the scores of its heads (heads,); the highest stay."""
        if self.score == "l1":
            return head_norms(encoder)
        if self.score == "random":
            return _draw(encoder.spec, setting.seed)
        corpus = corpus_of(setting)
        if self.score == "diagonality":
            seconds = self.score_share * corpus.training().seconds
            speech = calibration(encoder, corpus, seconds, setting.seed)
            sign = 1 if self.diagonal == "keep" else -1
            return [sign * scores for scores in diagonality_scores(encoder, speech)]
        if objective is None or not self.steps:
            objective = replace(self, steps=1).objective(encoder, setting)
        losses = partial(self.losses, objective=objective, setting=setting, share=self.score_share)
        return gradient_scores(copy_of(encoder), losses)


def _draw(spec: ModelSpec, seed: int) -> list[Tensor]:
    """Scores at random: a head of the uncompressed model has the same one at every stage."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.rand(spec.total_heads, generator=generator) for _ in spec.layers]
    return [own[list(layer.heads)] for own, layer in zip(drawn, spec.layers, strict=True)]


def _heads(spec: ModelSpec) -> int:
    return sum(len(layer.heads) for layer in spec.layers)
