"""Checkpoints by s3prl's converters become the encoder that s3prl's own model is."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from parity import DEPTH, DIM, FFN, HEADS, SHAPES, assert_same, shaken, speech_like
from torch import Tensor, nn

import encoders
from core.errors import InputError, Unsupported
from encoders import store

pytest.importorskip("s3prl")

from s3prl.upstream.data2vec import data2vec_model
from s3prl.upstream.distiller import model as distiller
from s3prl.upstream.hubert import hubert_model
from s3prl.upstream.wav2vec2 import wav2vec2_model
from s3prl.upstream.wavlm import WavLM as wavlm

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # it uses the older weight norm

VARIANTS = [("default", False, "[(8, 10, 5)] + [(8,3,2)] + [(12,3,2),(12,2,2)]"),
            ("layer_norm", True, str(SHAPES))]  # fmt: skip


def _settings(mode: str, norm_first: bool, shapes: str) -> dict[str, Any]:
    return {
        "extractor_mode": mode, "conv_feature_layers": shapes, "conv_bias": norm_first,
        "encoder_layers": DEPTH, "encoder_embed_dim": DIM, "encoder_ffn_embed_dim": FFN,
        "encoder_attention_heads": HEADS, "layer_norm_first": norm_first, "conv_pos": 8,
        "conv_pos_groups": 4, "encoder_layerdrop": 0.0,
    }  # fmt: skip


def _states(theirs: nn.Module, waveforms: Tensor) -> list[Tensor]:
    """As s3prl's experts take them: what each layer reads, and what leaves the encoder."""
    read: list[Tensor] = []
    hooks = [layer.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
             for layer in theirs.encoder.layers]  # fmt: skip
    output = theirs.extract_features(waveforms, padding_mask=None, mask=False)
    for hook in hooks:
        hook.remove()
    last = output["x"] if isinstance(output, dict) else output[0]
    return [*(x.transpose(0, 1)[:, : last.shape[1]] for x in read), last]


def _converted(theirs: nn.Module, config: Any, normalize: bool, **more: Any) -> dict[str, Any]:
    """What s3prl.upstream.*.convert writes."""
    task = {"normalize": normalize, "sample_rate": 16000}
    return {"task_cfg": task, "model_cfg": asdict(config), "model_weight": theirs.state_dict(),
            **more}  # fmt: skip


def _wav2vec2(settings: dict[str, Any], normalize: bool) -> tuple[nn.Module, dict[str, Any]]:
    sizes = {"quantize_targets": True, "latent_vars": 4, "final_dim": 8, "target_glu": True}
    config = wav2vec2_model.Wav2Vec2Config(**settings, **sizes)
    theirs = shaken(wav2vec2_model.Wav2Vec2Model(config))
    return theirs, _converted(theirs, config, normalize)


def _hubert(settings: dict[str, Any], normalize: bool) -> tuple[nn.Module, dict[str, Any]]:
    config, symbols = hubert_model.HubertConfig(label_rate=50.0, **settings), [["a", "b", "c"]]
    theirs = hubert_model.HubertModel(config, hubert_model.HubertPretrainingConfig(), symbols)
    theirs = shaken(theirs)
    return theirs, _converted(theirs, config, normalize, dictionaries_symbols=symbols)


def _data2vec(settings: dict[str, Any], normalize: bool) -> tuple[nn.Module, dict[str, Any]]:
    config = data2vec_model.Data2VecAudioConfig(**settings | {"conv_pos": 12}, pos_conv_depth=3)
    theirs = shaken(data2vec_model.Data2VecAudioModel(config))
    held = _converted(theirs, config, normalize)
    held["model_weight"]["_ema"] = {"encoder.layer_norm.weight": torch.zeros(DIM)}
    return theirs, held


def _wavlm(settings: dict[str, Any], normalize: bool) -> tuple[nn.Module, dict[str, Any]]:
    gated = {"relative_position_embedding": True, "gru_rel_pos": True, "num_buckets": 16,
             "max_distance": 12, "normalize": normalize}  # fmt: skip
    theirs = shaken(wavlm.WavLM(wavlm.WavLMConfig(settings | gated)))
    return theirs, {"cfg": settings | gated, "model": theirs.state_dict()}


MAKERS = {"wav2vec2": _wav2vec2, "hubert": _hubert, "data2vec-audio": _data2vec, "wavlm": _wavlm}


