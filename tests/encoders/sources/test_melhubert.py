"""Checkpoints of MelHuBERT's release become the encoder that they describe.

The reference is written down here, as the release is no package: what nervjack2/MelHuBERT on GitHub
(model.py, module.py, extract_feature.py) and nervjack2/Speech-SSL-Compression compute and store.
"""

from __future__ import annotations

import random
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from parity import DEPTH, DIM, FFN, HEADS, LENGTHS, assert_same_alone, shaken, speech_like
from torch import Tensor, nn
from torchaudio.compliance.kaldi import fbank

import encoders
from core.errors import InputError

WIDTH = DIM // HEADS


class Layer(nn.Module):
    """fairseq's: Transformer of the named heads, before or behind the norm."""

    def __init__(self, heads: int, ffn: int, norm_first: bool) -> None:
        super().__init__()
        self.heads, self.norm_first = heads, norm_first
        self.self_attn = nn.Module()
        for role in ("q", "k", "v"):
            self.self_attn.add_module(f"{role}_proj", nn.Linear(DIM, heads * WIDTH))
        self.self_attn.add_module("out_proj", nn.Linear(heads * WIDTH, DIM))
        self.self_attn_layer_norm, self.final_layer_norm = nn.LayerNorm(DIM), nn.LayerNorm(DIM)
        self.fc1, self.fc2 = nn.Linear(DIM, ffn), nn.Linear(ffn, DIM)

    def attend(self, x: Tensor) -> Tensor:
        own = self.self_attn
        maps = (own.q_proj, own.k_proj, own.v_proj)
        q, k, v = (m(x).unflatten(-1, (self.heads, WIDTH)).transpose(1, 2) for m in maps)
        weights = (q @ k.mT * WIDTH**-0.5).softmax(-1)
        return own.out_proj((weights @ v).transpose(1, 2).flatten(2))

    def forward(self, x: Tensor) -> Tensor:
        first, last = self.self_attn_layer_norm, self.final_layer_norm
        if self.norm_first:
            x = x + self.attend(first(x))
            return x + self.fc2(F.gelu(self.fc1(last(x))))
        x = first(x + self.attend(x))
        return last(x + self.fc2(F.gelu(self.fc1(x))))


class MelHubert(nn.Module):
    """The release's model over one utterance."""

    def __init__(
        self, inputs: int, layers: list[tuple[int, int]], norm_first: bool = False
    ) -> None:
        super().__init__()
        self.norm_first = norm_first
        self.pre_extract_proj, self.final_proj = nn.Linear(inputs, DIM), nn.Linear(DIM, 8)
        self.encoder = nn.Module()
        convolution = nn.Conv1d(DIM, DIM, 8, padding=4, groups=4)
        self.encoder.pos_conv = nn.Sequential(nn.utils.weight_norm(convolution, dim=2))
        self.encoder.layers = nn.ModuleList(Layer(*sizes, norm_first) for sizes in layers)
        self.encoder.layer_norm = nn.LayerNorm(DIM)

    def forward(self, features: Tensor) -> list[Tensor]:
        x = self.pre_extract_proj(features)
        x = x + F.gelu(self.encoder.pos_conv(x.mT)[..., :-1]).mT
        states = [x if self.norm_first else self.encoder.layer_norm(x)]
        for layer in self.encoder.layers:
            states.append(layer(states[-1]))
        if self.norm_first:
            states[-1] = self.encoder.layer_norm(states[-1])
        return states


def _features(waveform: Tensor, mean: Tensor, std: Tensor, stack: int) -> Tensor:
    """Log-mel frames of a waveform (1, samples) as extract_feature.py makes them."""
    y = fbank(waveform * 2**15, num_mel_bins=40, sample_frequency=16000, window_type="hamming",
              frame_length=25, frame_shift=10)  # fmt: skip
    y = (y - mean) / std
    if stack == 2:
        odd, even = y[::2], y[1::2]
        even = F.pad(even, (0, 0, 0, len(odd) - len(even)))
        y = torch.cat((odd, even), dim=1)
    return y[None]


def _write(folder: Path, theirs: MelHubert, inputs: int = 80, **held: Any) -> tuple[str, Tensor]:
    """A checkpoint as the release writes it; its reference, and mean and deviation."""
    config = {"feat_emb_dim": inputs, "pos_emb_type": "conv", "pos_conv_depth": 1, "conv_pos": 8,
              "conv_pos_groups": 4, "encoder_layers": DEPTH, "encoder_embed_dim": DIM,
              "encoder_ffn_embed_dim": FFN, "encoder_attention_heads": HEADS,
              "activation_fn": "gelu", "layer_norm_first": theirs.norm_first,
              "attention_type": "original", "num_cluster": 8}  # fmt: skip
    states = {"Optimizer": {"state": {}, "param_groups": []}, "Step": 7,
              "Args": Namespace(mode="melhubert"), "Runner": {"optimizer": {"lr": 1e-4}},
              "model": theirs.state_dict(), "Upstream_Config": {"melhubert": config}}  # fmt: skip
    torch.save(states | held, folder / "melhubert.ckpt")
    generator = np.random.default_rng(0)
    statistics = np.stack([generator.normal(12, 2, 40), generator.uniform(2, 4, 40)])
    np.save(folder / "libri-360-mean-std.npy", statistics)
    return f"melhubert:{folder / 'melhubert.ckpt'}", torch.from_numpy(statistics).float()


