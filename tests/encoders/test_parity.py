"""The same weights give the same hidden states here, in torchaudio and in transformers."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import pytest
import soundfile
import torch
import torchaudio
from parity import (
    CLASSES,
    DIM,
    HEADS,
    LENGTHS,
    assert_same,
    assert_same_alone,
    speech_like,
    torchaudio_model,
    torchaudio_states,
    transformers_model,
    transformers_states,
)
from torch import Tensor, nn

from core.errors import InputError, Unsupported
from core.spec import MelFrontEnd
from encoders import build, cut
from encoders.model import Encoder, from_state
from encoders.positions import BucketBias
from encoders.sources.hf import from_transformers
from encoders.sources.torchaudio import from_torchaudio

transformers = pytest.importorskip("transformers")

# --- torchaudio ---------------------------------------------------------------------------------


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("family", ["wav2vec2", "wavlm"])
def test_torchaudio(family: str, norm: str, norm_first: bool) -> None:
    theirs = torchaudio_model(family, norm, norm_first)
    ours = from_state(*from_torchaudio(theirs, normalize_waveform=False))
    assert ours.spec.family == family
    waveforms = speech_like()
    with torch.no_grad():
        hidden = ours(waveforms, LENGTHS)
        extract = partial(torchaudio_states, theirs)
        assert_same_alone(hidden.states[1:], hidden.lengths, extract)
        # torchaudio's WavLM takes no padded batch, and its GroupNorm sees the padding.
        if family != "wavlm" and norm == "layer":
            states, frames = theirs.extract_features(waveforms, LENGTHS)
            assert frames.tolist() == hidden.lengths.tolist()
            assert_same(hidden.states[1:-1], states[:-1], hidden.lengths)


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


def test_an_aux_head_is_left_out() -> None:
    theirs = torchaudio_model("wav2vec2", "group", False, aux_num_out=5)
    assert "aux.weight" in theirs.state_dict()
    ours = from_state(*from_torchaudio(theirs))
    with torch.no_grad():
        hidden = ours(speech_like()[:1])
        expected = torchaudio_states(theirs, speech_like()[:1])
    assert_same(hidden.states[1:], expected, hidden.lengths)


# --- transformers -------------------------------------------------------------------------------


def _import(theirs: nn.Module, normalize_waveform: bool | None = False) -> Encoder:
    config = theirs.config.to_dict()
    return from_state(*from_transformers(config, theirs.state_dict(), normalize_waveform))


@pytest.mark.parametrize(
    ("family", "norm", "norm_first"),
    [
        *product(("wav2vec2", "hubert", "wavlm"), ("group", "layer"), (False, True)),
        ("data2vec-audio", "layer", False),
    ],
)
def test_transformers(family: str, norm: str, norm_first: bool) -> None:
    theirs = transformers_model(family, norm, norm_first)
    ours, waveforms = _import(theirs), speech_like()
    mask = (torch.arange(waveforms.shape[1]) < LENGTHS[:, None]).long()
    with torch.no_grad():
        hidden = ours(waveforms, LENGTHS)
        expected = transformers_states(theirs, waveforms, attention_mask=mask)
        frames = theirs._get_feat_extract_output_lengths(LENGTHS)
        assert hidden.lengths.tolist() == frames.tolist()
        assert_same_alone(hidden.states, frames, partial(transformers_states, theirs))
    # transformers' GroupNorm sees the padding, and so does the second convolution of data2vec.
    if norm == "layer" and family != "data2vec-audio":
        assert_same(hidden.states, expected, frames)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("family", ["wav2vec2", "hubert", "wavlm"])
def test_group_norm_sees_no_padding(family: str, training: bool) -> None:
    ours, waveforms = _import(transformers_model(family, "group", False)), speech_like()
    with torch.set_grad_enabled(training):
        hidden = ours(waveforms, LENGTHS)
        for place, length in enumerate(LENGTHS.tolist()):
            alone = ours(waveforms[place : place + 1, :length]).states
            for padded, single in zip(hidden.states, alone, strict=True):
                own = padded[place : place + 1, : hidden.lengths[place]]
                torch.testing.assert_close(own, single, atol=1e-5, rtol=1e-5)


def test_distilhubert_has_no_feature_norm() -> None:
    theirs = transformers_model("hubert", "group", False, feat_proj_layer_norm=False)
    ours, waveforms = _import(theirs), speech_like()[:1]
    assert not ours.spec.feature_norm
    with torch.no_grad():
        expected = transformers_states(theirs, waveforms)
        hidden = ours(waveforms)
    assert_same(hidden.states, expected, hidden.lengths)


def test_normalised_waveforms_are_those_of_the_feature_extractor() -> None:
    theirs = transformers_model("hubert", "layer", True)
    ours, waveforms = _import(theirs, None), 3 * speech_like() + 0.5
    assert ours.spec.normalize_waveform
    extractor = transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True)
    utterances = [w[:n].numpy() for w, n in zip(waveforms, LENGTHS.tolist(), strict=True)]
    batch = extractor(utterances, sampling_rate=16000, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = transformers_states(theirs, batch.pop("input_values"), **batch)
        hidden = ours(waveforms, LENGTHS)
    assert_same(hidden.states, expected, hidden.lengths)


def test_real_speech(speech_data: Path) -> None:
    path = sorted((speech_data / "LibriSpeech").rglob("*.flac"))[0]
    waveform = torch.from_numpy(soundfile.read(path, dtype="float32")[0][:32000])[None]
    theirs = transformers_model("wavlm", "layer", True)
    ours = _import(theirs, None)
    normalised = torch.nn.functional.layer_norm(waveform, waveform.shape[1:])
    with torch.no_grad():
        expected = transformers_states(theirs, normalised)
        hidden = ours(waveform)
    assert_same(hidden.states, expected, hidden.lengths)


def test_a_melhubert_body_is_huberts() -> None:
    """MelHuBERT is HuBERT's Transformer on log-mel frames in the place of convolutions."""
    widths = {"conv_dim": (8, 8, 12, 20), "feat_proj_layer_norm": False}
    theirs = transformers_model("hubert", "group", False, **widths)
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
    assert_same(hidden.states[1:], expected, frames)


