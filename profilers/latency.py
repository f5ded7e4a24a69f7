"""Times the encoder at batch 1, interleaved with the dense model, from a waveform on the device.

Encoder only: no file is read and nothing is copied while the clock runs. Every shape is warmed up,
then passes over the utterances are timed until there are enough of them and they took long enough.
In each pass every utterance is encoded by the model and by the reference, one right after the other
and in turns the one or the other first, so that drift of the machine reads as no effect.

`latency_s_*` are quantiles over all samples, that is over utterances and passes; `rtf` is
processing time over audio time, as a ratio of sums. `speedup` is the reference's time over the
model's, each the sum over utterances of the median over passes; its interval in the details
resamples the passes.
Weights that are zero are multiplied like any others here, which is the point of measuring.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import product
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from core.metric import Metric
from core.spec import SAMPLE_RATE
from encoders.model import Encoder
from encoders.workload import Workload
from profilers._base import Measurement, Profiler, Setting, evaluating, pinned

#: Of a corpus so many utterances are timed, of so many seconds in all at most (one in any case).
UTTERANCES, SECONDS = 8, 20.0
RESAMPLINGS = 2000


class Latency(Profiler):
    """Wall-clock time of one forward pass."""

    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("latency_s_p50", "s", "lower", "median time to encode an utterance"),
        Metric("latency_s_p90", "s", "lower", "90 % of the samples are faster"),
        Metric("latency_s_iqr", "s", "lower", "distance of the quartiles"),
        Metric("rtf", "", "lower", "processing time over audio time"),
        Metric("speedup", "x", "higher", "the dense model's time over this model's"),
    )
    exclusive: ClassVar[bool] = True

    def measure(self, encoder: Encoder, setting: Setting) -> Measurement:
        chosen = choose(setting.workload)
        waveforms, load_s = _load(setting, chosen)
        models = [encoder] if setting.reference is None else [encoder, setting.reference]
        with pinned(setting.threads):
            samples = time_all(models, waveforms, setting)
            stated = conditions(encoder, setting)
        seconds = [waveform.shape[1] / SAMPLE_RATE for waveform in waveforms]
        values = summarise(samples[0], seconds)
        details: dict[str, Any] = {
            "workload": setting.workload.name,
            "utterances": chosen,
            "audio_seconds": seconds,
            "load_s": load_s,
            "passes": samples.shape[2],
            "count": samples[0].size,
            "samples_s": samples[0].tolist(),
            **stated,
        }
        if setting.reference is None:
            details["unavailable"] = {"speedup": "no reference was timed in the same run"}
        else:
            values["speedup"] = float(speedup(samples))
            details["speedup_interval95"] = bootstrap(samples)
            details["reference_samples_s"] = samples[1].tolist()
        return Measurement(values, details)


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


def _load(setting: Setting, chosen: Sequence[int]) -> tuple[list[Tensor], list[float]]:
    """The utterances (1, samples) on the device, and how long each took to be read and copied.

    Those seconds and the encoder's make the end-to-end time; each is read once, so take them as
    the order of magnitude.
    """
    waveforms, seconds = [], []
    for index in chosen:
        start = time.perf_counter()
        waveforms.append(setting.workload.waveform(index)[None].to(setting.device))
        seconds.append(time.perf_counter() - start)
    return waveforms, seconds


def time_all(
    models: Sequence[Encoder], waveforms: Sequence[Tensor], setting: Setting
) -> np.ndarray:
    """Seconds of each forward pass: (models, utterances, passes)."""
    clock = _clock(torch.device(setting.device))
    passes: list[np.ndarray] = []
    spent = 0.0
    with ExitStack() as stack:
        for model in models:
            stack.enter_context(evaluating(model, setting.device))
        stack.enter_context(torch.inference_mode())
        for waveform in waveforms:
            for model in models:
                clock(model, waveform)
        while len(passes) < setting.repeats or spent < setting.min_seconds:
            times = np.empty((len(models), len(waveforms)))
            order = range(len(models))[:: 1 if len(passes) % 2 == 0 else -1]
            for (utterance, waveform), which in product(enumerate(waveforms), order):
                times[which, utterance] = clock(models[which], waveform)
            passes.append(times)
            spent += times.sum()  # the reference's too: beside a slow one a fast model has time
    return np.stack(passes, axis=-1)


def _clock(device: torch.device) -> Callable[[Encoder, Tensor], float]:
    """A function that runs a model on a waveform and returns the seconds it took."""

    def on_cpu(model: Encoder, waveform: Tensor) -> float:
        start = time.perf_counter()
        model(waveform)
        return time.perf_counter() - start

    def on_cuda(model: Encoder, waveform: Tensor) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        model(waveform)
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1000.0

    return on_cuda if device.type == "cuda" else on_cpu


def summarise(samples: np.ndarray, seconds: Sequence[float]) -> dict[str, float]:
    """The metrics of one model from its samples (utterances, passes)."""
    low, median, high, tail = np.percentile(samples, (25, 50, 75, 90))
    return {
        "latency_s_p50": float(median),
        "latency_s_p90": float(tail),
        "latency_s_iqr": float(high - low),
        "rtf": float(samples.sum() / (sum(seconds) * samples.shape[1])),
    }


def speedup(samples: np.ndarray) -> np.ndarray:
    """The reference's time over the model's from samples (..., models, utterances, passes)."""
    model, reference = np.moveaxis(np.median(samples, axis=-1).sum(axis=-1), -1, 0)
    return reference / model


def bootstrap(samples: np.ndarray) -> list[float]:
    """The 95 % interval of the speed-up, passes resampled whole: they share the machine's state."""
    passes = samples.shape[-1]
    drawn = np.random.default_rng(0).integers(passes, size=(RESAMPLINGS, passes))
    resampled = np.moveaxis(samples[..., drawn], -2, 0)
    return np.percentile(speedup(resampled), (2.5, 97.5)).tolist()


def conditions(encoder: Encoder, setting: Setting) -> dict[str, Any]:
    """What has to be known beside a time."""
    cuda = torch.device(setting.device).type == "cuda"
    return {
        "device": torch.cuda.get_device_name(setting.device) if cuda else setting.device,
        "threads": setting.threads,
        "dtype": encoder.spec.dtype,
        "batch": 1,
        "attention_kernels": attention_kernels(encoder, setting.device),
        "tf32": cuda and torch.backends.cuda.matmul.allow_tf32,
        "tf32_convolutions": cuda and torch.backends.cudnn.allow_tf32,
        "torch": torch.__version__,
    }


def attention_kernels(encoder: Encoder, device: str) -> list[str]:
    """The kernels that torch really chose for `scaled_dot_product_attention`."""
    with evaluating(encoder, device), _Kernels() as kernels:
        encoder(torch.zeros(1, SAMPLE_RATE, device=device))
    return sorted(kernels.seen)


class _Kernels(TorchDispatchMode):
    """Notes the attention kernels among the operations that run."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        if "attention" in name or name == "_safe_softmax":  # the latter is the unfused fallback
            self.seen.add("math" if name == "_safe_softmax" else name.lstrip("_"))
        return func(*args, **(kwargs or {}))
