"""The shapes of the published models, and of ours. No weights, no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from core.spec import ConvFrontEnd, LayerSpec, MelFrontEnd, ModelSpec, Positions

_CONV = Positions(conv_kernel=128, conv_groups=16)
_WAVLM = replace(_CONV, gated_buckets=320, gated_distance=800)


def hubert_base() -> ModelSpec:
    """HuBERT Base (Hsu et al. 2021, arXiv 2106.07447): 94.371 M parameters."""
    return ModelSpec(
        "hubert", ConvFrontEnd(), 768, 12, 64, (LayerSpec.dense(12, 64, 3072),) * 12, _CONV
    )


def hubert_large() -> ModelSpec:
    """HuBERT Large: pre-norm, LayerNorm in the front end, normalised waveforms."""
    return ModelSpec(
        "hubert",
        ConvFrontEnd(norm="layer", bias=True),
        1024,
        16,
        64,
        (LayerSpec.dense(16, 64, 4096),) * 24,
        _CONV,
        norm_first=True,
        normalize_waveform=True,
    )


def wav2vec2_base() -> ModelSpec:
    """wav2vec 2.0 Base (Baevski et al. 2020, arXiv 2006.11477)."""
    return replace(hubert_base(), family="wav2vec2")


def wav2vec2_large() -> ModelSpec:
    """wav2vec 2.0 Large as trained on LibriSpeech: post-norm and GroupNorm, as Base."""
    layers = (LayerSpec.dense(16, 64, 4096),) * 24
    return replace(wav2vec2_base(), dim=1024, total_heads=16, layers=layers)


def wav2vec2_large_lv60k() -> ModelSpec:
    """wav2vec 2.0 Large as trained on Libri-Light: pre-norm and LayerNorm."""
    return replace(hubert_large(), family="wav2vec2")


def wavlm_base() -> ModelSpec:
    """WavLM Base (Chen et al. 2022, arXiv 2110.13900): 94.381 M parameters."""
    return replace(hubert_base(), family="wavlm", positions=_WAVLM)


def wavlm_base_plus() -> ModelSpec:
    """WavLM Base+: the shape of Base, trained on more."""
    return wavlm_base()


def wavlm_large() -> ModelSpec:
    """WavLM Large; its convolutions have no bias, unlike HuBERT Large's."""
    return replace(
        hubert_large(),
        family="wavlm",
        front_end=ConvFrontEnd(norm="layer", bias=False),
        positions=_WAVLM,
    )


def melhubert_20ms() -> ModelSpec:
    """MelHuBERT, 20 ms (Lin et al. 2022, arXiv 2211.09944): log-mel input, 89.84 M parameters."""
    return replace(
        hubert_base(), family="melhubert", front_end=MelFrontEnd(40, stack=2), feature_norm=False
    )


def melhubert_10ms() -> ModelSpec:
    """MelHuBERT, 10 ms: one log-mel frame per hidden state."""
    return replace(melhubert_20ms(), front_end=MelFrontEnd(40, stack=1))


def distilhubert() -> ModelSpec:
    """DistilHuBERT's encoder (Chang et al. 2022, arXiv 2110.01900): 23.49 M parameters."""
    return replace(hubert_base(), layers=(LayerSpec.dense(12, 64, 3072),) * 2, feature_norm=False)


def tiny() -> ModelSpec:
    """The built-in model: MelHuBERT's idea in 1.2 M parameters, relative bias for positions."""
    return ModelSpec(
        "melhubert",
        MelFrontEnd(40, stack=2),
        128,
        8,
        16,
        (LayerSpec.dense(8, 16, 512),) * 6,
        Positions(bias_reach=50),
        feature_norm=False,
        normalize_waveform=True,
    )


def tiny_causal() -> ModelSpec:
    """The built-in model's shape attending to the past alone, for APC and VQ-APC."""
    return replace(tiny(), causal=True)


def fbank() -> ModelSpec:
    """SUPERB's FBANK baseline: 80 log-mel bins with two orders of deltas, and no network.

    SUPERB standardises each utterance's frames; here its waveform is normalised, which takes off
    the recording level and leaves the spectrum for the heads to standardise.
    """
    front_end = MelFrontEnd(80, stack=1, deltas=2)
    return ModelSpec(
        "fbank",
        front_end,
        front_end.dim,
        0,
        0,
        (),
        feature_norm=False,
        project=False,
        normalize_waveform=True,
    )


SPECS: dict[str, Callable[[], ModelSpec]] = {
    spec.__name__: spec
    for spec in (
        hubert_base,
        hubert_large,
        wav2vec2_base,
        wav2vec2_large,
        wav2vec2_large_lv60k,
        wavlm_base,
        wavlm_base_plus,
        wavlm_large,
        melhubert_20ms,
        melhubert_10ms,
        distilhubert,
        tiny,
        tiny_causal,
        fbank,
    )
}
