"""Timing: which utterances, how many passes, what is made of the samples. No clock asserted."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.runtime import Runtime
from core.spec import SAMPLE_RATE
from encoders import zoo
from encoders.model import Encoder, Hidden, build
from encoders.workload import Workload
from profilers._base import Setting, pinned
from profilers._timing import (
    SECONDS,
    UTTERANCES,
    Input,
    attention_kernels,
    bootstrap,
    choose,
    speedup,
    time_all,
)
from profilers.latency import Latency, summarise


def corpus(lengths: tuple[int, ...]) -> Workload:
    return Workload("corpus", lengths, lambda i: torch.zeros(lengths[i]), {})


SHORT = Setting(corpus((4000, 8000)), repeats=3, min_seconds=0.0)


@given(st.lists(st.integers(1000, 30 * SAMPLE_RATE), min_size=1, max_size=60))
def test_few_utterances_of_every_length_are_chosen(lengths: list[int]) -> None:
    chosen = choose(corpus(tuple(lengths)))
    assert 1 <= len(chosen) == len(set(chosen)) <= min(UTTERANCES, len(lengths))
    assert len(chosen) == 1 or sum(lengths[i] for i in chosen) <= SECONDS * SAMPLE_RATE
    picked = [lengths[i] for i in chosen]
    assert picked == sorted(picked)
    below = [sum(length < p for length in lengths) / len(lengths) for p in picked]
    assert all(b <= (i + 1) / len(picked) for i, b in enumerate(below))


def test_chosen_utterances_lie_in_the_middle_of_equal_shares() -> None:
    lengths = tuple(range(1600, 1600 + 80 * 10, 10))
    assert choose(corpus(lengths[::-1])) == [74, 64, 54, 44, 34, 24, 14, 4]


def test_a_fixed_workload_is_timed_in_full() -> None:
    assert choose(Workload.parse("superb32")) == list(range(32))


class _Tape(Encoder):
    """An encoder that notes when it runs, and on what."""

    def listen(self, name: str, tape: list[tuple[str, int]]) -> _Tape:
        self.name, self.tape = name, tape
        return self

    def forward(self, waveforms: torch.Tensor, lengths: torch.Tensor | None = None) -> Hidden:
        assert torch.is_inference_mode_enabled()
        assert not self.training
        self.tape.append((self.name, waveforms.shape[1]))
        return super().forward(waveforms, lengths)


def test_model_and_reference_are_warmed_up_and_take_turns() -> None:
    tape: list[tuple[str, int]] = []
    models = [_Tape(zoo.tiny()).listen(name, tape) for name in "ab"]
    inputs = [Input(torch.zeros(1, n)) for n in (4000, 8000)]
    samples = time_all(models, inputs, Runtime(), repeats=3)
    assert samples.shape == (2, 2, 3)
    assert (samples > 0).all()
    one = [("a", 4000), ("b", 4000), ("a", 8000), ("b", 8000)]
    other = [("b", 4000), ("a", 4000), ("b", 8000), ("a", 8000)]
    assert tape == one + one + other + one  # the first are the warm-up
    assert all(model.training for model in models)


def test_passes_go_on_until_they_are_enough_and_took_long_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(time, "perf_counter", itertools.count().__next__)  # all take a second
    models, inputs = [build(zoo.tiny(), 0)], [Input(torch.zeros(1, 800))] * 2
    assert time_all(models, inputs, Runtime(), 3, 1.0).tolist() == [[[1.0] * 3] * 2]
    assert time_all(models, inputs, Runtime(), 3, 9.0).tolist() == [[[1.0] * 5] * 2]


def test_summary_of_known_samples() -> None:
    samples = np.array([[1.0, 1.0, 1.0], [2.0, 3.0, 4.0]])
    values = summarise(samples, [10.0, 30.0])
    assert values == {
        "latency_s_p50": 1.5, "latency_s_p90": 3.5, "latency_s_iqr": 1.75, "rtf": 12 / 120,
    }  # fmt: skip


@given(st.floats(0.1, 10.0), st.integers(2, 8))
def test_speedup_of_a_model_that_is_always_as_much_faster(factor: float, passes: int) -> None:
    model = np.random.default_rng(passes).uniform(1.0, 2.0, (4, passes))
    samples = np.stack([model, factor * model])
    assert speedup(samples) == pytest.approx(factor)
    assert bootstrap(samples) == pytest.approx([factor, factor])


def test_the_interval_holds_the_ratio_and_grows_with_noise() -> None:
    noise = np.random.default_rng(0).normal(size=(2, 4, 20))
    widths = []
    for scale in (0.01, 0.1):
        samples = np.array([1.0, 2.0])[:, None, None] * np.exp(scale * noise)
        low, high = bootstrap(samples)
        assert low < speedup(samples) < high
        widths.append(high - low)
    assert widths[1] > 3 * widths[0]


def test_threads_are_pinned_and_restored() -> None:
    before = torch.get_num_threads()
    with pinned(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_a_measurement_states_its_conditions() -> None:
    encoder = build(zoo.tiny(), 0)
    details = Latency().measure(encoder, replace(SHORT, reference=encoder)).details
    assert np.shape(details["samples_s"]) == np.shape(details["reference_samples_s"]) == (2, 3)
    assert details["audio_seconds"] == [0.25, 0.5]
    assert details["dtype"] == "float32"
    assert details["threads"] == 1
    assert details["attention_kernels"]
    assert len(details["load_s"]) == 2


def test_the_attention_kernels_are_those_that_were_chosen() -> None:
    encoder = build(zoo.tiny(), 0)
    assert attention_kernels(encoder, Runtime(attention="math")) == ["math"]
    (fused,) = attention_kernels(encoder, Runtime(attention="flash"))
    assert "flash_attention" in fused


def test_without_a_reference_there_is_no_speedup() -> None:
    measurement = Latency().measure(build(zoo.tiny(), 0), SHORT)
    assert "speedup" not in measurement.values
    assert "no reference" in measurement.details["unavailable"]["speedup"]
