"""Public checkpoints into our spec and names: from torchaudio's and transformers' models.

Each importer gives (spec, state) for `encoders.model.from_state`. Neither library is imported here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from core.errors import InputError, Unsupported
from core.spec import ConvFrontEnd, LayerSpec, ModelSpec, Positions
from encoders.model import Encoder

#: Tensor names of transformers -> ours. torchaudio's differ by a prefix only.
_NAMES = [
    (re.compile(pattern), ours)
    for pattern, ours in (
        (r"feature_extractor\.conv_layers\.(\d+)\.conv\.", r"front_end.convolutions.\1."),
        (r"feature_extractor\.conv_layers\.(\d+)\.layer_norm\.", r"front_end.norms.\1."),
        (r"feature_projection\.layer_norm\.", "feature_norm."),
        (r"feature_projection\.projection\.", "projection."),
        (r"encoder\.pos_conv_embed\.conv\.weight_g$", "{conv}parametrizations.weight.original0"),
        (r"encoder\.pos_conv_embed\.conv\.weight_v$", "{conv}parametrizations.weight.original1"),
        (r"encoder\.pos_conv_embed\.conv\.", "{conv}"),
        (r"encoder\.layer_norm\.", "norm."),
        (r"encoder\.layers\.0\.attention\.rel_attn_embed\.", "position_bias.table."),
        (r"encoder\.layers\.(\d+)\.attention\.(q|k|v|out)_proj\.", r"layers.\1.attention.\2."),
        (r"encoder\.layers\.(\d+)\.attention\.gru_rel_pos_linear\.", r"layers.\1.{gate}linear."),
        (r"encoder\.layers\.(\d+)\.attention\.gru_rel_pos_const$", r"layers.\1.{gate}scale"),
        (r"encoder\.layers\.(\d+)\.layer_norm\.", r"layers.\1.attention_norm."),
        (r"encoder\.layers\.(\d+)\.feed_forward\.intermediate_dense\.", r"layers.\1.fc1."),
        (r"encoder\.layers\.(\d+)\.feed_forward\.output_dense\.", r"layers.\1.fc2."),
        (r"encoder\.layers\.(\d+)\.final_layer_norm\.", r"layers.\1.ffn_norm."),
    )
    for ours in [ours.replace("{conv}", "conv_positions.convolution.")]
    for ours in [ours.replace("{gate}", "attention.gate.")]
]

#: What the hidden states do not depend on.
_IGNORED = re.compile(r"masked_spec_embed$")

#: Config entries of transformers that must have this value, as nothing here computes another.
_REQUIRED = {
    "hidden_act": "gelu",
    "feat_extract_activation": "gelu",
    "layer_norm_eps": 1e-5,
    "conv_pos_batch_norm": False,
    "add_adapter": False,
    "adapter_attn_dim": None,
}


def from_transformers(
    config: Mapping[str, Any],
    state: Mapping[str, Tensor],
    normalize_waveform: bool | None = None,
) -> tuple[ModelSpec, dict[str, Tensor]]:
    """Import a Wav2Vec2Model, HubertModel (DistilHuBERT too) or WavLMModel.

    config: the content of config.json (`model.config.to_dict()`). state: its tensors.
    normalize_waveform: what the checkpoint was trained on; by default True for LayerNorm front
    ends, as with every model that was published.

    Raises:
        InputError: the config misses an entry, or tensors are missing or unknown.
        Unsupported: the config asks for a variant that this encoder does not have.
    """
    for name, wanted in _REQUIRED.items():
        if config.get(name, wanted) != wanted:
            raise Unsupported(f"config has {name}={config[name]!r}; only {wanted!r} exists here")
    try:
        spec = _transformers_spec(config, normalize_waveform)
    except KeyError as error:
        raise InputError(f"config has no {error}; expected that of a speech encoder") from error
    prefix = re.compile(r"^(wav2vec2|hubert|wavlm)\.")
    return spec, _renamed(spec, {prefix.sub("", name): value for name, value in state.items()})


def from_torchaudio(
    model: nn.Module, normalize_waveform: bool | None = None
) -> tuple[ModelSpec, dict[str, Tensor]]:
    """Import what torchaudio.models' wav2vec2_model, hubert_* or wavlm_model made (without aux).

    Raises:
        InputError: tensors are missing or unknown, such as those of an `aux` head.
    """
    spec = _torchaudio_spec(model, normalize_waveform)
    state: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        name = re.sub(r"^encoder\.(feature_projection\.|(?=transformer\.))", r"\1", name)
        name = re.sub(r"^transformer\.", "encoder.", name)
        name = name.replace("attention.attention.", "attention.")
        joined = re.fullmatch(r"(.*)in_proj_(weight|bias)", name)
        if joined:
            for role, part in zip("qkv", tensor.chunk(3), strict=True):
                state[f"{joined[1]}{role}_proj.{joined[2]}"] = part
        else:
            state[name] = tensor
    return spec, _renamed(spec, state)


def _transformers_spec(config: Mapping[str, Any], normalize: bool | None) -> ModelSpec:
    front_end = ConvFrontEnd(
        tuple(config["conv_dim"]),
        tuple(config["conv_kernel"]),
        tuple(config["conv_stride"]),
        config["feat_extract_norm"],
        config["conv_bias"],
    )
    heads, dim = config["num_attention_heads"], config["hidden_size"]
    layer = LayerSpec.dense(heads, dim // heads, config["intermediate_size"])
    gated = config["model_type"] == "wavlm"
    return ModelSpec(
        config["model_type"],
        front_end,
        dim,
        heads,
        dim // heads,
        (layer,) * config["num_hidden_layers"],
        Positions(
            config["num_conv_pos_embeddings"],
            config["num_conv_pos_embedding_groups"],
            gated_buckets=config["num_buckets"] if gated else 0,
            gated_distance=config["max_bucket_distance"] if gated else 800,
        ),
        norm_first=config["do_stable_layer_norm"],
        feature_norm=config.get("feat_proj_layer_norm", True),
        normalize_waveform=front_end.norm == "layer" if normalize is None else normalize,
    )


def _torchaudio_spec(model: Any, normalize: bool | None) -> ModelSpec:
    blocks = model.feature_extractor.conv_layers
    convolutions = [block.conv for block in blocks]
    transformer = model.encoder.transformer
    positions, layers = transformer.pos_conv_embed.conv, transformer.layers
    attention = layers[0].attention
    gated = hasattr(attention, "rel_attn_embed")
    front_end = ConvFrontEnd(
        tuple(convolution.out_channels for convolution in convolutions),
        tuple(convolution.kernel_size[0] for convolution in convolutions),
        tuple(convolution.stride[0] for convolution in convolutions),
        "group" if blocks[1].layer_norm is None else "layer",
        convolutions[0].bias is not None,
    )
    return ModelSpec(
        # torchaudio builds HuBERT as wav2vec 2.0: they do not differ in shape.
        "wavlm" if gated else "wav2vec2",
        front_end,
        attention.embed_dim,
        attention.num_heads,
        attention.head_dim,
        tuple(
            LayerSpec.dense(
                layer.attention.num_heads,
                layer.attention.head_dim,
                layer.feed_forward.intermediate_dense.out_features,
            )
            for layer in layers
        ),
        Positions(
            positions.kernel_size[0],
            positions.groups,
            gated_buckets=attention.num_buckets if gated else 0,
            gated_distance=attention.max_distance if gated else 800,
        ),
        norm_first=layers[0].layer_norm_first,
        normalize_waveform=front_end.norm == "layer" if normalize is None else normalize,
    )


def _renamed(spec: ModelSpec, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under our names and in our shapes, none missing and none left over."""
    with torch.device("meta"):
        expected = Encoder(spec).state_dict()
    renamed, unknown = {}, []
    for name, tensor in state.items():
        ours = our_name(name)
        if ours in expected:
            # The gate's constant is (1, heads, 1, 1) elsewhere.
            renamed[ours] = tensor.flatten() if ours.endswith("gate.scale") else tensor
        elif not _IGNORED.search(name):
            unknown.append(name)
    missing = sorted(set(expected) - set(renamed))
    if unknown or missing:
        raise InputError(
            f"the checkpoint does not match its shape: unknown tensors {sorted(unknown)}, "
            f"missing tensors {missing}"
        )
    return renamed


def our_name(name: str) -> str:
    for pattern, ours in _NAMES:
        if pattern.match(name):
            return pattern.sub(ours, name, count=1)
    return name