def test_bases_of_transformers_have_the_published_tensors() -> None:
    """Names and shapes of the real models, in which nothing may be missing or unknown."""
    for configure, model in [CLASSES[name] for name in ("wav2vec2", "hubert", "wavlm")]:
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
    theirs = transformers_model("hubert", "group", False)
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
    theirs = transformers_model("hubert", "group", False)
    state = theirs.state_dict()
    state |= {f"adapter.{index}.weight": torch.zeros(1) for index in range(20)}
    del state["encoder.layers.1.final_layer_norm.bias"]
    wanted = (
        r"unknown tensors: adapter\.0.* and 12 more, missing tensors: layers\.1\.ffn_norm\.bias$"
    )
    with pytest.raises(InputError, match=wanted):
        from_transformers(theirs.config.to_dict(), state)


def test_tensors_of_another_shape_are_named() -> None:
    theirs = transformers_model("hubert", "group", False)
    state = theirs.state_dict() | {"encoder.layer_norm.bias": torch.zeros(DIM + 1)}
    with pytest.raises(InputError, match=r"encoder\.layer_norm\.bias.*\(25,\).*\(24,\)"):
        from_transformers(theirs.config.to_dict(), state)


HEADS_BY_FAMILY = {
    "wav2vec2": ("ForPreTraining", "ForCTC", "ForSequenceClassification"),
    "hubert": ("ForCTC", "ForSequenceClassification"),
    "wavlm": ("ForCTC", "ForAudioFrameClassification"),
    "data2vec-audio": ("ForCTC",),
}


@pytest.mark.parametrize(
    ("family", "head"),
    [(family, head) for family in HEADS_BY_FAMILY for head in HEADS_BY_FAMILY[family]],
)
def test_heads_are_left_out(family: str, head: str) -> None:
    sizes = {"vocab_size": 8, "classifier_proj_size": 6, "use_weighted_layer_sum": True}
    theirs = transformers_model(family, "layer", False, head, **sizes)
    assert len(theirs.state_dict()) > len(theirs.base_model.state_dict())
    hidden = _import(theirs)(speech_like()[:1])
    with torch.no_grad():
        assert_same(hidden.states, transformers_states(theirs, speech_like()[:1]), hidden.lengths)


def test_variants_that_do_not_exist_here_are_refused() -> None:
    config = transformers.HubertConfig().to_dict()
    with pytest.raises(Unsupported, match="hidden_act='relu'"):
        from_transformers({**config, "hidden_act": "relu"}, {})
    with pytest.raises(Unsupported, match="a 'bert' model; expected wav2vec2, hubert"):
        from_transformers({"model_type": "bert"}, {})
    with pytest.raises(InputError, match="config has no 'conv_dim'"):
        from_transformers({"model_type": "hubert", "feat_extract_norm": "group"}, {})


# --- WavLM under compression ----------------------------------------------------------------------


def test_pruned_wavlm_heads_keep_their_bias_and_gate() -> None:
    theirs = transformers_model("wavlm", "group", False)
    encoder = _import(theirs)
    small = cut.keep_heads(encoder, [[1, 3], [], [0, 1, 2]])
    with torch.no_grad():
        for layer, kept in zip(theirs.encoder.layers, ([1, 3], [], [0, 1, 2]), strict=True):
            for head in set(range(HEADS)) - set(kept):
                width = DIM // HEADS
                layer.attention.out_proj.weight[:, head * width : (head + 1) * width] = 0
        expected = transformers_states(theirs, speech_like()[:1])
        hidden = small(speech_like()[:1])
    assert_same(hidden.states, expected, hidden.lengths)


@pytest.mark.parametrize(("buckets", "longest"), [(320, 800), (16, 12), (32, 128)])
def test_buckets_are_wavlms(buckets: int, longest: int) -> None:
    from torchaudio.models.wav2vec2.wavlm_attention import WavLMSelfAttention

    theirs = WavLMSelfAttention(8, 2, num_buckets=buckets, max_distance=longest)
    distances = torch.arange(-2000, 2001)
    expected = theirs._relative_positions_bucket(distances)
    assert torch.equal(BucketBias(2, buckets, longest).bucket(distances), expected)
