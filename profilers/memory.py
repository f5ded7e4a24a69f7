"""Measures memory: the weights, the activations of the longest utterance, and the peak of both.

`weights_bytes` is the exact size of all parameters and buffers. The other two come from a fresh
process that loads the model and encodes the workload's longest utterance at batch 1: on CUDA from
the allocator's own peak, on Linux from the peak of the resident set, which the kernel counts in
steps of up to about a megabyte, so that differences below that mean nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

from core.metric import Metric
from core.runtime import Runtime
from encoders.model import Encoder
from profilers._base import Measurement, Profiler, Setting, stored, weights_bytes
from profilers._running import cast, named


class Memory(Profiler):
    """Memory of one forward pass, weights and activations apart."""

    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("weights_bytes", "B", "lower", "size of all weights in memory"),
        Metric("activation_bytes", "B", "lower", "peak growth while encoding"),
        Metric("peak_bytes", "B", "lower", "peak growth from before the model is loaded"),
    )

    def measure(self, encoder: Encoder, setting: Setting) -> Measurement:
        samples = max(setting.workload.lengths)
        with _to_load(encoder, setting) as folder:
            report = in_own_process(folder, samples, setting.runtime)
        values = {
            metric.name: float(report.pop(metric.name))
            for metric in self.metrics
            if metric.name in report
        }
        values["weights_bytes"] = float(weights_bytes(cast(encoder, setting.runtime.dtype)))
        runtime = setting.runtime
        details = {"samples": samples, "device": named(runtime), "runtime": runtime.columns()}
        return Measurement(values, {**details, **report})


@contextmanager
def _to_load(encoder: Encoder, setting: Setting) -> Iterator[Path]:
    """The folder that a process of its own loads: the encoder's, or that of its graph."""
    if setting.runtime.engine != "torch":
        setting.subject(encoder)
        assert setting.exported is not None
        yield setting.exported
        return
    with stored(encoder, setting.folder) as folder:
        yield folder


def in_own_process(folder: Path, samples: int, runtime: Runtime) -> dict[str, Any]:
    """What `_resident` reports.

    Raises:
        RuntimeError: the process failed; the message ends with its last line.
    """
    arguments = [str(folder), str(samples), json.dumps(asdict(runtime))]
    command = [sys.executable, "-m", "profilers._resident", *arguments]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    if child.returncode:
        last = child.stderr.strip().rpartition("\n")[2]
        raise RuntimeError(f"measuring memory failed with status {child.returncode}: {last}")
    return json.loads(child.stdout)
