"""Sizes: parameters, bytes on disk, and the memory of one forward pass."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from core.runtime import Runtime
from core.spec import LayerSpec
from encoders import zoo
from encoders.model import build
from encoders.store import save
from encoders.workload import Workload
from profilers import _resident
from profilers._base import Setting
from profilers.memory import Memory
from profilers.params import Params

ONE = Setting(Workload.parse("seconds:1"))


def test_parameters_of_the_tiny_model_by_hand() -> None:
    encoder = build(zoo.tiny(), 0)
    dim, ffn, heads, reach = 128, 512, 8, 50
    layer = 4 * (dim + 1) * dim + (dim + 1) * ffn + (ffn + 1) * dim + 4 * dim
    expected = (80 + 1) * dim + 2 * dim + heads * (2 * reach + 1) + 6 * layer
    values = Params().measure(encoder, ONE).values
    assert values["params_total"] == expected
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.fill_(1.0)
        encoder.layers[3].fc2.weight[:, 7:].zero_()
    pruned = Params().measure(encoder, ONE).values
    assert pruned["params_nonzero"] == expected - dim * (ffn - 7)
    assert (pruned["params_total"], pruned["bytes_stored"]) == (expected, values["bytes_stored"])


def test_bytes_stored_are_those_of_the_file(tmp_path: Path) -> None:
    encoder = build(zoo.tiny(), 0)
    save(encoder, tmp_path / "model")
    size = (tmp_path / "model" / "model.safetensors").stat().st_size
    assert Params().measure(encoder, replace(ONE, folder=tmp_path / "model")).values == {
        **Params().measure(encoder, ONE).values, "bytes_stored": size,
    }  # fmt: skip
    half = build(replace(zoo.tiny(), dtype="bfloat16"), 0)
    assert Params().measure(half, ONE).values["bytes_stored"] < 0.6 * size


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_resident_memory_holds_weights_and_activations() -> None:
    """A wide FFN: much to load, and inner activations that bound the rest from below."""
    wide = replace(zoo.tiny(), layers=(LayerSpec.dense(8, 16, 50_000),))
    setting = Setting(Workload.parse("seconds:4"))
    encoder = build(wide, 0)
    measurement = Memory().measure(encoder, setting)
    values, slack = measurement.values, 4e6
    weights = sum(t.numel() * 4 for t in (*encoder.parameters(), *encoder.buffers()))
    inner = wide.frames(64_000) * 50_000 * 4
    assert values["weights_bytes"] == weights
    assert measurement.details["resident_weights_bytes"] == pytest.approx(weights, abs=slack)
    assert inner < values["activation_bytes"] < 4 * inner
    assert values["peak_bytes"] == pytest.approx(weights + values["activation_bytes"], abs=slack)


def test_a_counter_that_cannot_be_read_is_unavailable_and_not_0(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def denied() -> int:
        raise PermissionError("clear_refs is read-only")

    save(build(zoo.tiny(), 0), tmp_path / "model")
    monkeypatch.setattr(_resident, "_reset_peak", denied)
    report = _resident._on_cpu(str(tmp_path / "model"), torch.zeros(1, 4000), Runtime())
    assert set(report) == {"unavailable"}
    assert set(report["unavailable"]) == {"peak_bytes", "activation_bytes"}
    assert "clear_refs is read-only" in report["unavailable"]["peak_bytes"]


def test_a_failed_process_is_an_error_with_its_last_line(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="InputError: unknown model"):
        Memory().measure(build(zoo.tiny(), 0), replace(ONE, folder=tmp_path / "nothing"))
