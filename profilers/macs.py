"""Counts multiply-accumulates (MACs), exactly, for every utterance length at once.

In the Transformer every module's count is a polynomial of second degree in the tokens T, which are
the frames unless a shortening joins them: maps are linear in T, attention grows with its square. In
front of it a count is a whole multiple of one length: of the samples, of the frames, or of one
convolution's output. Four traces of short waveforms settle both in whole numbers (three would do;
the fourth must agree), and a workload then costs a few sums over its lengths.

Where an utterance's tokens, or the layers it runs through, depend on what is said, the workload is
run and counts on the path that it took; a layer counts for the utterances that reached it.

`macs_dense` counts every multiplication that is run; `macs_nonzero` leaves out, in linear maps and
convolutions, those with a weight that is zero, which no dense kernel does. `macs_superb32` is the
total over 32 utterances as long as those of the public SUPERB leaderboard, whatever the workload;
where the content decides, the workload's own speech, joined and cut to these lengths.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from itertools import islice
from typing import ClassVar

from torch import nn

from core.errors import InputError
from core.metric import Metric
from core.spec import ConvFrontEnd, ModelSpec, Shortening
from encoders.model import Encoder
from encoders.quantized import Quantized
from encoders.shortening import Fire
from encoders.workload import Workload
from profilers._base import Measurement, Profiler, Setting, evaluating, pinned
from profilers._counter import count
from profilers._ways import Way, depends_on_content, plan, speech_of, walk, ways_of

#: Waveform lengths that are traced, in samples: primes, so that no length is a simple function of
#: another by chance, the last one long enough to see effects of distance.
TRACED = (3301, 5557, 9907, 20011)

#: The parts of an encoder that run in front of the tokens, as all shortening but a strided
#: convolution does and what the encoder itself does to the waveform; all others run on tokens.
ON_FRAMES = ("", "front_end", "feature_norm", "projection")


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
        with pinned(setting.runtime.threads):
            cost, kept = Cost.of(encoder), _kept(encoder)
            ways, superb = ways_of(encoder, workload), _superb32(encoder, workload)
        total = cost.along(ways)
        values = {
            "macs_dense": sum(total.values()),
            "macs_nonzero": sum(macs * kept.get(path, 1) for (path, _), macs in total.items()),
            "macs_per_second": sum(total.values()) / workload.seconds,
        }
        parts = iter(ways)
        details = {
            "workload": workload.name,
            "utterances": len(workload.lengths),
            "audio_seconds": workload.seconds,
            "modules": _by_group(total),
            "operations": _by_operation(total),
            "buckets": {
                name: sum(cost.along(islice(parts, len(part))).values())
                for name, part in workload.buckets.items()
            },
            "token_ms": 1000 * workload.seconds / sum(way.tokens for way in ways),
            "layers_run": sum(way.depth for way in ways) / len(ways),
        }
        if isinstance(superb, str):
            details["unavailable"] = {"macs_superb32": superb}
        else:
            values["macs_superb32"] = sum(cost.along(superb).values())
        return Measurement({name: float(value) for name, value in values.items()}, details)


def _superb32(encoder: Encoder, workload: Workload) -> list[Way] | str:
    """The ways of 32 utterances of SUPERB's lengths, or why there are none."""
    lengths = Workload.parse("superb32").lengths
    what = depends_on_content(encoder.spec)
    if what is None:
        return [plan(encoder.spec, samples) for samples in lengths]
    if workload.name != "corpus":
        return f"its {what} depend on what is said, and workload {workload.name!r} is noise"
    with evaluating(encoder):
        return [walk(encoder, speech[None])[0] for speech in speech_of(workload, lengths)]


