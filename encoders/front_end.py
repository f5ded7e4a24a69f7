"""From waveforms to features: log-mel frames or wav2vec 2.0's strided convolutions."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.spec import SAMPLE_RATE, ConvFrontEnd, MelFrontEnd

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
            orders = [log_mel(waveforms.float(), self.spec.bins)]
            for _ in range(self.spec.deltas):
                held = orders[-1] if lengths is None else _hold_last(orders[-1], counts)
                orders.append(_deltas(held))
            frames = orders[0] if len(orders) == 1 else torch.cat(orders, dim=-1)
            time = frames.shape[1] // self.spec.stack
            frames = frames[:, : time * self.spec.stack].reshape(len(frames), time, self.spec.dim)
            features = (frames - self.mean.float()) / self.std.float()
        return features, torch.div(counts.clamp(min=0), self.spec.stack, rounding_mode="floor")


class Convolutions(nn.Module):
    """wav2vec 2.0's waveform encoder (Baevski et al. 2020, arXiv 2006.11477, sec. 2).

    With `group` norm the statistics of the first layer run over the whole padded row, as in the
    reference implementations: only batches of equal lengths give every utterance its own features.
    """

    def __init__(self, spec: ConvFrontEnd) -> None:
        super().__init__()
        self.spec = spec
        inputs = (1, *spec.channels[:-1])
        shapes = zip(inputs, spec.channels, spec.kernels, spec.strides, strict=True)
        convolutions = [nn.Conv1d(*shape, bias=spec.bias) for shape in shapes]
        for convolution in convolutions:
            nn.init.kaiming_normal_(convolution.weight)
        self.convolutions = nn.ModuleList(convolutions)
        self.norms: nn.ModuleList
        if spec.norm == "group":
            self.norms = nn.ModuleList([nn.GroupNorm(spec.channels[0], spec.channels[0])])
        else:
            self.norms = nn.ModuleList(nn.LayerNorm(width) for width in spec.channels)

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Features (batch, time, channels) and the valid frames of each item (batch,)."""
        lengths = full_lengths(waveforms) if lengths is None else lengths
        x = waveforms.to(next(self.parameters()).dtype)[:, None]
        for index, convolution in enumerate(self.convolutions):
            x = convolution(x)
            if self.spec.norm == "layer":
                x = self.norms[index](x.transpose(1, 2)).transpose(1, 2)
            elif index == 0:
                x = self.norms[0](x)
            x = F.gelu(x)
        for kernel, stride in zip(self.spec.kernels, self.spec.strides, strict=True):
            lengths = (torch.div(lengths - kernel, stride, rounding_mode="floor") + 1).clamp(min=0)
        return x.transpose(1, 2), lengths


def full_lengths(batch: Tensor) -> Tensor:
    """The lengths of a batch (batch, time, ...) without padding."""
    return torch.full((batch.shape[0],), batch.shape[1], device=batch.device)


def log_mel(waveforms: Tensor, bins: int) -> Tensor:
    """Log-mel energies (batch, frames, bins) as `torchaudio.compliance.kaldi.fbank` without dither.

    Kaldi removes each window's mean m and then pre-emphasises. Both are linear, so here the whole
    waveform is pre-emphasised once and (1 - 0.97) m taken off; a window's first sample, where this
    would differ, has weight 0.
    """
    emphasised = waveforms - PREEMPHASIS * F.pad(waveforms, (1, 0))[:, :-1]
    means = waveforms.unfold(1, WINDOW, SHIFT).mean(-1, keepdim=True)
    windows = emphasised.unfold(1, WINDOW, SHIFT) - (1 - PREEMPHASIS) * means
    spectrum = torch.fft.rfft(windows * torch.from_numpy(_povey()).to(waveforms.device), FFT)
    energies = (spectrum.real.square() + spectrum.imag.square())[..., :-1]
    mel = energies @ torch.from_numpy(_mel_filters(bins)).to(waveforms.device)
    return mel.clamp(min=torch.finfo(torch.float32).eps).log()


# The two tables are cached arrays and not buffers: they belong to no checkpoint, stay in float32
# in a model that is cast to bfloat16, and are constants to a tracer.


@cache
def _povey() -> np.ndarray:
    return np.hanning(WINDOW).astype(np.float32) ** np.float32(0.85)


@cache
def _mel_filters(bins: int) -> np.ndarray:
    """Kaldi's triangles (FFT bins, mel bins) from 20 Hz to half the sampling rate."""
    low, high = _mel(20.0), _mel(SAMPLE_RATE / 2)
    edges = low + (high - low) / (bins + 1) * np.arange(bins + 2)
    points = _mel(SAMPLE_RATE / FFT * np.arange(FFT // 2))[:, None]
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
