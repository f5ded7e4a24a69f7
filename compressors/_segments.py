"""Segments of speech, about phones: by labels where there are some, else by the signal's change."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from encoders.corpora import Item

#: The label with the sample at which each phone begins.
STARTS = "phone_starts"


def by_labels(items: Sequence[Item], offsets: Sequence[int], time: int, hop: int) -> Tensor | None:
    """The phone (batch, time) that each frame's middle lies in, None where one has no labels.

    offsets: the sample at which each row begins. hop: samples per frame, of windows 25 ms long.
    """
    if not all(item.labels.get(STARTS) for item in items):
        return None
    middles = torch.arange(time) * hop + (hop + 240) // 2
    rows = [
        torch.searchsorted(torch.tensor(_starts(item)), middles + offset, right=True)
        for item, offset in zip(items, offsets, strict=True)
    ]
    return torch.stack(rows)


def _starts(item: Item) -> list[int]:
    return [int(start) for start in item.labels[STARTS].split()]


def by_change(features: Tensor) -> Tensor:
    """Segments (batch, time) of features (batch, time, dim) between the peaks of their change.

    Change is the mean square of the slopes, fitted over five frames, and where it peaks there is
    most often a phone's boundary (Dusan and Rabiner, Interspeech 2006).
    """
    held = torch.cat([features[:, :1]] * 2 + [features] + [features[:, -1:]] * 2, dim=1)
    time = features.shape[1]
    slopes = sum(k * held[:, 2 + k : 2 + k + time] for k in (-2, -1, 1, 2))
    change = torch.as_tensor(slopes).square().mean(-1)
    peaks = torch.zeros_like(change, dtype=torch.bool)
    peaks[:, 1:-1] = (change[:, 1:-1] > change[:, :-2]) & (change[:, 1:-1] >= change[:, 2:])
    return peaks.long().cumsum(1)


def one_token_each(alpha: Tensor, segments: Tensor) -> Tensor:
    """How far the weights (batch, time) of each segment are from 1 in all, on average.

    Segments that the ends of a row may have cut are left out.
    """
    ids = segments - segments[:, :1]
    count = int(ids.max()) + 1
    flat = (ids + count * torch.arange(len(ids), device=ids.device)[:, None]).flatten()
    sums = alpha.new_zeros(len(ids) * count).index_add(0, flat, alpha.flatten())
    order = torch.arange(count, device=ids.device)
    whole = ((order > 0) & (order < ids[:, -1:])).flatten()
    # A phone shorter than a frame has none; phones are numbered on, so its number is missing.
    present = torch.zeros_like(whole).index_fill(0, flat.unique(), True)
    errors = (sums - 1).abs()[whole & present]
    return errors.mean() if len(errors) else alpha.sum() * 0