def _assert_parity(ref: str, theirs: MelHubert, statistics: Tensor, stack: int = 2) -> None:
    ours = encoders.load(ref)
    with torch.no_grad():
        hidden = ours(speech_like(), LENGTHS)
        assert hidden.lengths.tolist() == [ours.spec.frames(n) for n in LENGTHS.tolist()]
        assert_same_alone(hidden.states, hidden.lengths,
                          lambda w: theirs(_features(w, *statistics, stack)))  # fmt: skip


pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # it uses the older weight norm


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("stack", [1, 2])
def test_the_release(tmp_path: Path, stack: int, norm_first: bool) -> None:
    theirs = shaken(MelHubert(40 * stack, [(HEADS, FFN)] * DEPTH, norm_first))
    ref, statistics = _write(tmp_path, theirs, 40 * stack)
    assert encoders.load(ref).spec.hop == 160 * stack
    _assert_parity(ref, theirs, statistics, stack)


def test_the_first_release_calls_it_hubert(tmp_path: Path) -> None:
    theirs = shaken(MelHubert(80, [(HEADS, FFN)] * DEPTH))
    ref, statistics = _write(tmp_path, theirs)
    held = torch.load(ref.removeprefix("melhubert:"), weights_only=False)
    held["Upstream_Config"] = {"hubert": held["Upstream_Config"]["melhubert"], "task": {}}
    torch.save(held, tmp_path / "melhubert.ckpt")
    _assert_parity(ref, theirs, statistics)


def test_pruned_heads_are_counted_among_those_left(tmp_path: Path) -> None:
    """Step 2 takes head 1 of layer 0 where 0, 2 and 3 are left: the third of the dense model."""
    steps = [{0: [1], 1: [0], 2: [3]}, {0: [1], 2: [0, 1]}]
    theirs = shaken(MelHubert(80, [(2, FFN), (3, FFN), (1, FFN)]))
    ref, statistics = _write(tmp_path, theirs, Pruned_heads=steps)
    kept = [layer.heads for layer in encoders.load(ref).spec.layers]
    assert kept == [(0, 3), (1, 2, 3), (2,)]
    _assert_parity(ref, theirs, statistics)


def test_pruned_rows(tmp_path: Path) -> None:
    theirs = shaken(MelHubert(80, [(HEADS, FFN - 8)] * DEPTH))
    ref, statistics = _write(tmp_path, theirs)
    assert {layer.ffn for layer in encoders.load(ref).spec.layers} == {FFN - 8}
    _assert_parity(ref, theirs, statistics)


def test_pruned_weights_come_with_masks_and_random_states(tmp_path: Path) -> None:
    theirs = shaken(MelHubert(80, [(HEADS, FFN)] * DEPTH))
    masked, generator = dict(theirs.state_dict()), torch.Generator().manual_seed(0)
    for name in list(masked):
        if "encoder.layers" in name and "layer_norm" not in name:
            weight = masked.pop(name)
            mask = (torch.rand(weight.shape, generator=generator) < 0.5).float()
            masked |= {f"{name}_orig": weight, f"{name}_mask": mask}
            theirs.state_dict()[name].mul_(mask)
    rng = {"random": random.getstate(), "numpy": np.random.get_state(),
           "torch": torch.get_rng_state()}  # fmt: skip
    ref, statistics = _write(tmp_path, theirs, model=masked, RandomState=rng, TotalStep=9)
    sparse = encoders.load(ref).layers[0].fc1.weight
    assert 0.4 < float((sparse == 0).float().mean()) < 0.6
    _assert_parity(ref, theirs, statistics)


def test_its_statistics_must_lie_beside_it(tmp_path: Path) -> None:
    ref, _ = _write(tmp_path, MelHubert(80, [(HEADS, FFN)] * DEPTH))
    file = tmp_path / "libri-360-mean-std.npy"
    np.save(tmp_path / "libri-100-mean-std.npy", np.zeros((2, 40)))
    with pytest.raises(InputError, match=r"has 2 files \*mean-std.npy; expected the one"):
        encoders.load(ref)
    file.unlink()
    with pytest.raises(InputError, match="deviation that is not above 0"):
        encoders.load(ref)
    np.save(tmp_path / "libri-100-mean-std.npy", np.zeros((2, 39)))
    with pytest.raises(InputError, match="is not two rows of 40"):
        encoders.load(ref)
    np.save(tmp_path / "libri-100-mean-std.npy", np.array([{"pickled": 1}], dtype=object))
    with pytest.raises(InputError, match="is not two rows of 40"):
        encoders.load(ref)


@pytest.mark.parametrize("steps", [3, [4], [{9: [1]}], [{0: 1}], {"a": 1}])
def test_pruned_heads_that_are_none(tmp_path: Path, steps: Any) -> None:
    ref, _ = _write(tmp_path, MelHubert(80, [(HEADS, FFN)] * DEPTH), Pruned_heads=steps)
    with pytest.raises(InputError, match="Pruned_heads is no list"):
        encoders.load(ref)
