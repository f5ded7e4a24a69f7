"""The same weights give the same hidden states here, in torchaudio and in transformers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
import torch
import torchaudio
from torch import Tensor, nn

from core.errors import InputError, Unsupported
from core.spec import MelFrontEnd
from encoders import build, cut
from encoders.importers import from_torchaudio, from_transformers
from encoders.model import Encoder, from_state
from encoders.positions import BucketBias

transformers = pytest.importorskip("transformers")

TOLERANCE = 1e-4
DIM, HEADS, FFN, DEPTH = 24, 4, 40, 3
SHAPES = [(8, 10, 5), (8, 3, 2), (12, 3, 2), (12, 2, 2)]
LENGTHS = torch.tensor([2600, 2000, 1234])


def _speech_like() -> Tensor:
    """Noise (3, 2600) with silence behind the lengths."""
    waveforms = torch.randn(3, 2600, generator=torch.Generator().manual_seed(0))
    return waveforms.masked_fill(torch.arange(2600) >= LENGTHS[:, None], 0.0)


def _shaken(model: nn.Module) -> nn.Module:
    """Every tensor away from its initial value, so that no norm or bias hides behind 1 or 0."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def _assert_same(ours: list[Tensor], theirs: list[Tensor], frames: Tensor) -> None:
    assert len(ours) == len(theirs)
    for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        valid = torch.arange(a.shape[1]) < frames[:, None]
        assert a.shape == b.shape
        assert (a - b)[valid].abs().max() < TOLERANCE, f"state {index}"


def _assert_same_alone(
    ours: list[Tensor], frames: Tensor, theirs: Callable[[Tensor], list[Tensor]]
) -> None:
    """Each utterance's states in our padded batch are theirs of it alone."""
    for place, (length, count) in enumerate(zip(LENGTHS.tolist(), frames.tolist(), strict=True)):
        own = [state[place : place + 1, :count] for state in ours]
        _assert_same(own, theirs(_speech_like()[place : place + 1, :length]), frames[place][None])


# --- torchaudio ---------------------------------------------------------------------------------


def _torchaudio(family: str, norm: str, norm_first: bool) -> nn.Module:
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
    }
    if family == "wavlm":
        arguments |= {"encoder_num_buckets": 16, "encoder_max_distance": 12}
        return torchaudio.models.wavlm_model(**arguments, aux_num_out=None)
    return torchaudio.models.wav2vec2_model(**arguments, aux_num_out=None)


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("family", ["wav2vec2", "wavlm"])
def test_torchaudio(family: str, norm: str, norm_first: bool) -> None:
    theirs = _shaken(_torchaudio(family, norm, norm_first))
    ours = from_state(*from_torchaudio(theirs, normalize_waveform=False))
    assert ours.spec.family == family

    def extract(waveforms: Tensor, lengths: Tensor | None = None) -> list[Tensor]:
        states, frames = theirs.extract_features(waveforms, lengths)
        assert frames is None or frames.tolist() == hidden.lengths.tolist()
        if norm_first:  # torchaudio leaves the last state before the final LayerNorm
            states[-1] = theirs.encoder.transformer.layer_norm(states[-1])
        return states

    waveforms = _speech_like()
    with torch.no_grad():
        hidden = ours(waveforms, LENGTHS)
        _assert_same_alone(hidden.states[1:], hidden.lengths, extract)
        # torchaudio's WavLM takes no padded batch, and its GroupNorm sees the padding.
        if family != "wavlm" and norm == "layer":
            _assert_same(hidden.states[1:], extract(waveforms, LENGTHS), hidden.lengths)


@pytest.mark.parametrize("name", ["hubert_base", "wavlm_base", "wav2vec2_large_lv60k"])
def test_torchaudios_factories_have_the_zoos_shapes(name: str) -> None:
    from encoders import zoo

    with torch.device("meta"):
        spec, state = from_torchaudio(getattr(torchaudio.models, name)())
    expected = zoo.SPECS[name]()
    assert (spec.layers, spec.positions, spec.front_end, spec.norm_first) == (
        expected.layers,
        expected.positions,
        expected.front_end,
        expected.norm_first,
    )
    assert spec.normalize_waveform == expected.normalize_waveform
    with torch.device("meta"):
        assert set(state) == set(build(expected).state_dict())


def test_an_aux_head_is_an_error_that_names_it() -> None:
    model = torchaudio.models.hubert_base
    with torch.device("meta"), pytest.raises(InputError, match=r"aux\.bias.*aux\.weight"):
        from_torchaudio(model(aux_num_out=5))


# --- transformers -------------------------------------------------------------------------------


