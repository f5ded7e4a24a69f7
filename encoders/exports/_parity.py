"""Whether what was exported gives the encoder's hidden states, where nothing of ours is at hand."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from core.errors import InputError
from encoders.exports._usage import Usage
from encoders.model import Encoder
from encoders.streaming import window

#: Utterances of a batch by their lengths in frames and some samples; -1 stands for the least.
ALONE = ((3, 0), (25, 7), (50, 0), (119, 131), (281, 5))
TOGETHER = ((50, 11),) * 3, ((131, 3), (50, 0), (88, 77), (3, 1))

#: What runs in a fresh interpreter that has none of our packages.
_RUN = """
import sys
for name in {ours}:
    sys.modules[name] = None
import numpy
{load}
_given, _made = numpy.load({given!r}), {{}}
for _case in range({count}):
    waveforms, lengths = _given[f"waveforms{{_case}}"], _given[f"lengths{{_case}}"]
{call}
    _made[f"states{{_case}}"], _made[f"frames{{_case}}"] = states, frames
numpy.savez({made!r}, **_made)
"""
_OURS = ("bench", "compressors", "core", "encoders", "profilers", "reports", "results", "tasks")


@dataclass(frozen=True)
class Compared:
    """A batch that both have encoded.

    samples: of each utterance. frames: of the longest one. difference: that of the valid frame
    where it is largest, as root mean squares, the difference's over the state's; nan where shapes
    differ.
    """

    samples: tuple[int, ...]
    frames: int
    difference: float


def compare(encoder: Encoder, usage: Usage, folder: Path) -> list[Compared]:
    """Run what lies in the folder as its usage says, and the encoder, on the same noise.

    Raises:
        InputError: it does not run.
    """
    batches = list(_batches(encoder, usage.padded))
    with TemporaryDirectory() as scratch:
        given, made = Path(scratch) / "given.npz", Path(scratch) / "made.npz"
        arrays = {
            f"{name}{case}": tensor.numpy()
            for case, batch in enumerate(batches)
            for name, tensor in zip(("waveforms", "lengths"), batch, strict=True)
        }
        np.savez(given, **arrays)  # type: ignore[arg-type]  # names, not its own options
        _run(usage, folder, given, made, len(batches))
        with np.load(made) as found:
            results = {name: torch.from_numpy(found[name]) for name in found}
    return [
        _compared(encoder, *batch, results[f"states{case}"], results[f"frames{case}"])
        for case, batch in enumerate(batches)
    ]


def _batches(encoder: Encoder, padded: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """Seeded noise (batch, samples), 0 behind its lengths (batch,)."""
    generator = torch.Generator().manual_seed(1)
    hop = encoder.spec.hop
    overlap = window(encoder) - hop
    cases = [(case,) for case in ALONE] + [TOGETHER[0]] + [TOGETHER[1]] * padded
    for case in cases:
        lengths = torch.tensor([overlap + frames * hop + more for frames, more in case])
        noise = 0.1 * torch.randn(len(case), int(lengths.max()), generator=generator)
        behind = torch.arange(noise.shape[1])[None] >= lengths[:, None]
        yield noise.masked_fill(behind, 0.0), lengths


def _run(usage: Usage, folder: Path, given: Path, made: Path, count: int) -> None:
    call = "\n".join(f"    {line}" for line in usage.call.splitlines())
    code = _RUN.format(
        ours=_OURS, load=usage.load, call=call, given=str(given), made=str(made), count=count
    )
    environment = {
        **os.environ, "HF_MODULES_CACHE": str(made.parent / "modules"), "HF_HUB_OFFLINE": "1"
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-I", "-B", "-c", code],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise InputError(f"what was exported does not run here: {said}")


def _compared(
    encoder: Encoder, waveforms: Tensor, lengths: Tensor, states: Tensor, frames: Tensor
) -> Compared:
    with torch.inference_mode():
        hidden = encoder(waveforms, lengths)
    expected = torch.stack(hidden.states).float()
    shape = tuple(lengths.tolist()), expected.shape[2]
    if states.shape != expected.shape or frames.tolist() != hidden.lengths.tolist():
        return Compared(*shape, float("nan"))
    valid = torch.arange(expected.shape[2])[None] < hidden.lengths[:, None]
    largest = (states.float() - expected)[:, valid].square().mean(2).sqrt().amax(1)
    level = expected[:, valid].square().mean((1, 2)).sqrt()
    return Compared(*shape, float((largest / level).max()))
