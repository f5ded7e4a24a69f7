"""Gates that learn to be closed: hard concrete (Louizos et al. 2018, arXiv 1712.01312).

A gate has one parameter, log alpha. Its value is 0 where it is closed, and at most 1. The chance
that it is open has a closed form, which makes the expected number of weights one to differentiate.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

#: How far the concrete distribution is stretched below 0 and above 1, and its temperature.
GAMMA, ZETA, BETA = -0.1, 1.1, 2 / 3


def chance_open(log_alpha: Tensor) -> Tensor:
    """The probability that a gate's value is not 0 (eq. 12)."""
    return torch.sigmoid(log_alpha - BETA * math.log(-GAMMA / ZETA))


def sampled(log_alpha: Tensor, generator: torch.Generator, straight: bool = False) -> Tensor:
    """Values in [0, 1] drawn from the hard concrete distribution, differentiable (eq. 10-11).

    A value cut off at 0 or 1 has no gradient. Where `straight`, it has that of the value before the
    cut, clipped to [-1, 1] by a hard tanh, so that a closed gate still learns: the straight-through
    estimator of Wang et al. 2023 (arXiv 2306.01385).
    """
    noise = torch.rand(log_alpha.shape, generator=generator).clamp(1e-6, 1 - 1e-6).logit()
    drawn = _stretched((noise.to(log_alpha.device) + log_alpha) / BETA)
    return _Straight.apply(drawn) if straight else drawn.clamp(0, 1)  # type: ignore[no-any-return]


def settled(log_alpha: Tensor) -> Tensor:
    """Values in [0, 1] without noise (eq. 13)."""
    return _stretched(log_alpha).clamp(0, 1)


class _Straight(torch.autograd.Function):
    """Cut off at 0 and 1; backwards a hard tanh of the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clamp(0, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return F.hardtanh(gradients[0])


def _stretched(logit: Tensor) -> Tensor:
    return torch.sigmoid(logit) * (ZETA - GAMMA) + GAMMA
