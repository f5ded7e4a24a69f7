"""`torchaudio.load` as it was before 2.9, through soundfile: 2.11's needs torchcodec."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor


def load(
    uri: Any,
    frame_offset: int = 0,
    num_frames: int = -1,
    normalize: bool = True,
    channels_first: bool = True,
    **_: Any,
) -> tuple[Tensor, int]:
    """Samples (channels, time) between -1 and 1, at the file's own rate.

    Raises:
        NotImplementedError: normalize is off, which no recipe asks for.
    """
    if not normalize:
        raise NotImplementedError("audio is read as float32; normalize=False is not there")
    file = uri if hasattr(uri, "read") else os.fspath(uri)
    samples, rate = soundfile.read(
        file, frames=num_frames, start=frame_offset, dtype="float32", always_2d=True
    )
    wave = samples.T if channels_first else samples
    return torch.from_numpy(np.ascontiguousarray(wave)), rate


def bits(path: Any) -> int:
    """Bits per sample of a file, 32 for floating point."""
    subtype = soundfile.info(os.fspath(path)).subtype
    return {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24}.get(subtype, 32)