def _config(family: str, norm: str, norm_first: bool, **changes: object) -> dict[str, object]:
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


_CLASSES: dict[str, tuple[Callable, Callable]] = {
    "wav2vec2": (transformers.Wav2Vec2Config, transformers.Wav2Vec2Model),
    "hubert": (transformers.HubertConfig, transformers.HubertModel),
    "wavlm": (transformers.WavLMConfig, transformers.WavLMModel),
}


def _transformers(family: str, norm: str, norm_first: bool, **changes: object) -> nn.Module:
    configure, model = _CLASSES[family]
    if family == "wavlm":
        changes |= {"num_buckets": 16, "max_bucket_distance": 12}
    return _shaken(model(configure(**_config(family, norm, norm_first, **changes))))


def _states(output: transformers.utils.ModelOutput) -> list[Tensor]:
    """All states with the final LayerNorm on the last (transformers 5 leaves it off there)."""
    return [*output.hidden_states[:-1], output.last_hidden_state]


def _import(theirs: nn.Module, normalize_waveform: bool | None = False) -> Encoder:
    config = theirs.config.to_dict()
    return from_state(*from_transformers(config, theirs.state_dict(), normalize_waveform))


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("family", ["wav2vec2", "hubert", "wavlm"])
def test_transformers(family: str, norm: str, norm_first: bool) -> None:
    theirs = _transformers(family, norm, norm_first)
    ours, waveforms = _import(theirs), _speech_like()
    mask = (torch.arange(waveforms.shape[1]) < LENGTHS[:, None]).long()
    with torch.no_grad():
        hidden = ours(waveforms, LENGTHS)
        expected = theirs(waveforms, attention_mask=mask, output_hidden_states=True)
        frames = theirs._get_feat_extract_output_lengths(LENGTHS)
        assert hidden.lengths.tolist() == frames.tolist()
        _assert_same_alone(
            hidden.states, frames, lambda alone: _states(theirs(alone, output_hidden_states=True))
        )
    if norm == "layer":  # transformers' GroupNorm sees the padding
        _assert_same(hidden.states, _states(expected), frames)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("family", ["wav2vec2", "hubert", "wavlm"])
def test_group_norm_sees_no_padding(family: str, training: bool) -> None:
    ours, waveforms = _import(_transformers(family, "group", False)), _speech_like()
    with torch.set_grad_enabled(training):
        hidden = ours(waveforms, LENGTHS)
        for place, length in enumerate(LENGTHS.tolist()):
            alone = ours(waveforms[place : place + 1, :length]).states
            for padded, single in zip(hidden.states, alone, strict=True):
                own = padded[place : place + 1, : hidden.lengths[place]]
                torch.testing.assert_close(own, single, atol=1e-5, rtol=1e-5)


def test_distilhubert_has_no_feature_norm() -> None:
    theirs = _transformers("hubert", "group", False, feat_proj_layer_norm=False)
    ours, waveforms = _import(theirs), _speech_like()[:1]
    assert not ours.spec.feature_norm
    with torch.no_grad():
        expected = theirs(waveforms, output_hidden_states=True)
        hidden = ours(waveforms)
    _assert_same(hidden.states, _states(expected), hidden.lengths)


