"""MACs against a closed form of the spec, against torch's own counter, and against the papers."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from core.errors import InputError
from core.spec import ConvFrontEnd, LayerSpec, MelFrontEnd, ModelSpec, Positions, Shortening
from encoders import zoo
from encoders.model import Encoder, build
from encoders.workload import Workload
from profilers._base import Setting
from profilers._counter import count
from profilers._ways import Way, speech_of, walk, ways_of
from profilers.macs import Cost, Macs, quadratic

SUPERB32 = Workload.parse("superb32")
TEN = Setting(Workload.parse("seconds:10"))
#: Of the built-in model's kind; what a layer costs, every further one does.
SMALL = replace(zoo.tiny(), layers=zoo.tiny().layers[:2])


def closed_form(spec: ModelSpec, samples: int) -> int:
    """MACs of one utterance, from the spec alone; norms cost 5 per element, 4 without a weight."""
    time, dim = spec.frames(samples), spec.dim
    macs = _front_end(spec.front_end, samples)
    macs += 4 * samples if spec.normalize_waveform else 0
    macs += 5 * time * spec.front_end.dim if spec.feature_norm else 0
    macs += time * spec.front_end.dim * dim if spec.project else 0
    positions = spec.positions
    if positions.conv_kernel:
        outputs = time + 1 - positions.conv_kernel % 2
        macs += outputs * positions.conv_kernel * dim * dim // positions.conv_groups
    if spec.project or spec.layers:
        macs += 5 * time * dim
    return macs + sum(_layer(spec, layer, time) for layer in spec.layers)


def _front_end(front_end: ConvFrontEnd | MelFrontEnd, samples: int) -> int:
    if isinstance(front_end, MelFrontEnd):
        frames = (samples - 400) // 160 + 1
        return frames * (math.ceil(1.25 * 512 * 9) + 256 * front_end.bins)
    macs, inputs = 0, 1
    normed = range(len(front_end.channels)) if front_end.norm == "layer" else (0,)
    for index, outputs in enumerate(front_end.frame_counts(samples)):
        channels = front_end.channels[index]
        macs += outputs * channels * inputs * front_end.kernels[index]
        macs += 5 * outputs * channels if index in normed else 0
        inputs = channels
    return macs


def _layer(spec: ModelSpec, layer: LayerSpec, time: int) -> int:
    macs = 2 * 5 * time * spec.dim
    for role in ("q", "k", "v", "out", "fc1", "fc2"):
        outputs, inputs = layer.linear_shape(role, spec.dim)
        rank = layer.rank(role)
        macs += time * (outputs * inputs if rank is None else rank * (outputs + inputs))
    heads = len(layer.heads)
    macs += time**2 * heads * (max(layer.qk) + max(layer.vo))
    if spec.positions.gated_buckets:
        macs += time * heads * spec.head_dim * 8
    return macs


@st.composite
def specs(draw: st.DrawFn) -> ModelSpec:
    """Small encoders of every family with uneven layers."""
    width = st.integers(1, 8)
    layers = []
    for _ in range(draw(st.integers(0, 2))):
        heads = draw(st.sets(st.integers(0, 3), min_size=1).map(sorted))
        widths = st.lists(width, min_size=len(heads), max_size=len(heads)).map(tuple)
        ranks = draw(st.dictionaries(st.sampled_from(("q", "out", "fc1")), st.integers(1, 3)))
        ffn = draw(st.integers(1, 40))
        layers.append(
            LayerSpec(tuple(heads), draw(widths), draw(widths), ffn, tuple(sorted(ranks.items())))
        )
    front_end = draw(
        st.sampled_from(
            (
                ConvFrontEnd((8,) * 7),
                ConvFrontEnd((4, 8, 8, 8, 8, 8, 8), norm="layer", bias=True),
                MelFrontEnd(6, stack=2),
                MelFrontEnd(6, stack=1, deltas=1),
            )
        )
    )
    kernel = draw(st.sampled_from((0, 5, 16)))
    gated, reach = draw(st.sampled_from(((0, 0), (16, 0), (0, 5))))
    flags = {name: draw(st.booleans()) for name in ("norm_first", "feature_norm")}
    return ModelSpec(
        "hubert", front_end, 32, 4, 8, tuple(layers),
        Positions(kernel, 4, bias_reach=reach, gated_buckets=gated, gated_distance=40),
        normalize_waveform=draw(st.booleans()), **flags,
    )  # fmt: skip


@settings(max_examples=20)
@given(specs(), st.integers(4000, 600_000))
def test_counted_equals_the_closed_form(spec: ModelSpec, samples: int) -> None:
    assert sum(Cost.of(build(spec, 0)).over([samples]).values()) == closed_form(spec, samples)


@pytest.mark.parametrize("name", ["tiny", "fbank"])
def test_formulas_hold_at_a_length_that_was_not_traced(name: str) -> None:
    encoder = build(zoo.SPECS[name](), 0)
    traced = count(encoder, 41_003)
    formulas = Cost.of(encoder).over([41_003])
    assert formulas == {(path, operation): traced[path][operation] for path, operation in formulas}
    assert sum(formulas.values()) == sum(sum(own.values()) for own in traced.values())


@pytest.mark.parametrize("name", ["tiny", "distilhubert"])
def test_torch_counts_the_same_matrix_products(name: str) -> None:
    encoder = build(zoo.SPECS[name](), 0).eval()
    ours = sum(
        macs
        for own in count(encoder, 8000).values()
        for operation, macs in own.items()
        if "norm" not in operation and "fft" not in operation
    )
    # With gradients, as torch does not know the kernel of inference either.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as torchs:
        encoder(torch.zeros(1, 8000))
    assert torchs.get_total_flops() == 2 * ours


def shaped(spec: ModelSpec) -> Encoder:
    """An encoder of that shape with weights of 0, made at once however large it is."""
    with torch.device("meta"):
        encoder = build(spec)
    encoder.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.zero_()
    return encoder


def superb32(spec: ModelSpec) -> float:
    total = sum(Cost.of(shaped(spec)).over(SUPERB32.lengths).values())
    assert total == sum(closed_form(spec, samples) for samples in SUPERB32.lengths)
    return float(total)


def test_hubert_base_costs_what_superb_publishes() -> None:
    assert superb32(zoo.hubert_base()) / 1e9 == pytest.approx(1668.5, abs=0.05)


def test_melhubert_costs_what_its_papers_publish() -> None:
    """G MACs per second. The pruned shapes are counted where compressors are tested."""
    per_second = superb32(zoo.melhubert_20ms()) / SUPERB32.seconds / 1e9
    assert per_second == pytest.approx(4.94, rel=0.002)


def test_twice_the_length_costs_more_than_twice() -> None:
    cost = Cost.of(build(SMALL, 0))
    once, twice = (sum(cost.over([samples]).values()) for samples in (160_000, 320_000))
    assert twice > 2 * once


def test_parts_add_up_to_the_total() -> None:
    measurement = Macs().measure(build(SMALL, 0), replace(TEN, workload=SUPERB32))
    total = measurement.values["macs_dense"]
    assert sum(measurement.details["modules"].values()) == total
    assert sum(measurement.details["operations"].values()) == total
    assert sum(measurement.details["buckets"].values()) == total
    assert measurement.values["macs_superb32"] == total
    assert measurement.values["macs_per_second"] == total / 224.86


def test_a_zero_weight_lowers_the_nonzero_count_only() -> None:
    encoder = build(SMALL, 0)
    before = Macs().measure(encoder, TEN).values
    fc1 = encoder.layers[1].fc1
    with torch.no_grad():
        fc1.weight[:, ::2] = 0
    after = Macs().measure(encoder, TEN).values
    assert after["macs_dense"] == before["macs_dense"]
    spared = encoder.spec.frames(160_000) * fc1.weight.numel() // 2
    assert before["macs_nonzero"] - after["macs_nonzero"] == pytest.approx(spared, rel=1e-3)


class _Heavy(nn.Module):
    """A front end behind an operation that multiplies and that nobody gave a handler."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, waveforms: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        features, frames = self.inner(waveforms, lengths)
        return torch.cdist(features, features) @ features, frames


