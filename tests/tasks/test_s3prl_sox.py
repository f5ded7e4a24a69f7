"""The effects of SoX that recipes apply, against a reading of silence.c sample by sample."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tasks.s3prl import audio, sox

RATE = 8_000
TRIM = ["silence", "1", "0.01", "1%", "-1", "0.01", "1%"]


def trimmed(wave: np.ndarray, rate: int, duration: float, threshold: float) -> list[float]:
    """What `silence 1 D T -1 D T` leaves of a wave, as its state machine does it."""
    kept, held, window = [], [], deque([0.0] * (rate // 50), rate // 50)
    needed, copying = int(duration * rate + 0.5), False
    for sample in wave.tolist():
        window.append(sample**2)
        loud = 100 * (max(0.0, sum(window)) / len(window)) ** 0.5 > threshold
        held.append(sample)
        if loud == copying:  # nothing speaks for a change: what was held back is speech, or is not
            kept += held if copying else []
            held = []
        elif len(held) == needed:
            kept += [] if copying else held
            copying, held = not copying, []
            if not copying:
                window.extend([0.0] * len(window))
    return kept + (held if copying else [])


def bursts(*lengths: int) -> np.ndarray:
    """Noise and silence in turns, of so many samples each."""
    draw = np.random.default_rng(0)
    parts = [draw.normal(0, 0.3, n) if i % 2 else np.zeros(n) for i, n in enumerate(lengths)]
    return np.concatenate(parts).astype(np.float32).clip(-1, 1)


def test_channels_rate_and_gain(tmp_path: Path) -> None:
    time = np.arange(RATE) / RATE
    tone = np.stack([0.4 * np.sin(2 * np.pi * 440 * time), np.zeros(RATE)], 1)
    soundfile.write(tmp_path / "tone.wav", tone, RATE, subtype="FLOAT")
    effects = [["channels", "1"], ["rate", "16000"], ["gain", "-6.0206"]]
    wave, rate = sox.apply_effects_file(tmp_path / "tone.wav", effects)
    assert rate == 16_000
    assert wave.shape == (1, 2 * RATE)
    expected = 0.1 * torch.sin(2 * torch.pi * 440 * torch.arange(2 * RATE) / 16_000)
    assert torch.allclose(wave[0, 500:-500], expected[500:-500], atol=1e-4)


def test_loud_audio_is_clipped_as_sox_does() -> None:
    wave, _ = sox.apply_effects_tensor(torch.full((1, 4), 0.9), RATE, [["gain", "6"]])
    assert wave.tolist() == [[1.0] * 4]


@pytest.mark.parametrize("lengths", [
    (0, 900), (700, 900, 1000, 600, 50, 400), (300, 40, 500, 700, 90), (400,), (0, 900, 700),
])  # fmt: skip
def test_silence_is_what_the_state_machine_leaves(lengths: tuple[int, ...]) -> None:
    wave = bursts(*lengths)
    found, rate = sox.apply_effects_tensor(torch.from_numpy(wave)[None], RATE, [TRIM])
    expected = trimmed(wave, RATE, 0.01, 1)
    assert rate == RATE
    assert found.shape[1] == len(expected)
    assert np.allclose(found[0].numpy(), expected)


def test_an_effect_that_is_not_there_is_named() -> None:
    with pytest.raises(NotImplementedError, match="reverb 50"):
        sox.apply_effects_tensor(torch.zeros(1, 10), RATE, [["reverb", "50"]])


def test_files_are_read_as_torchaudio_did(tmp_path: Path) -> None:
    wave = np.random.default_rng(0).uniform(-1, 1, (100, 2)).astype(np.float32)
    soundfile.write(tmp_path / "two.wav", wave, RATE, subtype="FLOAT")
    found, rate = audio.load(tmp_path / "two.wav", frame_offset=10, num_frames=20)
    assert rate == RATE
    assert torch.equal(found, torch.from_numpy(wave[10:30].T))
    assert audio.load(str(tmp_path / "two.wav"), channels_first=False)[0].shape == (100, 2)
