"""Early exit: heads between the layers tell how sure the encoder is; who is sure goes no further.

The measure is the entropy of the head's posteriors (DeeBERT, Xin et al. 2020, arXiv 2004.12993), as
the mean over the utterance's frames (DAISY, Lin et al. 2024, arXiv 2406.05464).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from encoders.padding import behind


class Exit(nn.Module):
    """A linear map to clusters; a pre-norm model's residual stream is normalised before it."""

    def __init__(self, dim: int, classes: int, norm_first: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim) if norm_first else nn.Identity()
        self.linear = nn.Linear(dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (..., classes) of hidden states (..., dim)."""
        return self.linear(self.norm(x))


def entropy(logits: Tensor, lengths: Tensor) -> Tensor:
    """Mean over the valid frames of the posteriors' entropy, in nats.

    logits (batch, time, classes) and lengths (batch,) -> (batch,); 0 without a valid frame.
    """
    log = logits.float().log_softmax(-1)
    frames = -(log.exp() * log).sum(-1)
    valid = frames.masked_fill(behind(lengths, logits.shape[1]), 0.0)
    return valid.sum(1) / lengths.clamp(min=1)


def depths_at(entropies: Tensor, threshold: float) -> Tensor:
    """How many layers are run (batch,), from the entropies behind all but the last (batch, L-1)."""
    return 1 + (entropies >= threshold).cumprod(1).sum(1)


def leave_early(
    x: Tensor,
    lengths: Tensor,
    layers: Iterable[Callable[[Tensor, Tensor], Tensor]],
    exits: Iterable[nn.Module],
    threshold: float,
    finish: Callable[[Tensor], Tensor],
) -> tuple[list[Tensor], Tensor]:
    """Run each utterance through the layers until it is sure enough.

    x (batch, time, dim) is the input of the first layer. A layer takes the states of those that are
    still inside and their rows in the batch. finish: what the last state passes through.

    Returns:
        L + 1 states (batch, time, dim), of an utterance that left its last one repeated, and the
        number of layers that each was run through (batch,).
    """
    layers, heads = list(layers), list(exits)
    inside = torch.arange(len(x), device=x.device)
    depths = torch.zeros_like(inside)
    states = [x]
    for index, layer in enumerate(layers):
        if len(inside):
            new = layer(x[inside], inside)
            if index < len(heads):
                sure = entropy(heads[index](new), lengths[inside]) < threshold
            else:
                sure = torch.ones_like(inside, dtype=torch.bool)
            new = torch.where(sure[:, None, None], finish(new), new) if sure.any() else new
            x = x.index_copy(0, inside, new)
            depths[inside] += 1
            inside = inside[~sure]
        states.append(x)
    return states, depths
