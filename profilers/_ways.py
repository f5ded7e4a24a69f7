"""What an utterance is run through: how many tokens its frames make, and how many layers.

Where that depends on what is said, only running the encoder tells; elsewhere the spec does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, groupby

import torch
from torch import Tensor

from core.errors import InputError
from core.spec import SAMPLE_RATE, ModelSpec
from encoders.model import Encoder
from encoders.workload import Workload
from profilers._base import evaluating, home_of

#: Audio that is encoded at once.
BATCH_SAMPLES = 16 * SAMPLE_RATE


@dataclass(frozen=True)
class Way:
    """samples: of the waveform. tokens: what the layers run on. depth: layers that were run."""

    samples: int
    tokens: int
    depth: int


def depends_on_content(spec: ModelSpec) -> str | None:
    """What of the way only running the encoder tells, or None."""
    if spec.shortening is not None and spec.shortening.kind == "cif":
        return "tokens"
    return "depth" if spec.exits is not None and spec.exits.threshold > 0 else None


def plan(spec: ModelSpec, samples: int) -> Way:
    """The way of a waveform of that many samples, whatever it holds.

    Raises:
        InputError: it is shorter than one frame, or its content decides.
    """
    frames = spec.frames(samples)
    if frames < 1:
        raise InputError(f"an utterance of {samples} samples holds no frame; leave it out")
    if (what := depends_on_content(spec)) is not None:
        raise InputError(f"the {what} of an utterance depend on what is said; run the encoder")
    tokens = frames if spec.shortening is None else spec.shortening.tokens(frames)
    assert tokens is not None
    return Way(samples, tokens, len(spec.layers))


@torch.no_grad()
def walk(encoder: Encoder, waveforms: Tensor) -> list[Way]:
    """The ways that waveforms of one length (batch, samples) really take."""
    spec = encoder.spec
    features, frames = encoder.features(waveforms.to(home_of(encoder)))
    depths = torch.full_like(frames, len(spec.layers))
    if depends_on_content(replace(spec, shortening=None)):
        hidden = encoder.encode(features)
        tokens, depths = hidden.tokens, depths if hidden.depths is None else hidden.depths
    else:
        joined = encoder.join(features)
        tokens = None if joined is None else joined.counts
    counts = (frames if tokens is None else tokens).tolist()
    pairs = zip(counts, depths.tolist(), strict=True)
    return [Way(waveforms.shape[1], tokens, depth) for tokens, depth in pairs]


def ways_of(encoder: Encoder, workload: Workload) -> list[Way]:
    """The way of each utterance of a workload.

    Raises:
        InputError: one is shorter than one frame.
    """
    if depends_on_content(encoder.spec) is None:
        return [plan(encoder.spec, samples) for samples in workload.lengths]
    ways: dict[int, Way] = {}
    with evaluating(encoder):
        for indices in _equal(workload.lengths):
            waveforms = torch.stack([workload.waveform(index) for index in indices])
            ways |= zip(indices, walk(encoder, waveforms), strict=True)
    return [ways[index] for index in range(len(ways))]


def _equal(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Places of equal lengths, in batches that need no padding: `walk` takes none."""
    ranked = sorted(range(len(lengths)), key=lambda index: lengths[index])
    for length, places in groupby(ranked, key=lambda index: lengths[index]):
        left, size = list(places), max(1, BATCH_SAMPLES // max(1, length))
        yield from (left[start : start + size] for start in range(0, len(left), size))


def speech_of(workload: Workload, lengths: Iterable[int]) -> Iterator[Tensor]:
    """Waveforms of those lengths (samples,) from a workload's own, joined end to end and cut.

    Each begins with the utterance after the last one that was used; after all, the first follows.
    """
    utterances = cycle(range(len(workload.lengths)))
    for length in lengths:
        parts, left = [], length
        while left > 0:
            parts.append(workload.waveform(next(utterances))[:left])
            left -= len(parts[-1])
        yield torch.cat(parts)
