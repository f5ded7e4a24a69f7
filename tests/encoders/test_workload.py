"""Workloads: the lengths that SUPERB counts on, silence of one length, or a corpus."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from core.errors import InputError
from encoders.corpora import open_corpus
from encoders.workload import Workload


def test_superb32_has_the_lengths_of_the_leaderboard() -> None:
    workload = Workload.parse("superb32")
    assert len(workload.lengths) == 32
    assert workload.seconds == pytest.approx(224.86, abs=0.005)
    assert {name: len(part) for name, part in workload.buckets.items()} == {
        "short": 8, "medium": 8, "long": 8, "longer": 8,
    }  # fmt: skip
    assert sum(workload.buckets.values(), ()) == workload.lengths
    assert (workload.lengths[0], workload.lengths[-1]) == (20_560, 326_000)


def test_one_bucket_can_be_asked_for() -> None:
    workload = Workload.parse("superb32:longer")
    assert workload.lengths == Workload.parse("superb32").buckets["longer"]


@pytest.mark.parametrize(("text", "samples"), [("seconds:10", 160_000), ("seconds:0.5", 8_000)])
def test_seconds_is_one_utterance(text: str, samples: int) -> None:
    workload = Workload.parse(text)
    assert workload.lengths == (samples,)
    assert workload.buckets == {}
    assert workload.waveform(0).shape == (samples,)


def test_synthetic_sound_is_low_and_the_same_each_time() -> None:
    one, other = Workload.parse("superb32"), Workload.parse("superb32")
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = one.waveform(4)
    assert torch.equal(torch.get_rng_state(), state), "the global generator is left alone"
    assert torch.equal(first, other.waveform(4))
    assert not torch.equal(first[:100], one.waveform(5)[:100])
    assert first.dtype == torch.float32
    assert 0.005 < first.std() < 0.02


def test_a_corpus_is_a_workload(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.ones(16_000) / 4, 16_000)
    soundfile.write(tmp_path / "b.wav", np.ones(4_001) / 4, 8_000)
    corpus = open_corpus(str(tmp_path))
    workload = Workload.parse("corpus", corpus)
    assert workload.lengths == (16_000, 8_002)
    for index, length in enumerate(workload.lengths):
        assert workload.waveform(index).shape == (length,)
    assert torch.equal(workload.waveform(0), torch.full((16_000,), 0.25))


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("superb23", "did you mean 'superb32'"),
        ("superb32:tiny", "short|medium|long|longer"),
        ("seconds:ten", "N from 0.05 to 3600"),
        ("seconds:0", "N from 0.05"),
        ("seconds:nan", "N from 0.05"),
        ("corpus", "--data"),
        ("", "expected superb32"),
    ],
)
def test_a_wrong_workload_is_refused(text: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        Workload.parse(text)
    assert hint in str(caught.value)
