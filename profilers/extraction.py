"""Times the extraction of a whole corpus: the protocol of the LibriSpeech tables in papers.

Every utterance is encoded, at batch 1 in the order of the corpus and in padded batches of sorted
lengths, `--repeats` times (the papers' number is 5). The first is what an application waits for,
the second what a data centre gets done: neither stands for the other. Wang et al. 2023 (table 2)
report the mean of 5 runs over dev-clean, so `extraction_s` is a mean over runs; a speed-up is a
ratio of medians over runs, its interval resamples the runs.

Audio is read before the clock starts, utterance by utterance; `end_to_end_s` adds what reading,
decoding and copying took. A few utterances of every length warm the models up: a length that comes
up for the first time pays in the run what it pays in use.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from core.errors import Unsupported
from core.metric import Metric
from core.spec import SAMPLE_RATE
from encoders.model import Encoder
from profilers._base import NO_REFERENCE, Measurement, Profiler, Setting
from profilers._timing import UTTERANCES, Loaded, bootstrap, conditions, speedup, time_all

#: Audio of a batch, padding included; the longest utterance may be more.
BATCH_SECONDS = 60.0


class Extraction(Profiler):
    """Wall-clock time of a whole corpus, single utterances and batches."""

    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("extraction_s", "s", "lower", "time to encode the corpus, batch 1, mean of runs"),
        Metric("extraction_rtf", "", "lower", "that time over audio time"),
        Metric("extraction_speedup", "x", "higher", "the dense model's time over this model's"),
        Metric("end_to_end_s", "s", "lower", "extraction_s with reading, decoding and copying"),
        Metric("batched_s", "s", "lower", "time to encode the corpus, sorted batches, mean"),
        Metric("batched_rtf", "", "lower", "that time over audio time"),
        Metric("batched_speedup", "x", "higher", "the dense model's time over this model's"),
    )
    exclusive: ClassVar[bool] = True

    def measure(self, encoder: Encoder, setting: Setting) -> Measurement:
        workload, runtime = setting.workload, setting.runtime
        if runtime.cuda_graphs:
            raise Unsupported("a corpus has more lengths than there is memory for CUDA graphs")
        singly = Loaded.singly(workload, runtime.device)
        batches = Loaded(workload, sort(workload.lengths), runtime.device)
        models = setting.models(encoder)
        values: dict[str, float] = {}
        details: dict[str, Any] = {"workload": workload.name, "audio_seconds": workload.seconds}
        for name, loaded in (("extraction", singly), ("batched", batches)):
            few = range(0, len(loaded), -(-len(loaded) // UTTERANCES))
            samples = time_all(models, loaded, runtime, setting.repeats, warm_up=few)
            runs = samples.sum(1, keepdims=True)
            values[f"{name}_s"] = float(runs[0].mean())
            values[f"{name}_rtf"] = values[f"{name}_s"] / workload.seconds
            details[name] = {"runs_s": runs[:, 0].tolist(), "inputs": len(loaded)}
            if setting.reference is not None:
                values[f"{name}_speedup"] = float(speedup(runs))
                details[name]["speedup_interval95"] = bootstrap(runs)
        values["end_to_end_s"] = values["extraction_s"] + sum(singly.seconds.values())
        lacking = [metric.name for metric in self.metrics if metric.name not in values]
        details["unavailable"] = dict.fromkeys(lacking, NO_REFERENCE)
        return Measurement(values, {**details, **conditions(encoder, runtime)})


def sort(lengths: Sequence[int]) -> list[list[int]]:
    """Places in batches of neighbours by length, the longest first, to BATCH_SECONDS with padding.

    The longest first: memory that is too small shows at once.
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        longest = lengths[groups[-1][0]] if groups else np.inf
        if longest * (len(groups[-1]) + 1 if groups else 1) > BATCH_SECONDS * SAMPLE_RATE:
            groups.append([])
        groups[-1].append(index)
    return groups
