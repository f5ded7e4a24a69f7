"""Replaces linear maps by two thin ones, the best of that rank (truncated SVD, Eckart-Young 1936).

Each matrix gets the rank at which the fraction of its parameters that the rate asks for is gone,
k = (1 - rate) * out * in / (out + in), and is factored only where that saves parameters. Biases
stay. `norm=frobenius` minimises the norm of W - UV, as Lin et al. 2022 (arXiv 2211.09949) do,
`norm=inputs` that of (W - UV) X over the inputs X of a minute of speech: W L is truncated, where
L L^T = E[x x^T] (the truncation-aware whitening of SVD-LLM, Wang et al. 2024, arXiv 2403.07378,
with a ridge, so that L can be inverted where the inputs do not fill their space).

With `steps` the factors are trained, at each rate from those of the dense encoder.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from compressors._base import Setting, nearest
from compressors._calibration import Place, calibration, second_moments
from compressors._trained import Pretrained
from core.errors import Unsupported
from core.spec import ROLES, ModelSpec
from encoders.cut import factorise
from encoders.model import Encoder
from encoders.roles import linear

Factors = dict[Place, tuple[Tensor, Tensor]]

#: What is added to the diagonal of E[x x^T], as a share of the diagonal's mean.
RIDGE = 1e-4


@dataclass
class LowRank(Pretrained):
    acts_on: ClassVar[str] = "parameters of the matrices that are factored"
    reduces: ClassVar[str] = "params_total"
    uses_data: ClassVar[dict[str, Any]] = {"steps": 0, "norm": "frobenius"}
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "untrained": {"steps": 0},
        "retrained": {"steps": 200},
        # The schedule is that of weight pruning's periods: the paper names none of its own here.
        "paper": {"where": "ffn", "steps": 25_000, "learning_rate": 1e-5},
    }

    where: Literal["all", "ffn"] = "all"  # all six linear maps of a layer, or the two of its FFN
    norm: Literal["frobenius", "inputs"] = "frobenius"  # what is smallest: W - UV, or (W - UV) X
    seconds: float = 60.0  # speech that X is taken from
    steps: int = 0  # updates of the factors at each rate; 0 trains nothing

    def supports(self, spec: ModelSpec) -> str | None:
        if spec.layers and not self._total(spec):
            return "the maps to be factored are empty"
        return super().supports(spec)

    def track(
        self, encoder: Encoder, rates: Sequence[float], setting: Setting | None = None
    ) -> Iterator[tuple[float, Encoder | Unsupported]]:
        setting = setting or Setting()
        objective = self.objective(encoder, setting)
        for rate, made in super().track(encoder, rates, setting):
            if isinstance(made, Encoder):
                self.train(made, copy.deepcopy(objective), setting, f"rate {rate:g}")
            yield rate, made

    def prepare(self, encoder: Encoder, setting: Setting) -> Callable[[float], Encoder]:
        places = [p for p in self._places(encoder.spec) if _stored(encoder.spec, *p)]
        moments: dict[Place, Tensor] = {}
        if self.norm == "inputs":
            speech = calibration(encoder, setting.corpus, self.seconds, setting.seed)
            moments = second_moments(encoder, speech, places)
        factors = {
            place: split(linear(encoder, *place).weight, moments.get(place)) for place in places
        }
        return lambda rate: factorise(encoder, _truncate(encoder.spec, factors, rate))

    def achieved(self, dense: Encoder, compressed: Encoder) -> float:
        return 1 - self._total(compressed.spec) / self._total(dense.spec)

    def _total(self, spec: ModelSpec) -> int:
        return sum(_stored(spec, *place) for place in self._places(spec))

    def _places(self, spec: ModelSpec) -> list[tuple[int, str]]:
        roles = ROLES if self.where == "all" else ("fc1", "fc2")
        return [(layer, role) for layer in range(len(spec.layers)) for role in roles]


def split(weight: Tensor, moments: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """U (out, r) and V (r, in) whose product is the weight; its first k ranks are the best k.

    Best for inputs with those second moments (in, in), without any for inputs of all directions.
    """
    matrix = weight.detach().double()
    if moments is None:
        u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    else:
        factor = _cholesky(moments)
        u, s, v = torch.linalg.svd(matrix @ factor, full_matrices=False)
        v = torch.linalg.solve_triangular(factor, v, upper=False, left=False)
    root = s.sqrt()
    return (u * root).to(weight.dtype), (root[:, None] * v).to(weight.dtype)


def _cholesky(moments: Tensor) -> Tensor:
    """L of L L^T = E[x x^T] plus the ridge, in float64; inputs that are always 0 give the identity.

    The scale of L does not matter.
    """
    moments = moments.double()
    level = moments.diagonal().mean()
    identity = torch.eye(len(moments), dtype=torch.float64, device=moments.device)
    return torch.linalg.cholesky(moments / level + RIDGE * identity) if level > 0 else identity


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
    return spec.layers[layer].weights(role, spec.dim)
