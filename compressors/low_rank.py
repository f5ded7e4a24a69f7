"""Replaces linear maps by two thin ones, the best of that rank (truncated SVD, Eckart-Young 1936).

Minimises the Frobenius norm of W - UV. Each matrix gets the rank at which the fraction of its
parameters that the rate asks for is gone, k = (1 - rate) * out * in / (out + in), and is factored
only where that saves parameters. Biases stay. No training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from compressors._base import Compressor, nearest
from core.errors import Unsupported
from core.spec import ROLES, LayerSpec, ModelSpec
from encoders.cut import factorise
from encoders.model import Encoder
from encoders.roles import linear

Factors = dict[tuple[int, str], tuple[Tensor, Tensor]]


@dataclass
class LowRank(Compressor):
    acts_on: ClassVar[str] = "parameters of the matrices that are factored"
    reduces: ClassVar[str] = "params_total"

    where: Literal["all", "ffn"] = "all"  # all six linear maps of a layer, or the two of its FFN

    def supports(self, spec: ModelSpec) -> str | None:
        if spec.layers and not any(_stored(spec, *place) for place in self._places(spec)):
            return "the maps to be factored are empty"
        return super().supports(spec)

    def prepare(self, encoder: Encoder, seed: int) -> Callable[[float], Encoder]:
        places = [p for p in self._places(encoder.spec) if _stored(encoder.spec, *p)]
        factors = {(i, role): split(linear(encoder, i, role).weight) for i, role in places}
        return lambda rate: factorise(encoder, _truncate(encoder.spec, factors, rate))

    def achieved(self, dense: Encoder, compressed: Encoder) -> float:
        return 1 - self._total(compressed.spec) / self._total(dense.spec)

    def _total(self, spec: ModelSpec) -> int:
        return sum(_stored(spec, *place) for place in self._places(spec))

    def _places(self, spec: ModelSpec) -> list[tuple[int, str]]:
        roles = ROLES if self.where == "all" else ("fc1", "fc2")
        return [(layer, role) for layer in range(len(spec.layers)) for role in roles]


def split(weight: Tensor) -> tuple[Tensor, Tensor]:
    """U (out, r) and V (r, in) whose product is the weight; its first k ranks are the best k."""
    u, s, v = torch.linalg.svd(weight.detach().float(), full_matrices=False)
    root = s.sqrt()
    return (u * root).to(weight.dtype), (root[:, None] * v).to(weight.dtype)


def _truncate(spec: ModelSpec, factors: Factors, rate: float) -> Factors:
    """The factors cut to their ranks, without those that would save nothing.

    Raises:
        Unsupported: a matrix would be left without a single rank.
    """
    cut: Factors = {}
    for (layer, role), (u, v) in factors.items():
        sides, stored = len(u) + v.shape[1], _stored(spec, layer, role)
        rank = nearest((1 - rate) / sides, stored)
        if rank < 1:
            raise Unsupported(
                f"low-rank at {rate:g} leaves {role} of layer {layer} ({len(u)} x {v.shape[1]}) a "
                "rank below 1; ask for a lower rate"
            )
        if rank * sides < stored:
            cut[layer, role] = u[:, :rank], v[:rank]
    return cut


def _stored(spec: ModelSpec, layer: int, role: str) -> int:
    """Parameters of that map's matrix, or of its two factors."""
    own: LayerSpec = spec.layers[layer]
    outputs, inputs = own.linear_shape(role, spec.dim)
    rank = own.rank(role)
    return outputs * inputs if rank is None else rank * (outputs + inputs)