def test_an_operation_that_cannot_be_counted_is_an_error() -> None:
    encoder = build(SMALL, 0)
    encoder.front_end = _Heavy(encoder.front_end)
    with pytest.raises(InputError, match=r"'aten::cdist' in module '.*front_end'"):
        Macs().measure(encoder, TEN)


class _Cubic(nn.Module):
    """A map whose cost grows with the third power of the frames."""

    def forward(self, x: Tensor) -> Tensor:
        scores = x @ x.mT
        return scores @ scores @ x


def test_a_count_of_no_known_law_is_an_error() -> None:
    encoder = build(SMALL, 0)
    encoder.norm = _Cubic()
    with pytest.raises(InputError, match="MACs of matmul in 'norm'"):
        Macs().measure(encoder, TEN)


SHORTENED = (
    Shortening("mean", factor=2.5),
    Shortening("mean", factor=48),
    Shortening("conv", factor=4),
    Shortening("cif", strength=0.6),
    Shortening("cif", strength=1.9),
)


#: Of the built-in model, and a small one with HuBERT's front end and positions.
BOTH = {
    "mel": SMALL,
    "conv": replace(
        zoo.distilhubert(), front_end=ConvFrontEnd((8,) * 7), dim=32, total_heads=4, head_dim=8,
        layers=(LayerSpec.dense(4, 8, 64),) * 2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("shortening", SHORTENED, ids=str)
@pytest.mark.parametrize("name", BOTH)
def test_tokens_cost_what_a_trace_counts(name: str, shortening: Shortening) -> None:
    """Counted along the way it took, an utterance costs what its own trace says."""
    encoder = build(replace(BOTH[name], shortening=shortening), 0)
    traced = count(encoder.eval(), 41_003)
    cost, ways = Cost.of(encoder), walk(encoder, torch.zeros(1, 41_003))
    assert ways[0].tokens < encoder.spec.frames(41_003)
    formulas = cost.along(ways)
    assert formulas == {(path, operation): traced[path][operation] for path, operation in formulas}
    assert sum(formulas.values()) == sum(sum(own.values()) for own in traced.values())


def corpus_of(*seconds: float) -> Workload:
    """A corpus of noise whose level rises and falls, so that its frames differ."""
    lengths = tuple(round(s * 16_000) for s in seconds)

    def waveform(index: int) -> Tensor:
        generator = torch.Generator().manual_seed(index)
        swell = torch.linspace(0, 9 * index + 9, lengths[index]).sin()
        return swell * torch.randn(lengths[index], generator=generator)

    return Workload("corpus", lengths, waveform, {})


def cif(strength: float) -> Encoder:
    """A tiny encoder whose alpha follows the content."""
    spec = replace(SMALL, shortening=Shortening("cif", strength=strength))
    encoder = build(spec, 0)
    with torch.no_grad():
        encoder.shortening.linear.weight.mul_(20)
    return encoder


def test_what_is_said_decides_what_is_counted() -> None:
    encoder, workload = cif(1.2), corpus_of(1.0, 2.5, 1.7)
    measured, cost = Macs().measure(encoder, Setting(workload)), Cost.of(encoder)
    macs, tokens = 0, 0
    for index in range(3):
        waveform = workload.waveform(index)[None]
        tokens += int(encoder.eval()(waveform).tokens)
        macs += sum(cost.along(walk(encoder, waveform)).values())
    assert measured.values["macs_dense"] == macs == sum(measured.details["modules"].values())
    assert measured.details["token_ms"] == pytest.approx(5200 / tokens)
    # The very same lengths with other content cost something else.
    silent = replace(workload, waveform=lambda index: workload.waveform(index) * 0)
    assert sum(cost.along(ways_of(encoder, silent)).values()) != macs


def test_utterances_are_told_apart_in_their_order() -> None:
    """Those of one length are encoded together, the results in the workload's order."""
    encoder, workload = cif(1.2), corpus_of(1.0, 2.5, 1.0, 1.7, 2.5, 1.0)
    ways = ways_of(encoder, workload)
    for index, way in enumerate(ways):
        assert way == walk(encoder, workload.waveform(index)[None])[0]
    assert len(set(ways)) > 3, "the content decides"


def test_superb32_of_speech_is_speech_of_these_lengths() -> None:
    encoder, workload = cif(1.2), corpus_of(1.0, 2.5, 1.7)
    pieces = list(speech_of(workload, [20_000, 90_000, 100]))
    assert [len(piece) for piece in pieces] == [20_000, 90_000, 100]
    assert torch.equal(pieces[0], torch.cat([workload.waveform(0), workload.waveform(1)[:4_000]]))
    assert torch.equal(pieces[1][:27_200], workload.waveform(2))
    measured = Macs().measure(encoder, Setting(workload))
    ways = [walk(encoder, s[None])[0] for s in speech_of(workload, SUPERB32.lengths)]
    assert measured.values["macs_superb32"] == sum(Cost.of(encoder).along(ways).values())
    assert measured.values["macs_superb32"] < sum(
        Cost.of(build(SMALL, 0)).over(SUPERB32.lengths).values()
    )


def test_noise_is_no_speech() -> None:
    measured = Macs().measure(cif(1.2), TEN)
    assert "macs_superb32" not in measured.values
    assert "tokens depend on what is said" in measured.details["unavailable"]["macs_superb32"]
    with pytest.raises(InputError, match="depend on what is said"):
        Cost.of(cif(1.2)).over([16_000])


def test_a_layer_counts_for_those_who_reached_it() -> None:
    cost = Cost.of(build(zoo.tiny(), 0))
    whole = cost.along([Way(16_000, 49, 6), Way(32_000, 99, 6)])
    early = cost.along([Way(16_000, 49, 2), Way(32_000, 99, 6)])
    alone = cost.along([Way(32_000, 99, 6)])
    for path, operation in whole:
        reached = path.partition(".")[0] != "layers" or int(path.split(".")[1]) < 2
        expected = whole if reached else alone
        assert early[path, operation] == expected[path, operation]


def test_once_for_all_costs_what_its_paper_publishes() -> None:
    """Chen et al. 2022: the Transformer with its CIF module at 90 and at 960 ms per token.

    The Transformer is its layers and its positional convolution; alpha's convolution runs on all
    frames. Without the positional convolution the reductions are 68.2 and 86.8 %.
    """
    spec = zoo.distilhubert()
    dense, joined = Cost.of(shaped(spec)), Cost.of(shaped(replace(spec, shortening=SHORTENED[3])))

    def transformer(cost: Cost, ms: float) -> int:
        ways = [Way(n, round(spec.frames(n) * 20 / ms), 2) for n in SUPERB32.lengths]
        parts = ("layers", "conv_positions", "shortening")
        total = cost.along(ways)
        return sum(macs for (path, _), macs in total.items() if path.split(".")[0] in parts)

    for ms, published in ((90, 68.7), (960, 90.6)):
        reduction = 100 * (1 - transformer(joined, ms) / transformer(dense, 20))
        assert reduction == pytest.approx(published, abs=3)


def test_an_utterance_without_a_frame_is_an_error() -> None:
    with pytest.raises(InputError, match="399 samples holds no frame"):
        Cost.of(build(SMALL, 0)).over([16_000, 399])


whole = st.integers(-(10**12), 10**12)


@given(whole, whole, whole, st.lists(st.integers(0, 10**6), min_size=3, max_size=3, unique=True))
def test_three_points_make_a_parabola(c0: int, c1: int, c2: int, at: list[int]) -> None:
    counts = [c0 + c1 * x + c2 * x**2 for x in at]
    assert quadratic(at, counts) == (c0, c1, c2)
