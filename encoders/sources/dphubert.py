"""A checkpoint of DPHuBERT (Peng et al. 2023, arXiv 2305.17651): pruned HuBERT, wav2vec 2.0, WavLM.

As github.com/pyf98/DPHuBERT writes them: `config`, which lists each layer's sizes, and
`state_dict`, by torchaudio's names. A layer may be without attention, without FFN or without both.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.errors import InputError
from core.spec import LayerSpec, ModelSpec, Positions
from encoders.files import read_torch
from encoders.sources import _names
from encoders.sources._settings import Settings, front_end
from encoders.sources.torchaudio import renamed

PLACE = "PATH.pth"

_NORMS = {"group_norm": "group", "layer_norm": "layer"}
_SCALE = "feature_extractor.dummy_weight"
_TABLE = "encoder.layers.0.attention.rel_attn_embed.weight"
_GATES = r"encoder\.layers\.\d+\.attention\.gru_rel_pos_"


def read(place: str) -> tuple[ModelSpec, dict[str, Tensor]]:
    """Spec and tensors of that file."""
    path = Path(place).expanduser()
    held = Settings(read_torch(path), str(path))
    config = Settings(held.any("config"))
    state = renamed(dict(Settings(held.any("state_dict"), "state_dict").entries))
    if any("hard_concrete" in str(name) for name in state):
        raise InputError(f"{path} is not pruned yet; run DPHuBERT's prune.py on it first")
    if isinstance(scale := state.get(_SCALE), Tensor) and bool((scale == 1).all()):
        del state[_SCALE]  # nothing of the features was ever pruned
    spec = _spec(config, state)
    _fill_gaps(spec, state)
    gates = r"aux\." if spec.positions.gated_buckets else rf"aux\.|{_GATES}"
    return spec, _names.ours(spec, state, _names.TRANSFORMERS, gates)


def _spec(config: Settings, state: dict[str, Any]) -> ModelSpec:
    dim = config.whole("encoder_embed_dim")
    gated = "encoder_remaining_heads" in config.entries
    width = _head_width(config, dim, gated)
    kernel, groups = (config.whole(f"encoder_pos_conv_{part}") for part in ("kernel", "groups"))
    norm = config.choice("extractor_mode", _NORMS)
    # The table lies in the first layer's attention: where that is gone, no layer has a bias.
    biased = gated and _TABLE in state
    return ModelSpec(
        "wavlm" if gated else "hubert",
        front_end(config.convolutions("extractor_conv_layer_config"), norm,
                  config.flag("extractor_conv_bias"), _SCALE in state),
        dim,
        dim // width,
        width,
        _layers(config, width, gated),
        Positions(kernel, groups,
                  gated_buckets=config.whole("encoder_num_buckets") if biased else 0,
                  gated_distance=config.whole("encoder_max_distance") if biased else 800),
        norm_first=config.flag("encoder_layer_norm_first"),
        normalize_waveform=config.flag("normalize_waveform"),
    )  # fmt: skip


def _head_width(config: Settings, dim: int, gated: bool) -> int:
    if gated:
        totals = set(config.wholes("encoder_total_num_heads"))
        return dim // max(1, *totals) if totals else dim
    return max(1, config.whole("encoder_head_dim"))


def _layers(config: Settings, width: int, gated: bool) -> tuple[LayerSpec, ...]:
    """Each layer's heads and units; without their part of the layer there are none."""
    heads: list[tuple[int, ...]]
    if gated:
        listed = config.any("encoder_remaining_heads")
        heads = [Settings({"heads": own}, "encoder_remaining_heads").wholes("heads")
                 for own in listed]  # fmt: skip
    else:
        heads = [tuple(range(count)) for count in config.wholes("encoder_num_heads")]
    units = config.wholes("encoder_ff_interm_features")
    attends, feeds = config.flags("encoder_use_attention"), config.flags("encoder_use_feed_forward")
    count = config.layers("encoder_num_layers")
    if {len(heads), len(units), len(attends), len(feeds)} != {count}:
        raise InputError(f"config does not list the sizes of its {count} layers")
    kept = [own if used else () for own, used in zip(heads, attends, strict=True)]
    return tuple(
        LayerSpec(own, (width,) * len(own), (width,) * len(own), n if used else 0)
        for own, n, used in zip(kept, units, feeds, strict=True)
    )


def _fill_gaps(spec: ModelSpec, state: dict[str, Any]) -> None:
    """Add the empty maps of what a layer is without, and keep the gates of its heads alone."""
    for index, layer in enumerate(spec.layers):
        place = f"encoder.layers.{index}."
        if not layer.heads:
            state |= _empty(f"{place}attention.", ("q_proj", "k_proj", "v_proj"), "out_proj", spec)
        if not layer.ffn:
            feed = f"{place}feed_forward."
            state |= _empty(feed, ("intermediate_dense",), "output_dense", spec)
        gate = state.get(f"{place}attention.gru_rel_pos_const")
        if isinstance(gate, Tensor) and gate.numel() == spec.total_heads:
            kept = [head for head in layer.heads if head < spec.total_heads]
            state[f"{place}attention.gru_rel_pos_const"] = gate.flatten()[kept]


def _empty(place: str, into: tuple[str, ...], out: str, spec: ModelSpec) -> dict[str, Tensor]:
    """Linear maps to no unit and back, which add nothing."""
    maps = {f"{place}{name}.weight": torch.zeros(0, spec.dim) for name in into}
    maps |= {f"{place}{name}.bias": torch.zeros(0) for name in into}
    back = {"weight": torch.zeros(spec.dim, 0), "bias": torch.zeros(spec.dim)}
    return maps | {f"{place}{out}.{kind}": value for kind, value in back.items()}
