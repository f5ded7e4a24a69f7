"""Where heads look: their attention maps, and how near these are to the diagonal."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from functools import partial
from typing import cast

import torch
from torch import Tensor

from encoders.layer import Attention
from encoders.model import Encoder


@torch.no_grad()
def attention_maps(encoder: Encoder, waveform: Tensor) -> list[Tensor]:
    """Per layer how much of each key a query takes (heads, time, time).

    waveform: one utterance (1, samples). The maps are computed aside of the fused attention, from
    what enters it.
    """
    maps = [torch.zeros(0) for _ in encoder.layers]

    def look(layer: int, attention: Attention, inputs: tuple[Tensor, ...]) -> None:
        if attention.heads:
            maps[layer] = attention.maps(*inputs)[0].float()

    with ExitStack() as stack:
        for layer, module in enumerate(encoder.layers):
            attention = cast("Attention", module.attention)
            stack.callback(attention.register_forward_pre_hook(partial(look, layer)).remove)
        encoder(waveform)
    return maps


def diagonality_scores(encoder: Encoder, waveforms: Iterable[Tensor]) -> list[Tensor]:
    """Per layer the diagonality of each head (heads,), as its mean over utterances (1, samples)."""
    sums = [torch.zeros(len(layer.heads)) for layer in encoder.spec.layers]
    count = 0
    for waveform in waveforms:
        for total, maps in zip(sums, attention_maps(encoder, waveform), strict=True):
            if len(maps):
                total += diagonality(maps).cpu()
        count += 1
    return [total / max(1, count) for total in sums]


def diagonality(maps: Tensor) -> Tensor:
    """Of attention maps (heads, time, time), how near to the diagonal they are (heads,), up to 0.

    -1/T^2 sum over queries q and keys k of |q - k| A[q, k] (Yang et al. 2020, arXiv 2006.03265).
    """
    place = torch.arange(maps.shape[-1], device=maps.device)
    distances = (place[:, None] - place).abs()
    return -(maps * distances).mean((-2, -1))
