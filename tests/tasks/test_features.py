"""Extraction: what an utterance's features are must not depend on its neighbours."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from core.errors import InputError
from core.spec import ConvFrontEnd, LayerSpec
from encoders import zoo
from encoders.corpora.base import Corpus, Item
from encoders.model import build
from tasks._features import batches, extract


class Noise(Corpus):
    def __init__(self, *samples: int) -> None:
        items = [Item(f"u{n}", count / 16000, {}, "train") for n, count in enumerate(samples)]
        super().__init__("noise", items, "0")

    def waveform(self, item: Item) -> torch.Tensor:
        generator = torch.Generator().manual_seed(int(item.key[1:]))
        return torch.randn(item.samples, generator=generator)


def small_conv(norm: str):
    front_end = ConvFrontEnd(channels=(16,) * 7, norm=norm)
    return replace(
        zoo.hubert_base(), front_end=front_end, dim=32, total_heads=2, head_dim=16,
        layers=(LayerSpec.dense(2, 16, 64),) * 2,
        positions=replace(zoo.hubert_base().positions, conv_kernel=16, conv_groups=4),
    )  # fmt: skip


SPECS = {
    "tiny": zoo.tiny(),
    "fbank": zoo.fbank(),
    "conv-group": small_conv("group"),
    "conv-layer": small_conv("layer"),
}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_batched_features_equal_those_alone(spec):
    encoder = build(spec, seed=0).eval()
    corpus = Noise(16000, 12345, 16000, 9000)
    together = extract(encoder, corpus, [], corpus.items)
    for item in corpus.items:
        with torch.inference_mode():
            alone = torch.cat(encoder(corpus.waveform(item)[None]).states)
        torch.testing.assert_close(together.frames[item.key], alone, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(together.means[item.key], alone.mean(1), atol=1e-4, rtol=1e-4)


def test_statistics_are_those_of_all_training_frames():
    corpus = Noise(16000, 12345)
    features = extract(build(zoo.tiny(), seed=0).eval(), corpus, [], corpus.items)
    frames = torch.cat(list(features.frames.values()), dim=1).double()
    torch.testing.assert_close(features.mean.double(), frames.mean(1), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(
        features.std.double(), frames.std(1, correction=0), atol=1e-2, rtol=1e-2
    )


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_batches_mix_lengths_unless_they_are_to_be_equal(spec):
    corpus = Noise(16000, 12345, 16000, 9000)
    assert len(list(batches(corpus.items, spec))) == 1
    parts = list(batches(corpus.items, spec, equal_only=True))
    assert sorted(len(part) for part in parts) == [1, 1, 2]


def test_utterance_shorter_than_a_frame_is_named():
    corpus = Noise(300)
    with pytest.raises(InputError, match="u0"):
        extract(build(zoo.tiny(), seed=0), corpus, corpus.items, [])
