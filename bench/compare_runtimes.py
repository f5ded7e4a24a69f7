"""`bench compare-runtimes`: our encoder beside other libraries' with the same weights and audio.

In each pass over the inputs every input is encoded by all of them, one right after the other, so
that drift of the machine reads as no difference. Before anything is timed all have given the same
hidden states. Inputs are single utterances of several lengths, and one batch of utterances cut to
one length: group norm over padding would give every utterance other features.

`seconds` is the sum over inputs of the median over passes, `rtf` that over the seconds of audio,
`ratio` our seconds over theirs (below 1 we are faster) with its 95 % interval, passes resampled.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from bench import environment
from bench.jobs import Source
from core.errors import InputError, Unsupported, closest
from core.runtime import Runtime
from core.spec import SAMPLE_RATE
from encoders import store
from encoders.counterparts import LIBRARIES, Counterpart
from encoders.model import Encoder
from encoders.workload import Workload
from profilers import _running as running
from profilers._timing import Input, Loaded, bootstrap, choose, conditions, speedup, time_all
from profilers._watch import watched

OURS = "ours"

#: The batch: so many utterances, the longest there are, cut to so many seconds or the shortest.
BATCH, SECONDS = 8, 5.0

#: In float32 hidden states differ by no more than this, or it is not the same model.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Request:
    """What is compared, and how it is run. libraries: beside ours. repeats: passes over inputs."""

    models: Sequence[str]
    libraries: Sequence[str]
    source: Source
    runtime: Runtime
    repeats: int


def request(models: str, runtimes: str, source: Source, runtime: Runtime, repeats: int) -> Request:
    """What the comma lists ask for; ours is always among the runtimes.

    Raises:
        InputError: there is no such model or runtime.
    """
    known = (OURS, *LIBRARIES)
    chosen = [name.strip() for name in runtimes.split(",")]
    for name in chosen:
        if name not in known:
            raise InputError(
                f"unknown runtime {name!r}{closest(name, known)}; expected {', '.join(known)}"
            )
    named = [model.strip() for model in models.split(",")]
    for model in named:
        store.read_spec(model)
    libraries = [name for name in LIBRARIES if name in chosen]
    return Request(named, libraries, source, runtime, repeats)


@dataclass(frozen=True)
class Row:
    """One model in one runtime and mode; numbers are missing for the reason given.

    difference: the largest between any of its hidden states and ours, in float32. samples_s:
    (inputs, passes). conditions: what has to be known beside the times.
    """

    model: str
    mode: str
    runtime: str
    version: str | None
    seconds: float | None = None
    rtf: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    difference: float | None = None
    reason: str = ""
    samples_s: list[list[float]] = field(default_factory=list)
    conditions: dict[str, Any] = field(default_factory=dict)


@dataclass
class Candidate:
    """A runtime that is to be timed, or why it cannot be."""

    name: str
    model: Encoder | Counterpart | None = None
    difference: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Mode:
    """Inputs of one kind. conditions: which utterances they are."""

    name: str
    inputs: list[Input]
    conditions: dict[str, Any]

    @property
    def seconds(self) -> float:
        return sum(read.waveforms.numel() for read in self.inputs) / SAMPLE_RATE


def compare(request: Request) -> Iterator[Row]:
    """Rows as they are found: by model, mode and runtime.

    Raises:
        InputError: there is no such model, data or device.
    """
    running.check(request.runtime)
    workload = Workload.parse("corpus", request.source.open())
    modes = [_singly(workload, request.runtime), _batched(workload, request.runtime)]
    for model in request.models:
        encoder = store.load(model)
        reads = [mode.inputs[0] for mode in modes]
        others = [_admitted(name, encoder, reads, request.runtime) for name in request.libraries]
        candidates = [Candidate(OURS, encoder), *others]
        for mode in modes:
            yield from _timed(model, mode, candidates, request)


def write(rows: Sequence[Row], request: Request, folder: Path) -> None:
    """`runtimes.csv`, a line per row, and `runtimes.json` with machine, versions and samples."""
    folder.mkdir(parents=True, exist_ok=True)
    columns = [f.name for f in fields(Row) if f.name not in ("samples_s", "conditions")]
    run = {**request.runtime.columns(), "repeats": request.repeats}
    with (folder / "runtimes.csv").open("w", newline="", encoding="utf-8") as file:
        # Both rows and runtimes have columns; those of a runtime say how all were run.
        table = csv.DictWriter(file, [*columns, *run], extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        table.writerows({**asdict(row), **run} for row in rows)
    whole = {"environment": environment.describe(), "run": run, "rows": [asdict(r) for r in rows]}
    (folder / "runtimes.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


HEADER = (
    f"{'model':<22} {'mode':<8} {'runtime':<13} {'seconds':>9} {'rtf':>7} {'ours/theirs':>11} "
    f"{'95 % interval':>16} {'difference':>10}"
)


def as_line(row: Row) -> str:
    """The row as it stands below HEADER."""
    start = f"{row.model:<22} {row.mode:<8} {row.runtime:<13}"
    if row.seconds is None:
        return f"{start} {row.reason}"
    start += f" {row.seconds:>9.4f} {row.rtf:>7.4f}"
    if row.runtime == OURS:
        return start
    interval = f"{row.ratio_low:.3f} to {row.ratio_high:.3f}"
    return f"{start} {row.ratio:>11.3f} {interval:>16} {row.difference:>10.1e}"


def _singly(workload: Workload, runtime: Runtime) -> Mode:
    """Utterances of several lengths, each alone."""
    places = sorted(choose(workload))
    inputs = list(Loaded.singly(workload.part(places), runtime.device))
    return Mode("batch-1", inputs, {"utterances": places})


def _batched(workload: Workload, runtime: Runtime) -> Mode:
    """The longest utterances, cut to one length."""
    lengths = workload.lengths
    places = sorted(range(len(lengths)), key=lambda place: (-lengths[place], place))[:BATCH]
    samples = min(round(SECONDS * SAMPLE_RATE), *(lengths[place] for place in places))
    cut = Workload(
        workload.name,
        (samples,) * len(places),
        lambda index: workload.waveform(places[index])[:samples],
        {},
    )
    inputs = list(Loaded(cut, [range(len(places))], runtime.device))
    return Mode("batched", inputs, {"utterances": places, "samples": samples})


def _admitted(name: str, encoder: Encoder, reads: Sequence[Input], runtime: Runtime) -> Candidate:
    """The library's model, where it gives our hidden states and runs in the way asked for."""
    found = Candidate(name)
    try:
        theirs = LIBRARIES[name](encoder)
        found.difference = _difference(encoder, theirs, reads, runtime)
        if not found.difference <= TOLERANCE:
            raise Unsupported(
                f"its hidden states differ from ours by {found.difference:.2g}; "
                f"not timed, as {TOLERANCE:g} is the most for one model"
            )
        theirs.cast(runtime.dtype or encoder.spec.dtype)
        with running.running([_encoder(theirs)], runtime) as (forward,):
            for read in reads:
                forward(*read)
        found.model = theirs
    except ImportError as error:
        found.reason = f"unavailable: {error} ({LIBRARIES[name].install})"
    except Unsupported as error:
        found.reason = f"unavailable: {error}"
    except Exception as error:  # whatever a library does, the others are still timed
        first = str(error).strip().partition("\n")[0]
        found.reason = f"failed: {type(error).__name__}: {first}"
    return found


