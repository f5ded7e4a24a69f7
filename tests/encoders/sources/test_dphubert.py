"""Checkpoints of DPHuBERT become the encoder that they describe, whatever its layers lack.

The reference is written down here, as the release is no package: what pyf98/DPHuBERT on GitHub
(wav2vec2/model.py, wav2vec2/components.py, prune.py) computes and stores.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from parity import DIM, HEADS, assert_same, shaken, speech_like
from torch import Tensor, nn
from torchaudio.models.wav2vec2.wavlm_attention import WavLMSelfAttention

import encoders
from core.errors import InputError

WIDTH = DIM // HEADS
SHAPES = [(7, 10, 5), (5, 3, 2), (9, 3, 2), (11, 2, 2)]  # channels that pruning has left


class Attention(nn.Module):
    """Of the heads that are left; WavLM's bias and gates still are of all heads."""

    def __init__(self, kept: list[int], gated: bool, first: bool) -> None:
        super().__init__()
        self.kept, inner = kept, len(kept) * WIDTH
        self.q_proj, self.k_proj = nn.Linear(DIM, inner), nn.Linear(DIM, inner)
        self.v_proj, self.out_proj = nn.Linear(DIM, inner), nn.Linear(inner, DIM)
        if gated:
            self.gru_rel_pos_linear = nn.Linear(WIDTH, 8)
            self.gru_rel_pos_const = nn.Parameter(torch.ones(1, HEADS, 1, 1))
        if gated and first:
            self.rel_attn_embed = nn.Embedding(16, HEADS)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        def split(y: Tensor) -> Tensor:
            return y.unflatten(-1, (-1, WIDTH)).transpose(1, 2)

        q, k, v = split(self.q_proj(x)), split(self.k_proj(x)), split(self.v_proj(x))
        scores = WIDTH**-0.5 * q @ k.mT
        if bias is not None:
            sums = self.gru_rel_pos_linear(split(x)).unflatten(-1, (2, 4)).sum(-1)
            update, reset = sums.sigmoid().chunk(2, dim=-1)
            gate = update * (reset * self.gru_rel_pos_const - 1.0) + 2.0
            scores = scores + (gate * bias)[:, self.kept]
        return self.out_proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


class Layer(nn.Module):
    def __init__(self, attention: nn.Module | None, ffn: int, norm_first: bool) -> None:
        super().__init__()
        self.norm_first, self.attention = norm_first, attention
        self.layer_norm, self.final_layer_norm = nn.LayerNorm(DIM), nn.LayerNorm(DIM)
        self.feed_forward = None
        if ffn:
            self.feed_forward = nn.ModuleDict({
                "intermediate_dense": nn.Linear(DIM, ffn), "output_dense": nn.Linear(ffn, DIM),
            })  # fmt: skip

    def feed(self, x: Tensor) -> Tensor:
        if self.feed_forward is None:
            return torch.zeros_like(x)
        inner = F.gelu(self.feed_forward["intermediate_dense"](x))
        return self.feed_forward["output_dense"](inner)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        if self.attention is not None:
            x = x + self.attention(self.layer_norm(x) if self.norm_first else x, bias)
        if self.norm_first:
            return x + self.feed(self.final_layer_norm(x))
        x = self.layer_norm(x)
        return self.final_layer_norm(x + self.feed(x))


