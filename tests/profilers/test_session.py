"""Models in onnxruntime: the same states, timed beside torch, and what it does not go with."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from core.errors import InputError, Unsupported
from core.runtime import Runtime
from core.spec import Exits, Shortening
from encoders import build, zoo
from encoders.model import Encoder
from encoders.workload import Workload
from profilers import _session
from profilers._base import Setting
from profilers._running import check
from profilers._session import Session, open_session
from profilers._timing import conditions
from profilers.latency import Latency
from profilers.memory import Memory

SMALL = replace(zoo.tiny(), layers=zoo.tiny().layers[:1])


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return build(SMALL, seed=0).eval()


@pytest.fixture(scope="module")
def setting(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Setting:
    """One that has a graph of the encoder already: making it takes seconds."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    workload, runtime = Workload.parse("seconds:0.5"), Runtime(engine="onnxruntime")
    setting = Setting(
        workload, encoder, None, runtime, tmp_path_factory.mktemp("graph"), 2, min_seconds=0.0
    )
    assert isinstance(setting.subject(encoder), Session)
    return setting


def test_a_session_gives_the_states_of_the_encoder(encoder: Encoder, setting: Setting) -> None:
    noise = 0.1 * torch.randn(2, 9000, generator=torch.Generator().manual_seed(0))
    session = setting.subject(encoder)
    for lengths in (None, torch.tensor([9000, 5000])):
        with torch.inference_mode():
            found, expected = session(noise, lengths), encoder(noise, lengths)
        assert (found.hop, len(found.states)) == (expected.hop, 2)
        assert found.lengths.tolist() == expected.lengths.tolist()
        for ours, theirs in zip(found.states, expected.states, strict=True):
            for item, frames in enumerate(expected.lengths):
                assert torch.allclose(ours[item, :frames], theirs[item, :frames], atol=1e-4)


def test_latency_is_the_sessions_beside_torch(
    encoder: Encoder, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[tuple[int, ...]] = []
    run = Session.__call__

    def counted(self: Session, waveforms: torch.Tensor, *rest: Any) -> Any:
        called.append(tuple(waveforms.shape))
        return run(self, waveforms, *rest)

    monkeypatch.setattr(Session, "__call__", counted)
    measured = Latency().measure(encoder, setting)
    assert called == [(1, 16_000)] + [(1, 8000)] * 3  # compared, warmed up, two passes
    assert measured.details["runtime"]["engine"].startswith("onnxruntime 1.")
    assert "attention_kernels" not in measured.details  # those are torch's
    assert measured.values["speedup"] > 0
    assert "onnxruntime" in measured.details["unavailable"]["limit_share"]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_memory_is_that_of_the_session(encoder: Encoder, setting: Setting) -> None:
    values = Memory().measure(encoder, setting).values
    assert values["weights_bytes"] < values["peak_bytes"]
    assert 0 < values["activation_bytes"] < values["peak_bytes"]


def test_what_a_graph_does_not_save_is_said_with_its_time() -> None:
    pytest.importorskip("onnxruntime")
    joined = build(replace(SMALL, shortening=Shortening("cif", 1.0, 1.4)), seed=0)
    assert "saves nothing" in conditions(joined, Runtime(engine="onnxruntime"))["note"]
    assert "note" not in conditions(joined, Runtime())


def test_another_computation_is_not_timed(encoder: Encoder, setting: Setting) -> None:
    other = build(SMALL, seed=1)
    with pytest.raises(Unsupported, match=r"differ by .* not timed"):
        setting.subject(other)


def test_what_a_graph_cannot_do_is_said(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    leaving = build(replace(zoo.tiny(), exits=Exits(5, 0.5)), 0)
    with pytest.raises(Unsupported, match="an utterance leaves"):
        open_session(leaving, tmp_path, 1)


@pytest.mark.parametrize("name", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named_with_the_extra(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_session, "find_spec", lambda own: None if own == name else sys)
    with pytest.raises(InputError, match=rf"needs {name}; pip install '\.\[onnx\]'"):
        check(Runtime(engine="onnxruntime"))
