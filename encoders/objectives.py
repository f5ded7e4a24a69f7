"""What encoders are trained to do without labels: predict masked clusters, or the future (APC)."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.errors import Unsupported
from encoders.crops import Batch
from encoders.masked_prediction import MaskedPrediction, span_mask
from encoders.model import Encoder
from encoders.pretext import ClusterHead

#: Why APC needs a causal model.
PREDICTS = (
    "predicts the future, which a model that attends to it copies; this one is not causal, "
    "random:tiny_causal is"
)


class Objective(nn.Module):
    """What is minimised. Its own parameters, such as heads, are trained along with the encoder.

    A model that is only asked, such as a teacher, is frozen (`freeze`).
    """

    def forward(
        self, encoder: nn.Module, batch: Batch, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """`loss` is minimised, all entries are logged; random numbers come from the generator."""
        raise NotImplementedError

    def groups(self, encoder: nn.Module, learning_rate: float) -> list[dict[str, Any]]:
        """Parameter groups of both, each with its peak `lr`."""
        both = [*encoder.parameters(), *self.parameters()]
        return [{"params": [p for p in both if p.requires_grad], "lr": learning_rate}]


def freeze(encoder: Encoder) -> Encoder:
    """A copy that is only asked and never trained."""
    return copy.deepcopy(encoder).eval().requires_grad_(False)


class MaskedClusters(Objective):
    """Cross-entropy at masked frames to the clusters of clean speech.

    HuBERT (Hsu et al. 2021, arXiv 2106.07447, eq. 1 with alpha = 1) and MelHuBERT (Lin et al. 2022,
    arXiv 2211.09944).
    """

    SHARE, SPAN = 0.7, 5  # of the built-in model's pre-training, in frames

    def __init__(self, task: MaskedPrediction, dim: int) -> None:
        super().__init__()
        # As a list it is no part of this module: its weights are neither trained nor kept.
        self._task = [task]
        fits = task.head.linear.in_features == dim
        self.head = copy.deepcopy(task.head) if fits else _head(dim, len(task.centroids))

    @classmethod
    def of(
        cls, encoder: Encoder, corpus: Any, seed: int, clusters: int = 500, dim: int | None = None
    ) -> MaskedClusters:
        """For that encoder's own pre-training task; dim: of a student that is narrower."""
        task = MaskedPrediction.of(encoder, corpus, seed, clusters)
        return cls(task, encoder.spec.dim if dim is None else dim)

    def forward(
        self, encoder: nn.Module, batch: Batch, generator: torch.Generator
    ) -> dict[str, Tensor]:
        states, labels = self.masked(encoder, batch, generator)
        return self.head.losses(states[-1], labels)

    def masked(
        self, encoder: nn.Module, batch: Batch, generator: torch.Generator
    ) -> tuple[list[Tensor], Tensor]:
        """The masked frames in front of and behind each layer (frames, dim), and their clusters."""
        task = self._task[0].to(batch.clean.device)
        labels = task.labels(batch.clean)
        rows, time = labels.shape
        mask = span_mask(rows, time, generator, self.SHARE, self.SPAN).to(labels.device)
        states = encoder.encode(  # type: ignore[operator]
            batch.features, mask=mask, mask_embedding=self.head.mask_embedding
        ).states
        return [state[mask] for state in states], labels[mask]


def _head(dim: int, classes: int) -> ClusterHead:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(classes)
        return ClusterHead(dim, classes)


class Apc(Objective):
    """Autoregressive predictive coding: the frame `ahead` steps on (Chung et al. 2019, eq. 1).

    arXiv 1904.03240: L1 distance of a linear map of the last states to the input features.
    """

    def __init__(self, encoder: Encoder, ahead: int = 3, seed: int = 0) -> None:
        super().__init__()
        if not encoder.spec.causal:
            raise Unsupported(f"APC {PREDICTS}")
        self.ahead = ahead
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.predict = nn.Linear(encoder.spec.dim, encoder.spec.front_end.dim)

    def forward(
        self, encoder: nn.Module, batch: Batch, generator: torch.Generator
    ) -> dict[str, Tensor]:
        states = encoder.encode(batch.features).states[-1]  # type: ignore[operator]
        guesses = self.predict(self.code(states, generator)[:, : -self.ahead])
        return {"loss": F.l1_loss(guesses.float(), batch.clean[:, self.ahead :].float())}

    def code(self, states: Tensor, generator: torch.Generator) -> Tensor:
        """What the prediction is made from."""
        return states


class VqApc(Apc):
    """APC through a codebook (Chung, Tang and Glass 2020, arXiv 2005.08392, eq. 2-3).

    One of `codes` vectors is chosen by Gumbel softmax, straight through.
    """

    TEMPERATURE = 0.5

    def __init__(self, encoder: Encoder, ahead: int = 3, seed: int = 0, codes: int = 128) -> None:
        super().__init__(encoder, ahead, seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 1)
            self.choose = nn.Linear(encoder.spec.dim, codes)
            self.codebook = nn.Linear(codes, encoder.spec.dim, bias=False)

    def code(self, states: Tensor, generator: torch.Generator) -> Tensor:
        logits = self.choose(states).float()
        uniform = torch.rand(logits.shape, generator=generator).to(logits.device)
        gumbel = -torch.log(-torch.log(uniform.clamp(1e-9, 1 - 1e-7)))
        soft = ((logits + gumbel) / self.TEMPERATURE).softmax(-1)
        hard = F.one_hot(soft.argmax(-1), logits.shape[-1]).to(soft.dtype)
        return self.codebook(hard + soft - soft.detach())