class DpHubert(nn.Module):
    """Over utterances of one length, of which it gives what goes in and what each layer gives."""

    def __init__(self, config: dict[str, Any], heads: list[list[int]]) -> None:
        super().__init__()
        gated = "encoder_remaining_heads" in config
        self.layered = config["extractor_mode"] == "layer_norm"
        self.norm_first = config["encoder_layer_norm_first"]
        self.feature_extractor = nn.Module()
        self.feature_extractor.conv_layers = nn.ModuleList()
        channels = [1, *(shape[0] for shape in SHAPES)]
        for i, (inputs, (outputs, kernel, stride)) in enumerate(
            zip(channels, SHAPES, strict=False)
        ):
            block = nn.Module()
            block.conv = nn.Conv1d(inputs, outputs, kernel, stride, bias=self.layered)
            if self.layered:
                block.layer_norm = nn.LayerNorm(outputs)
            elif i == 0:
                block.layer_norm = nn.GroupNorm(outputs, outputs)
            self.feature_extractor.conv_layers.append(block)
        self.feature_extractor.dummy_weight = nn.Parameter(torch.ones(SHAPES[-1][0]))
        self.encoder = nn.Module()
        self.encoder.feature_projection = nn.ModuleDict({
            "layer_norm": nn.LayerNorm(SHAPES[-1][0]), "projection": nn.Linear(SHAPES[-1][0], DIM),
        })  # fmt: skip
        transformer = self.encoder.transformer = nn.Module()
        convolution = nn.Conv1d(DIM, DIM, 8, padding=4, groups=4)
        transformer.pos_conv_embed = nn.ModuleDict(
            {"conv": nn.utils.weight_norm(convolution, dim=2)}
        )
        transformer.layer_norm = nn.LayerNorm(DIM)
        units = config["encoder_ff_interm_features"]
        transformer.layers = nn.ModuleList(
            Layer(
                Attention(kept, gated, i == 0) if config["encoder_use_attention"][i] else None,
                units[i] if config["encoder_use_feed_forward"][i] else 0,
                self.norm_first,
            )
            for i, kept in enumerate(heads)
        )

    def forward(self, waveforms: Tensor) -> list[Tensor]:
        x = waveforms[:, None]
        for block in self.feature_extractor.conv_layers:
            x = block.conv(x)
            if self.layered:
                x = block.layer_norm(x.mT).mT
            elif hasattr(block, "layer_norm"):
                x = block.layer_norm(x)
            x = F.gelu(x)
        x = x.mT * self.feature_extractor.dummy_weight
        projection, transformer = self.encoder.feature_projection, self.encoder.transformer
        x = projection["projection"](projection["layer_norm"](x))
        x = x + F.gelu(transformer.pos_conv_embed["conv"](x.mT)[..., :-1]).mT
        states = [x if self.norm_first else transformer.layer_norm(x)]
        bias = self._bias(x.shape[1])
        for layer in transformer.layers:
            states.append(layer(states[-1], bias))
        if self.norm_first:
            states[-1] = transformer.layer_norm(states[-1])
        return states

    def _bias(self, time: int) -> Tensor | None:
        """WavLM's of all heads (heads, time, time), which lies in the first layer's attention."""
        table = getattr(self.encoder.transformer.layers[0].attention, "rel_attn_embed", None)
        if table is None:
            return None
        theirs = WavLMSelfAttention(DIM, HEADS, has_relative_attention_bias=True, num_buckets=16,
                                    max_distance=12)  # fmt: skip
        theirs.rel_attn_embed = table
        return theirs.compute_bias(time, time)


HEADS_LEFT = [[1, 3], [0, 1, 2, 3], [2], []]
UNITS = [40, 0, 13, 17]


def _config(family: str, norm: str, norm_first: bool) -> dict[str, Any]:
    """What prune.py leaves: the counts of a part that is gone are as they were."""
    config = {
        "extractor_mode": f"{norm}_norm", "extractor_conv_layer_config": SHAPES,
        "extractor_conv_bias": norm == "layer", "encoder_embed_dim": DIM,
        "encoder_projection_dropout": 0.1, "encoder_pos_conv_kernel": 8,
        "encoder_pos_conv_groups": 4, "encoder_num_layers": 4,
        "encoder_use_attention": [True, True, True, False],
        "encoder_use_feed_forward": [True, False, True, True],
        "encoder_ff_interm_features": UNITS, "encoder_layer_norm_first": norm_first,
        "aux_num_out": None, "normalize_waveform": norm == "layer",
        "extractor_prune_conv_channels": False,
    }  # fmt: skip
    if family == "wavlm":
        config |= {"encoder_total_num_heads": [HEADS] * 4, "encoder_remaining_heads": HEADS_LEFT}
        return config | {"encoder_num_buckets": 16, "encoder_max_distance": 12}
    return config | {"encoder_num_heads": [2, 4, 1, 3], "encoder_head_dim": WIDTH}


