"""Times encoders in turns: pass after pass over the same inputs, models interleaved.

In each pass every input is encoded by all models, one right after the other and in turns the one or
the other first, so that drift of the machine reads as no effect. Nothing is read from disk and
nothing copied to the device while the clock runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from core.runtime import Runtime
from core.spec import SAMPLE_RATE
from encoders.exports._graph import note
from encoders.model import Encoder
from encoders.workload import Workload
from profilers._running import Forward, named, running
from profilers._session import Session

RESAMPLINGS = 2000

#: Of a corpus so many utterances are timed, of so many seconds in all at most (one in any case).
UTTERANCES, SECONDS = 8, 20.0


class Input(NamedTuple):
    """Waveforms (batch, samples) on the device, and lengths (batch,) where they are padded."""

    waveforms: Tensor
    lengths: Tensor | None = None


def choose(workload: Workload) -> list[int]:
    """Which utterances are timed: all of a fixed workload, of a corpus a few of every length.

    They are those in the middle of equal shares of the utterances sorted by length.
    """
    if workload.name != "corpus":
        return list(range(len(workload.lengths)))
    ranked = sorted(range(len(workload.lengths)), key=lambda i: (workload.lengths[i], i))
    for shares in range(min(UTTERANCES, len(ranked)), 0, -1):
        middles = [ranked[(2 * share + 1) * len(ranked) // (2 * shares)] for share in range(shares)]
        if sum(workload.lengths[i] for i in middles) <= SECONDS * SAMPLE_RATE:
            break
    return middles


def time_all(
    models: Sequence[Encoder | Session],
    inputs: Sequence[Input],
    runtime: Runtime,
    repeats: int,
    min_seconds: float = 0.0,
    warm_up: Iterable[int] | None = None,
) -> np.ndarray:
    """Seconds of each forward pass: (models, inputs, passes).

    repeats, min_seconds: at least that many passes, and at least that long in all. warm_up: the
    inputs that are encoded once before, all by default.
    """
    clock = _clock(runtime)
    passes: list[np.ndarray] = []
    spent = 0.0
    with running(models, runtime) as forwards:
        for index in range(len(inputs)) if warm_up is None else warm_up:
            for forward in forwards:
                clock(forward, inputs[index])
        while len(passes) < repeats or spent < min_seconds:
            times = np.empty((len(models), len(inputs)))
            order = range(len(models))[:: 1 if len(passes) % 2 == 0 else -1]
            for index in range(len(inputs)):
                read = inputs[index]
                for which in order:
                    times[which, index] = clock(forwards[which], read)
            passes.append(times)
            spent += times.sum()  # the reference's too: beside a slow one a fast model has time
    return np.stack(passes, axis=-1)


def _clock(runtime: Runtime) -> Callable[[Forward, Input], float]:
    """A function that runs a model on an input and returns the seconds it took."""

    def on_cpu(forward: Forward, read: Input) -> float:
        start = time.perf_counter()
        forward(*read)
        return time.perf_counter() - start

    def on_cuda(forward: Forward, read: Input) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        with torch.cuda.device(runtime.device):
            start.record()
            forward(*read)
            end.record()
            end.synchronize()
        return start.elapsed_time(end) / 1000.0

    return on_cuda if runtime.cuda else on_cpu


def speedup(samples: np.ndarray) -> np.ndarray:
    """The reference's time over the model's from samples (..., models, inputs, passes).

    Each time is the sum over inputs of the median over passes.
    """
    model, reference = np.moveaxis(np.median(samples, axis=-1).sum(axis=-1), -1, 0)
    return reference / model


def bootstrap(samples: np.ndarray) -> list[float]:
    """The 95 % interval of the speed-up, passes resampled whole: they share the machine's state."""
    passes = samples.shape[-1]
    drawn = np.random.default_rng(0).integers(passes, size=(RESAMPLINGS, passes))
    resampled = np.moveaxis(samples[..., drawn], -2, 0)
    return np.percentile(speedup(resampled), (2.5, 97.5)).tolist()


class Loaded(Sequence[Input]):
    """Utterances of a workload, single or in batches, read and copied as they are asked for.

    seconds: how long that took the first time, by place.
    """

    def __init__(self, workload: Workload, groups: Sequence[Sequence[int]], device: str) -> None:
        self.workload, self.groups, self.device = workload, groups, device
        self.seconds: dict[int, float] = {}

    @classmethod
    def singly(cls, workload: Workload, device: str) -> Loaded:
        """All utterances in their order, each alone."""
        return cls(workload, [[place] for place in range(len(workload.lengths))], device)

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, place: Any) -> Any:
        start = time.perf_counter()
        waveforms = [self.workload.waveform(index) for index in self.groups[place]]
        lengths = torch.tensor([len(waveform) for waveform in waveforms])
        padded = torch.nn.utils.rnn.pad_sequence(waveforms, batch_first=True).to(self.device)
        even = bool((lengths == padded.shape[1]).all())
        read = Input(padded, None if even else lengths.to(self.device))
        self.seconds.setdefault(place, time.perf_counter() - start)
        return read


def conditions(encoder: Encoder, runtime: Runtime) -> dict[str, Any]:
    """What has to be known beside a time."""
    told: dict[str, Any] = {
        "runtime": runtime.columns(),
        "device": named(runtime),
        "threads": runtime.threads,
        "dtype": runtime.dtype or encoder.spec.dtype,
        "torch": torch.__version__,
    }
    if runtime.engine == "torch":
        told["attention_kernels"] = attention_kernels(encoder, runtime)
    elif known := note(encoder.spec):
        told["note"] = known
    return told


def attention_kernels(encoder: Encoder, runtime: Runtime) -> list[str]:
    """The kernels that torch really chose for `scaled_dot_product_attention`."""
    plain = replace(runtime, compile=False, cuda_graphs=False)
    with running([encoder], plain) as (forward,), _Kernels() as kernels:
        forward(torch.zeros(1, SAMPLE_RATE, device=runtime.device))
    return sorted(kernels.seen)


class _Kernels(TorchDispatchMode):
    """Notes the attention kernels among the operations that run."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        with self:  # inference mode hands operations over before they are taken apart
            parts = func.decompose(*args, **(kwargs or {}))
        if parts is not NotImplemented:
            return parts
        name = func.overloadpacket.__name__
        if "attention" in name or name == "_safe_softmax":  # the latter is the unfused fallback
            self.seen.add("math" if name == "_safe_softmax" else name.lstrip("_"))
        return func(*args, **(kwargs or {}))
