"""What a student is asked for: its teacher's cluster posteriors, or its hidden states."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoders.corpora import Corpus
from encoders.crops import Batch
from encoders.masked_prediction import MaskedPrediction
from encoders.model import Encoder
from encoders.objectives import Objective, freeze

Made = TypeVar("Made", bound=nn.Module)


class Teacher:
    """A frozen encoder that hears clean speech."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = freeze(encoder)
        self.dim, self.depth = encoder.spec.dim, len(encoder.layers)

    @torch.no_grad()
    def states(self, features: Tensor) -> list[Tensor]:
        """All hidden states (batch, time, dim) of features, in float32."""
        encoder = self.encoder.to(features.device)
        return [state.float() for state in encoder.encode(features).states]


class Clusters(Teacher):
    """A teacher with posteriors of the clusters of its pre-training.

    A model that brings no head of its pre-training says how near its states are to the centroids
    of `MaskedPrediction.of`: the softmax of minus the distances.
    """

    def __init__(self, encoder: Encoder, corpus: Corpus, seed: int, clusters: int) -> None:
        super().__init__(encoder)
        self.task = MaskedPrediction.of(encoder, corpus, seed, clusters)
        self.head = self.task.head if MaskedPrediction.own(encoder) else None

    @torch.no_grad()
    def posteriors(self, features: Tensor) -> Tensor:
        """(batch, time, clusters) at temperature 1."""
        states, task = self.states(features), self.task.to(features.device)
        if self.head is not None:
            return self.head.to(features.device)(states[-1]).softmax(-1)
        frames = (states[task.layer] - task.mean) / task.std
        return (-torch.cdist(frames, task.centroids)).softmax(-1)


class Posteriors(Objective):
    """KL divergence of the student's posteriors from the teacher's at temperature 1, unmasked.

    Lin et al. 2022 (arXiv 2211.09949). The student's head is the teacher's to begin with where it
    fits, else it is new.
    """

    def __init__(self, teacher: Clusters, dim: int, seed: int = 0) -> None:
        super().__init__()
        self.teacher = teacher
        self.head = _new(seed, lambda: nn.Linear(dim, len(teacher.task.centroids)))
        if teacher.head is not None and teacher.dim == dim:
            self.head.load_state_dict(teacher.head.linear.state_dict())

    def forward(
        self, encoder: nn.Module, batch: Batch, generator: torch.Generator
    ) -> dict[str, Tensor]:
        wanted = self.teacher.posteriors(batch.clean).flatten(0, 1)
        states = encoder.encode(batch.features).states[-1]  # type: ignore[operator]
        with torch.autocast(states.device.type, enabled=False):
            guessed = self.head(states.float()).log_softmax(-1).flatten(0, 1)
        agreement = (guessed.argmax(-1) == wanted.argmax(-1)).float().mean()
        return {"loss": F.kl_div(guessed, wanted, reduction="batchmean"), "agreement": agreement}


class MultiLayer(Objective):
    """DistilHuBERT (Chang et al. 2022, arXiv 2110.01900, eq. 1 with lambda = 1).

    Heads on the student's last states predict the teacher's states at a third, two thirds and all
    of its depth: L1 distance over the dimensions minus the log-sigmoid of the cosine, the mean over
    frames and over the heads. A head is two linear maps with GELU between, as released.
    """

    def __init__(self, teacher: Teacher, dim: int, seed: int = 0) -> None:
        super().__init__()
        self.teacher = teacher
        self.predicted = sorted({-(-part * teacher.depth // 3) for part in (1, 2, 3)})
        self.heads = _new(
            seed,
            lambda: nn.ModuleList(
                nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, teacher.dim))
                for _ in self.predicted
            ),
        )

    def forward(
        self, encoder: nn.Module, batch: Batch, generator: torch.Generator
    ) -> dict[str, Tensor]:
        states = self.teacher.states(batch.clean)
        wanted = torch.stack([states[layer] for layer in self.predicted])
        last = encoder.encode(batch.features).states[-1]  # type: ignore[operator]
        guessed = torch.stack([head(last) for head in self.heads]).float()
        distance = F.l1_loss(guessed, wanted)
        cosine = F.cosine_similarity(guessed, wanted, dim=-1)
        loss = distance - F.logsigmoid(cosine).mean()
        return {"loss": loss, "distance": distance, "cosine": cosine.mean()}


class LayerToLayer(Objective):
    """FitHuBERT (Lee et al. 2022, arXiv 2207.00555): each layer predicts its teacher's layer.

    It does so through a linear map, by mean squared error; the last layer weighs 1, the others
    0.1. Where the student has fewer layers, its i-th of n predicts the one at the same fraction of
    the teacher's depth.
    """

    HINT = 0.1

    def __init__(self, teacher: Teacher, dim: int, depth: int, seed: int = 0) -> None:
        super().__init__()
        self.teacher = teacher
        self.predicted = [-(-layer * teacher.depth // depth) for layer in range(1, depth + 1)]
        self.maps = _new(
            seed, lambda: nn.ModuleList(nn.Linear(dim, teacher.dim) for _ in range(depth))
        )

    def forward(
        self, encoder: nn.Module, batch: Batch, generator: torch.Generator
    ) -> dict[str, Tensor]:
        wanted = self.teacher.states(batch.clean)
        own = encoder.encode(batch.features).states[1:]  # type: ignore[operator]
        *hints, last = (
            F.mse_loss(guess(state).float(), wanted[layer])
            for guess, state, layer in zip(self.maps, own, self.predicted, strict=True)
        )
        return {"loss": last + self.HINT * sum(hints), "last": last.detach()}


def _new(seed: int, make: Callable[[], Made]) -> Made:
    """A module with random weights of that seed, torch's global generator left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()
