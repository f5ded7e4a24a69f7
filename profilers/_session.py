"""Runs an encoder in onnxruntime: exported once, held against itself, and called like it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from core.errors import InputError, Unsupported
from core.spec import ModelSpec
from encoders import check, exports
from encoders.exports.onnx import FILE
from encoders.files import read_json
from encoders.model import Encoder, Hidden
from encoders.padding import full_lengths
from encoders.store import SPEC
from profilers._base import evaluating


class Session:
    """An exported encoder on that many threads; called as the encoder is, it gives its states.

    folder: what `open_session` has filled.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors: it warns of what it leaves out of a graph
        # Between two calls its threads would spin, on the cores of what is timed in turns with it.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self.hop = ModelSpec.from_json(read_json(folder / SPEC)).hop
        self._session = onnxruntime.InferenceSession(
            folder / FILE, options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, waveforms: Tensor, lengths: Tensor | None = None) -> Hidden:
        lengths = full_lengths(waveforms) if lengths is None else lengths
        given = {"waveforms": waveforms.numpy(), "lengths": lengths.numpy()}
        states, frames = self._session.run(None, given)
        return Hidden(list(torch.from_numpy(states)), torch.from_numpy(frames), self.hop)


def check_installed() -> None:
    """Refuse to go on without what exports a model and runs it.

    Raises:
        InputError: something is missing.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise InputError(
            f"runtime onnxruntime needs {' and '.join(missing)}; pip install '.[onnx]'"
        )


def open_session(encoder: Encoder, folder: Path, threads: int) -> Session:
    """The encoder's session; its graph is written into the folder unless it lies there.

    Raises:
        Unsupported: a graph cannot express the encoder, or computes something else.
    """
    if not (folder / FILE).is_file():
        exports.write(encoder, "onnx", folder)
        (folder / SPEC).write_text(encoder.spec.canonical(), encoding="utf-8")
    session = Session(folder, threads)
    with evaluating(encoder):
        difference = max(check.differences(session, check.take(encoder)))
    if not difference <= check.tolerance(encoder.spec):
        raise Unsupported(
            f"its hidden states in onnxruntime differ by {difference:.2g} of their level; not timed"
        )
    return session
