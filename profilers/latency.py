"""Times the encoder at batch 1, interleaved with the dense model, from a waveform on the device.

Encoder only: no file is read and nothing is copied while the clock runs. Every shape is warmed up,
then passes over the utterances are timed until there are enough of them and they took long enough.

`latency_s_*` are quantiles over all samples, that is over utterances and passes; `rtf` is
processing time over audio time, as a ratio of sums. `speedup` is the reference's time over the
model's, each the sum over utterances of the median over passes; its interval in the details
resamples the passes.
Weights that are zero are multiplied like any others here, which is the point of measuring.
`limit_share` says how near the model comes to what the device could do at best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, ClassVar

import numpy as np

from core.metric import Metric
from core.spec import SAMPLE_RATE
from encoders.model import Encoder
from profilers._base import NO_REFERENCE, Measurement, Profiler, Setting, Unavailable
from profilers._limits import limit
from profilers._timing import Loaded, bootstrap, choose, conditions, speedup, time_all
from profilers._watch import watched


class Latency(Profiler):
    """Wall-clock time of one forward pass."""

    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("latency_s_p50", "s", "lower", "median time to encode an utterance"),
        Metric("latency_s_p90", "s", "lower", "90 % of the samples are faster"),
        Metric("latency_s_iqr", "s", "lower", "distance of the quartiles"),
        Metric("rtf", "", "lower", "processing time over audio time"),
        Metric("speedup", "x", "higher", "the dense model's time over this model's"),
        Metric("limit_share", "", "higher", "least time that the device needs, over that it took"),
    )
    exclusive: ClassVar[bool] = True

    def measure(self, encoder: Encoder, setting: Setting) -> Measurement:
        chosen = choose(setting.workload)
        workload = setting.workload.part(chosen)
        loaded = Loaded.singly(workload, setting.runtime.device)
        inputs, models = list(loaded), setting.models(encoder)
        with watched(setting.runtime) as seen:
            samples = time_all(
                models, inputs, setting.runtime, setting.repeats, setting.min_seconds
            )
        seconds = [read.waveforms.shape[1] / SAMPLE_RATE for read in inputs]
        values = summarise(samples[0], seconds)
        details: dict[str, Any] = {
            "workload": setting.workload.name,
            "utterances": chosen,
            "audio_seconds": seconds,
            # With the encoder's they make the end-to-end time; each was read once, so take them
            # as the order of magnitude.
            "load_s": list(loaded.seconds.values()),
            "passes": samples.shape[2],
            "count": samples[0].size,
            "samples_s": samples[0].tolist(),
            "batch": 1,
            **seen,
            **conditions(encoder, setting.runtime),
        }
        missing = details["unavailable"] = {}
        try:
            best = limit(encoder, workload, setting.runtime)
            values["limit_share"] = best.seconds / float(np.median(samples[0], axis=-1).sum())
            details["limit"] = asdict(best)
        except Unavailable as reason:
            missing["limit_share"] = str(reason)
        if setting.reference is None:
            missing["speedup"] = NO_REFERENCE
        else:
            values["speedup"] = float(speedup(samples))
            details["speedup_interval95"] = bootstrap(samples)
            details["reference_samples_s"] = samples[1].tolist()
        return Measurement(values, details)


def summarise(samples: np.ndarray, seconds: Sequence[float]) -> dict[str, float]:
    """The metrics of one model from its samples (utterances, passes)."""
    low, median, high, tail = np.percentile(samples, (25, 50, 75, 90))
    return {
        "latency_s_p50": float(median),
        "latency_s_p90": float(tail),
        "latency_s_iqr": float(high - low),
        "rtf": float(samples.sum() / (sum(seconds) * samples.shape[1])),
    }
