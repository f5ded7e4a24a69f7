"""The log-mel front end agrees with Kaldi's as torchaudio has it."""

from __future__ import annotations

import pytest
import torch
import torchaudio
from hypothesis import given
from hypothesis import strategies as st

from core.spec import ConvFrontEnd, MelFrontEnd
from encoders.front_end import Convolutions, LogMel, log_mel

kaldi = pytest.importorskip("torchaudio.compliance.kaldi")


def _noise(samples: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(1, samples, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("bins", [40, 80])
def test_log_mel_is_kaldis(bins: int) -> None:
    waveform = _noise(16000) + 0.05  # with an offset, which Kaldi removes per window
    expected = kaldi.fbank(waveform, num_mel_bins=bins, dither=0.0)
    torch.testing.assert_close(log_mel(waveform, bins)[0], expected, atol=2e-3, rtol=0)


def test_deltas_are_torchaudios() -> None:
    front_end = LogMel(MelFrontEnd(20, stack=1, deltas=2))
    features = front_end(_noise(8000))[0][0].t()
    slopes = torchaudio.functional.compute_deltas(features[:20])
    torch.testing.assert_close(features[20:40], slopes, atol=1e-5, rtol=1e-5)
    curves = torchaudio.functional.compute_deltas(slopes)
    torch.testing.assert_close(features[40:], curves, atol=1e-5, rtol=1e-5)


def test_features_are_standardised_by_the_buffers() -> None:
    front_end = LogMel(MelFrontEnd(10, stack=2))
    plain = front_end(_noise(4000))[0]
    front_end.mean.fill_(2.0)
    front_end.std.fill_(4.0)
    torch.testing.assert_close(front_end(_noise(4000))[0], (plain - 2) / 4)


@given(
    st.integers(400, 3000),
    st.sampled_from([MelFrontEnd(8, stack=3), MelFrontEnd(8, 1, 2), ConvFrontEnd()]),
)
def test_frames_are_those_of_the_spec(samples: int, spec: MelFrontEnd | ConvFrontEnd) -> None:
    if isinstance(spec, ConvFrontEnd):
        spec = ConvFrontEnd((2,) * 7)
        front_end: torch.nn.Module = Convolutions(spec)
    else:
        front_end = LogMel(spec)
    if spec.frames(samples) < 1:
        return
    features, counts = front_end(_noise(samples), torch.tensor([samples]))
    assert features.shape == (1, spec.frames(samples), spec.dim)
    assert counts.tolist() == [spec.frames(samples)]


@pytest.mark.parametrize("window", ["povey", "hamming"])
def test_windows_are_kaldis(window: str) -> None:
    waveform = torch.randn(1, 5000, generator=torch.Generator().manual_seed(0))
    expected = kaldi.fbank(waveform * 2**15, num_mel_bins=40, window_type=window)
    front_end = LogMel(MelFrontEnd(40, stack=1, window=window, gain=2.0**15))
    torch.testing.assert_close(front_end(waveform)[0][0], expected, atol=1e-4, rtol=1e-4)


def test_a_last_frame_that_is_kept_is_filled_up_with_nothing() -> None:
    front_end = LogMel(MelFrontEnd(40, stack=2, keep_last=True))
    front_end.mean.fill_(3.0)
    waveforms = torch.randn(2, 880, generator=torch.Generator().manual_seed(0))
    features, counts = front_end(waveforms, torch.tensor([880, 720]))
    alone, count = front_end(waveforms[1:, :720])
    assert counts.tolist() == [2, 2]
    assert count.tolist() == [2]
    torch.testing.assert_close(features[1:], alone)
    assert features[1, 1, :40].abs().min() > 0
    assert features[1, 1, 40:].abs().max() == 0
