"""Counts parameters: all, those that are not zero, and the bytes of the weights on disk.

Parameters are what training could move: shared ones count once, buffers (such as the mel filters
of a front end) do not count. An integer weight counts as one, its scale does not. `bytes_stored` is
the size of the safetensors file and holds the buffers too; a zero weight is stored like any other,
so unstructured pruning does not lower it.
"""

from __future__ import annotations

from typing import ClassVar

from core.metric import Metric
from encoders.model import Encoder
from encoders.quantized import weights
from profilers._base import Measurement, Profiler, Setting, stored


class Params(Profiler):
    """Size of the model, apart from any input."""

    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("params_total", "", "lower", "parameters"),
        Metric("params_nonzero", "", "lower", "parameters that are not zero"),
        Metric("bytes_stored", "B", "lower", "size of the weights file"),
    )

    def measure(self, encoder: Encoder, setting: Setting) -> Measurement:
        parameters = list(weights(encoder))
        with stored(encoder, setting.folder) as folder:
            bytes_stored = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        values = {
            "params_total": sum(p.numel() for p in parameters),
            "params_nonzero": sum(int(p.count_nonzero()) for p in parameters),
            "bytes_stored": bytes_stored,
        }
        dtypes = sorted(
            {str(p.dtype).removeprefix("torch.") for p in encoder.parameters()}
            | {layer.numeric for layer in encoder.spec.layers if layer.numeric != "float"}
        )
        return Measurement({k: float(v) for k, v in values.items()}, {"dtypes": dtypes})
