"""What training does to waveforms: a random equaliser and stationary coloured noise.

The built-in model was pre-trained under the same two (encoders.pretrain, there on log-mel power);
the built-in tasks have babble and modulated noise instead, so that no score is memorised noise.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core.spec import SAMPLE_RATE
from encoders.corpora.distortion import EQ_KNOTS, EQ_RANGE_DB

EQUALISED, NOISY = 0.85, 0.8  # shares of the utterances
SNR_DB = (5.0, 25.0)
TILT = 0.7  # the noise's spectrum falls as f ** -u, u up to this
_LOWEST = 50.0  # Hz; below it the spectrum of the noise is flat


def augment(waveforms: Tensor, generator: torch.Generator) -> Tensor:
    """Waveforms (batch, samples) at 16 kHz as other channels and rooms would give them, as loud."""
    batch, samples = waveforms.shape
    frequencies = torch.fft.rfftfreq(samples, 1 / SAMPLE_RATE)
    loud = _loudness(waveforms)
    speech = torch.fft.irfft(
        torch.fft.rfft(waveforms) * _gains(batch, frequencies, generator), samples
    )
    speech = speech * (loud / _loudness(speech))
    noise = _noise(batch, samples, frequencies, generator)
    low, high = SNR_DB
    ratio = low + (high - low) * torch.rand(batch, 1, generator=generator)
    share = 10 ** (-ratio / 20) * (torch.rand(batch, 1, generator=generator) < NOISY)
    return (speech + noise * loud * share) / (1 + share.square()).sqrt()


def _gains(batch: int, frequencies: Tensor, generator: torch.Generator) -> Tensor:
    """Random gains (batch, frequencies), linear in decibels over the logarithm of frequency."""
    knots = torch.from_numpy(EQ_KNOTS).float().log()
    decibels = (2 * torch.rand(batch, len(knots), generator=generator) - 1) * EQ_RANGE_DB
    decibels = decibels * (torch.rand(batch, 1, generator=generator) < EQUALISED)
    place = (frequencies.clamp(min=1).log() - knots[0]) / (knots[1] - knots[0])
    place = place.clamp(0, len(knots) - 1)
    below = place.floor().long().clamp(max=len(knots) - 2)
    above = place - below
    curve = decibels[:, below] * (1 - above) + decibels[:, below + 1] * above
    return 10 ** (curve / 20)


def _noise(batch: int, samples: int, frequencies: Tensor, generator: torch.Generator) -> Tensor:
    white = torch.fft.rfft(torch.randn(batch, samples, generator=generator))
    tilt = TILT * torch.rand(batch, 1, generator=generator)
    noise = torch.fft.irfft(white * frequencies.clamp(min=_LOWEST) ** -tilt, samples)
    return noise / _loudness(noise)


def _loudness(waveforms: Tensor) -> Tensor:
    """Root mean square (batch, 1)."""
    return waveforms.square().mean(1, keepdim=True).sqrt().clamp(min=1e-9)
