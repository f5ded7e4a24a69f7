"""Bundles of torchaudio become the encoder that the bundle's own model is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from parity import assert_same, speech_like, torchaudio_arguments, torchaudio_model
from torchaudio import pipelines

import encoders
from core.errors import InputError
from encoders import store


class Planted:
    """Something that pickle would build by a call."""

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (Path("planted"),)


def _bundle(tmp_path: Path, name: str, state: dict[str, Any], arguments: dict[str, Any]) -> Any:
    """The bundle with a small model that lies where torchaudio would have downloaded it to."""
    bundle = getattr(pipelines, name)
    file = tmp_path / "hub" / "checkpoints" / f"{name}.pth"
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, file)
    return replace(bundle, _path=f"https://localhost/{name}.pth", _params=arguments)


CASES = [  # bundle, factory, norm of the front end, pre-norm
    ("HUBERT_BASE", "wav2vec2", "group", False),
    ("HUBERT_LARGE", "wav2vec2", "layer", True),
    ("WAV2VEC2_ASR_BASE_960H", "wav2vec2", "group", False),
    ("WAVLM_BASE_PLUS", "wavlm", "group", False),
    ("WAVLM_LARGE", "wavlm", "layer", True),
    ("MMS_FA", "wav2vec2", "layer", True),
]


@pytest.mark.parametrize(("name", "factory", "norm", "norm_first"), CASES)
def test_a_bundle(
    name: str, factory: str, norm: str, norm_first: bool, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    head = name.startswith(("WAV2VEC2_ASR", "MMS"))  # of which bundles take three classes off
    arguments = torchaudio_arguments(factory, norm, norm_first) | {
        "aux_num_out": 5 if head else None
    }
    tiny = torchaudio_model(factory, norm, norm_first, aux_num_out=8 if head else None)
    bundle = _bundle(tmp_path, name, tiny.state_dict(), arguments)
    monkeypatch.setattr(pipelines, name, bundle)

    ours, waveforms = encoders.load(f"torchaudio:{name}"), 2 * speech_like()[:1] + 0.3
    assert ours.spec.family == {"HUBERT": "hubert", "WAVLM": "wavlm"}.get(
        name.split("_")[0], "wav2vec2"
    )
    assert ours.spec.normalize_waveform == (norm == "layer")
    with torch.no_grad():
        expected, _ = bundle.get_model().extract_features(waveforms)
        hidden = ours(waveforms)
    if norm_first:  # torchaudio leaves the last state before the final LayerNorm
        expected[-1] = tiny.encoder.transformer.layer_norm(expected[-1])
    assert_same(hidden.states[1:], expected, hidden.lengths)
    assert store.fingerprint(f"torchaudio:{name}") == store.fingerprint(f"torchaudio:{name}")


def test_a_download_that_needs_pickle_runs_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    arguments = torchaudio_arguments("wav2vec2", "group", False)
    bundle = _bundle(tmp_path, "HUBERT_BASE", {"planted": Planted()}, arguments)
    monkeypatch.setattr(pipelines, "HUBERT_BASE", bundle)
    with pytest.raises(InputError, match="HUBERT_BASE cannot be loaded"):
        encoders.load("torchaudio:HUBERT_BASE")
    assert not (tmp_path / "planted").exists()


@pytest.mark.parametrize("name", ["HUBERT_BAS", "TACOTRON2_WAVERNN_CHAR_LJSPEECH", "__all__"])
def test_what_is_no_bundle_of_speech(name: str) -> None:
    with pytest.raises(InputError, match="torchaudio has no bundle"):
        encoders.load(f"torchaudio:{name}")
    with pytest.raises(InputError, match="did you mean 'HUBERT_BASE'"):
        encoders.load("torchaudio:HUBERT_BAS")
