"""Extraction: what an utterance's features are must not depend on its neighbours."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from core.errors import InputError
from core.spec import ConvFrontEnd, LayerSpec
from encoders import zoo
from encoders.corpora.base import Corpus, Item
from encoders.hidden_cache import Shards
from encoders.model import Encoder, build
from tasks import _features
from tasks._features import Features, Keeping, batches, extract


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
    features = extract(build(zoo.tiny(), seed=0).eval(), corpus, corpus.items[1:], corpus.items[:1])
    every = extract(build(zoo.tiny(), seed=0).eval(), corpus, [], corpus.items)
    frames = torch.cat(list(every.frames.values()), dim=1).double()
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


# Where hidden states are kept must change nothing but the time they take.

LENGTHS = (16000, 12345, 16000, 9000, 20000, 7000, 16000)


@pytest.fixture
def encoder() -> Encoder:
    return build(zoo.tiny(), seed=0).eval()


@pytest.fixture
def encoded(monkeypatch) -> list[int]:
    """How many utterances each call of an encoder was given; batches are of 2 s."""
    seen: list[int] = []
    forward = Encoder.forward

    def count(self, waveforms, lengths=None):
        seen.append(len(waveforms))
        return forward(self, waveforms, lengths)

    monkeypatch.setattr(Encoder, "forward", count)
    monkeypatch.setattr(_features, "BATCH_SECONDS", 2.0)
    return seen


@pytest.fixture
def shards(tmp_path) -> Shards:
    (tmp_path / "hidden" / "model").mkdir(parents=True)
    return Shards(tmp_path / "hidden" / "model", 1e9)


def equal(one: Features, other: Features) -> bool:
    """Bit by bit, frames and all that is known of them."""
    assert one.counts == other.counts
    assert one.frames.keys() == other.frames.keys()
    pairs = [(one.mean, other.mean), (one.std, other.std)]
    pairs += [(one.means[key], other.means[key]) for key in one.means]
    pairs += [(one.frames[key], other.frames[key]) for key in one.frames]
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_frames_from_memory_from_disk_and_encoded_again_are_the_same(
    dtype, encoder, encoded, shards
):
    corpus = Noise(*LENGTHS)
    framed, pooled = corpus.items[:5], corpus.items

    def made(shards: Shards | None, memory: float = 1e9) -> Features:
        return extract(encoder, corpus, pooled, framed, Keeping(shards, dtype, memory))

    reference = made(None)
    assert reference.frames["u0"].dtype == getattr(torch, dtype)
    assert equal(made(None, memory=0), reference)
    assert equal(made(shards, memory=0), reference)
    encoded.clear()
    assert equal(made(shards, memory=0), reference)
    assert encoded == []


def test_means_are_there_once_frames_were_kept(encoder, encoded, shards):
    corpus = Noise(*LENGTHS)
    extract(encoder, corpus, [], corpus.items, Keeping(shards))
    encoded.clear()
    features = extract(encoder, corpus, corpus.items, [], Keeping(shards))
    assert encoded == []
    assert len(features.means) == len(LENGTHS)
    assert len(features.frames) == 0


def test_only_batches_that_are_gone_are_encoded_again(encoder, encoded, shards):
    corpus = Noise(*LENGTHS)
    reference = extract(encoder, corpus, [], corpus.items, Keeping(shards))
    whole = list(encoded)
    for path in sorted(shards.folder.glob("frames-*"))[::2]:
        path.unlink()
    encoded.clear()
    assert equal(extract(encoder, corpus, [], corpus.items, Keeping(shards)), reference)
    assert 0 < len(encoded) < len(whole)


def test_changed_audio_is_encoded_again(encoder, encoded, shards):
    class Louder(Noise):
        def waveform(self, item: Item) -> torch.Tensor:
            return super().waveform(item) * (2 if item.key == "u3" else 1)

    corpus = Noise(*LENGTHS)
    before = extract(encoder, corpus, [], corpus.items, Keeping(shards))
    encoded.clear()
    after = extract(encoder, Louder(*LENGTHS), [], corpus.items, Keeping(shards))
    assert len(encoded) == 1
    assert not torch.equal(before.frames["u3"], after.frames["u3"])
    assert torch.equal(before.frames["u4"], after.frames["u4"])


def test_memory_is_bounded_and_the_rest_is_encoded_once_for_each_use(encoder, encoded):
    corpus, said = Noise(*LENGTHS), []
    size = 4 * 3 * zoo.tiny().dim * zoo.tiny().frames(sum(LENGTHS))
    keeping = Keeping(memory=size / 2, tell=said.append)
    features = extract(encoder, corpus, [], corpus.items, keeping)
    whole = list(encoded)
    held = sum(tensor.nbytes for tensor in features.frames._kept.values())
    assert 0 < held <= size / 2
    assert 0 < features.frames.lacking < len(LENGTHS)
    assert f"{features.frames.lacking} utterances" in said[0]
    encoded.clear()
    backwards = features.joined(corpus.items[::-1])
    assert 0 < len(encoded) < len(whole)
    unbounded = extract(encoder, corpus, [], corpus.items)
    assert torch.equal(backwards, unbounded.joined(corpus.items[::-1]))
    assert torch.equal(features.joined(corpus.items, 1), unbounded.joined(corpus.items)[1])


def test_size_is_said_once_and_only_before_something_is_written(encoder, encoded, shards):
    corpus, said = Noise(*LENGTHS), []
    keeping = Keeping(shards, tell=said.append)
    extract(encoder, corpus, corpus.items, [], keeping)
    assert said == []
    extract(encoder, corpus, [], corpus.items, keeping)
    extract(encoder, corpus, [], corpus.items, keeping)
    written = sum(path.stat().st_size for path in shards.folder.glob("frames-*"))
    (line,) = said
    assert line.startswith(f"hidden states of {len(LENGTHS)} utterances: 0.00")
    assert float(line.split()[5]) == pytest.approx(written / 1e9, rel=0.03)
    assert line.endswith("cache limit 1 GB")


def test_utterances_with_other_labels_change_no_bit(encoder, encoded):
    corpus = Noise(*LENGTHS)
    corpus.items = [
        Item(item.key, item.seconds, {"word" if place % 2 else "text": "x"}, item.split)
        for place, item in enumerate(corpus.items)
    ]
    words = [item for item in corpus.items if "word" in item.labels]
    alone, among = (extract(encoder, corpus, [], some) for some in (words, corpus.items))
    for item in words:
        assert torch.equal(alone.frames[item.key], among.frames[item.key])


def test_waveforms_go_to_the_device_of_the_encoder(encoder, monkeypatch):
    went: list[torch.device] = []
    move = torch.Tensor.to

    def spy(self, *where, **how):
        went.extend(place for place in where if isinstance(place, torch.device))
        return move(self, *where, **how)

    monkeypatch.setattr(torch.Tensor, "to", spy)
    corpus = Noise(16000)
    features = extract(encoder, corpus, [], corpus.items)
    assert went[:2] == [next(encoder.parameters()).device] * 2
    assert features.frames["u0"].device.type == "cpu"


class Cramped(Encoder):
    """Runs out of memory on batches of more than so many utterances, as torch does."""

    def __init__(self, spec, most: int, error: Exception) -> None:
        super().__init__(spec)
        self.most, self.error, self.sizes = most, error, []

    def forward(self, waveforms, lengths=None):
        if len(waveforms) > self.most:
            raise self.error
        self.sizes.append(len(waveforms))
        return super().forward(waveforms, lengths)


def no_memory() -> RuntimeError:
    """torch's own words."""
    try:
        torch.empty(2**62, dtype=torch.uint8)
    except RuntimeError as error:
        return error
    raise AssertionError("the machine has 4 exbibytes")


