"""Makes s3prl 0.4.18 run in this process on torch and torchaudio 2.11 (s3prl's issue 575)."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import torch
import torchaudio

from tasks.s3prl import audio, sox, stubs
from tasks.s3prl.repairs import REPAIRS, AfterImport


def install(device: str = "cpu") -> None:
    """Put in place what s3prl needs; to be called before anything of it is imported, once."""
    if "s3prl" in sys.modules:
        raise RuntimeError("s3prl is imported already; install the shim before")
    stubs.fill_in()
    _restore_torchaudio()
    # Checkpoints hold the command line as a Namespace, which torch 2.6 has to be allowed to read.
    torch.serialization.add_safe_globals([argparse.Namespace])
    torch.save = partial(_save_whole, torch.save)
    # The speaker verification recipe says .cuda() whatever the device is.
    torch.Tensor.cuda = lambda tensor, *_, **__: tensor.to(device)  # type: ignore[method-assign, assignment]
    # Workers inherit all this; started afresh (Python 3.14's way) they would not.
    multiprocessing.set_start_method("fork", force=True)
    sys.meta_path.insert(0, AfterImport(REPAIRS))


def _restore_torchaudio() -> None:
    """The names that torchaudio 2.9 dropped, and `load` without torchcodec."""
    effects: Any = ModuleType("torchaudio.sox_effects")
    effects.apply_effects_file = sox.apply_effects_file
    effects.apply_effects_tensor = sox.apply_effects_tensor
    sys.modules["torchaudio.sox_effects"] = effects
    names = {"sox_effects": effects, "load": audio.load, "set_audio_backend": lambda backend: None}
    for name, value in names.items():
        setattr(torchaudio, name, value)


def _save_whole(
    save: Callable[..., None], content: Any, file: Any, *rest: Any, **more: Any
) -> None:
    """A checkpoint is there whole or not at all, so that a run may be killed at any moment."""
    if not isinstance(file, str | os.PathLike):
        return save(content, file, *rest, **more)
    temporary = f"{os.fspath(file)}.part"
    save(content, temporary, *rest, **more)
    os.replace(temporary, file)
