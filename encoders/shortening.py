"""Joins frames to tokens in front of the Transformer, and spreads the tokens' states again.

Averages, strided convolutions (Meng et al. 2022, arXiv 2210.07189) and continuous
integrate-and-fire, CIF (Dong and Xu 2020, arXiv 1905.11235), with a strength that may be chosen
after training (Chen et al. 2022, arXiv 2211.02332).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from core.spec import TIE, ModelSpec, Shortening
from encoders.exporting import exporting
from encoders.padding import behind


@dataclass
class Tokens:
    """values: (batch, tokens, dim), 0 behind an utterance's last token. counts: tokens (batch,).

    owners: the token of each frame (batch, time). alpha: what CIF's weights were made of
    (batch, time), from 0 to 1.
    """

    values: Tensor
    counts: Tensor
    owners: Tensor
    alpha: Tensor | None = None

    def spread(self, states: Tensor) -> Tensor:
        """Each frame's token's state (batch, time, dim) from those of the tokens."""
        return states.gather(1, self.owners[..., None].expand(-1, -1, states.shape[-1]))


def build_shortening(spec: ModelSpec) -> Average | Strided | Fire | None:
    """The module of that spec: frames (B, T, D), lengths (B,) -> Tokens."""
    if spec.shortening is None:
        return None
    kinds: dict[str, type[Average | Strided | Fire]]
    kinds = {"mean": Average, "conv": Strided, "cif": Fire}
    return kinds[spec.shortening.kind](spec.dim, spec.shortening)


class Average(nn.Module):
    """The mean of every `factor` frames; of a frame that two tokens share, each has its part."""

    def __init__(self, dim: int, spec: Shortening) -> None:
        super().__init__()
        self.factor = spec.factor

    def forward(self, x: Tensor, lengths: Tensor) -> Tokens:
        weights = x.new_full(x.shape[:2], 1 / self.factor, dtype=torch.float64)
        return integrate(x, weights, lengths, self.factor)


class Strided(nn.Module):
    """A convolution over every `factor` frames, at first their mean.

    A last token that is not full has its last frame repeated.
    """

    def __init__(self, dim: int, spec: Shortening) -> None:
        super().__init__()
        self.stride = int(spec.factor)
        self.convolution = nn.Conv1d(dim, dim, self.stride, self.stride)
        nn.init.zeros_(self.convolution.bias)  # type: ignore[arg-type]
        with torch.no_grad():
            self.convolution.weight.copy_(torch.eye(dim)[..., None] / self.stride)

    def forward(self, x: Tensor, lengths: Tensor) -> Tokens:
        counts = count_tokens(lengths / self.stride)
        most = _most(counts, x.shape[1], self.stride)
        frames = torch.arange(most * self.stride, device=x.device)
        held = torch.minimum(frames[None], lengths[:, None] - 1).clamp(min=0)
        x_held = x.gather(1, held[..., None].expand(-1, -1, x.shape[-1]))
        values = self.convolution(x_held.transpose(1, 2)).transpose(1, 2)
        owners = torch.arange(x.shape[1], device=x.device)[None] // self.stride
        return Tokens(_blank(values, counts), counts, torch.minimum(owners, counts[:, None] - 1))


class Fire(nn.Module):
    """CIF: a convolution reads off each frame how much of a token it makes.

    strength: Chen et al.'s lambda. It belongs to no weight, so that a training may draw it anew at
    each step, and a task may learn it as a tensor.
    """

    WIDTH = 3

    def __init__(self, dim: int, spec: Shortening) -> None:
        super().__init__()
        self.strength: float | Tensor = spec.strength
        self.convolution = nn.Conv1d(dim, dim, self.WIDTH, padding=self.WIDTH // 2)
        self.linear = nn.Linear(dim, 1)

    def forward(self, x: Tensor, lengths: Tensor) -> Tokens:
        alpha = self.alpha(x, lengths)
        tokens = integrate(x, weaken(alpha, self.strength), lengths)
        tokens.alpha = alpha
        return tokens

    def alpha(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Weights (batch, time) from 0 to 1 of frames (batch, time, dim), 0 behind lengths."""
        near = self.convolution(x.transpose(1, 2)).relu().transpose(1, 2)
        alpha = self.linear(near)[..., 0].double().sigmoid()
        return alpha.masked_fill(behind(lengths, x.shape[1]), 0.0)


def weaken(alpha: Tensor, strength: float | Tensor) -> Tensor:
    """The weights of strength lambda from alpha (batch, time), 0 at padding (arXiv 2211.02332).

    Below 1 they lie between 1, which makes each frame a token, and alpha; from 1 on they are alpha
    scaled down, but never to less than one token in all.
    """
    if strength < 1:
        return strength * alpha + (1 - strength)
    scaled = (2 - strength) * alpha
    return scaled / scaled.sum(1, keepdim=True).clamp(min=TIE, max=1.0)


def integrate(x: Tensor, weights: Tensor, lengths: Tensor, factor: float = 1.0) -> Tokens:
    """Join frames (batch, time, dim) by weights (batch, time) of at most 1, all tokens at once.

    Laid end to end, each frame as long as its weight, frame t lies in one or two of the intervals
    [n, n + 1) that are the tokens. A token is the average over its interval. What is left at the
    end is one more token if it is at least half of one, and of an utterance that has no other.
    Gradients reach the weights through the parts that the two tokens get of a frame. factor: of at
    least so many frames a token is made on average.
    """
    weights = weights.double().masked_fill(behind(lengths, x.shape[1]), 0.0)
    ends = weights.cumsum(1)
    starts = ends - weights
    counts = count_tokens(ends[:, -1])
    first = (starts.detach() + TIE).floor()
    near = torch.minimum(ends, first + 1) - starts
    # The last one takes what is left over and is thrown away.
    slots = _most(counts, x.shape[1], factor) + 1
    rows = torch.arange(x.shape[0], device=x.device)[:, None] * slots
    sums = x.new_zeros(x.shape[0] * slots, x.shape[-1] + 1, dtype=torch.float32)
    frames = torch.cat([x.float(), torch.ones_like(x[..., :1], dtype=torch.float32)], dim=-1)
    for token, part in ((first, near), (first + 1, weights - near)):
        index = rows + token.long().clamp(max=slots - 1)
        parts = (frames * part[..., None].float()).flatten(0, 1)
        sums = sums.index_add(0, index.flatten(), parts)
    sums = sums.view(x.shape[0], slots, -1)[:, :-1]
    values = (sums[..., :-1] / sums[..., -1:].clamp(min=TIE)).to(x.dtype)
    owners = ((starts + ends) / 2 + TIE).floor().long()
    return Tokens(_blank(values, counts), counts, torch.minimum(owners, counts[:, None] - 1))


def count_tokens(totals: Tensor) -> Tensor:
    """Tokens of that total weight: `Shortening.tokens` for tensors."""
    return (totals.double() + 0.5 + TIE).floor().long().clamp(min=1)


def _most(counts: Tensor, frames: int, factor: float) -> int:
    """The most tokens of an utterance; where numbers are not known, what that many frames allow."""
    return frames * 1000 // int(factor * 1000) + 1 if exporting() else int(counts.max())


def _blank(values: Tensor, counts: Tensor) -> Tensor:
    """Tokens (batch, tokens, dim) with 0 behind each count."""
    return values.masked_fill(behind(counts, values.shape[1])[..., None], 0.0)
