"""Models under a runtime give the same states, and leave torch and the model as they were."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch

from core.errors import InputError, Unsupported
from core.runtime import Runtime
from core.spec import Exits
from encoders import zoo
from encoders.model import build
from profilers._running import check, running, told

WAVEFORMS = torch.randn(1, 8000, generator=torch.Generator().manual_seed(0)) * 0.05


@pytest.mark.parametrize(
    "runtime",
    [Runtime(), Runtime(threads=2), Runtime(attention="math"), Runtime(dtype="bfloat16")],
    ids=str,
)
def test_every_runtime_gives_the_same_states(runtime: Runtime) -> None:
    encoder = build(zoo.tiny(), 0).train()
    expected = build(zoo.tiny(), 0).eval()(WAVEFORMS).states[-1]
    threads, dtype = torch.get_num_threads(), next(encoder.parameters()).dtype
    with running([encoder], runtime) as (forward,):
        assert torch.get_num_threads() == runtime.threads
        assert torch.is_inference_mode_enabled()
        assert not any(weight.is_inference() for weight in forward.parameters()), "folding lasts"
        state = forward(WAVEFORMS).states[-1]
    assert str(state.dtype) == f"torch.{runtime.dtype or 'float32'}"
    tolerance = 0.1 if runtime.dtype else 1e-4
    assert (state.float() - expected).abs().max() < tolerance
    assert torch.get_num_threads() == threads
    assert next(encoder.parameters()).dtype == dtype
    assert encoder.training


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch.compile speaks of its own workings
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_is_the_same_model() -> None:
    small = replace(zoo.tiny(), layers=zoo.tiny().layers[:1])
    encoder = build(small, 0).eval()
    with running([encoder], Runtime(compile=True)) as (forward,):
        states = forward(WAVEFORMS).states
    for ours, theirs in zip(states, encoder(WAVEFORMS).states, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_device_that_is_not_here_is_refused() -> None:
    with pytest.raises(InputError, match=r"'cuda:3': torch sees no GPUs here; give --device cpu"):
        check(Runtime("cuda:3"))


def test_a_graph_cannot_follow_what_is_said() -> None:
    from profilers._running import _Graphed

    leaving = build(replace(zoo.tiny(), exits=Exits(5, 0.5)), 0)
    with pytest.raises(Unsupported, match="depth depend on what is said"):
        _Graphed(leaving)
    with pytest.raises(Unsupported, match="padded"):
        _Graphed(build(zoo.tiny(), 0))(WAVEFORMS, torch.tensor([8000]))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("no more"),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_a_lack_of_memory_is_one_sentence(error: Exception) -> None:
    with pytest.raises(InputError, match=r"an utterance of 2\.0 s takes more memory"), told(32_000):
        raise error


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes"), told(32_000):
        raise RuntimeError("shapes do not match")
