"""How long the utterances of a batch are, and where nothing but padding is left of them."""

from __future__ import annotations

import torch
from torch import Tensor

from encoders.exporting import exporting


def full_lengths(batch: Tensor) -> Tensor:
    """The lengths of a batch (batch, time, ...) without padding."""
    return torch.full((batch.shape[0],), batch.shape[1], device=batch.device)


def behind(lengths: Tensor, time: int) -> Tensor:
    """True (batch, time) from each length on."""
    return torch.arange(time, device=lengths.device)[None] >= lengths[:, None]


def padding(lengths: Tensor | None, time: int) -> Tensor | None:
    """True (batch, time) at padded frames, None where there are none, as far as can be seen."""
    if lengths is None or (not exporting() and bool((lengths >= time).all())):
        return None
    return behind(lengths, time)
