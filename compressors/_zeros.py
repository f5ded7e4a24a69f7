"""Unstructured pruning: weights become zero where they stand, and shapes stay as they are."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from compressors._base import Setting, nearest
from core.spec import ROLES
from encoders.model import Encoder
from encoders.objectives import Objective
from encoders.roles import linear


class ByMagnitude:
    """What methods share that set the smallest weights to zero, whatever they train in between."""

    acts_on: ClassVar[str] = "weights and biases of the Transformer's linear maps"
    reduces: ClassVar[str] = "params_nonzero"

    def pruner(
        self, encoder: Encoder, dense: Encoder, setting: Setting, objective: Objective | None
    ) -> Callable[[float], Encoder]:
        return partial(zero_lowest, encoder, magnitudes(encoder), dense=dense)

    def held(self, encoder: Encoder) -> AbstractContextManager[None]:
        return zeros_held(encoder)

    def achieved(self, dense: Encoder, compressed: Encoder) -> float:
        return zeroed(dense, compressed)


def weights(encoder: Encoder) -> list[tuple[nn.Module, str]]:
    """Weights and biases of all linear maps of all layers, as torch.nn.utils.prune names them.

    85.0 M of HuBERT Base's 94.4 M parameters. A factored map counts with its factors.
    """
    return [
        (module, name)
        for layer in range(len(encoder.layers))
        for role in ROLES
        for module in linear(encoder, layer, role).modules()
        for name, _ in module.named_parameters(recurse=False)
    ]


def magnitudes(encoder: Encoder) -> Tensor:
    """The absolute values of all `weights` in one row (n,), in float32."""
    return (
        torch.cat([getattr(m, name).detach().flatten() for m, name in weights(encoder)])
        .abs_()
        .float()
    )


def zero_lowest(
    encoder: Encoder, scores: Tensor, rate: float, dense: Encoder | None = None
) -> Encoder:
    """A copy in which that fraction of the weights that are not zero yet is, lowest scores first.

    scores: one per weight (n,) in the order of `weights`, and 0 where the weight is. dense: whose
    weights the rate is a fraction of, where some of them are gone already. With the magnitudes this
    is `prune.global_unstructured` with `L1Unstructured`, which takes ten times as long for a base
    model and several times its memory.
    """
    pruned = copy.deepcopy(encoder)
    total = nonzero(encoder if dense is None else dense)
    keep = _all_but_lowest(scores, len(scores) - total + nearest(rate, total))
    for module, name in weights(pruned):
        tensor = getattr(module, name)
        mask, keep = keep[: tensor.numel()], keep[tensor.numel() :]
        _mask(module, name, mask.view_as(tensor))
    return pruned


def masked_like(encoder: Encoder, sparse: Encoder) -> Encoder:
    """A copy that is zero where the other, of the same shape, is."""
    masked = copy.deepcopy(encoder)
    for (module, name), (other, _) in zip(weights(masked), weights(sparse), strict=True):
        _mask(module, name, (getattr(other, name) != 0).to(getattr(module, name).device))
    return masked


@contextmanager
def zeros_held(encoder: Encoder) -> Iterator[None]:
    """Training leaves zeros among the `weights` zero: no gradient reaches them, nor any momentum.

    Weight decay, which is a fraction of a weight, is nothing there.
    """

    def hold(tensor: Tensor, gradient: Tensor) -> Tensor:
        return gradient * (tensor.detach() != 0)  # wherever training has moved both

    tensors = [getattr(module, name) for module, name in weights(encoder)]
    hooks = [tensor.register_hook(partial(hold, tensor)) for tensor in tensors]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _mask(module: nn.Module, name: str, mask: Tensor) -> None:
    prune.custom_from_mask(module, name, mask)
    prune.remove(module, name)


def _all_but_lowest(scores: Tensor, count: int) -> Tensor:
    """False at exactly that many of the lowest scores (n,); of equal ones at the first."""
    if count == 0:
        return torch.ones_like(scores, dtype=torch.bool)
    threshold = float(np.partition(scores.cpu().numpy(), count - 1)[count - 1])
    keep = scores > threshold
    ties = (scores == threshold).nonzero().flatten()
    lower = int((scores < threshold).sum())
    keep[ties[count - lower :]] = True
    return keep


def zeroed(dense: Encoder, compressed: Encoder) -> float:
    """The fraction of the weights of `dense` that are not zero which is zero in the other."""
    return 1 - nonzero(compressed) / max(1, nonzero(dense))


def nonzero(encoder: Encoder) -> int:
    """How many of the linear maps' weights and biases are not zero."""
    return sum(int(getattr(module, name).count_nonzero()) for module, name in weights(encoder))
