"""What other libraries call the tensors that our encoder has, and how their states become ours."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from core.errors import InputError
from core.spec import ModelSpec
from encoders.model import Encoder

_CONVOLUTION = "conv_positions.convolution."
_WEIGHT_NORM = f"{_CONVOLUTION}parametrizations.weight.original"


class Names:
    """Patterns of a library's names, the first that fits being the right one -> ours."""

    def __init__(self, rows: Iterable[tuple[str, str]]) -> None:
        self._rows = [(re.compile(pattern), ours) for pattern, ours in rows]

    def ours(self, name: str) -> str:
        """Our name of a tensor, its own name where no pattern fits."""
        for pattern, ours in self._rows:
            if pattern.match(name):
                return pattern.sub(ours, name, count=1)
        return name


TRANSFORMERS = Names(
    (
        (r"feature_extractor\.conv_layers\.(\d+)\.conv\.", r"front_end.convolutions.\1."),
        (r"feature_extractor\.conv_layers\.(\d+)\.layer_norm\.", r"front_end.norms.\1."),
        (r"feature_extractor\.dummy_weight$", "front_end.scale"),
        (r"feature_projection\.layer_norm\.", "feature_norm."),
        (r"feature_projection\.projection\.", "projection."),
        (r"encoder\.pos_conv_embed\.conv\.weight_g$", f"{_WEIGHT_NORM}0"),
        (r"encoder\.pos_conv_embed\.conv\.weight_v$", f"{_WEIGHT_NORM}1"),
        (r"encoder\.pos_conv_embed\.conv\.", _CONVOLUTION),
        (
            r"encoder\.pos_conv_embed\.layers\.(\d+)\.conv\.",
            r"conv_positions.convolutions.\1.",
        ),
        (r"encoder\.layer_norm\.", "norm."),
        (r"encoder\.layers\.0\.attention\.rel_attn_embed\.", "position_bias.table."),
        (r"encoder\.layers\.(\d+)\.attention\.(q|k|v|out)_proj\.", r"layers.\1.attention.\2."),
        (
            r"encoder\.layers\.(\d+)\.attention\.gru_rel_pos_linear\.",
            r"layers.\1.attention.gate.linear.",
        ),
        (
            r"encoder\.layers\.(\d+)\.attention\.gru_rel_pos_const$",
            r"layers.\1.attention.gate.scale",
        ),
        (r"encoder\.layers\.(\d+)\.layer_norm\.", r"layers.\1.attention_norm."),
        (r"encoder\.layers\.(\d+)\.feed_forward\.intermediate_dense\.", r"layers.\1.fc1."),
        (r"encoder\.layers\.(\d+)\.feed_forward\.output_dense\.", r"layers.\1.fc2."),
        (r"encoder\.layers\.(\d+)\.final_layer_norm\.", r"layers.\1.ffn_norm."),
    )
)

#: fairseq's, and so those of s3prl, of Microsoft's WavLM and of MelHuBERT.
FAIRSEQ = Names(
    (
        (r"feature_extractor\.conv_layers\.(\d+)\.0\.", r"front_end.convolutions.\1."),
        (r"feature_extractor\.conv_layers\.(\d+)\.2\.(?:1\.)?", r"front_end.norms.\1."),
        (r"layer_norm\.", "feature_norm."),
        (r"(?:post|pre)_extract_proj\.", "projection."),
        (r"encoder\.pos_conv\.0\.weight_g$", f"{_WEIGHT_NORM}0"),
        (r"encoder\.pos_conv\.0\.weight_v$", f"{_WEIGHT_NORM}1"),
        (r"encoder\.pos_conv\.(\d+)\.0\.", r"conv_positions.convolutions.\1."),
        (r"encoder\.pos_conv\.0\.", _CONVOLUTION),
        (r"encoder\.layer_norm\.", "norm."),
        (r"encoder\.layers\.0\.self_attn\.relative_attention_bias\.", "position_bias.table."),
        (r"encoder\.layers\.(\d+)\.self_attn\.(q|k|v|out)_proj\.", r"layers.\1.attention.\2."),
        (r"encoder\.layers\.(\d+)\.self_attn\.grep_linear\.", r"layers.\1.attention.gate.linear."),
        (r"encoder\.layers\.(\d+)\.self_attn\.grep_a$", r"layers.\1.attention.gate.scale"),
        (r"encoder\.layers\.(\d+)\.self_attn_layer_norm\.", r"layers.\1.attention_norm."),
        (r"encoder\.layers\.(\d+)\.final_layer_norm\.", r"layers.\1.ffn_norm."),
        (r"encoder\.layers\.", "layers."),
    )
)


def from_torchaudio(name: str) -> str:
    """transformers' name of a tensor of torchaudio's, which differs by its prefix."""
    name = re.sub(r"^encoder\.(feature_projection\.|(?=transformer\.))", r"\1", name)
    name = re.sub(r"^transformer\.", "encoder.", name)
    return name.replace("attention.attention.", "attention.")


def ours(
    spec: ModelSpec, state: Mapping[str, Any], names: Names, ignored: str = r"(?!)"
) -> dict[str, Tensor]:
    """The tensors under our names and in our shapes, none missing and none left over.

    ignored: a pattern of the names that hidden states do not depend on.

    Raises:
        InputError: tensors are unknown or missing, or not what the spec says.
    """
    with torch.device("meta"):
        expected = Encoder(spec).state_dict()
    renamed, unknown = {}, []
    for name, tensor in state.items():
        own = names.ours(name)
        if own in expected:
            renamed[own] = _fitted(name, tensor, expected[own])
        elif not re.match(ignored, name):
            unknown.append(name)
    missing = [name for name in expected if name not in renamed]
    if unknown or missing:
        raise InputError(
            "the checkpoint does not match its shape: "
            f"{_listed('unknown', unknown)}, {_listed('missing', missing)}"
        )
    return renamed


def _fitted(name: str, tensor: Any, like: Tensor) -> Tensor:
    """The tensor in the shape that ours has, which may be without the dimensions of 1."""
    if not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
        raise InputError(f"{name} of the checkpoint is no dense tensor")
    shape = [size for size in tensor.shape if size != 1]
    fits = shape == [size for size in like.shape if size != 1]
    fits = fits and tensor.is_floating_point() == like.is_floating_point()
    if not fits or tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
        raise InputError(
            f"{name} of the checkpoint is {tensor.dtype} of shape {tuple(tensor.shape)}; expected "
            f"{like.dtype} of shape {tuple(like.shape)}"
        )
    return tensor.reshape(like.shape)


def _listed(what: str, names: list[str], most: int = 8) -> str:
    shown = ", ".join(name[:80] for name in sorted(names)[:most]) or "none"
    return f"{what} tensors: {shown}" + (f" and {len(names) - most} more" * (len(names) > most))
