"""`build` makes every shape that a spec can say, and nothing that it does not say."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from core.errors import InputError
from core.spec import ROLES, ConvFrontEnd, LayerSpec, MelFrontEnd, ModelSpec, Positions
from encoders import build, zoo
from encoders.model import from_state, outline
from encoders.pretext import ClusterHead, HubertHead

HEADS, HEAD_DIM = 4, 6
DIM = HEADS * HEAD_DIM


@st.composite
def layers(draw: st.DrawFn) -> LayerSpec:
    heads = tuple(sorted(draw(st.sets(st.integers(0, HEADS - 1)))))
    widths = st.lists(st.integers(0, HEAD_DIM), min_size=len(heads), max_size=len(heads))
    ranks = draw(st.dictionaries(st.sampled_from(ROLES), st.integers(1, 4)))
    return LayerSpec(
        heads,
        tuple(draw(widths)),
        tuple(draw(widths)),
        draw(st.integers(0, 9)),
        tuple((role, ranks[role]) for role in ROLES if role in ranks),
    )


POSITIONS = (
    Positions(),
    Positions(bias_reach=3),
    Positions(conv_kernel=5, conv_groups=4, gated_buckets=8, gated_distance=20),
    Positions(conv_kernel=4, conv_groups=2),
)
FRONT_ENDS = (
    MelFrontEnd(8, stack=2, deltas=1),
    MelFrontEnd(8, stack=3),
    ConvFrontEnd((6, 8), (10, 4), (40, 4), norm="group"),
    ConvFrontEnd((6, 8), (10, 4), (40, 4), norm="layer", bias=True),
)


@st.composite
def specs(draw: st.DrawFn) -> ModelSpec:
    return ModelSpec(
        "test",
        draw(st.sampled_from(FRONT_ENDS)),
        DIM,
        HEADS,
        HEAD_DIM,
        tuple(draw(st.lists(layers(), max_size=2))),
        draw(st.sampled_from(POSITIONS)),
        norm_first=draw(st.booleans()),
        feature_norm=draw(st.booleans()),
        normalize_waveform=draw(st.booleans()),
    )


@given(specs())
def test_spec_and_state_rebuild_the_encoder(spec: ModelSpec) -> None:
    again = ModelSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert again == spec
    encoder = build(spec, seed=3)
    copy = from_state(again, encoder.state_dict())
    waveforms = torch.randn(2, 2000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        first, second = encoder(waveforms), copy(waveforms)
    assert len(first.states) == len(spec.layers) + 1
    for a, b in zip(first.states, second.states, strict=True):
        assert a.shape == (2, spec.frames(2000), DIM)
        assert a.isfinite().all()
        assert torch.equal(a, b)


@given(specs())
def test_linear_maps_have_the_shapes_of_the_spec(spec: ModelSpec) -> None:
    encoder = build(spec)
    for layer, module in zip(spec.layers, encoder.layers, strict=True):
        maps = {role: getattr(module.attention, role) for role in ROLES[:4]}
        maps |= {"fc1": module.fc1, "fc2": module.fc2}
        for role, linear in maps.items():
            assert linear.weight.shape == layer.linear_shape(role, DIM)
            if layer.rank(role):
                assert linear.down.weight.shape[0] == layer.rank(role)


@given(specs(), st.integers(1, 2000), st.booleans())
def test_padding_changes_no_valid_frame(spec: ModelSpec, cut: int, training: bool) -> None:
    encoder, length = build(spec, seed=1), 3000 - cut
    waveforms = torch.randn(2, 3000, generator=torch.Generator().manual_seed(0))
    waveforms[1, length:] = 0
    with torch.set_grad_enabled(training):
        batch = encoder(waveforms, torch.tensor([3000, length]))
        alone = encoder(waveforms[1:, :length])
    frames = spec.frames(length)
    assert batch.lengths.tolist() == [spec.frames(3000), frames]
    for padded, single in zip(batch.states, alone.states, strict=True):
        torch.testing.assert_close(padded[1, :frames], single[0], atol=2e-5, rtol=1e-4)


def test_an_utterance_without_a_frame_stays_finite() -> None:
    encoder = build(zoo.tiny(), seed=0)
    with torch.no_grad():
        hidden = encoder(torch.randn(2, 4000), torch.tensor([4000, 100]))
    assert hidden.lengths.tolist() == [zoo.tiny().frames(4000), 0]
    assert all(state.isfinite().all() for state in hidden.states)


def test_a_mask_replaces_frames_and_nothing_else() -> None:
    encoder = build(zoo.tiny(), seed=0)
    features, other = torch.randn(1, 20, 80), torch.randn(1, 20, 80)
    mask = torch.arange(20)[None] % 4 == 0
    mixed = torch.where(mask[..., None], other, features)
    embedding = torch.randn(128)
    with torch.no_grad():
        first = encoder.encode(features, mask=mask, mask_embedding=embedding).states[-1]
        second = encoder.encode(mixed, mask=mask, mask_embedding=embedding).states[-1]
        plain = encoder.encode(features).states[-1]
    assert torch.equal(first, second)
    assert not torch.allclose(first, plain)


@pytest.mark.parametrize("norm_first", [False, True])
def test_layers_behind_the_last_wanted_state_are_not_run(norm_first: bool) -> None:
    encoder = build(replace(zoo.tiny(), norm_first=norm_first), seed=0).eval()
    features = torch.randn(2, 9, encoder.spec.front_end.dim)
    whole = encoder.encode(features).states
    for depth in (0, 2, len(encoder.layers)):
        states = encoder.encode(features, depth=depth).states
        assert len(states) == depth + 1
        assert all(map(torch.equal, states, whole))


def test_a_seed_decides_the_weights_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, again, two = (build(zoo.tiny(), seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(one.layers[0].fc1.weight, again.layers[0].fc1.weight)
    assert not torch.equal(one.layers[0].fc1.weight, two.layers[0].fc1.weight)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_stays_near_float32(dtype: str) -> None:
    encoder = build(zoo.tiny(), seed=0)
    half = from_state(replace(zoo.tiny(), dtype=dtype), encoder.state_dict())
    waveforms = torch.randn(1, 16000)
    with torch.no_grad():
        exact, rough = encoder(waveforms).states[-1], half(waveforms).states[-1]
    assert rough.dtype == getattr(torch, dtype)
    assert (exact - rough.float()).abs().mean() < 0.03


@given(spec=specs())
def test_an_outline_has_the_tensors_of_a_model_and_no_numbers(spec: ModelSpec) -> None:
    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            asked.add(func.__name__.partition(".")[0])
            return func(*args, **(kwargs or {}))

    asked: set[str] = set()
    with Watch():
        made = outline(spec).state_dict()
    assert not asked & {"uniform_", "arange"}, "weights and biases are initialised for nothing"
    whole = build(spec, 0).state_dict()
    assert {n: (t.shape, t.dtype, "meta") for n, t in whole.items()} == {
        name: (tensor.shape, tensor.dtype, tensor.device.type) for name, tensor in made.items()
    }


def test_full_precision_encoders_train_in_every_parameter() -> None:
    encoder = build(replace(zoo.tiny(), layers=zoo.tiny().layers[:2]), seed=0)
    encoder(torch.randn(1, 4000)).states[-1].square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())


def _millions(name: str) -> float:
    with torch.device("meta"):
        encoder = build(zoo.SPECS[name]())
    assert all(parameter.is_meta for parameter in encoder.parameters())
    return sum(parameter.numel() for parameter in encoder.parameters()) / 1e6


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("hubert_base", 94.371),
        ("wav2vec2_base", 94.371),
        ("wavlm_base", 94.381),
        ("wavlm_base_plus", 94.381),
        ("melhubert_20ms", 89.84),
        ("distilhubert", 23.49),
        ("hubert_large", 315.438),
        ("wav2vec2_large_lv60k", 315.438),
        ("wavlm_large", 315.452),
        ("fbank", 0.0),
    ],
)
def test_published_parameter_counts(name: str, millions: float) -> None:
    assert _millions(name) == pytest.approx(millions, abs=0.005 if millions < 94 else 0.0006)


def test_parameter_counts_with_the_head_of_pre_training() -> None:
    def count(head: torch.nn.Module) -> float:
        return sum(parameter.numel() for parameter in head.parameters()) / 1e6

    assert _millions("hubert_base") + count(HubertHead(768)) == pytest.approx(94.70, abs=0.005)
    assert _millions("wavlm_base") + count(HubertHead(768)) == pytest.approx(94.70, abs=0.01)
    head = ClusterHead(768, 512)
    assert _millions("melhubert_20ms") + count(head) == pytest.approx(90.2, abs=0.05)


def test_heads_of_pre_training_give_logits() -> None:
    x = torch.randn(2, 5, 12)
    assert ClusterHead(12, 7)(x).shape == (2, 5, 7)
    logits = HubertHead(12, 4, 9)(x)
    assert logits.shape == (2, 5, 9)
    assert logits.abs().max() <= 1 / HubertHead.TEMPERATURE + 1e-4


@pytest.mark.parametrize(
    ("positions", "dim", "message"),
    [
        (Positions(bias_reach=3, gated_buckets=8), 24, "give one of them"),
        (Positions(conv_kernel=4, conv_groups=5), 24, "do not divide"),
        (Positions(gated_buckets=8), 20, "total_heads"),
    ],
)
def test_impossible_positions_are_refused(positions: Positions, dim: int, message: str) -> None:
    spec = ModelSpec("x", MelFrontEnd(), dim, HEADS, HEAD_DIM, (), positions)
    with pytest.raises(InputError, match=message):
        build(spec)


@pytest.mark.parametrize("shape", [(1, 399), (0, 0), (500,), (2, 1, 500)])
def test_waveforms_without_a_frame_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="hold no frame"):
        build(zoo.tiny())(torch.zeros(shape))
