"""Structured pruning: what heads and units weigh, and which of them a rate leaves."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from compressors._base import nearest
from core.errors import Unsupported
from encoders.model import Encoder
from encoders.roles import head_slices, linear


def head_norms(encoder: Encoder) -> list[Tensor]:
    """Per layer the L1 norm of each head (heads,): its part of q, k, v, out and their biases.

    The bias of `out` belongs to no head. A factored map counts with the product of its factors.
    """
    return [_head_norms(encoder, layer) for layer in range(len(encoder.layers))]


def _head_norms(encoder: Encoder, layer: int) -> Tensor:
    rows = {role: _row_norms(encoder, layer, role) for role in ("q", "k", "v")}
    columns = _matrix(encoder, layer, "out").sum(0)
    slices = head_slices(encoder, layer)
    norms = [
        rows["q"][qk].sum() + rows["k"][qk].sum() + rows["v"][vo].sum() + columns[vo].sum()
        for qk, vo in slices
    ]
    return torch.stack(norms) if norms else columns.new_zeros(0)


def unit_norms(encoder: Encoder) -> list[Tensor]:
    """Per layer the L1 norm of each FFN unit (units,): its row and bias of fc1, column of fc2."""
    return [
        _row_norms(encoder, layer, "fc1") + _matrix(encoder, layer, "fc2").sum(0)
        for layer in range(len(encoder.layers))
    ]


def _row_norms(encoder: Encoder, layer: int, role: str) -> Tensor:
    bias = linear(encoder, layer, role).bias.detach().float()
    return _matrix(encoder, layer, role).sum(1) + bias.abs()


def _matrix(encoder: Encoder, layer: int, role: str) -> Tensor:
    return linear(encoder, layer, role).weight.detach().float().abs()


def keep_highest(
    scores: Sequence[Tensor], rate: float, scope: str, dense: Sequence[int] | None = None
) -> list[list[int]]:
    """Per layer the positions that stay, ascending, when that fraction of the lowest goes.

    scope: `layer` removes the fraction from each layer, `model` from all layers together. Either
    way each layer keeps its best one. Of equal scores the last goes first. dense: how many each
    layer had before any went, which the rate is a fraction of.

    Raises:
        Unsupported: the rate is nearer to none at all than to one in each layer.
    """
    sizes = list(map(len, scores)) if dense is None else dense
    total, layers = sum(sizes), sum(map(bool, sizes))
    if rate * total >= total - layers / 2:
        raise Unsupported(
            f"{rate:g} of {total} leaves none, and each layer keeps one; ask for at most "
            f"{1 - layers / total:.3g}"
        )
    if scope == "layer":
        return [
            _highest(own, size - nearest(rate, size))
            for own, size in zip(scores, sizes, strict=True)
        ]
    removed = nearest(rate, total) - (total - sum(map(len, scores)))
    safe = [set(_highest(own, 1)) for own in scores]
    at_risk = [
        (float(value), -layer, -position)
        for layer, own in enumerate(scores)
        for position, value in enumerate(own)
        if position not in safe[layer]
    ]
    gone = {(-layer, -position) for _, layer, position in sorted(at_risk)[: max(0, removed)]}
    return [
        [position for position in range(len(own)) if (layer, position) not in gone]
        for layer, own in enumerate(scores)
    ]


def _highest(scores: Tensor, count: int) -> list[int]:
    order = torch.argsort(scores, descending=True, stable=True)
    return sorted(order[: max(1, count)].tolist())