@dataclass(frozen=True)
class Cost:
    """MACs as a function of the utterance's length and, where that does not tell, of its way.

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
        traced = [samples * _reach(encoder.spec) for samples in TRACED]
        with evaluating(encoder), _planned(encoder) as spec:
            traces = [count(encoder, samples) for samples in traced]
        lengths = [_lengths(spec, plan(spec, samples)) for samples in traced]
        keys = {(path, operation) for path, own in traces[0].items() for operation in own}
        formulas = {
            (path, operation): _formula(
                [_seen(at, _on_frames(encoder.spec, path)) for at in lengths],
                [trace[path][operation] for trace in traces],
                f"{operation} in {path!r}",
            )
            for path, operation in sorted(keys)
        }
        return cls(encoder.spec, formulas)

    def over(self, samples: Iterable[int]) -> dict[tuple[str, str], int]:
        """Totals over utterances of those lengths, by module path and operation.

        Raises:
            InputError: an utterance is shorter than one frame, or its content decides its cost.
        """
        return self.along(plan(self.spec, length) for length in samples)

    def along(self, ways: Iterable[Way]) -> dict[tuple[str, str], int]:
        """Totals over utterances that took those ways, by module path and operation."""
        by_depth: dict[int, Counter[str]] = defaultdict(Counter)
        for way in ways:
            by_depth[way.depth].update(_lengths(self.spec, way))

        @cache
        def sums(layer: int) -> Counter[str]:
            """The lengths of all utterances that were run through that layer, -1 for all."""
            return sum((own for depth, own in by_depth.items() if depth > layer), Counter())

        return {
            (path, operation): int(sum(n * sums(_layer(path))[name] for name, n in formula.items()))
            for (path, operation), formula in self.formulas.items()
        }


def _reach(spec: ModelSpec) -> int:
    """How much longer waveforms must be for their tokens to differ as their frames do."""
    joined = spec.shortening
    return 1 if joined is None or joined.kind == "cif" else math.ceil(joined.factor)


@contextmanager
def _planned(encoder: Encoder) -> Iterator[ModelSpec]:
    """The encoder such that no content decides, and the spec that a trace of it obeys.

    Every frame is a token to integrate-and-fire. A tracer runs all layers and exits in any case.
    """
    spec, fire = replace(encoder.spec, exits=None), encoder.shortening
    if not isinstance(fire, Fire):
        yield spec
        return
    strength, fire.strength = fire.strength, 0.0
    try:
        yield replace(spec, shortening=Shortening("mean"))
    finally:
        fire.strength = strength


def _lengths(spec: ModelSpec, way: Way) -> dict[str, int]:
    """Every length that a count can depend on, for a waveform that takes that way."""
    front_end, frames = spec.front_end, spec.frames(way.samples)
    lengths = {"tokens": way.tokens, "tokens^2": way.tokens**2, "1": 1}
    lengths |= {"frames": frames, "frames^2": frames**2, "samples": way.samples}
    if isinstance(front_end, ConvFrontEnd):
        outputs = front_end.frame_counts(way.samples)
        return lengths | {f"convolution {index}": n for index, n in enumerate(outputs)}
    return lengths | {"mel frames": replace(front_end, stack=1).frames(way.samples)}


def _on_frames(spec: ModelSpec, path: str) -> bool:
    part = path.partition(".")[0]
    if part == "shortening":
        return spec.shortening is not None and spec.shortening.kind != "conv"
    return part in ON_FRAMES


def _seen(lengths: dict[str, int], on_frames: bool) -> dict[str, int]:
    """The lengths that the count of a module in front of the tokens, or behind, may depend on."""
    return {
        name: n
        for name, n in lengths.items()
        if name == "1" or name.startswith("tokens") != on_frames
    }


def _layer(path: str) -> int:
    """The layer of which a module is a part, also as its exit; -1 for all other modules."""
    part, _, rest = path.partition(".")
    return int(rest.partition(".")[0]) if part in ("layers", "exits") and rest else -1


def _formula(
    lengths: Sequence[dict[str, int]], counts: Sequence[int], what: str
) -> dict[str, Fraction]:
    """The law that all traces obey: a multiple of one length, else a quadratic in the first."""
    for name, first in lengths[0].items():
        factor = Fraction(counts[0], first)
        if all(factor * at[name] == n for at, n in zip(lengths, counts, strict=True)):
            return {name: factor}
    unit = next(name for name in lengths[0] if name != "1")
    constant, linear, square = quadratic([at[unit] for at in lengths[:3]], counts[:3])
    law = {"1": constant, unit: linear, f"{unit}^2": square}
    if any(
        sum(factor * at[name] for name, factor in law.items()) != n
        for at, n in zip(lengths, counts, strict=True)
    ):
        raise InputError(
            f"MACs of {what} are {list(counts)} at {[at[unit] for at in lengths]} {unit}, "
            f"neither a multiple of one length nor a quadratic in the {unit}; "
            "teach profilers/macs.py the length it depends on"
        )
    return law


def quadratic(at: Sequence[int], counts: Sequence[int]) -> tuple[Fraction, Fraction, Fraction]:
    """Coefficients of 1, x and x^2 of the parabola through three points, by divided differences."""
    (x0, x1, x2), (y0, y1, y2) = at, counts
    first, second = Fraction(y1 - y0, x1 - x0), Fraction(y2 - y1, x2 - x1)
    square = (second - first) / (x2 - x0)
    linear = first - square * (x0 + x1)
    return y0 - linear * x0 - square * x0**2, linear, square


def _kept(encoder: Encoder) -> dict[str, Fraction]:
    """The fraction of weights that are not zero, by path, of linear maps and convolutions."""
    return {
        path: Fraction(int(module.weight.count_nonzero()), max(1, module.weight.numel()))
        for path, module in encoder.named_modules()
        if isinstance(module, nn.Linear | nn.Conv1d | Quantized)
    }


#: Parts of an encoder by a word in the module's path; the first that fits counts.
GROUPS = {
    "front_end": ("front_end",),
    "projection": ("projection",),
    "shortening": ("shortening",),
    "positions": ("conv_positions", "position_bias"),
    "attention": ("attention",),
    "ffn": ("fc1", "fc2"),
    "exits": ("exits",),
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
