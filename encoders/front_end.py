"""From waveforms to features: log-mel frames or wav2vec 2.0's strided convolutions."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.spec import SAMPLE_RATE, ConvFrontEnd, MelFrontEnd
from encoders import kernels
from encoders.linear import Convolution
from encoders.padding import behind, full_lengths, padding

WINDOW, SHIFT, FFT = 400, 160, 512
PREEMPHASIS = 0.97


def build_front_end(spec: ConvFrontEnd | MelFrontEnd) -> nn.Module:
    """The module of that spec: (waveforms (B, S), lengths (B,)) -> features (B, T, F), frames."""
    return LogMel(spec) if isinstance(spec, MelFrontEnd) else Convolutions(spec)


class LogMel(nn.Module):
    """Kaldi's log-mel filter bank, with deltas, stacked, standardised by `mean` and `std`.

    25 ms Povey windows every 10 ms that never reach over an end, so a frame depends on its own
    samples alone and padding behind an utterance changes none of its frames. Computed in float32
    whatever the encoder's numeric type.
    """

    def __init__(self, spec: MelFrontEnd) -> None:
        super().__init__()
        self.spec = spec
        self.register_buffer("mean", torch.zeros(spec.dim))
        self.register_buffer("std", torch.ones(spec.dim))
        self.mean: Tensor
        self.std: Tensor

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Features (batch, time, dim) and the valid frames of each item (batch,)."""
        samples = full_lengths(waveforms) if lengths is None else lengths
        counts = torch.div(samples - WINDOW, SHIFT, rounding_mode="floor") + 1
        with torch.autocast(waveforms.device.type, enabled=False):
            x = waveforms.float() if self.spec.gain == 1 else waveforms.float() * self.spec.gain
            orders = [log_mel(x, self.spec.bins, self.spec.window)]
            for _ in range(self.spec.deltas):
                held = orders[-1] if lengths is None else _hold_last(orders[-1], counts)
                orders.append(_deltas(held))
            frames = orders[0] if len(orders) == 1 else torch.cat(orders, dim=-1)
            features = (self._stack(frames) - self.mean.float()) / self.std.float()
            if self.spec.keep_last:
                features = self._without_surplus(features, counts)
                counts = counts + self.spec.stack - 1
        return features, torch.div(counts.clamp(min=0), self.spec.stack, rounding_mode="floor")

    def _stack(self, frames: Tensor) -> Tensor:
        """Neighbours of frames (batch, time, F) joined, (batch, time / stack, dim)."""
        if self.spec.keep_last:
            frames = F.pad(frames, (0, 0, 0, -frames.shape[1] % self.spec.stack))
        stack = self.spec.stack
        last = frames.shape[1] // stack * stack
        # No view of them all: whether its memory is in order depends on the time, and so would an
        # exported program.
        return torch.cat([frames[:, first:last:stack] for first in range(stack)], dim=-1)

    def _without_surplus(self, features: Tensor, counts: Tensor) -> Tensor:
        """Stacked features with 0 for the frames from each count (batch,) on."""
        frames = features.unflatten(-1, (self.spec.stack, -1)).flatten(1, 2)
        frames = frames.masked_fill(behind(counts, frames.shape[1])[..., None], 0.0)
        return frames.view(features.shape)


