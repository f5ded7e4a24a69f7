"""Measures the energy of encoding: NVML's counter on NVIDIA's GPUs, RAPL's on processors.

The workload's utterances (of a corpus those that `latency` times) are encoded over and over for a
few seconds while the device's own counter runs, and the joules are put in relation to the audio.
`energy_j_per_hour` is what the whole device took, `energy_above_idle_j_per_hour` what it took more
than it does at rest, measured right before. A processor's counter covers all its cores: on a
machine that does other things the first is too high, and both are in a container or a virtual
machine, which mostly shows none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import ClassVar

import torch

from core.metric import Metric
from core.runtime import Runtime
from encoders.model import Encoder
from profilers import _nvml
from profilers._base import Measurement, Profiler, Setting, Unavailable
from profilers._rapl import Packages
from profilers._running import Forward, running
from profilers._timing import Input, Loaded, choose, conditions
from profilers._watch import watched

#: How long the device is watched at rest; a timing lasts at least `FACTOR` times the usual one, as
#: NVML's counter moves ten times a second or less.
IDLE_SECONDS, FACTOR = 1.0, 6.0


class Energy(Profiler):
    """Energy of encoding an hour of audio at batch 1."""

    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("energy_j_per_hour", "J", "lower", "energy to encode an hour of audio"),
        Metric("energy_above_idle_j_per_hour", "J", "lower", "what of it the device spends extra"),
        Metric("power_w", "W", "lower", "mean power while encoding"),
    )
    exclusive: ClassVar[bool] = True

    def measure(self, encoder: Encoder, setting: Setting) -> Measurement:
        runtime = setting.runtime
        try:
            counter, name = meter(runtime)
        except Unavailable as reason:
            missing = {metric.name: str(reason) for metric in self.metrics}
            return Measurement({}, {"unavailable": missing, **conditions(encoder, runtime)})
        workload = setting.workload.part(choose(setting.workload))
        loaded = Loaded(
            workload, [[index] for index in range(len(workload.lengths))], runtime.device
        )
        inputs = [loaded[place] for place in range(len(loaded))]
        rested, rest = _spent(counter, lambda: time.sleep(IDLE_SECONDS))
        with running([setting.subject(encoder)], runtime) as (forward,), watched(runtime) as seen:
            _encode(forward, inputs, runtime)
            passes: list[int] = []
            joules, seconds = _spent(
                counter, lambda: passes.extend(_passes(forward, inputs, setting))
            )
        per_hour = 3600 / (len(passes) * workload.seconds)
        idle = rested / rest
        values = {
            "energy_j_per_hour": joules * per_hour,
            "energy_above_idle_j_per_hour": max(0.0, joules - idle * seconds) * per_hour,
            "power_w": joules / seconds,
        }
        details = {
            "counter": name, "idle_w": idle, "seconds": seconds, "passes": len(passes), **seen
        }  # fmt: skip
        return Measurement(values, {**details, **conditions(encoder, runtime)})


def meter(runtime: Runtime) -> tuple[Callable[[], float], str]:
    """The device's counter of joules, and its name.

    Raises:
        Unavailable: it has none, or none that may be read.
    """
    if runtime.cuda:
        _nvml.joules(runtime.device)
        return partial(_nvml.joules, runtime.device), "NVML, total energy of the GPU"
    return Packages().joules, "RAPL, all processor packages"


def _spent(counter: Callable[[], float], work: Callable[[], object]) -> tuple[float, float]:
    """Joules and seconds of some work."""
    before, start = counter(), time.perf_counter()
    work()
    return counter() - before, time.perf_counter() - start


def _passes(forward: Forward, inputs: Sequence[Input], setting: Setting) -> Iterator[int]:
    """Encode all inputs again and again; yields at the end of each pass until it was enough."""
    start, done = time.perf_counter(), 0
    while done < setting.repeats or time.perf_counter() - start < FACTOR * setting.min_seconds:
        _encode(forward, inputs, setting.runtime)
        done += 1
        yield done


def _encode(forward: Forward, inputs: Sequence[Input], runtime: Runtime) -> None:
    for read in inputs:
        forward(*read)
    if runtime.cuda:
        torch.cuda.synchronize(runtime.device)
