"""Our encoder as an upstream: by itself, and in a process where the shim carries s3prl."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from core.spec import ConvFrontEnd, LayerSpec, MelFrontEnd, ModelSpec, Positions
from encoders import store
from encoders.model import Encoder, build
from tasks.s3prl.upstream import NAME, UpstreamExpert

LAYERS = (LayerSpec.dense(4, 6, 40), LayerSpec.dense(2, 6, 16))
SPECS = {
    "conv": ModelSpec("hubert", ConvFrontEnd((16,) * 7), 24, 4, 6, LAYERS, Positions(8, 4)),
    "mel": ModelSpec(
        "melhubert", MelFrontEnd(20, stack=2), 24, 4, 6, LAYERS, Positions(bias_reach=10),
        feature_norm=False,
    ),
}  # fmt: skip

#: What s3prl makes of waveforms: the sum over layers, cut to what it takes for their lengths.
SCRIPT = """
import sys
from tasks.s3prl import shim

shim.install("cpu")
import torch
from s3prl import hub
from s3prl.nn import S3PRLUpstream
from s3prl.upstream.interfaces import Featurizer

folder, model = sys.argv[1:]
waves = torch.load(f"{folder}/waves.pt")
upstream = getattr(hub, "bench_local")(ckpt=model, model_config=None, refresh=False).eval()
featurizer = Featurizer(upstream, upstream_device="cpu", feature_selection="hidden_states")
with torch.no_grad():
    states = upstream(waves)
    found = {"states": states["hidden_states"], "summed": featurizer(waves, states)}
    padded = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)
    lengths = torch.tensor([len(wave) for wave in waves])
    found["nn"], found["nn_lengths"] = S3PRLUpstream("bench_local", model)(padded, lengths)
torch.save(found, f"{folder}/found.pt")
"""


@pytest.fixture
def waves() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(length, generator=generator) * 0.1 for length in (9000, 16_000, 12_345)]


def alone(encoder: Encoder, wave: torch.Tensor) -> list[torch.Tensor]:
    """The hidden states of one waveform, each (time, dim)."""
    with torch.no_grad():
        return [state[0] for state in encoder(wave[None]).states]


@pytest.mark.parametrize("family", SPECS)
def test_states_are_those_of_each_utterance_alone(
    family: str, waves: list[torch.Tensor], tmp_path: Path
) -> None:
    encoder = build(SPECS[family], seed=0).eval()
    store.save(encoder, tmp_path / "model")
    upstream = UpstreamExpert(str(tmp_path / "model"), None, refresh=False)
    with torch.no_grad():
        found = upstream(waves)
    assert upstream.get_downsample_rates("hidden_states") == encoder.spec.hop
    assert len(found["hidden_states"]) == len(LAYERS) + 1
    assert torch.equal(found["last_hidden_state"], found["hidden_states"][-1])
    for index, wave in enumerate(waves):
        for state, expected in zip(found["hidden_states"], alone(encoder, wave), strict=True):
            length = len(expected)
            assert torch.allclose(state[index, :length], expected, atol=1e-6)
            behind = state[index, length:]
            assert torch.equal(behind, state[index, length - 1].expand_as(behind))


def test_states_of_a_half_precision_model_are_float32(tmp_path: Path) -> None:
    store.save(build(replace(SPECS["mel"], dtype="bfloat16"), seed=0), tmp_path / "model")
    found = UpstreamExpert(str(tmp_path / "model"))([torch.randn(4000)])
    assert {state.dtype for state in found["hidden_states"]} == {torch.float32}


@pytest.mark.skipif(find_spec("s3prl") is None, reason="s3prl is not installed")
def test_s3prl_gets_our_hidden_states(waves: list[torch.Tensor], tmp_path: Path) -> None:
    """By its hub and both of its interfaces, on the torchaudio that is installed."""
    encoder = build(SPECS["conv"], seed=0).eval()
    store.save(encoder, tmp_path / "model")
    torch.save(waves, tmp_path / "waves.pt")
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), str(tmp_path / "model")]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    found = torch.load(tmp_path / "found.pt")
    for index, wave in enumerate(waves):
        expected = torch.stack(alone(encoder, wave))
        length = expected.shape[1]
        states = torch.stack([state[index, :length] for state in found["states"]])
        assert torch.allclose(states, expected, atol=1e-6)
        summed = found["summed"][index]
        assert len(summed) in (length, length + 1)
        assert torch.allclose(summed[:length], expected.mean(0), atol=1e-6)
        for layer, state in enumerate(found["nn"]):
            assert torch.allclose(state[index, :length], expected[layer], atol=1e-6)
    assert NAME == "bench_local"
