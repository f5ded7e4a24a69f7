"""Long audio in pieces: each is encoded with some audio on both sides, which is thrown away.

The features are exactly those of the whole waveform: what front ends take from all of it, the
statistics of a GroupNorm and the level, is found in a pass before. Attention sees the piece and its
context where it would see all, so the states behind it are near those of the whole, and not equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from core.errors import InputError
from core.spec import SAMPLE_RATE
from encoders.model import Encoder, Hidden

#: Windows of the first convolution that are looked at together.
BLOCK = 1 << 20


def stream(
    encoder: Encoder, waveform: Tensor, chunk_seconds: float = 10.0, context_seconds: float = 2.0
) -> Iterator[Hidden]:
    """Hidden states of a waveform (samples,), a chunk (1, time, dim) at a time.

    Joined along time they are as many as of the whole waveform. What they need grows with the
    chunk alone. context_seconds: encoded on each side of a chunk, where there is so much.

    Raises:
        InputError: the waveform holds no frame, or a chunk would hold none.
    """
    spec = encoder.spec
    chunk, context = (round(s * SAMPLE_RATE / spec.hop) for s in (chunk_seconds, context_seconds))
    if waveform.ndim != 1 or chunk < 1 or context < 0:
        raise InputError(
            f"chunks of {chunk_seconds:g} s with {context_seconds:g} s of context of a waveform of "
            f"shape {tuple(waveform.shape)}; expected (samples,), and at least a frame per chunk"
        )
    frames = spec.frames(len(waveform))
    if not frames:
        raise InputError(f"a waveform of {len(waveform)} samples holds no frame")
    overlap = window(encoder) - spec.hop
    if spec.normalize_waveform:
        waveform = F.layer_norm(waveform, waveform.shape)
    front_end = _front_end(encoder, waveform)
    for start in range(0, frames, chunk):
        first, stop = max(0, start - context), min(frames, start + chunk + context)
        own = slice(start - first, min(start + chunk, frames) - first)
        # To the end of the audio the last piece has all that is left, as the whole has.
        last = len(waveform) if stop == frames else stop * spec.hop + overlap
        yield _cut(encoder.encode(front_end(waveform[None, first * spec.hop : last])), own)


def window(encoder: Encoder) -> int:
    """The least samples that make a frame."""
    return next(n for n in range(1, 1 << 20) if encoder.spec.frames(n))


def _front_end(encoder: Encoder, waveform: Tensor) -> Callable[[Tensor], Tensor]:
    """From pieces of a waveform (1, samples) to the features that they have in it."""
    front_end: Any = encoder.front_end
    if encoder.spec.front_end.kind == "mel" or encoder.spec.front_end.norm == "layer":
        return lambda piece: front_end(piece)[0]
    first, norm, rest = front_end.convolutions[0], front_end.norms[0], front_end.convolutions[1:]
    mean, variance = _statistics(first, waveform.to(first.weight.dtype))
    factor = norm.weight * (variance + norm.eps).rsqrt().to(norm.weight.dtype)
    weight, bias = factor[:, None, None] * first.weight, norm.bias - factor * mean.to(norm.bias)
    if first.bias is not None:
        bias = bias + factor * first.bias

    def convolve(piece: Tensor) -> Tensor:
        x = F.gelu(F.conv1d(piece.to(weight.dtype)[:, None], weight, bias, first.stride))
        x = x.transpose(1, 2)
        for convolution in rest:
            x = convolution(x, gelu=True)
        return x if front_end.scale is None else x * front_end.scale

    return convolve


def _statistics(convolution: nn.Conv1d, waveform: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance over time of each channel that a convolution makes of a waveform."""
    kernel, stride = convolution.kernel_size[0], convolution.stride[0]
    windows = waveform.unfold(0, kernel, stride)
    total = windows.double().mean(0)
    moments = sum((own.double() - total).T @ (own.double() - total) for own in windows.split(BLOCK))
    weight = convolution.weight[:, 0].double()
    bias = 0.0 if convolution.bias is None else convolution.bias.double()
    return weight @ total + bias, (weight @ (moments / len(windows)) * weight).sum(1)


def _cut(hidden: Hidden, own: slice) -> Hidden:
    """Those frames alone."""
    states = [state[:, own] for state in hidden.states]
    count = hidden.lengths.new_full(hidden.lengths.shape, states[0].shape[1])
    alpha = None if hidden.alpha is None else hidden.alpha[:, own]
    return replace(hidden, states=states, lengths=count, tokens=None, alpha=alpha)
