"""The training objective of gates: distillation under a target sparsity, held by a Lagrangian.

Wang et al. 2023 (arXiv 2306.01385), after Wang, Wohlwend and Lei 2020 (arXiv 1910.04732).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from compressors._gated import START, Gated, Masks
from compressors._gates import chance_open, sampled
from compressors._layer_pairs import LayerPairs
from encoders.crops import Batch
from encoders.model import Encoder

#: The expected sparsity of gates that nothing has trained. A target below it would open them more,
#: which takes as long to undo.
BEGINNING = 1 - chance_open(torch.tensor(START)).item()


@dataclass(frozen=True)
class Rise:
    """A target sparsity: 0 for a share `begin` of the updates, then rising to `goal` at `end`."""

    goal: float
    begin: float
    end: float

    def at(self, progress: float) -> float:
        share = (progress - self.begin) / max(1e-9, self.end - self.begin)
        return self.goal * min(1.0, max(0.0, share))

    def reaches(self, rate: float, steps: int) -> int:
        """The number of updates after which to cut at a rate: the last of all for the goal."""
        if rate >= self.goal:
            return steps
        share = self.begin + rate / self.goal * (self.end - self.begin)
        return max(1, math.ceil(share * steps - 1e-9))


class Sparsified(LayerPairs):
    """Distillation plus lambda1 (s - t) + lambda2 (s - t)^2, which both multipliers maximise.

    s: the expected sparsity of the student, a `Gated`. t: the target. done: updates so far,
    of `steps`. ste: whether gates have straight-through gradients.
    """

    done: Tensor

    def __init__(
        self,
        teacher: Encoder,
        layers: int,
        rise: Rise,
        steps: int,
        *,
        ste: bool,
        gate_rate: float,
        multiplier_rate: float,
    ) -> None:
        super().__init__(teacher, layers)
        self.rise, self.steps, self.ste = rise, steps, ste
        self.gate_rate, self.multiplier_rate = gate_rate, multiplier_rate
        self.multipliers = nn.Parameter(torch.zeros(2))
        self.register_buffer("done", torch.zeros((), dtype=torch.long))

    def forward(
        self, encoder: nn.Module, batch: Batch, generator: torch.Generator
    ) -> dict[str, Tensor]:
        assert isinstance(encoder, Gated)
        encoder.masks = encoder.values(partial(sampled, generator=generator, straight=self.ste))
        distance, sparsity = self.distance(encoder, batch), encoder.sparsity()
        target = self.rise.at(int(self.done) / self.steps)
        excess = sparsity - max(BEGINNING, target)
        first, second = self.multipliers
        return {
            "loss": distance + first * excess + second * excess**2,
            "distance": distance,
            "sparsity": sparsity,
            "target": torch.tensor(target),
            "lambda1": first,
            "lambda2": second,
            **_averages(encoder.masks),
        }

    def groups(self, encoder: nn.Module, learning_rate: float) -> list[dict[str, Any]]:
        assert isinstance(encoder, Gated)
        plain = [*encoder.encoder.parameters(), *self.maps.parameters()]
        return [
            {"params": [p for p in plain if p.requires_grad], "lr": learning_rate},
            {"params": [*encoder.gates.parameters()], "lr": self.gate_rate, "weight_decay": 0.0},
            {
                "params": [self.multipliers],
                "lr": self.multiplier_rate,
                "weight_decay": 0.0,
                "maximize": True,
            },
        ]


def _averages(masks: Sequence[Masks]) -> dict[str, Tensor]:
    """The mean value of the gates of each granularity, as Wang et al. draw it (fig. 3a)."""
    names = ("mask_qk", "mask_vo", "mask_int", "mask_mha", "mask_ffn")
    parts = zip(*masks, strict=True)
    return {
        name: torch.cat([own.flatten() for own in part]).mean()
        for name, part in zip(names, parts, strict=True)
    }