def _write(file: Path, theirs: DpHubert, config: dict[str, Any]) -> str:
    held = {"state_dict": theirs.state_dict(), "config": config,
            "distill_linear_projs": {"0.weight": torch.zeros(2)}}  # fmt: skip
    torch.save(held, file)
    return f"dphubert:{file}"


def _made(config: dict[str, Any]) -> DpHubert:
    return shaken(DpHubert(config, HEADS_LEFT))


def _assert_parity(ref: str, theirs: DpHubert) -> None:
    ours, waveforms = encoders.load(ref), speech_like()[:1]
    if ours.spec.normalize_waveform:
        waveforms = F.layer_norm(waveforms, waveforms.shape[1:])
    with torch.no_grad():
        hidden = ours(waveforms)
        assert_same(hidden.states, theirs(waveforms), hidden.lengths)


pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # it uses the older weight norm


@pytest.mark.parametrize(("norm", "norm_first"), [("group", False), ("layer", True)])
@pytest.mark.parametrize("family", ["hubert", "wavlm"])
def test_pruned_layers(family: str, norm: str, norm_first: bool, tmp_path: Path) -> None:
    config = _config(family, norm, norm_first)
    theirs = _made(config)
    ref = _write(tmp_path / "pruned.pth", theirs, config)
    spec = encoders.load(ref).spec
    assert (spec.family, spec.front_end.scaled) == (family, True)
    assert [layer.ffn for layer in spec.layers] == [40, 0, 13, 17]
    assert [len(layer.heads) for layer in spec.layers] == [2, 4, 1, 0]
    assert family == "hubert" or spec.layers[0].heads == (1, 3)
    _assert_parity(ref, theirs)


def test_a_first_layer_without_attention_takes_the_bias_of_all_with_it(tmp_path: Path) -> None:
    config = _config("wavlm", "group", False) | {
        "encoder_use_attention": [False, True, True, False]
    }
    theirs = _made(config)
    ref = _write(tmp_path / "pruned.pth", theirs, config)
    assert not encoders.load(ref).spec.positions.gated_buckets
    _assert_parity(ref, theirs)


def test_a_scale_of_ones_is_none(tmp_path: Path) -> None:
    config = _config("hubert", "group", False)
    theirs = _made(config)
    nn.init.ones_(theirs.feature_extractor.dummy_weight)
    ref = _write(tmp_path / "pruned.pth", theirs, config)
    assert not encoders.load(ref).spec.front_end.scaled
    _assert_parity(ref, theirs)


def test_a_checkpoint_that_is_not_pruned_yet(tmp_path: Path) -> None:
    config = _config("hubert", "group", False)
    theirs = _made(config)
    theirs.register_buffer("hard_concrete", torch.zeros(2))
    with pytest.raises(InputError, match=r"not pruned yet; run DPHuBERT's prune\.py"):
        encoders.load(_write(tmp_path / "pruned.pth", theirs, config))


CASES = [
    ({"encoder_num_layers": 3}, "does not list the sizes of its 3 layers"),
    ({"encoder_head_dim": 0}, r"expected torch\.float32 of shape"),
    ({"extractor_conv_layer_config": [(8, 10)]}, "list of .channels, kernel, stride."),
    ({"encoder_ff_interm_features": [10**9] * 4}, "expected a whole number up to"),
    ({"encoder_use_attention": True}, "expected a short list"),
    ({"normalize_waveform": float("nan")}, "expected true or false"),
]


@pytest.mark.parametrize(("change", "message"), CASES)
def test_settings_that_do_not_fit(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    config = _config("hubert", "group", False)
    ref = _write(tmp_path / "pruned.pth", _made(config), config | change)
    with pytest.raises(InputError, match=message):
        encoders.load(ref)
