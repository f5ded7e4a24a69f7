"""Models of other libraries with our weights give our hidden states, at every state."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch

from core.errors import Unsupported
from core.spec import ConvFrontEnd, LayerSpec, ModelSpec, Positions
from encoders import build, cut, zoo
from encoders.counterparts import LIBRARIES, S3prl, Torchaudio, Transformers
from encoders.model import Encoder

TOLERANCE = 1e-4
FAMILIES = ("hubert", "wav2vec2", "wavlm")


def _spec(family: str, norm: str = "group", norm_first: bool = False) -> ModelSpec:
    layered = norm == "layer"
    gated = {"gated_buckets": 16, "gated_distance": 12} if family == "wavlm" else {}
    return ModelSpec(
        family, ConvFrontEnd((8, 8, 12, 12), (10, 3, 3, 2), (5, 2, 2, 2), norm, bias=layered),
        24, 4, 6, (LayerSpec.dense(4, 6, 40),) * 3, Positions(8, 4, **gated),
        norm_first=norm_first, normalize_waveform=layered,
    )  # fmt: skip


def _encoder(spec: ModelSpec) -> Encoder:
    """Every tensor away from its initial value, so that no norm or bias hides behind 1 or 0."""
    encoder, generator = build(spec, seed=0), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return encoder.eval()


@pytest.mark.parametrize("samples", [2600, 2640])  # frames even and odd, which s3prl pads
@pytest.mark.parametrize(("norm", "norm_first"), [("group", False), ("layer", True)])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("library", LIBRARIES)
def test_hidden_states_are_ours(
    library: str, family: str, norm: str, norm_first: bool, samples: int
) -> None:
    pytest.importorskip(library)
    ours = _encoder(_spec(family, norm, norm_first))
    theirs = LIBRARIES[library](ours)
    waveforms = torch.randn(2, samples, generator=torch.Generator().manual_seed(0)) + 0.3
    with torch.inference_mode():
        expected = ours(waveforms)
        for _ in range(2):  # nothing is left over from one call to the next
            found = theirs(waveforms)
    states = expected.states[1:] if library == "torchaudio" else expected.states
    assert len(found.states) == len(states)
    assert found.lengths.tolist() == expected.lengths.tolist()
    for index, (a, b) in enumerate(zip(states, found.states, strict=True)):
        assert a.shape == b.shape
        assert (a - b).abs().max() < TOLERANCE, f"state {index}"


def test_the_numbers_of_frames_are_even_and_odd() -> None:
    assert [_spec("hubert").frames(samples) % 2 for samples in (2600, 2640)] == [0, 1]


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_numeric_type_can_be_chosen(library: str) -> None:
    pytest.importorskip(library)
    ours = _encoder(_spec("wavlm"))
    theirs = LIBRARIES[library](ours)
    theirs.cast("bfloat16")
    with torch.inference_mode():
        state = theirs(torch.randn(1, 2600)).states[-1]
    assert state.dtype == torch.bfloat16
    assert next(ours.parameters()).dtype == torch.float32


def test_transformers_runs_fused_attention_where_it_has_it() -> None:
    pytest.importorskip("transformers")
    theirs = Transformers(_encoder(_spec("hubert")))
    assert theirs.model.config._attn_implementation == "sdpa"


def test_s3prl_that_is_missing_is_an_import_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3prl", None)
    monkeypatch.delitem(sys.modules, "s3prl.upstream.hubert", raising=False)
    with pytest.raises(ImportError, match="s3prl"):
        S3prl(_encoder(_spec("hubert")))


def test_what_the_libraries_do_not_have_is_refused() -> None:
    causal = replace(_spec("hubert"), causal=True, positions=Positions(bias_reach=10))
    for spec in (zoo.tiny(), causal):
        with pytest.raises(Unsupported, match="the libraries have"):
            Torchaudio(build(spec, seed=0))


def test_pruned_models_are_refused() -> None:
    small = cut.keep_heads(_encoder(_spec("hubert")), [[0, 1], [0, 1, 2, 3], [0, 1, 2, 3]])
    with pytest.raises(Unsupported, match="dense models alone"):
        Torchaudio(small)


@pytest.mark.parametrize("library", ["torchaudio", "s3prl"])
def test_distilhubert_has_a_tensor_less(library: str) -> None:
    pytest.importorskip(library)
    with pytest.raises(Unsupported, match=f"{library} has a tensor .*layer_norm"):
        LIBRARIES[library](_encoder(replace(_spec("hubert"), feature_norm=False)))


def test_padded_batches_are_refused() -> None:
    theirs = Torchaudio(_encoder(_spec("hubert")))
    with pytest.raises(Unsupported, match="one length"):
        theirs(torch.randn(2, 2600), torch.tensor([2600, 2000]))
