"""`torchaudio.sox_effects` with the effects that s3prl's recipes apply; torchaudio 2.9 dropped it.

`channels`, `rate`, `gain` and `silence 1 DURATION THRESHOLD% -1 DURATION THRESHOLD%` do what SoX
14.4.2 does: on speech the lengths are its own and samples differ by 5e-6 at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import soxr
import torch
from torch import Tensor

from tasks.s3prl import audio

#: Bits per sample of what was computed, as opposed to read: SoX works with 32.
COMPUTED = 32


def apply_effects_file(
    path: Any,
    effects: Sequence[Sequence[str]],
    normalize: bool = True,
    channels_first: bool = True,
    format: str | None = None,
) -> tuple[Tensor, int]:
    """A file's samples (channels, time) and rate after the effects, one after the other."""
    wave, rate = audio.load(path, normalize=normalize)
    return _apply(wave.numpy(), rate, effects, audio.bits(path), channels_first)


def apply_effects_tensor(
    tensor: Tensor, sample_rate: int, effects: Sequence[Sequence[str]], channels_first: bool = True
) -> tuple[Tensor, int]:
    """Samples (channels, time) and their rate after the effects, one after the other."""
    wave = tensor.numpy() if channels_first else tensor.numpy().T
    return _apply(wave.astype(np.float32), sample_rate, effects, COMPUTED, channels_first)


def _apply(
    wave: np.ndarray, rate: int, effects: Sequence[Sequence[str]], bits: int, channels_first: bool
) -> tuple[Tensor, int]:
    for name, *arguments in effects:
        if name == "channels":
            wave = _channels(wave, int(arguments[0]))
        elif name == "rate":
            wave, rate, bits = (
                _resample(wave, rate, int(arguments[-1])),
                int(arguments[-1]),
                COMPUTED,
            )
        elif name == "gain" and len(arguments) == 1:
            wave, bits = wave * np.float32(10 ** (float(arguments[0]) / 20)), COMPUTED
        elif name == "silence" and arguments[0::3] == ["1", "-1"] and len(wave) == 1:
            wave = _without_silence(wave[0], rate, arguments, bits)[None]
        else:
            raise NotImplementedError(f"sox effect {' '.join([name, *arguments])!r}")
        wave = np.clip(wave, -1, 1)
    wave = wave if channels_first else wave.T
    return torch.from_numpy(np.ascontiguousarray(wave, dtype=np.float32)), rate


def _channels(wave: np.ndarray, count: int) -> np.ndarray:
    """Mixed down to one channel, or the first one repeated."""
    if len(wave) == count:
        return wave
    return wave.mean(0, keepdims=True) if count == 1 else np.repeat(wave[:1], count, 0)


def _resample(wave: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """By libsoxr, the library that SoX's own `rate` became."""
    if rate == wanted:
        return wave
    return np.stack([soxr.resample(channel, rate, wanted, quality="HQ") for channel in wave])


def _without_silence(
    wave: np.ndarray, rate: int, arguments: Sequence[str], bits: int
) -> np.ndarray:
    """What `silence` leaves: no leading silence, and of every later one no more than its duration.

    A silence is over once the signal was louder than the threshold for the first duration, and one
    has begun once it was not louder for the second (silence.c of SoX: the samples that say so are
    kept at a beginning and dropped at an end).
    """
    needed, ending = (int(float(arguments[place]) * rate + 0.5) for place in (1, 4))
    over, under = (float(arguments[place].rstrip("%")) for place in (2, 5))
    energy = np.concatenate(([0.0], np.cumsum(wave.astype(np.float64) ** 2)))
    kept, position = [], 0
    while position < len(wave):
        loud = _loud(energy, position, rate, over, bits)
        begun = _completes(loud, needed)
        if begun is None:
            break
        start = position + begun - needed + 1
        quiet = ~(loud if under == over else _loud(energy, position, rate, under, bits))
        ended = _completes(quiet[start + needed - position :], ending)
        if ended is None:
            kept.append(wave[start:])
            break
        stop = start + needed + ended
        kept.append(wave[start : stop - ending + 1])
        position = stop + 1
    return np.concatenate(kept) if kept else wave[:0]


def _loud(energy: np.ndarray, position: int, rate: int, threshold: float, bits: int) -> np.ndarray:
    """Whether the level at each sample from position on is above the threshold in percent.

    energy: of all samples before each one. The level is the root mean square of 20 ms, which are
    empty at the position, cut down to the samples' bits as SoX does.
    """
    window = max(1, rate // 50)
    ends = np.arange(position, len(energy) - 1) + 1
    begins = np.maximum(ends - window, position)
    level = np.sqrt(np.maximum(energy[ends] - energy[begins], 0) / window)
    if bits < COMPUTED:
        steps = 2.0 ** (bits - 1)
        level = np.floor(level * steps) / steps
    return level * 100 > threshold


def _completes(flags: np.ndarray, needed: int) -> int | None:
    """The first place that completes so many flags in a row, None where there is none."""
    breaks = np.concatenate(([-1], np.flatnonzero(~flags), [len(flags)]))
    runs = np.diff(breaks) - 1
    long = np.flatnonzero(runs >= needed)
    return int(breaks[long[0]]) + needed if len(long) else None
