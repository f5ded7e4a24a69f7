"""Tiny models of other libraries and what it means that ours computes the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torchaudio
from torch import Tensor, nn

transformers = pytest.importorskip("transformers")

TOLERANCE = 1e-4
DIM, HEADS, FFN, DEPTH = 24, 4, 40, 3
SHAPES = [(8, 10, 5), (8, 3, 2), (12, 3, 2), (12, 2, 2)]
LENGTHS = torch.tensor([2600, 2000, 1234])


def speech_like() -> Tensor:
    """Noise (3, 2600) with silence behind the lengths."""
    waveforms = torch.randn(3, 2600, generator=torch.Generator().manual_seed(0))
    return waveforms.masked_fill(torch.arange(2600) >= LENGTHS[:, None], 0.0)


def shaken(model: nn.Module) -> nn.Module:
    """Every tensor away from its initial value, so that no norm or bias hides behind 1 or 0."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def assert_same(ours: list[Tensor], theirs: list[Tensor], frames: Tensor) -> None:
    assert len(ours) == len(theirs)
    for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        valid = torch.arange(a.shape[1]) < frames[:, None]
        assert a.shape == b.shape
        assert (a - b)[valid].abs().max() < TOLERANCE, f"state {index}"


def assert_same_alone(
    ours: list[Tensor], frames: Tensor, theirs: Callable[[Tensor], list[Tensor]]
) -> None:
    """Each utterance's states in our padded batch are theirs of it alone."""
    for place, (length, count) in enumerate(zip(LENGTHS.tolist(), frames.tolist(), strict=True)):
        own = [state[place : place + 1, :count] for state in ours]
        assert_same(own, theirs(speech_like()[place : place + 1, :length]), frames[place][None])


def torchaudio_arguments(family: str, norm: str, norm_first: bool) -> dict[str, object]:
    arguments = {
        "extractor_mode": f"{norm}_norm",
        "extractor_conv_layer_config": SHAPES,
        "extractor_conv_bias": norm == "layer",
        "encoder_embed_dim": DIM,
        "encoder_projection_dropout": 0.0,
        "encoder_pos_conv_kernel": 8,
        "encoder_pos_conv_groups": 4,
        "encoder_num_layers": DEPTH,
        "encoder_num_heads": HEADS,
        "encoder_attention_dropout": 0.0,
        "encoder_ff_interm_features": FFN,
        "encoder_ff_interm_dropout": 0.0,
        "encoder_dropout": 0.0,
        "encoder_layer_norm_first": norm_first,
        "encoder_layer_drop": 0.0,
        "aux_num_out": None,
    }
    if family == "wavlm":
        arguments |= {"encoder_num_buckets": 16, "encoder_max_distance": 12}
    return arguments


def torchaudio_model(family: str, norm: str, norm_first: bool, **changes: object) -> nn.Module:
    make = getattr(torchaudio.models, f"{family}_model")
    return shaken(make(**torchaudio_arguments(family, norm, norm_first) | changes))


def torchaudio_states(theirs: nn.Module, waveforms: Tensor) -> list[Tensor]:
    """Its states of utterances of one length, which begin with the first layer's."""
    states, _ = theirs.extract_features(waveforms)
    if theirs.encoder.transformer.layers[0].layer_norm_first:  # it leaves the final LayerNorm off
        states[-1] = theirs.encoder.transformer.layer_norm(states[-1])
    return states


def config_of(family: str, norm: str, norm_first: bool, **changes: object) -> dict[str, object]:
    channels, kernels, strides = zip(*SHAPES, strict=True)
    return {
        "model_type": family,
        "hidden_size": DIM,
        "num_attention_heads": HEADS,
        "num_hidden_layers": DEPTH,
        "intermediate_size": FFN,
        "conv_dim": channels,
        "conv_kernel": kernels,
        "conv_stride": strides,
        "conv_bias": norm == "layer",
        "feat_extract_norm": norm,
        "do_stable_layer_norm": norm_first,
        "num_conv_pos_embeddings": 8,
        "num_conv_pos_embedding_groups": 4,
        "num_feat_extract_layers": len(SHAPES),
        **changes,
    }


CLASSES: dict[str, tuple[Callable, Callable]] = {
    "wav2vec2": (transformers.Wav2Vec2Config, transformers.Wav2Vec2Model),
    "hubert": (transformers.HubertConfig, transformers.HubertModel),
    "wavlm": (transformers.WavLMConfig, transformers.WavLMModel),
    "data2vec-audio": (transformers.Data2VecAudioConfig, transformers.Data2VecAudioModel),
}


def transformers_model(
    family: str, norm: str, norm_first: bool, head: str = "Model", **changes: object
) -> nn.Module:
    """A model with that head, such as ForCTC, none by default."""
    configure, model = CLASSES[family]
    config = config_of(family, norm, norm_first, **changes)
    if family == "wavlm":
        config |= {"num_buckets": 16, "max_bucket_distance": 12}
    if family == "data2vec-audio":  # it has one kind of each, and no name for it
        del config["feat_extract_norm"], config["do_stable_layer_norm"]
        config |= {"num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 4}
    model = getattr(transformers, model.__name__.removesuffix("Model") + head)
    return shaken(model(configure(**config)))


def transformers_states(theirs: nn.Module, waveforms: Tensor, **arguments: object) -> list[Tensor]:
    """All states with the final LayerNorm on the last (transformers 5 leaves it off there)."""
    output = theirs.base_model(waveforms, output_hidden_states=True, **arguments)
    return [*output.hidden_states[:-1], output.last_hidden_state]
