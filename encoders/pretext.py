"""Heads of masked prediction: what an encoder is pre-trained with and what is thrown away later."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ClusterHead(nn.Module):
    """MelHuBERT's head (Lin et al. 2022, arXiv 2211.09944): one linear map to k-means clusters.

    mask_embedding (dim,) takes the place of masked frames (`Encoder.encode`).
    """

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, classes)
        self.mask_embedding = nn.Parameter(0.1 * torch.randn(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (..., classes) of hidden states (..., dim), in float32 under autocast too."""
        with torch.autocast(x.device.type, enabled=False):
            return self.linear(x.float())

    def losses(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Cross-entropy of states (frames, dim) to their clusters (frames,), and the accuracy."""
        logits = self(x)
        accuracy = (logits.argmax(-1) == labels).float().mean()
        return {"loss": F.cross_entropy(logits, labels), "accuracy": accuracy.detach()}


class HubertHead(nn.Module):
    """HuBERT's head (Hsu et al. 2021, arXiv 2106.07447, eq. 3): cosines to label embeddings."""

    TEMPERATURE = 0.1

    def __init__(self, dim: int, width: int = 256, classes: int = 504) -> None:
        super().__init__()
        self.projection = nn.Linear(dim, width)
        self.labels = nn.Parameter(torch.rand(classes, width))
        self.mask_embedding = nn.Parameter(torch.rand(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (..., classes) of hidden states (..., dim)."""
        projected = F.normalize(self.projection(x), dim=-1)
        return projected @ F.normalize(self.labels, dim=-1).t() / self.TEMPERATURE
