"""torch.export: a program of ATen operations, for torch itself, AOTInductor and ExecuTorch."""

from __future__ import annotations

from pathlib import Path

import torch

from encoders.exports._graph import follow, note, prepare
from encoders.exports._usage import Usage
from encoders.model import Encoder

INSTALL = f"pip install torch=={torch.__version__.partition('+')[0]}"
FILE = "model.pt2"

LOAD = f"""\
import torch

model = torch.export.load("{FILE}").module()"""

CALL = """\
with torch.no_grad():
    states, frames = model(torch.from_numpy(waveforms), torch.from_numpy(lengths))
states, frames = states.numpy(), frames.numpy()"""


def write(encoder: Encoder, folder: Path) -> Usage:
    """Write the program, for every batch and every length of three frames or more."""
    torch.export.save(follow(prepare(encoder)), folder / FILE)
    return Usage(LOAD, CALL, INSTALL, note=note(encoder.spec))
