"""TorchScript: runs in torch alone, also from C++ and on phones."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from encoders.exporting import export
from encoders.exports._graph import example, note, prepare
from encoders.exports._usage import Usage
from encoders.model import Encoder

INSTALL = "pip install torch"
FILE = "model.ts"

LOAD = f"""\
import torch

model = torch.jit.load("{FILE}")"""

CALL = """\
with torch.no_grad():
    states, frames = model(torch.from_numpy(waveforms), torch.from_numpy(lengths))
states, frames = states.numpy(), frames.numpy()"""


def write(encoder: Encoder, folder: Path) -> Usage:
    """Write the graph, traced, for every batch and length."""
    graph = prepare(encoder)
    with warnings.catch_warnings(), torch.no_grad(), export():
        warnings.simplefilter("ignore")  # it warns of every size that it takes for a constant
        torch.jit.save(torch.jit.trace(graph, example(), check_trace=False), folder / FILE)
    return Usage(LOAD, CALL, INSTALL, note=note(encoder.spec))
