"""Long audio in chunks: the features of the whole, and states that are near those of the whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
import torch
from torch import Tensor

import encoders
from core.errors import InputError
from core.spec import ConvFrontEnd, LayerSpec, ModelSpec, Positions
from encoders import build, zoo
from encoders.model import Encoder
from encoders.streaming import stream

CONV = ModelSpec(
    "hubert", ConvFrontEnd((8,) * 7), 24, 4, 6, (LayerSpec.dense(4, 6, 40),) * 2, Positions(16, 4)
)
LARGE = replace(
    CONV, front_end=ConvFrontEnd((8,) * 7, norm="layer", bias=True), norm_first=True,
    normalize_waveform=True,
)  # fmt: skip
TINY = replace(zoo.tiny(), layers=zoo.tiny().layers[:2])
FBANK = zoo.fbank()


def _noise(seconds: float) -> Tensor:
    """Noise whose level changes, so that pieces have other statistics than the whole."""
    noise = torch.randn(round(16_000 * seconds), generator=torch.Generator().manual_seed(0))
    return 0.1 * noise * torch.linspace(0.2, 2, len(noise)) + 0.01


def _joined(encoder: Encoder, waveform: Tensor, chunk: float, context: float) -> Tensor:
    with torch.inference_mode():
        parts = [torch.stack(hidden.states) for hidden in stream(encoder, waveform, chunk, context)]
    assert len(parts) > 1
    return torch.cat(parts, dim=2)[:, 0]


def _whole(encoder: Encoder, waveform: Tensor) -> Tensor:
    with torch.inference_mode():
        return torch.stack(encoder(waveform[None]).states)[:, 0]


def _difference(found: Tensor, expected: Tensor) -> Tensor:
    """Of each state and frame, as root mean squares, over the state's level."""
    level = expected.square().mean((1, 2)).sqrt()
    return (found - expected).square().mean(2).sqrt() / level[:, None]


@pytest.mark.parametrize("seconds", [3.0, 3.017])
@pytest.mark.parametrize("spec", [CONV, LARGE, TINY], ids=["conv", "large", "mel"])
def test_with_all_audio_as_context_it_is_the_whole(spec: ModelSpec, seconds: float) -> None:
    encoder, waveform = build(spec, seed=0).eval(), _noise(seconds)
    expected = _whole(encoder, waveform)
    found = _joined(encoder, waveform, 1.0, 4.0)
    assert found.shape == expected.shape
    assert _difference(found, expected).max() < 1e-4


@pytest.mark.parametrize("spec", [CONV, LARGE, TINY], ids=["conv", "large", "mel"])
def test_inputs_of_the_first_layer_are_those_of_the_whole(spec: ModelSpec) -> None:
    """Given the few frames on both sides that a convolution over positions sees."""
    encoder, waveform = build(spec, seed=0).eval(), _noise(4.0)
    found = _joined(encoder, waveform, 1.0, 0.2)
    assert _difference(found, _whole(encoder, waveform))[0].max() < 1e-4


def test_front_ends_alone_need_no_context() -> None:
    encoder, waveform = build(replace(FBANK, front_end=replace(FBANK.front_end, deltas=0),
                                      dim=80), seed=0).eval(), _noise(2.5)  # fmt: skip
    found = _joined(encoder, waveform, 1.0, 0.0)
    assert _difference(found, _whole(encoder, waveform)).max() < 1e-4


@pytest.mark.parametrize(("model", "most"), [("builtin", 0.25), ("conv", 0.05)])
def test_states_are_near_those_of_the_whole(model: str, most: float, speech_data: Path) -> None:
    """Of the median frame of speech, with two seconds of context, as the guide states."""
    encoder = encoders.load(model) if model == "builtin" else build(CONV, seed=0).eval()
    files = sorted(speech_data.rglob("*.flac"), key=lambda file: -file.stat().st_size)
    waveform = torch.from_numpy(soundfile.read(files[0], dtype="float32")[0][: 16_000 * 20])
    expected = _whole(encoder, waveform)
    difference = _difference(_joined(encoder, waveform, 5.0, 2.0), expected)
    assert difference.median(1).values.max() < most
    wider = _difference(_joined(encoder, waveform, 5.0, 5.0), expected)
    assert wider.median(1).values.max() < difference.median(1).values.max()


@pytest.mark.parametrize(
    ("samples", "chunk", "context"), [(300, 1, 1), (16_000, 0, 1), (16_000, 1, -1)]
)
def test_nothing_to_encode_is_refused(samples: int, chunk: float, context: float) -> None:
    with pytest.raises(InputError, match="frame"):
        next(stream(build(CONV, seed=0), torch.zeros(samples), chunk, context))
    with pytest.raises(InputError, match="shape"):
        next(stream(build(CONV, seed=0), torch.zeros(1, 16_000)))
