"""What every profiler promises. A new file in `profilers/` is tested here without a change."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from core import plugins
from core.metric import Metric
from core.spec import ConvFrontEnd, ModelSpec, Positions
from encoders import zoo
from encoders.model import Encoder, build
from encoders.workload import Workload
from profilers._base import Measurement, Profiler, Setting

NAMES = plugins.names("profiler")
#: Profilers whose numbers come from a clock or from the operating system.
PHYSICAL = {"latency", "latency-by-length", "extraction", "memory"}
SHAPES: dict[str, ModelSpec] = {
    "fbank": zoo.fbank(),
    "half": replace(zoo.tiny(), dtype="bfloat16"),
    "wavlm": replace(
        zoo.tiny(),
        front_end=ConvFrontEnd(channels=(16,) * 7),
        positions=Positions(8, 4, gated_buckets=16, gated_distance=40),
    ),
}


def measure(name: str, encoder: Encoder, reference: Encoder | None = None) -> Measurement:
    workload = Workload.parse("seconds:0.5")
    profiler = plugins.load("profiler", name)()
    setting = Setting(workload, reference, repeats=2, min_seconds=0.0)
    return profiler.measure(encoder, setting)


@pytest.mark.parametrize("name", NAMES)
def test_values_are_those_declared_and_finite(name: str) -> None:
    encoder = build(zoo.tiny(), 0)
    measurement = measure(name, encoder, reference=encoder)
    declared = {metric.name for metric in plugins.load("profiler", name).metrics}
    missing = measurement.details.get("unavailable", {})
    assert set(measurement.values) | set(missing) == declared
    assert not set(measurement.values) & set(missing)
    assert all(missing.values())
    for value in measurement.values.values():
        assert type(value) is float
        assert math.isfinite(value)
        assert value >= 0
    assert json.loads(json.dumps(measurement.details)) == measurement.details


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_encoder_is_not_changed(name: str, shape: str) -> None:
    encoder = build(SHAPES[shape], 0)
    if len(encoder.layers):
        encoder.layers[0].eval()
    state = {key: tensor.clone() for key, tensor in encoder.state_dict().items()}
    modes = [module.training for module in encoder.modules()]
    hooks = [len(module._forward_hooks) for module in encoder.modules()]
    generator, threads = torch.get_rng_state(), torch.get_num_threads()
    measure(name, encoder)
    after = encoder.state_dict()
    assert all(torch.equal(after[key], tensor) for key, tensor in state.items())
    assert all(parameter.requires_grad for parameter in encoder.parameters())
    assert [module.training for module in encoder.modules()] == modes
    assert [len(module._forward_hooks) for module in encoder.modules()] == hooks
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("name", sorted(set(NAMES) - PHYSICAL))
def test_the_same_model_costs_the_same_twice(name: str) -> None:
    assert measure(name, build(zoo.tiny(), 0)) == measure(name, build(zoo.tiny(), 0))


@pytest.mark.parametrize("name", NAMES)
def test_the_card_says_what_the_class_says(name: str) -> None:
    card, profiler = plugins.card("profiler", name), plugins.load("profiler", name)
    assert issubclass(profiler, Profiler)
    assert card.summary.endswith(".")
    assert card.metrics == profiler.metrics
    assert card.constants.get("exclusive", False) == profiler.exclusive
    assert all(isinstance(metric, Metric) and metric.about for metric in card.metrics)


def test_metric_names_are_distinct_and_those_of_the_interface() -> None:
    names = [metric.name for name in NAMES for metric in plugins.card("profiler", name).metrics]
    assert len(names) == len(set(names))
    assert set(names) >= {
        "params_total", "params_nonzero", "bytes_stored", "macs_dense", "macs_nonzero",
        "macs_per_second", "latency_s_p50", "rtf", "peak_bytes",
    }  # fmt: skip


def test_cards_are_read_without_torch() -> None:
    program = (
        "import sys; from core import plugins; "
        "[plugins.card('profiler', n) for n in plugins.names('profiler')]; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
