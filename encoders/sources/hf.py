"""A model of the Hugging Face hub: wav2vec 2.0, HuBERT, WavLM, DistilHuBERT, data2vec, or ours.

config.json and the weights (safetensors or .bin, sharded or not) are fetched by huggingface_hub,
with its cache, its token and HF_HUB_OFFLINE, or read from a local folder. transformers is not
needed, and no code that comes with a model is run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from core.errors import InputError, Unsupported
from core.spec import ModelSpec, Positions
from encoders.files import one_line, read_json, read_safetensors, read_torch
from encoders.sources import _names
from encoders.sources._settings import Settings, front_end

PLACE = "ORG/NAME[@REVISION]|FOLDER"

#: The first that is there has the weights, or lists the files that have them.
_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_PREPROCESSOR = "preprocessor_config.json"
_TEXTS = ("spec.json", "config.json", _PREPROCESSOR, _WEIGHTS[1], _WEIGHTS[3])

_SHARD = re.compile(r"[\w][\w.-]*\.(safetensors|bin)")
_REPOSITORY = re.compile(r"[\w][\w.-]*/[\w][\w.-]*|[\w][\w.-]*")

#: What `bench export --to huggingface` calls a model that transformers has no class for.
_EXPORTED = "compressed-speech-encoder"

_FAMILIES = ("wav2vec2", "hubert", "wavlm", "data2vec-audio")

#: What stands in front of names in a model with a head, and the heads, which no state depends on.
_PREFIX = re.compile(r"^(wav2vec2|hubert|wavlm|data2vec_audio)\.")
_HEADS = (
    r"masked_spec_embed$|(lm_head|quantizer|project_hid|project_q|projector|classifier)\.|"
    r"layer_weights$"
)

#: Config entries that must have this value where they are there, as nothing here computes another.
_REQUIRED = {
    "hidden_act": "gelu",
    "feat_extract_activation": "gelu",
    "layer_norm_eps": 1e-5,
    "conv_pos_batch_norm": False,
    "add_adapter": False,
    "adapter_attn_dim": None,
}


def read(place: str) -> tuple[ModelSpec, dict[str, Tensor]]:
    """Spec and tensors of that folder or repository."""
    folder = _folder(place)
    if (folder / "spec.json").is_file():
        from encoders.store import read_folder

        encoder = read_folder(folder)
        return encoder.spec, encoder.state_dict()
    config = Settings(read_json(folder / "config.json"))
    if config.entries.get("model_type") == _EXPORTED:
        spec = ModelSpec.from_json(config.any("spec"))
        return spec, _names.ours(spec, _weights(folder), _names.Names([(r"encoder\.", "")]))
    spec, state = from_transformers(config.entries, _weights(folder))
    if spec.normalize_waveform and (folder / _PREPROCESSOR).is_file():
        preprocessor = Settings(read_json(folder / _PREPROCESSOR), _PREPROCESSOR)
        spec = replace(spec, normalize_waveform=preprocessor.flag("do_normalize", True))
    return spec, state


def from_transformers(
    config: Mapping[str, Any],
    state: Mapping[str, Tensor],
    normalize_waveform: bool | None = None,
) -> tuple[ModelSpec, dict[str, Tensor]]:
    """Import a Wav2Vec2Model, HubertModel (DistilHuBERT too), WavLMModel or Data2VecAudioModel.

    config: the content of config.json (`model.config.to_dict()`). state: its tensors, with or
    without those of a head (CTC, pre-training, classification), which are left out.
    normalize_waveform: what the checkpoint was trained on; by default True for LayerNorm front
    ends, as with every model that was published.

    Raises:
        InputError: the config misses an entry, or tensors are missing or unknown.
        Unsupported: the config asks for a variant that this encoder does not have.
    """
    settings = Settings(config)
    family = settings.any("model_type")
    if family not in _FAMILIES:
        raise Unsupported(f"config is of a {family!r} model; expected {', '.join(_FAMILIES)}")
    settings.require(_REQUIRED)
    spec = _spec(settings, family, normalize_waveform)
    bare = {_PREFIX.sub("", name): value for name, value in state.items()}
    return spec, _names.ours(spec, bare, _names.TRANSFORMERS, _HEADS)


def _spec(config: Settings, family: str, normalize: bool | None) -> ModelSpec:
    norms = {"group": "group", "layer": "layer"}
    data2vec = family == "data2vec-audio"  # which has no other norms, and does not say so
    norm = config.choice("feat_extract_norm", norms, "layer" if data2vec else None)
    shapes = tuple(config.wholes(f"conv_{part}") for part in ("dim", "kernel", "stride"))
    heads, dim = config.whole("num_attention_heads"), config.whole("hidden_size")
    layer = config.dense_layer(heads, dim, config.whole("intermediate_size"))
    return ModelSpec(
        family,
        front_end(shapes, norm, config.flag("conv_bias")),
        dim,
        heads,
        dim // heads,
        (layer,) * config.layers("num_hidden_layers"),
        _positions(config, family),
        norm_first=config.flag("do_stable_layer_norm", False if data2vec else None),
        feature_norm=config.flag("feat_proj_layer_norm", True),
        normalize_waveform=norm == "layer" if normalize is None else normalize,
    )


def _positions(config: Settings, family: str) -> Positions:
    groups, count = (config.whole(f"num_conv_pos_embedding{end}") for end in ("_groups", "s"))
    if family == "data2vec-audio":
        return Positions(config.whole("conv_pos_kernel_size"), groups, conv_stacked=count)
    if family != "wavlm":
        return Positions(count, groups)
    buckets, distance = config.whole("num_buckets"), config.whole("max_bucket_distance")
    return Positions(count, groups, gated_buckets=buckets, gated_distance=distance)


def _folder(place: str) -> Path:
    """Where the files lie, fetched if they are on the hub."""
    if (folder := Path(place).expanduser()).is_dir():
        return folder
    name, _, revision = place.partition("@")
    if not _REPOSITORY.fullmatch(name):
        raise InputError(f"model 'hf:{place}' is neither a folder nor ORG/NAME[@REVISION]")
    folder = _fetch(name, revision or None, *_TEXTS, "model.safetensors", "model-*.safetensors")
    if any((folder / weights).is_file() for weights in _WEIGHTS[:2]):
        return folder
    # Of the same commit, should the branch move meanwhile: it is what the folder is called.
    return _fetch(name, folder.name, "pytorch_model.bin", "pytorch_model-*.bin")


def _fetch(name: str, revision: str | None, *patterns: str) -> Path:
    """The folder of the cache with a repository's files of those patterns.

    Raises:
        InputError: there is no such repository or revision, or no way to it.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
    except Exception as error:  # of the hub, of the network or of the disk
        raise InputError(f"model 'hf:{name}' cannot be fetched: {one_line(error)}") from error


def _weights(folder: Path) -> dict[str, Any]:
    """All tensors of the folder.

    Raises:
        InputError: it has none, or an index names what is no file beside it.
    """
    file = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if file is None:
        raise InputError(f"{folder} has no weights; expected {' or '.join(_WEIGHTS)}")
    state: dict[str, Any] = {}
    for part in [folder / shard for shard in _shards(file)] or [file]:
        content = read_safetensors(part) if part.suffix == ".safetensors" else read_torch(part)
        if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
            raise InputError(f"{part} holds no tensors by name")
        state |= content
    return state


def _shards(file: Path) -> list[str]:
    """The files that an index spreads the tensors over, none where the file is no index."""
    if file.suffix != ".json":
        return []
    places = Settings(Settings(read_json(file), file.name).any("weight_map"), file.name).entries
    shards = sorted({str(shard) for shard in places.values()})
    for shard in shards:
        if not _SHARD.fullmatch(shard):
            raise InputError(f"{file} names {shard[:80]!r}; expected files beside it alone")
    return shards
