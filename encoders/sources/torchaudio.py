"""A bundle of torchaudio.pipelines, such as HUBERT_BASE: wav2vec 2.0, XLS-R, HuBERT, WavLM.

torchaudio fetches the weights into torch's cache ($TORCH_HOME).
"""

from __future__ import annotations

import pickle
import re
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from core.errors import InputError, closest
from core.spec import ConvFrontEnd, LayerSpec, ModelSpec, Positions
from encoders.files import one_line
from encoders.sources import _names

PLACE = "BUNDLE"


def read(place: str) -> tuple[ModelSpec, dict[str, Tensor]]:
    """Spec and tensors of that bundle."""
    from torchaudio import pipelines

    bundles = [n for n in pipelines.__all__ if hasattr(getattr(pipelines, n), "get_model")]
    speech = [n for n in bundles if re.match("WAV2VEC2|HUBERT|WAVLM|VOXPOPULI|MMS", n)]
    if place not in speech:
        raise InputError(f"torchaudio has no bundle {place!r}{closest(place, speech)}")
    try:
        model = getattr(pipelines, place).get_model(dl_kwargs={"weights_only": True})
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise InputError(f"torchaudio's {place} cannot be loaded: {one_line(error)}") from error
    normalize = getattr(model, "normalize_waveform", False)
    spec, state = from_torchaudio(getattr(model, "model", model), normalize)
    return replace(spec, family="hubert") if place.startswith("HUBERT") else spec, state


def from_torchaudio(
    model: nn.Module, normalize_waveform: bool | None = None
) -> tuple[ModelSpec, dict[str, Tensor]]:
    """Import what torchaudio.models' wav2vec2_model, hubert_* or wavlm_model made.

    Its `aux` head, if it has one, is left out. normalize_waveform: what it was trained on; by
    default True for LayerNorm front ends.

    Raises:
        InputError: tensors are missing or unknown.
    """
    spec = _spec(model, normalize_waveform)
    return spec, _names.ours(spec, renamed(model.state_dict()), _names.TRANSFORMERS, r"aux\.")


def renamed(state: dict[str, Any]) -> dict[str, Any]:
    """Tensors under transformers' names, those of joint projections taken apart."""
    apart: dict[str, Any] = {}
    for name, tensor in state.items():
        name = _names.from_torchaudio(name)
        joined = re.fullmatch(r"(.*)in_proj_(weight|bias)", name)
        if joined and isinstance(tensor, Tensor):
            for role, part in zip("qkv", tensor.chunk(3), strict=False):
                apart[f"{joined[1]}{role}_proj.{joined[2]}"] = part
        else:
            apart[name] = tensor
    return apart


def _spec(model: Any, normalize: bool | None) -> ModelSpec:
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
