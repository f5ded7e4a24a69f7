"""ONNX: runs in onnxruntime and in all that reads the format; integer weights stay integers."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from encoders.exports._graph import follow, note, prepare
from encoders.exports._usage import Usage
from encoders.model import Encoder

INSTALL, NEEDS = "pip install onnxruntime", "pip install '.[onnx]'"
FILE = "model.onnx"

LOAD = f"""\
import onnxruntime

session = onnxruntime.InferenceSession("{FILE}")"""

CALL = """\
states, frames = session.run(None, {"waveforms": waveforms, "lengths": lengths})"""


def write(encoder: Encoder, folder: Path) -> Usage:
    """Write the graph, for every batch and length.

    Raises:
        ImportError: onnx or onnxscript is missing.
    """
    import onnxscript

    def product(a: Any, b: Any) -> Any:
        return onnxscript.opset18.MatMulInteger(a, b)

    program = follow(prepare(encoder))
    with _silence():
        made = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            opset_version=18,
            input_names=["waveforms", "lengths"],
            output_names=["hidden_states", "frames"],
            custom_translation_table={torch.ops.aten._int_mm.default: product},
        )
    assert made is not None
    made.save(folder / FILE)
    return Usage(LOAD, CALL, INSTALL, note=note(encoder.spec))


@contextmanager
def _silence() -> Iterator[None]:
    """Without what torch's exporter says of its own workings, and of a missing torchvision."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