CUDA = torch.OutOfMemoryError(
    "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.10 GiB of "
    "which 5.02 GiB is free."
)


@pytest.mark.parametrize("error", [no_memory(), MemoryError(), CUDA], ids=["cpu", "python", "cuda"])
def test_where_memory_runs_out_smaller_batches_give_the_same(error):
    torch.manual_seed(0)
    encoder = Cramped(zoo.tiny(), 7, error).eval()
    corpus, told = Noise(*range(9000, 9700, 100)), []
    whole = extract(encoder, corpus, corpus.items[:2], corpus.items[2:])
    encoder.most, encoder.sizes = 2, []
    parts = extract(encoder, corpus, corpus.items[:2], corpus.items[2:], Keeping(tell=told.append))
    assert encoder.sizes == [1, 2, 2, 2], "halves, as often as it takes"
    assert "did not hold" in told[0]
    assert parts.counts == whole.counts
    for item in corpus.items:
        torch.testing.assert_close(parts.means[item.key], whole.means[item.key])
    for item in corpus.items[2:]:
        torch.testing.assert_close(parts.frames[item.key], whole.frames[item.key])


def test_an_utterance_that_memory_does_not_hold_alone_is_an_error_and_so_is_any_other():
    corpus = Noise(9000, 9100)
    with pytest.raises(torch.OutOfMemoryError):
        extract(Cramped(zoo.tiny(), 0, CUDA), corpus, corpus.items, [])
    encoder = Cramped(zoo.tiny(), 1, RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        extract(encoder, corpus, corpus.items, [])
    assert encoder.sizes == []
