"""What compressors may speak of: the linear maps and heads of a layer, never attribute paths."""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import cast

from torch import nn

from core.errors import InputError, closest
from core.spec import ROLES
from encoders.layer import LowRank
from encoders.model import Encoder
from encoders.quantized import Quantized


def path(layer: int, role: str) -> str:
    """Where the encoder keeps the linear map in that role; its tensors' names begin with it.

    Raises:
        InputError: there is no such role.
    """
    if role not in ROLES:
        raise InputError(f"unknown role {role!r}{closest(role, ROLES)}; known: {', '.join(ROLES)}")
    return (
        f"layers.{layer}.{role}" if role in ("fc1", "fc2") else f"layers.{layer}.attention.{role}"
    )


def linear(encoder: Encoder, layer: int, role: str) -> nn.Linear | Quantized | LowRank:
    """The linear map in that role (q, k, v, out, fc1 or fc2) of that layer.

    Raises:
        InputError: there is no such layer or role.
    """
    if not 0 <= layer < len(encoder.layers):
        raise InputError(f"layer {layer} of {len(encoder.layers)}; layers count from 0")
    return cast("nn.Linear | Quantized | LowRank", encoder.get_submodule(path(layer, role)))


def head_slices(encoder: Encoder, layer: int) -> list[tuple[slice, slice]]:
    """Per kept head, its rows of q and k, and its rows of v, which are its columns of out."""
    spec = encoder.spec.layers[layer]
    return list(zip(_slices(spec.qk), _slices(spec.vo), strict=True))


def _slices(widths: tuple[int, ...]) -> list[slice]:
    return [slice(start, stop) for start, stop in pairwise(accumulate(widths, initial=0))]
