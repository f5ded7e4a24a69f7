"""Measures the memory of one forward pass, in a process of its own: `python -m` runs it.

Arguments: folder of the model (of its graph, for another engine than torch), samples of the
waveform, the runtime as JSON. Prints one JSON object: bytes by metric name, `unavailable` (metric
-> reason), and the counter that was read.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.runtime import Runtime
from core.spec import SAMPLE_RATE
from encoders.model import Encoder
from encoders.store import load
from profilers._running import running
from profilers._session import Session

PEAK, ACTIVATIONS = "peak_bytes", "activation_bytes"


def main(folder: str, samples: str, runtime: str) -> None:
    run = Runtime(**json.loads(runtime))
    waveform = torch.randn(1, int(samples), generator=torch.Generator().manual_seed(0)) * 0.01
    print(json.dumps((_on_cuda if run.cuda else _on_cpu)(folder, waveform, run)))


def _on_cuda(folder: str, waveform: Tensor, runtime: Runtime) -> dict[str, Any]:
    """Growth of what the allocator gave out; the weights lie there before the encoder runs."""
    waveform = waveform.to(runtime.device)
    start = torch.cuda.memory_allocated(runtime.device)
    with running([load(folder)], runtime) as (forward,):
        loaded = torch.cuda.memory_allocated(runtime.device)
        torch.cuda.reset_peak_memory_stats(runtime.device)
        forward(waveform)
        torch.cuda.synchronize(runtime.device)
        peak = torch.cuda.max_memory_allocated(runtime.device)
    return {
        PEAK: peak - start,
        ACTIVATIONS: peak - loaded,
        "counter": "torch.cuda.max_memory_allocated",
    }


def _on_cpu(folder: str, waveform: Tensor, runtime: Runtime) -> dict[str, Any]:
    """Growth of the resident set: with the weights for the peak, without for the activations."""
    _run(folder, waveform[:, :SAMPLE_RATE], runtime)  # modules and libraries stay
    try:
        empty = _reset_peak()
        with running([_load(folder, runtime)], runtime) as (forward,):
            loaded = _reset_peak()
            forward(waveform)
            peak = _status("VmHWM")
    except OSError as error:
        reason = f"the peak of the resident set cannot be read here ({error})"
        return {"unavailable": {PEAK: reason, ACTIVATIONS: reason}}
    return {
        PEAK: peak - empty,
        ACTIVATIONS: peak - loaded,
        "resident_weights_bytes": loaded - empty,
        "counter": "VmHWM of /proc/self/status, reset through /proc/self/clear_refs",
    }


def _run(folder: str, waveform: Tensor, runtime: Runtime) -> None:
    with running([_load(folder, runtime)], runtime) as (forward,):
        forward(waveform)


def _load(folder: str, runtime: Runtime) -> Encoder | Session:
    """The model with all its weights resident: pages of its file are read only when touched."""
    if runtime.engine != "torch":
        return Session(Path(folder), runtime.threads)
    encoder = load(folder)
    for tensor in chain(encoder.parameters(), encoder.buffers()):
        tensor.sum()
    return encoder


def _reset_peak() -> int:
    """Give freed memory back, set the peak to what is resident now, and return that in bytes."""
    gc.collect()
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


if __name__ == "__main__":
    main(*sys.argv[1:])
