"""Times the encoder at batch 1 on 1, 5, 15 and 30 s of sound, whatever the corpus.

Attention grows with the square of the length and all else linearly, so a method that is fast on
short utterances need not be fast on long ones. Medians over passes; conditions as in `latency`. The
sound is quiet noise: where the path of a model depends on what is said, take `extraction`.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from core.metric import Metric
from encoders.model import Encoder
from encoders.workload import Workload
from profilers._base import NO_REFERENCE, Measurement, Profiler, Setting
from profilers._timing import Loaded, bootstrap, conditions, speedup, time_all

SECONDS = (1, 5, 15, 30)


class LatencyByLength(Profiler):
    """Wall-clock time of one forward pass at four lengths."""

    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("latency_s_at_1s", "s", "lower", "median time to encode 1 s of sound"),
        Metric("latency_s_at_5s", "s", "lower", "median time to encode 5 s of sound"),
        Metric("latency_s_at_15s", "s", "lower", "median time to encode 15 s of sound"),
        Metric("latency_s_at_30s", "s", "lower", "median time to encode 30 s of sound"),
        Metric("speedup_at_1s", "x", "higher", "the dense model's time over this model's, 1 s"),
        Metric("speedup_at_5s", "x", "higher", "the dense model's time over this model's, 5 s"),
        Metric("speedup_at_15s", "x", "higher", "the dense model's time over this model's, 15 s"),
        Metric("speedup_at_30s", "x", "higher", "the dense model's time over this model's, 30 s"),
    )
    exclusive: ClassVar[bool] = True

    def measure(self, encoder: Encoder, setting: Setting) -> Measurement:
        runtime, models = setting.runtime, setting.models(encoder)
        values, intervals, raw = {}, {}, {}
        for seconds in SECONDS:
            noise = Loaded.singly(Workload.parse(f"seconds:{seconds}"), runtime.device)
            samples = time_all(models, list(noise), runtime, setting.repeats, setting.min_seconds)
            name = f"at_{seconds}s"
            values[f"latency_s_{name}"] = float(np.median(samples[0]))
            raw[name] = samples[:, 0].tolist()
            if setting.reference is not None:
                values[f"speedup_{name}"] = float(speedup(samples))
                intervals[name] = bootstrap(samples)
        lacking = [metric.name for metric in self.metrics if metric.name not in values]
        return Measurement(
            values,
            {
                "unavailable": dict.fromkeys(lacking, NO_REFERENCE),
                "speedup_intervals95": intervals,
                "samples_s": raw,
                "batch": 1,
                **conditions(encoder, runtime),
            },
        )
