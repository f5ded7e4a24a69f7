"""What a channel does to speech: a random equaliser, babble and modulated noise."""

from __future__ import annotations

import numpy as np

from core.spec import SAMPLE_RATE

#: Corner frequencies of the equaliser's random gains, in Hz; between them it is log-linear.
EQ_KNOTS = np.geomspace(60, 8000, 7)
EQ_RANGE_DB = 8.0


def distort(
    wave: np.ndarray, babble: list[np.ndarray], snr_db: float, draw: np.random.Generator
) -> np.ndarray:
    """Speech (samples,) through an equaliser, with noise at that ratio; an RMS of 0.05 again."""
    wave = equalise(wave, draw)
    share = draw.uniform(0.2, 0.8)
    crowd, hiss = _crowd(len(wave), babble, draw), _modulated_noise(len(wave), draw)
    noise = np.sqrt(share) * crowd + np.sqrt(1 - share) * hiss
    noise *= _rms(wave) / _rms(noise) * 10 ** (-snr_db / 20)
    mixed = wave + noise
    return mixed * (0.05 / _rms(mixed))


def equalise(wave: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Gains within +-8 dB at seven frequencies, interpolated on a logarithmic axis."""
    frequencies = np.fft.rfftfreq(len(wave), 1 / SAMPLE_RATE)
    gains = draw.uniform(-EQ_RANGE_DB, EQ_RANGE_DB, len(EQ_KNOTS))
    curve = np.interp(np.log(np.maximum(frequencies, 1.0)), np.log(EQ_KNOTS), gains)
    return np.fft.irfft(np.fft.rfft(wave) * 10 ** (curve / 20), len(wave))


def _crowd(samples: int, babble: list[np.ndarray], draw: np.random.Generator) -> np.ndarray:
    """Four to seven people talking at once, at an RMS of 1."""
    mixed = np.zeros(samples)
    for index in draw.choice(len(babble), draw.integers(4, 8), replace=False):
        voice = np.resize(babble[index] / 32768.0, samples + len(babble[index]))
        start = draw.integers(0, len(babble[index]))
        mixed += voice[start : start + samples] / _rms(babble[index] / 32768.0)
    return mixed / _rms(mixed)


def _modulated_noise(samples: int, draw: np.random.Generator) -> np.ndarray:
    """Noise with a random spectral tilt that swells and fades 1 to 8 times a second, RMS 1."""
    frequencies = np.fft.rfftfreq(samples, 1 / SAMPLE_RATE)
    spectrum = np.fft.rfft(draw.standard_normal(samples))
    noise = np.fft.irfft(spectrum / np.maximum(frequencies, 50) ** draw.uniform(0, 1), samples)
    time = np.arange(samples) / SAMPLE_RATE
    swell = 1 + 0.8 * np.sin(2 * np.pi * (draw.uniform(1, 8) * time + draw.uniform()))
    noise *= swell
    return noise / _rms(noise)


def _rms(wave: np.ndarray) -> float:
    return max(1e-9, float(np.sqrt((wave**2).mean())))
