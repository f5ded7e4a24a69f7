"""A checkpoint that s3prl converted or made: wav2vec 2.0, HuBERT, data2vec, WavLM, DistilHuBERT.

What its upstreams load: wav2vec2, hubert and data2vec hold task_cfg, model_cfg and model_weight,
wavlm, as Microsoft published it, cfg and model, distiller Config and Distiller.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from core.errors import InputError
from core.spec import ModelSpec, Positions
from encoders.files import read_torch
from encoders.sources import _names
from encoders.sources._settings import Settings, front_end

PLACE = "PATH.pt"

#: What hidden states do not depend on: the mask, the targets and the heads of pre-training.
_HEADS = (
    r"(mask_emb|label_embs_concat|_ema|layer_norm_ema)$|"
    r"(final_proj|quantizer|project_q|target_glu|output_layer|task_embedding)\."
)

#: Settings that must have this value where they are there, as nothing here computes another.
_REQUIRED = {
    "activation_fn": "gelu",
    "layer_type": "transformer",
    "quantize_input": False,
    "crop_seq_to_multiple": 1,
    "attention_type": "original",
}

_NORMS = {"default": "group", "layer_norm": "layer"}
_CONVOLUTIONS = "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2"


def read(place: str) -> tuple[ModelSpec, dict[str, Tensor]]:
    """Spec and tensors of that file, whichever upstream it is for."""
    path = Path(place).expanduser()
    held = read_torch(path)
    if not isinstance(held, dict):
        raise InputError(f"{path} holds a {type(held).__name__}; expected what s3prl converted")
    if "model_weight" in held:
        family = "hubert" if "dictionaries_symbols" in held else "wav2vec2"
        normalize = Settings(held.get("task_cfg"), "task_cfg").flag("normalize", False)
        spec = _spec(Settings(held.get("model_cfg"), "model_cfg"), family, normalize)
        state = held["model_weight"]
    elif "Distiller" in held:
        spec, state = _distiller(Settings(held.get("Config"), "Config")), held["Distiller"]
    elif "model" in held and "encoder_layers" in (held.get("cfg") or ()):
        config = Settings(held["cfg"], "cfg")
        spec = _spec(config, "wavlm", config.flag("normalize", False))
        state = held["model"]
    else:
        raise InputError(
            f"{path} holds {', '.join(map(str, list(held)[:8]))}; expected what s3prl converted: "
            "python -m s3prl.upstream.hubert.convert, or wav2vec2's"
        )
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise InputError(f"{path} holds no tensors by name")
    return spec, _names.ours(spec, state, _names.FAIRSEQ, _HEADS)


def _spec(config: Settings, family: str, normalize: bool) -> ModelSpec:
    """The shape that fairseq's settings describe; those that are missing have its defaults."""
    depth = config.whole("pos_conv_depth", 1)
    features = _front_end(config, "conv_feature_layers", config.flag("conv_bias", False))
    dim, heads, layers = _body(config, depth_default=12)
    return ModelSpec(
        "data2vec-audio" if "average_top_k_layers" in config.entries else family,
        features,
        dim,
        heads,
        dim // heads,
        layers,
        _positions(config, depth),
        norm_first=config.flag("layer_norm_first", False),
        project=features.dim != dim,
        normalize_waveform=normalize,
    )


def _distiller(config: Settings) -> ModelSpec:
    """The shape of s3prl's Distiller, which has no LayerNorm of its features."""
    config = Settings(config.any("distiller"), "distiller")
    features = _front_end(config, "extractor_conv_feature_layers", False)
    if config.any("task_emb_type", "expand-last") in ("add", "concat"):
        raise InputError("this Distiller reads an embedding of its task, which nothing here does")
    dim, heads, layers = _body(config, depth_default=1)
    return ModelSpec(
        "hubert",
        features,
        dim,
        heads,
        dim // heads,
        layers,
        _positions(config, 1),
        norm_first=config.flag("layer_norm_first", False),
        feature_norm=False,
        project=features.dim != dim,
    )


def _front_end(config: Settings, name: str, bias: bool) -> Any:
    config.require(_REQUIRED)
    shapes = Settings({name: _CONVOLUTIONS} | dict(config.entries), config.where).convolutions(name)
    return front_end(shapes, config.choice("extractor_mode", _NORMS, "default"), bias)


def _body(config: Settings, depth_default: int) -> tuple[int, int, tuple[Any, ...]]:
    """Width, heads and layers of the Transformer."""
    dim = config.whole("encoder_embed_dim", 768)
    heads = config.whole("encoder_attention_heads", 12)
    layer = config.dense_layer(heads, dim, config.whole("encoder_ffn_embed_dim", 3072))
    return dim, heads, (layer,) * config.layers("encoder_layers", depth_default)


def _positions(config: Settings, depth: int) -> Positions:
    kernel, groups = config.whole("conv_pos", 128), config.whole("conv_pos_groups", 16)
    if depth > 1:  # fairseq shares the kernel out, but not below 3
        return Positions(max(3, kernel // depth), groups, conv_stacked=depth)
    if not config.flag("relative_position_embedding", False):
        return Positions(kernel, groups)
    config.require({"gru_rel_pos": True})
    return Positions(
        kernel,
        groups,
        gated_buckets=config.whole("num_buckets", 320),
        gated_distance=config.whole("max_distance", 1280),
    )