@pytest.mark.parametrize(("mode", "norm_first", "shapes"), VARIANTS)
@pytest.mark.parametrize("family", MAKERS)
def test_a_converted_checkpoint(
    family: str, mode: str, norm_first: bool, shapes: str, tmp_path: Path
) -> None:
    if family == "data2vec-audio":
        norm_first = False  # its Transformer is post-norm whatever the front end
    theirs, held = MAKERS[family](_settings(mode, norm_first, shapes), mode == "layer_norm")
    torch.save(held, tmp_path / "converted.pt")
    ours, waveforms = encoders.load(f"s3prl:{tmp_path / 'converted.pt'}"), speech_like()[:1]
    assert ours.spec.family == family
    assert ours.spec.normalize_waveform == (mode == "layer_norm")
    if ours.spec.normalize_waveform:
        waveforms = torch.nn.functional.layer_norm(waveforms, waveforms.shape[1:])
    for samples in (2600, 2640):  # frames odd and even, which fairseq pads
        with torch.no_grad():
            hidden = ours(waveforms[:, :samples])
            expected = _states(theirs, waveforms[:, :samples])
        assert_same(hidden.states, expected, hidden.lengths)


def test_new_names_of_weight_norm_are_understood(tmp_path: Path) -> None:
    _, held = _hubert(_settings(*VARIANTS[0]), False)
    torch.save(held, tmp_path / "old.pt")
    new = {"weight_g": "parametrizations.weight.original0",
           "weight_v": "parametrizations.weight.original1"}  # fmt: skip
    held["model_weight"] = {
        ".".join(new.get(part, part) for part in name.split(".")): tensor
        for name, tensor in held["model_weight"].items()
    }
    torch.save(held, tmp_path / "new.pt")
    before, after = (store.fingerprint(f"s3prl:{tmp_path / name}.pt") for name in ("old", "new"))
    assert before == after


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("mode", ["default", "layer_norm"])
def test_a_distiller(mode: str, norm_first: bool, tmp_path: Path, capsys: Any) -> None:
    settings = _settings(mode, norm_first, str(SHAPES))
    settings["extractor_conv_feature_layers"] = settings.pop("conv_feature_layers")
    settings |= {"encoder_layers": 2, "n_tasks": 3, "pred_layer_id": [1, 2, 3], "final_dim": DIM,
                 "out_layer_type": "expand-last"}  # fmt: skip
    theirs = shaken(distiller.DistillerModel(distiller.DistillerConfig(settings)))
    held = {"Distiller": theirs.state_dict(), "Config": {"distiller": settings},
            "Args": Namespace(upstream="distiller"), "Optimizer": {"state": {}}}  # fmt: skip
    torch.save(held, tmp_path / "states.ckpt")
    ours, waveforms = encoders.load(f"s3prl:{tmp_path / 'states.ckpt'}"), speech_like()[:1]
    assert not ours.spec.feature_norm
    with torch.no_grad():
        hidden = ours(waveforms)
        _, _, _, _, layers = theirs(waveforms, torch.ones(1, 2600), get_hidden=True, no_pred=True)
    if norm_first:
        layers[-1] = theirs.encoder.layer_norm(layers[-1])
    assert_same(hidden.states[1:], layers, hidden.lengths)


CASES = [
    ({"activation_fn": "relu"}, Unsupported, "activation_fn='relu'"),
    ({"quantize_input": True}, Unsupported, "quantize_input=True"),
    ({"layer_type": "conformer"}, Unsupported, "layer_type='conformer'"),
    ({"encoder_layers": 10**9}, InputError, "expected a whole number up to 512"),
    ({"encoder_attention_heads": 5}, InputError, "5 heads, which do not divide width 24"),
    ({"conv_feature_layers": "__import__('os').system('touch planted')"}, InputError,
     "expected a sum of lists"),
    ({"conv_feature_layers": "[(8,10,5)] * 99 + [(8,0,2)]"}, InputError, "none of 0"),
    ({"extractor_mode": "batch"}, InputError, "expected default or layer_norm"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "kind", "message"), CASES)
def test_settings_that_nothing_here_computes(
    change: dict[str, Any], kind: type, message: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    _, held = _hubert(_settings(*VARIANTS[0]), False)
    held["model_cfg"] |= change
    torch.save(held, tmp_path / "converted.pt")
    with pytest.raises(kind, match=message):
        encoders.load("s3prl:converted.pt")
    assert not (tmp_path / "planted").exists()


def test_a_checkpoint_of_fairseq_says_how_to_convert_it(tmp_path: Path) -> None:
    torch.save({"args": Namespace(arch="hubert"), "model": {}, "cfg": None}, tmp_path / "x.pt")
    with pytest.raises(InputError, match="holds args, model, cfg; expected what s3prl converted"):
        encoders.load(f"s3prl:{tmp_path / 'x.pt'}")