def _difference(
    encoder: Encoder, theirs: Counterpart, reads: Sequence[Input], runtime: Runtime
) -> float:
    """The largest between two hidden states, both models in float32 and nothing compiled."""
    exact = running.cast(encoder, "float32")
    plain = Runtime(runtime.device, runtime.threads)
    found = []
    with running.running([exact, _encoder(theirs)], plain) as forwards:
        for read in reads:
            a, b = (forward(*read).states for forward in forwards)
            pairs = zip(a[-len(b) :], b, strict=True)  # torchaudio leaves the first one out
            found += [(x - y).abs().max() for x, y in pairs]
    return float(torch.stack(found).max())  # of torch, so that nan stays nan


def _timed(
    model: str, mode: Mode, candidates: Sequence[Candidate], request: Request
) -> Iterator[Row]:
    """Rows of one model in one mode."""
    ready = [candidate for candidate in candidates if candidate.model is not None]
    models = [_encoder(candidate.model) for candidate in ready]
    with watched(request.runtime) as seen:
        samples = time_all(models, mode.inputs, request.runtime, request.repeats)
    measured = dict(zip((candidate.name for candidate in ready), samples, strict=True))
    known = {**mode.conditions, **seen}
    for candidate in candidates:
        package = environment.PACKAGE if candidate.name == OURS else candidate.name
        row = Row(
            model, mode.name, candidate.name, environment.version(package),
            difference=candidate.difference, reason=candidate.reason,
        )  # fmt: skip
        if candidate.model is not None:
            known |= conditions(_encoder(candidate.model), request.runtime)
            row = _measured(row, measured[candidate.name], samples[0], mode, known)
        yield row


def _measured(
    row: Row, theirs: np.ndarray, ours: np.ndarray, mode: Mode, known: dict[str, Any]
) -> Row:
    """The row with its numbers from samples (inputs, passes), ours and its own."""
    seconds = float(np.median(theirs, axis=-1).sum())
    pair = np.stack([theirs, ours])
    low, high = bootstrap(pair)
    return replace(
        row,
        seconds=seconds,
        rtf=seconds / mode.seconds,
        ratio=float(speedup(pair)),
        ratio_low=low,
        ratio_high=high,
        samples_s=theirs.tolist(),
        conditions=dict(known),
    )


def _encoder(model: Encoder | Counterpart | None) -> Encoder:
    """The model itself: what runs encoders runs counterparts as well."""
    return cast(Encoder, model)
