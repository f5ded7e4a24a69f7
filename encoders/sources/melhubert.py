"""A checkpoint of MelHuBERT (Lin et al., arXiv 2211.09944), or of their pruned ones (2211.09949).

As github.com/nervjack2/MelHuBERT and Speech-SSL-Compression write them: Upstream_Config and model,
with Pruned_heads after head pruning. The mean and standard deviation of its log-mel frames are not
in a checkpoint: their file, such as the release's libri-360-mean-std.npy, lies beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core.errors import InputError
from core.spec import LayerSpec, MelFrontEnd, ModelSpec, Positions
from encoders.files import one_line, read_numpy, read_torch
from encoders.sources import _names
from encoders.sources._settings import Settings

PLACE = "PATH.ckpt"

BINS = 40

_HEADS = r"mask_emb$|final_proj\."

#: Settings that must have this value where they are there, as nothing here computes another.
_REQUIRED = {
    "pos_emb_type": "conv",
    "pos_conv_depth": 1,
    "activation_fn": "gelu",
    "attention_type": "original",
}

#: A weight-pruned checkpoint carries the state of NumPy's random generator, an array; what makes
#: an array has had two names.
_MAKES = np.zeros(0).__reduce__()[0]
_ARRAYS: list[Any] = [np.ndarray, np.dtype, np.dtypes.UInt32DType]
_ARRAYS += [(_MAKES, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")]


def read(place: str) -> tuple[ModelSpec, dict[str, Tensor]]:
    """Spec and tensors of that file, with the statistics from beside it."""
    path = Path(place).expanduser()
    held = Settings(read_torch(path, _ARRAYS), str(path))
    configs = Settings(held.any("Upstream_Config"), "Upstream_Config").entries
    config = Settings(configs.get("melhubert", configs.get("hubert")), "Upstream_Config")
    state = _unmasked(Settings(held.any("model"), "model").entries)
    spec = _spec(config, state, held.entries.get("Pruned_heads", []))
    mean, std = _statistics(path.parent).repeat(1, spec.front_end.stack)  # type: ignore[union-attr]
    state |= {"front_end.mean": mean, "front_end.std": std}
    return spec, _names.ours(spec, state, _names.FAIRSEQ, _HEADS)


def _spec(config: Settings, state: dict[str, Any], steps: Any) -> ModelSpec:
    config.require(_REQUIRED)
    inputs = config.whole("feat_emb_dim", BINS)
    if inputs not in (BINS, 2 * BINS):
        raise InputError(f"{config.where} has feat_emb_dim={inputs}; expected {BINS} or {2 * BINS}")
    dim, heads = config.whole("encoder_embed_dim", 768), config.whole("encoder_attention_heads", 12)
    dense = config.dense_layer(heads, dim, config.whole("encoder_ffn_embed_dim", 3072))
    kept = _kept_heads(steps, heads, config.layers("encoder_layers", 1))
    return ModelSpec(
        "melhubert",
        MelFrontEnd(BINS, inputs // BINS, window="hamming", gain=2.0**15, keep_last=True),
        dim,
        heads,
        dim // heads,
        tuple(_layer(dense, own, state.get(f"encoder.layers.{i}.fc1.weight"))
              for i, own in enumerate(kept)),
        Positions(config.whole("conv_pos", 128), config.whole("conv_pos_groups", 16)),
        norm_first=config.flag("layer_norm_first", False),
        feature_norm=False,
        project=inputs != dim,
    )  # fmt: skip


def _layer(dense: LayerSpec, heads: list[int], fc1: Any) -> LayerSpec:
    """A layer with those heads left, and as many inner units as its first FFN matrix has rows."""
    widths = dense.qk[:1] * len(heads)
    units = len(fc1) if isinstance(fc1, Tensor) and fc1.ndim else dense.ffn
    return LayerSpec(tuple(heads), widths, widths, units)


def _kept_heads(steps: Any, heads: int, layers: int) -> list[list[int]]:
    """The heads left in each layer, by their index before any pruning.

    steps: for each step of pruning layer -> the heads taken, counted among those then left.
    """
    kept = [list(range(heads)) for _ in range(layers)]
    try:
        for step in steps:
            for layer, taken in step.items():
                kept[layer] = [h for i, h in enumerate(kept[layer]) if i not in taken]
    except (TypeError, AttributeError, LookupError) as error:
        raise InputError("Pruned_heads is no list of layer -> heads") from error
    return kept


def _unmasked(state: Any) -> dict[str, Any]:
    """Tensors by name, those that weight pruning keeps beside their mask multiplied by it."""
    whole: dict[str, Any] = {}
    for name, tensor in state.items():
        stem = str(name).removesuffix("_orig")
        mask = state.get(f"{stem}_mask")
        if stem != name and isinstance(tensor, Tensor) and isinstance(mask, Tensor):
            whole[stem] = tensor * mask
        elif not (str(name).endswith("_mask") and f"{str(name)[:-5]}_orig" in state):
            whole[str(name)] = tensor
    return whole


def _statistics(folder: Path) -> Tensor:
    """Mean and standard deviation of each bin (2, BINS), from the file in that folder."""
    found = sorted(folder.glob("*mean-std.npy"))
    if len(found) != 1:
        raise InputError(
            f"{folder} has {len(found)} files *mean-std.npy; expected the one with the mean and "
            "standard deviation of the log-mel frames that the checkpoint was trained on"
        )
    try:
        values = read_numpy(found[0]).astype(np.float32).reshape(2, BINS)
    except (ValueError, TypeError) as error:
        raise InputError(f"{found[0]} is not two rows of {BINS}: {one_line(error)}") from error
    if not np.isfinite(values).all() or (values[1] <= 0).any():
        raise InputError(f"{found[0]} has a deviation that is not above 0, or no number")
    return torch.from_numpy(values)
