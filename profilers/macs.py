"""Counts multiply-accumulates (MACs), exactly, for every utterance length at once.

Behind the front end every module's count is a polynomial of second degree in the frames T: maps are
linear in T, attention grows with its square. In front of it a count is a whole multiple of one
length: of the samples, of the frames, or of one convolution's output. Four traces of short
waveforms settle both in whole numbers (three would do; the fourth must agree), and a workload then
costs a few sums over its lengths.

`macs_dense` counts every multiplication that is run; `macs_nonzero` leaves out, in linear maps and
convolutions, those with a weight that is zero, which no dense kernel does. `macs_superb32` is the
total over the 32 utterances of the public SUPERB leaderboard, whatever the workload.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import ClassVar

from torch import nn

from core.errors import InputError
from core.metric import Metric
from core.spec import ConvFrontEnd, ModelSpec
from encoders.model import Encoder
from encoders.workload import Workload
from profilers._base import Measurement, Profiler, Setting, evaluating, pinned
from profilers._counter import count

#: Waveform lengths that are traced, in samples: primes, so that no length is a simple function of
#: another by chance, the last one long enough to see effects of distance.
TRACED = (3301, 5557, 9907, 20011)


class Macs(Profiler):
    """Arithmetic of one forward pass, batch 1."""

    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("macs_dense", "MAC", "lower", "multiply-accumulates over the workload"),
        Metric("macs_nonzero", "MAC", "lower", "those of them whose weight is not zero"),
        Metric("macs_per_second", "MAC/s", "lower", "macs_dense per second of audio"),
        Metric("macs_superb32", "MAC", "lower", "total over the 32 SUPERB utterances"),
    )

    def measure(self, encoder: Encoder, setting: Setting) -> Measurement:
        workload = setting.workload
        with pinned(setting.threads):
            cost, kept = Cost.of(encoder), _kept(encoder)
        total = cost.over(workload.lengths)
        superb = cost.over(Workload.parse("superb32").lengths)
        values = {
            "macs_dense": sum(total.values()),
            "macs_nonzero": sum(macs * kept.get(path, 1) for (path, _), macs in total.items()),
            "macs_per_second": sum(total.values()) / workload.seconds,
            "macs_superb32": sum(superb.values()),
        }
        details = {
            "workload": workload.name,
            "utterances": len(workload.lengths),
            "audio_seconds": workload.seconds,
            "modules": _by_group(total),
            "operations": _by_operation(total),
            "buckets": {
                name: sum(cost.over(part).values()) for name, part in workload.buckets.items()
            },
        }
        return Measurement({name: float(value) for name, value in values.items()}, details)


@dataclass(frozen=True)
class Cost:
    """MACs as a function of the utterance's length.

    formulas: for each module path and operation, the coefficients of the lengths that `_lengths`
    names.
    """

    spec: ModelSpec
    formulas: dict[tuple[str, str], dict[str, Fraction]]

    @classmethod
    def of(cls, encoder: Encoder) -> Cost:
        """Trace the encoder and find its formulas.

        Raises:
            InputError: an operation cannot be counted, or a count follows none of the known laws.
        """
        with evaluating(encoder):
            traces = [count(encoder, samples) for samples in TRACED]
        lengths = [_lengths(encoder.spec, samples) for samples in TRACED]
        keys = {(path, operation) for path, own in traces[0].items() for operation in own}
        formulas = {
            (path, operation): _formula(
                lengths, [trace[path][operation] for trace in traces], f"{operation} in {path!r}"
            )
            for path, operation in sorted(keys)
        }
        return cls(encoder.spec, formulas)

    def over(self, samples: Iterable[int]) -> dict[tuple[str, str], int]:
        """Totals over utterances of those lengths, by module path and operation.

        Raises:
            InputError: an utterance is shorter than one frame.
        """
        sums: Counter[str] = Counter()
        for length in samples:
            if self.spec.frames(length) < 1:
                raise InputError(f"an utterance of {length} samples holds no frame; leave it out")
            sums.update(_lengths(self.spec, length))
        return {
            key: int(sum(factor * sums[name] for name, factor in formula.items()))
            for key, formula in self.formulas.items()
        }


def _lengths(spec: ModelSpec, samples: int) -> dict[str, int]:
    """Every length that a count can depend on, for a waveform of that many samples."""
    front_end, frames = spec.front_end, spec.frames(samples)
    lengths = {"frames": frames, "frames^2": frames**2, "samples": samples, "1": 1}
    if isinstance(front_end, ConvFrontEnd):
        outputs = front_end.frame_counts(samples)
        return lengths | {f"convolution {index}": n for index, n in enumerate(outputs)}
    return lengths | {"mel frames": replace(front_end, stack=1).frames(samples)}


def _formula(
    lengths: Sequence[dict[str, int]], counts: Sequence[int], what: str
) -> dict[str, Fraction]:
    """The law that all traces obey: a multiple of one length, else a quadratic in the frames."""
    for name, first in lengths[0].items():
        factor = Fraction(counts[0], first)
        if all(factor * at[name] == n for at, n in zip(lengths, counts, strict=True)):
            return {name: factor}
    law = quadratic([at["frames"] for at in lengths[:3]], counts[:3])
    if any(
        sum(factor * at[name] for name, factor in law.items()) != n
        for at, n in zip(lengths, counts, strict=True)
    ):
        raise InputError(
            f"MACs of {what} are {list(counts)} at {[at['frames'] for at in lengths]} frames, "
            "neither a multiple of one length nor a quadratic in the frames; "
            "teach profilers/macs.py the length it depends on"
        )
    return law


def quadratic(at: Sequence[int], counts: Sequence[int]) -> dict[str, Fraction]:
    """Coefficients of the parabola through three points, by divided differences."""
    (x0, x1, x2), (y0, y1, y2) = at, counts
    first, second = Fraction(y1 - y0, x1 - x0), Fraction(y2 - y1, x2 - x1)
    square = (second - first) / (x2 - x0)
    linear = first - square * (x0 + x1)
    return {"1": y0 - linear * x0 - square * x0**2, "frames": linear, "frames^2": square}


def _kept(encoder: Encoder) -> dict[str, Fraction]:
    """The fraction of weights that are not zero, by path, of linear maps and convolutions."""
    return {
        path: Fraction(int(module.weight.count_nonzero()), max(1, module.weight.numel()))
        for path, module in encoder.named_modules()
        if isinstance(module, nn.Linear | nn.Conv1d)
    }


#: Parts of an encoder by a word in the module's path; the first that fits counts.
GROUPS = {
    "front_end": ("front_end",),
    "projection": ("projection",),
    "positions": ("conv_positions", "position_bias"),
    "attention": ("attention",),
    "ffn": ("fc1", "fc2"),
}


def _group(path: str) -> str:
    parts = set(path.split("."))
    return next((name for name, words in GROUPS.items() if parts & set(words)), "other")


def _by_group(total: dict[tuple[str, str], int]) -> dict[str, int]:
    """MACs of each part of the encoder; norms outside the front end are `other`."""
    sums = dict.fromkeys((*GROUPS, "other"), 0)
    for (path, _), macs in total.items():
        sums[_group(path)] += macs
    return sums


def _by_operation(total: dict[tuple[str, str], int]) -> dict[str, int]:
    sums: Counter[str] = Counter()
    for (_, operation), macs in total.items():
        sums[operation] += macs
    return dict(sums)