class Convolutions(nn.Module):
    """wav2vec 2.0's waveform encoder (Baevski et al. 2020, arXiv 2006.11477, sec. 2).

    With `group` norm the statistics of the first layer run over each utterance's own frames, so
    that padding changes no feature. The reference implementations let them run over the padding:
    they agree on utterances alone, and on batches of equal lengths.
    """

    def __init__(self, spec: ConvFrontEnd) -> None:
        super().__init__()
        self.spec = spec
        inputs = (1, *spec.channels[:-1])
        shapes = zip(inputs, spec.channels, spec.kernels, spec.strides, strict=True)
        convolutions = [Convolution(*shape, bias=spec.bias) for shape in shapes]
        for convolution in convolutions:
            nn.init.kaiming_normal_(convolution.weight)
        self.convolutions = nn.ModuleList(convolutions)
        self.norms: nn.ModuleList
        if spec.norm == "group":
            self.norms = nn.ModuleList([nn.GroupNorm(spec.channels[0], spec.channels[0])])
        else:
            self.norms = nn.ModuleList(nn.LayerNorm(width) for width in spec.channels)
        self.scale = nn.Parameter(torch.ones(spec.dim)) if spec.scaled else None

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Features (batch, time, channels) and the valid frames of each item (batch,)."""
        x = waveforms.to(next(self.parameters()).dtype)[..., None]
        if self.spec.norm == "group":
            counts = None if lengths is None else self._counts(lengths, 1)
            x = _first_group_norm(x, self.convolutions[0], self.norms[0], counts)
            for convolution in self.convolutions[1:]:
                x = convolution(x, gelu=True)
        else:
            for convolution, norm in zip(self.convolutions, self.norms, strict=True):
                x = F.gelu(norm(convolution(x)))
        if self.scale is not None:
            x = x * self.scale
        lengths = full_lengths(waveforms) if lengths is None else lengths
        return x, self._counts(lengths, len(self.convolutions))

    def _counts(self, lengths: Tensor, depth: int) -> Tensor:
        """Valid frames (batch,) behind that many convolutions."""
        shapes = zip(self.spec.kernels[:depth], self.spec.strides[:depth], strict=True)
        for kernel, stride in shapes:
            lengths = (torch.div(lengths - kernel, stride, rounding_mode="floor") + 1).clamp(min=0)
        return lengths


def _first_group_norm(
    x: Tensor, convolution: nn.Module, norm: nn.Module, counts: Tensor | None
) -> Tensor:
    """GELU of the norm over time of x (batch, samples, 1) convolved, (batch, time, channels).

    counts: how many frames of each utterance (batch,) the statistics run over, None for all.
    """
    assert isinstance(convolution, nn.Conv1d)
    assert isinstance(norm, nn.GroupNorm)
    time = (x.shape[1] - convolution.kernel_size[0]) // convolution.stride[0] + 1
    padded = padding(counts, time)
    valid = None if padded is None else ~padded
    if kernels.apply(x, convolution.weight):
        return _folded(x[..., 0], convolution, norm, valid)
    y = convolution(x).transpose(1, 2)
    return F.gelu(norm(y) if valid is None else _masked(y, norm, valid[:, None])).transpose(1, 2)


def _masked(y: Tensor, norm: nn.GroupNorm, valid: Tensor) -> Tensor:
    """The norm of y (batch, channels, time) over its valid frames (batch, 1, time)."""
    count = valid.sum(-1, keepdim=True).clamp(min=1)
    centred = y.float() - y.float().masked_fill(~valid, 0.0).sum(-1, keepdim=True) / count
    variance = centred.masked_fill(~valid, 0.0).square().sum(-1, keepdim=True) / count
    normed = centred * (variance + norm.eps).rsqrt()
    return normed.to(y.dtype) * norm.weight[:, None] + norm.bias[:, None]


def _folded(
    waveforms: Tensor, convolution: nn.Conv1d, norm: nn.GroupNorm, valid: Tensor | None
) -> Tensor:
    """GELU, norm and convolution as one product for each utterance, (batch, time, channels).

    A channel's mean and variance over time follow from the mean and covariance of the windows, a
    few numbers; with them the norm is part of the weight, and no channel is read for it.
    """
    windows = waveforms.unfold(1, convolution.kernel_size[0], convolution.stride[0])
    weight, exact = convolution.weight[:, 0].double(), windows.double()
    share = torch.ones_like(exact[..., :1]) if valid is None else valid[..., None].double()
    share = share / share.sum(1, keepdim=True).clamp(min=1)
    mean = (share * exact).sum(1, keepdim=True)
    centred = exact - mean
    variance = (weight @ ((share * centred).mT @ centred) * weight).sum(-1)
    scale = norm.weight * (variance + norm.eps).rsqrt()
    weights = (scale[..., None] * weight).to(windows.dtype)
    biases = (norm.bias - scale * (mean @ weight.t())[:, 0]).to(windows.dtype)
    rows = [kernels.linear(*row, gelu=True) for row in zip(windows, weights, biases, strict=True)]
    return rows[0][None] if len(rows) == 1 else torch.stack(rows)


def log_mel(waveforms: Tensor, bins: int, window: str = "povey") -> Tensor:
    """Log-mel energies (batch, frames, bins) as `torchaudio.compliance.kaldi.fbank` without dither.

    Kaldi removes each window's mean m and then pre-emphasises. Both are linear, so here the whole
    waveform is pre-emphasised once and (1 - 0.97) m taken off. A window's first sample, which Kaldi
    takes for the one in front of it, is mended where it has a weight: Povey's window is 0 there.
    """
    emphasised = waveforms - PREEMPHASIS * F.pad(waveforms, (1, 0))[:, :-1]
    means = waveforms.unfold(1, WINDOW, SHIFT).mean(-1, keepdim=True)
    # As long as the transform, which pads windows slowly; what is too much has weight 0.
    windows = F.pad(emphasised, (0, FFT - WINDOW)).unfold(1, FFT, SHIFT)
    weights = torch.from_numpy(_window(window)).to(waveforms.device)
    windows = (windows - (1 - PREEMPHASIS) * means) * weights
    if window != "povey":
        steps = F.pad(waveforms, (1, 0))[:, :-1] - waveforms
        first = PREEMPHASIS * weights[0] * steps.unfold(1, WINDOW, SHIFT)[..., :1]
        windows = windows + F.pad(first, (0, FFT - 1))
    spectrum = torch.fft.rfft(windows)[..., :-1]
    energies = spectrum.real.square() + spectrum.imag.square()
    filters = torch.from_numpy(_mel_filters(bins)).to(waveforms.device)
    fast = kernels.apply(energies, filters)
    mel = kernels.linear(energies, filters) if fast else F.linear(energies, filters)
    return mel.clamp(min=torch.finfo(torch.float32).eps).log()


# The two tables are cached arrays and not buffers: they belong to no checkpoint, stay in float32
# in a model that is cast to bfloat16, and are constants to a tracer.


@cache
def _window(name: str) -> np.ndarray:
    """Povey's window or Hamming's (FFT,), 0 behind it."""
    if name == "povey":
        window = np.hanning(WINDOW).astype(np.float32) ** np.float32(0.85)
    else:
        window = np.hamming(WINDOW).astype(np.float32)
    return np.concatenate([window, np.zeros(FFT - WINDOW, np.float32)])


@cache
def _mel_filters(bins: int) -> np.ndarray:
    """Kaldi's triangles (mel bins, FFT bins) from 20 Hz to half the sampling rate."""
    low, high = _mel(20.0), _mel(SAMPLE_RATE / 2)
    edges = low + (high - low) / (bins + 1) * np.arange(bins + 2)[:, None]
    points = _mel(SAMPLE_RATE / FFT * np.arange(FFT // 2))
    rising = (points - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - points) / (edges[2:] - edges[1:-1])
    return np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)


def _mel(hertz: Any) -> Any:
    return 1127.0 * np.log(1.0 + hertz / 700.0)


def _deltas(frames: Tensor) -> Tensor:
    """Slopes over five frames, the ends held, as `torchaudio.functional.compute_deltas`."""
    padded = torch.cat(
        [frames[:, :1].expand(-1, 2, -1), frames, frames[:, -1:].expand(-1, 2, -1)], dim=1
    )
    time = frames.shape[1]
    near = padded[:, 3 : 3 + time] - padded[:, 1 : 1 + time]
    far = padded[:, 4:] - padded[:, :time]
    return (near + 2 * far) / 10


def _hold_last(frames: Tensor, counts: Tensor) -> Tensor:
    """Frames with each item's last valid one repeated to the end of the row."""
    time = torch.arange(frames.shape[1], device=frames.device)
    index = torch.minimum(time[None], counts[:, None] - 1).clamp(min=0)
    return frames.gather(1, index[..., None].expand_as(frames))