def test_normalised_waveforms_are_those_of_the_feature_extractor() -> None:
    theirs = _transformers("hubert", "layer", True)
    ours, waveforms = _import(theirs, None), 3 * _speech_like() + 0.5
    assert ours.spec.normalize_waveform
    extractor = transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True)
    utterances = [w[:n].numpy() for w, n in zip(waveforms, LENGTHS.tolist(), strict=True)]
    batch = extractor(utterances, sampling_rate=16000, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = theirs(**batch, output_hidden_states=True)
        hidden = ours(waveforms, LENGTHS)
    _assert_same(hidden.states, _states(expected), hidden.lengths)


def test_real_speech(speech_data: Path) -> None:
    path = sorted((speech_data / "LibriSpeech").rglob("*.flac"))[0]
    waveform = torch.from_numpy(soundfile.read(path, dtype="float32")[0][:32000])[None]
    theirs = _transformers("wavlm", "layer", True)
    ours = _import(theirs, None)
    normalised = torch.nn.functional.layer_norm(waveform, waveform.shape[1:])
    with torch.no_grad():
        expected = theirs(normalised, output_hidden_states=True)
        hidden = ours(waveform)
    _assert_same(hidden.states, _states(expected), hidden.lengths)


def test_a_melhubert_body_is_huberts() -> None:
    """MelHuBERT is HuBERT's Transformer on log-mel frames in the place of convolutions."""
    widths = {"conv_dim": (8, 8, 12, 20), "feat_proj_layer_norm": False}
    theirs = _transformers("hubert", "group", False, **widths)
    imported = _import(theirs)
    ours = build(replace(imported.spec, front_end=MelFrontEnd(10, stack=2)))
    body = {n: t for n, t in imported.state_dict().items() if not n.startswith("front_end.")}
    ours.load_state_dict(ours.state_dict() | body)
    waveforms, lengths = torch.randn(2, 5000), torch.tensor([5000, 4000])
    expected: list[Tensor] = []
    for layer in theirs.encoder.layers:
        layer.register_forward_hook(lambda _module, _input, output: expected.append(output))
    with torch.no_grad():
        hidden = ours(waveforms, lengths)
        features, frames = ours.front_end(waveforms, lengths)
        mask = torch.arange(features.shape[1]) < frames[:, None]
        theirs.encoder(theirs.feature_projection(features), attention_mask=mask)
    _assert_same(hidden.states[1:], expected, frames)


def test_bases_of_transformers_have_the_published_tensors() -> None:
    """Names and shapes of the real models, in which nothing may be missing or unknown."""
    for configure, model in _CLASSES.values():
        for large in (False, True):
            sizes = {
                "hidden_size": 1024,
                "num_attention_heads": 16,
                "num_hidden_layers": 24,
                "intermediate_size": 4096,
                "feat_extract_norm": "layer",
                "conv_bias": True,
                "do_stable_layer_norm": True,
            }
            config = configure(**sizes if large else {})
            with torch.device("meta"):
                theirs = model(config)
            spec, state = from_transformers(config.to_dict(), theirs.state_dict())
            count = sum(tensor.numel() for tensor in state.values())
            assert count == pytest.approx(315.44e6 if large else 94.38e6, rel=2e-4)
            assert spec.norm_first == large


def test_old_names_of_weight_norm_are_understood() -> None:
    theirs = _transformers("hubert", "group", False)
    old = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): tensor
        for name, tensor in theirs.state_dict().items()
    }
    prefixed = {f"hubert.{name}": tensor for name, tensor in old.items()}
    config = theirs.config.to_dict()
    expected = from_transformers(config, theirs.state_dict())[1]
    for state in (old, prefixed):
        imported = from_transformers(config, state)[1]
        assert {n: t.data_ptr() for n, t in imported.items()} == {
            n: t.data_ptr() for n, t in expected.items()
        }


def test_unknown_and_missing_tensors_are_listed() -> None:
    theirs = _transformers("hubert", "group", False)
    state = theirs.state_dict()
    state["lm_head.weight"] = torch.zeros(1)
    del state["encoder.layers.1.final_layer_norm.bias"]
    with pytest.raises(InputError, match=r"lm_head\.weight.*layers\.1\.ffn_norm\.bias"):
        from_transformers(theirs.config.to_dict(), state)


def test_variants_that_do_not_exist_here_are_refused() -> None:
    config = transformers.HubertConfig().to_dict()
    with pytest.raises(Unsupported, match="hidden_act='relu'"):
        from_transformers({**config, "hidden_act": "relu"}, {})
    with pytest.raises(InputError, match="config has no 'conv_dim'"):
        from_transformers({}, {})


# --- WavLM under compression ----------------------------------------------------------------------


def test_pruned_wavlm_heads_keep_their_bias_and_gate() -> None:
    theirs = _transformers("wavlm", "group", False)
    encoder = _import(theirs)
    small = cut.keep_heads(encoder, [[1, 3], [], [0, 1, 2]])
    with torch.no_grad():
        for layer, kept in zip(theirs.encoder.layers, ([1, 3], [], [0, 1, 2]), strict=True):
            for head in set(range(HEADS)) - set(kept):
                width = DIM // HEADS
                layer.attention.out_proj.weight[:, head * width : (head + 1) * width] = 0
        expected = theirs(_speech_like()[:1], output_hidden_states=True)
        hidden = small(_speech_like()[:1])
    _assert_same(hidden.states, _states(expected), hidden.lengths)


@pytest.mark.parametrize(("buckets", "longest"), [(320, 800), (16, 12), (32, 128)])
def test_buckets_are_wavlms(buckets: int, longest: int) -> None:
    from torchaudio.models.wav2vec2.wavlm_attention import WavLMSelfAttention

    theirs = WavLMSelfAttention(8, 2, num_buckets=buckets, max_distance=longest)
    distances = torch.arange(-2000, 2001)
    expected = theirs._relative_positions_bucket(distances)
    assert torch.equal(BucketBias(2, buckets, longest).bucket(distances), expected)
