"""Quantization: the integers nearest to the weights, in as many bits as the rate asks for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from compressors.low_rank import LowRank
from compressors.quantization import Quantization, nearest_width
from core import plugins
from core.errors import InputError, Unsupported
from core.spec import INTEGERS, ROLES, LayerSpec, ModelSpec
from encoders import cut, store
from encoders.model import Encoder, build
from encoders.quantized import Quantized, _pack, _unpack
from encoders.roles import linear
from encoders.workload import Workload
from encoders.zoo import tiny
from profilers._base import Setting as Conditions
from profilers._base import weights_bytes
from profilers.latency import Latency
from profilers.macs import Macs
from profilers.memory import Memory
from profilers.params import Params

ONE = Conditions(Workload.parse("seconds:1"), repeats=1, min_seconds=0.0)
NUMERICS = [("int8", 0), ("int8-dynamic", 0), ("int4", 32), ("int4-dynamic", 0), ("int4", 48)]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    two = replace(tiny(), layers=(tiny().layers[0], LayerSpec((0, 2), (16, 12), (16, 7), 51)))
    return build(two, seed=0).eval()


@pytest.fixture(params=NUMERICS, ids=str)
def quantized(request: pytest.FixtureRequest, encoder: Encoder) -> Encoder:
    return cut.quantize(encoder, *request.param)


def states(encoder: Encoder) -> Tensor:
    waveforms = torch.randn(2, 6_000, generator=torch.Generator().manual_seed(3)) * 0.1
    with torch.no_grad():
        return torch.stack(encoder(waveforms, torch.tensor([6_000, 4_000])).states)


def filled(weight: Tensor, numeric: str, group: int = 0) -> Quantized:
    outputs, inputs = weight.shape
    made = Quantized(inputs, outputs, numeric, group)
    made.fill(weight)
    return made


def random(outputs: int, inputs: int, seed: int = 0) -> Tensor:
    return torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed))


@given(st.lists(st.integers(-8, 7), min_size=2, max_size=40).filter(lambda n: len(n) % 2 == 0))
def test_two_int4_share_a_byte(integers: list[int]) -> None:
    row = torch.tensor([integers], dtype=torch.int8)
    packed = _pack(row)
    assert (packed.dtype, packed.shape) == (torch.uint8, (1, len(integers) // 2))
    assert torch.equal(_unpack(packed), row)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 9), st.integers(2, 70), st.sampled_from(["int8", "int4"]),
    st.sampled_from([0, 2, 16, 64]), st.integers(0, 99),
)  # fmt: skip
def test_no_weight_is_off_by_more_than_a_step(
    outputs: int, inputs: int, numeric: str, group: int, seed: int
) -> None:
    """Half a step where rounding decides; the largest positive weight may be cut by up to one.

    A step is the largest magnitude of the row or group over 127.5 or 7.5.
    """
    weight = random(outputs, inputs, seed)
    made = filled(weight, numeric, group)
    span = inputs if numeric == "int8" or not group else group
    half = 127.5 if numeric == "int8" else 7.5
    for start in range(0, inputs, span):
        part = slice(start, start + span)
        step = weight[:, part].abs().amax(1, keepdim=True) / half
        error = (made.weight[:, part] - weight[:, part]).abs()
        inner = weight[:, part] <= step * (half - 0.5)
        assert (error <= step * (0.5 + 1e-3))[inner].all()
        assert (error <= step * (0.5 + 1e-3) + step * ~inner).all()


def test_integers_times_scales_are_the_weight() -> None:
    made = Quantized(4, 2, "int4", group=2)
    made.values.copy_(torch.tensor([[0x21, 0xF7], [0x08, 0x00]], dtype=torch.uint8))
    made.scales.copy_(torch.tensor([[1.0, 0.5], [2.0, 1.0]]))
    assert made.weight.tolist() == [[1.0, 2.0, 3.5, -0.5], [-16.0, 0.0, 0.0, 0.0]]


@pytest.mark.parametrize(
    ("numeric", "group"), [("int8", 0), ("int4", 32), ("int4", 0), ("int4", 48)]
)
def test_the_kernel_multiplies_that_weight(numeric: str, group: int) -> None:
    made = filled(random(30, 77), numeric, group)
    x = random(12, 77, seed=1)[None]
    with torch.no_grad():
        torch.testing.assert_close(made(x), F.linear(x, made.weight, made.bias))


def test_dynamic_inputs_are_rounded_frame_by_frame() -> None:
    """The exact product of the integers of both sides, each frame scaled by its own maximum."""
    made, frames = filled(random(24, 64), "int8-dynamic"), random(10, 64, seed=1)
    frames[3] *= 1000
    scale = frames.abs().amax(1, keepdim=True) / 127.5
    rounded = (frames * (1 / scale)).round().clamp(-128, 127)
    product = rounded.double() @ made.values.double().T
    expected = product * scale.double() * made.scales.double().T
    with torch.no_grad():
        torch.testing.assert_close(made(frames[None])[0].double(), expected, rtol=1e-5, atol=1e-5)
        alone = made(frames[None, :3])[0]
    assert torch.equal(alone, made(frames[None])[0, :3]), "neighbours do not matter"


def test_int4_with_dynamic_inputs_is_near_its_weight() -> None:
    made, frames = filled(random(24, 64), "int4-dynamic", 16), random(10, 64, seed=1)
    exact = F.linear(frames, made.weight)
    with torch.no_grad():
        error = (made(frames[None])[0] - exact).norm() / exact.norm()
    assert 1e-4 < error < 0.01, "8 bits of the inputs are lost, and no more"


def test_spec_and_weights_rebuild_it_bit_by_bit(quantized: Encoder, tmp_path: Path) -> None:
    store.save(quantized, tmp_path / "model")
    loaded = store.load(tmp_path / "model")
    assert ModelSpec.from_json(quantized.spec.to_json()) == quantized.spec == loaded.spec
    rebuilt = build(quantized.spec, seed=9).eval()
    rebuilt.load_state_dict(quantized.state_dict(), strict=True)
    for again in (loaded, rebuilt):
        assert torch.equal(states(again), states(quantized))
        for name, tensor in quantized.state_dict().items():
            assert torch.equal(again.state_dict()[name], tensor)
            assert again.state_dict()[name].dtype == tensor.dtype
    stored = load_file(tmp_path / "model" / "model.safetensors")
    assert stored["layers.0.fc1.values"].dtype in (torch.int8, torch.uint8)
    assert "layers.0.fc1.weight" not in stored


def test_a_spec_of_floats_is_written_as_ever() -> None:
    data = tiny().to_json()
    assert "numeric" not in data["layers"][0]
    assert ModelSpec.from_json(data).layers[0].numeric == "float"


@pytest.mark.parametrize(
    "wrong", [{"numeric": "int3"}, {"numeric": 8}, {"group": -2}, {"group": 7}]
)
def test_a_type_that_does_not_exist_is_bad_input(wrong: dict[str, object]) -> None:
    data = tiny().to_json()
    data["layers"][0].update({"numeric": "int4"} | wrong)
    with pytest.raises(InputError):
        ModelSpec.from_json(data)


@pytest.mark.parametrize(
    ("rate", "bits"), [(0.65, 8), (0.75, 8), (0.8, 8), (0.83, 4), (0.875, 4), (0.9, 4), (0.97, 4)]
)
def test_a_rate_is_the_nearest_width(encoder: Encoder, rate: float, bits: int) -> None:
    [(_, made)] = Quantization().track(encoder, [rate])
    assert isinstance(made, Encoder)
    assert {layer.numeric for layer in made.spec.layers} == {f"int{bits}"}


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.6, 0.99])
def test_a_width_that_does_not_exist_is_an_outcome(encoder: Encoder, rate: float) -> None:
    [(_, made)] = Quantization().track(encoder, [rate])
    assert isinstance(made, Unsupported)
    assert "does not exist" in str(made)
    assert "0.75 (8 bits) and 0.875 (4 bits)" in str(made)


def test_rates_count_from_the_model_s_own_type() -> None:
    assert [nearest_width(rate, 16) for rate in (0.5, 0.75)] == [8, 4]


def test_what_is_achieved_counts_the_scales(encoder: Encoder) -> None:
    full = build(tiny(), seed=0)
    [(_, eight), (_, four)] = Quantization(group=32).track(full, [0.75, 0.875])
    assert isinstance(eight, Encoder)
    assert isinstance(four, Encoder)
    weights, rows = 4 * 128 * 128 + 2 * 128 * 512, 5 * 128 + 512  # of a layer
    assert Quantization().achieved(full, full) == 0
    eighth = (8 * weights + 32 * rows) / (32 * weights)
    assert Quantization().achieved(full, eight) == pytest.approx(1 - eighth, abs=1e-12)
    quarter = (4 * weights + 32 * weights / 32) / (32 * weights)
    assert Quantization().achieved(full, four) == pytest.approx(1 - quarter, abs=1e-12)


def test_equal_widths_are_equal_models(encoder: Encoder) -> None:
    [(_, one), (_, other)] = Quantization().track(encoder, [0.7, 0.8])
    assert isinstance(one, Encoder)
    assert isinstance(other, Encoder)
    assert one.spec == other.spec
    assert all(torch.equal(t, other.state_dict()[n]) for n, t in one.state_dict().items())


def test_more_bits_are_nearer(encoder: Encoder) -> None:
    exact = states(encoder)
    errors = [
        float((states(cut.quantize(encoder, *numeric)) - exact).norm() / exact.norm())
        for numeric in (("int8", 0), ("int8-dynamic", 0), ("int4", 32))
    ]
    assert errors == sorted(errors)
    assert errors[0] < 0.01 < errors[-1]


def test_costs(quantized: Encoder, encoder: Encoder) -> None:
    """As many parameters and multiplications as before, in fewer bytes."""
    dense, own = (Params().measure(e, ONE) for e in (encoder, quantized))
    assert own.values["params_total"] == dense.values["params_total"]
    assert own.values["params_nonzero"] < dense.values["params_nonzero"]
    assert own.details["dtypes"] == ["float32", quantized.spec.layers[0].numeric]
    bits, _ = INTEGERS[quantized.spec.layers[0].numeric]
    maps = sum(linear(encoder, 0, role).weight.numel() for role in ("q", "k", "v", "fc1", "fc2"))
    saved = dense.values["bytes_stored"] - own.values["bytes_stored"]
    assert saved > 0.9 * maps * (32 - bits - 1) / 8
    macs, dense_macs = (Macs().measure(e, ONE).values for e in (quantized, encoder))
    assert macs["macs_dense"] == dense_macs["macs_dense"]
    assert macs["macs_nonzero"] < dense_macs["macs_nonzero"]


def test_time_and_memory_are_measured(encoder: Encoder) -> None:
    made = cut.quantize(encoder, "int4-dynamic", 32)
    timed = Latency().measure(made, replace(ONE, reference=encoder))
    assert timed.values["speedup"] > 0
    memory = Memory().measure(made, ONE).values
    assert memory["weights_bytes"] < 0.5 * weights_bytes(encoder)


def test_half_precision_and_factored_maps() -> None:
    """Down to rank 1, whose one-column factor stays a map of floats."""
    half = build(replace(tiny(), dtype="bfloat16"), seed=0)
    one = torch.ones(128, 1), torch.ones(1, 128)
    [(_, factored)] = LowRank().track(half, [0.5])
    assert isinstance(factored, Encoder)
    factored = cut.factorise(factored, {(1, "q"): one})
    for numeric, group in NUMERICS:
        made = cut.quantize(factored, numeric, group)
        assert isinstance(linear(made, 0, "fc1").up, Quantized)
        assert linear(made, 0, "fc1").up.scales.dtype == torch.bfloat16
        assert states(made).isfinite().all()


def test_a_map_of_one_input_stays_what_it_is() -> None:
    thin = replace(tiny(), layers=(LayerSpec((0,), (1,), (1,), 1),))
    made = cut.quantize(build(thin, seed=0), "int4-dynamic")
    kinds = {role: isinstance(linear(made, 0, role), Quantized) for role in ROLES}
    assert kinds == {"q": True, "k": True, "v": True, "out": False, "fc1": True, "fc2": False}
    assert states(made).isfinite().all()


def test_empty_maps_stay_what_they_are() -> None:
    hollow = cut.keep_heads(build(tiny(), seed=0), [[], *[range(8)] * 5])
    made = cut.quantize(hollow, "int8")
    assert not isinstance(linear(made, 0, "q"), Quantized)
    assert isinstance(linear(made, 0, "fc1"), Quantized)
    assert states(made).isfinite().all()
    assert isinstance(linear(made, 1, "out"), Quantized)


CUTS: list[Callable[[Encoder], Encoder]] = [
    lambda e: cut.keep_heads(e, [[0], [0]]),
    lambda e: cut.keep_units(e, [[0], [0]]),
    lambda e: cut.factorise(e, {(1, "q"): (torch.ones(28, 1), torch.ones(1, 128))}),
    lambda e: cut.quantize(e, "int8"),
]


@pytest.mark.parametrize("again", CUTS)
def test_integers_are_not_cut(quantized: Encoder, again: Callable[[Encoder], Encoder]) -> None:
    with pytest.raises(Unsupported, match="quantize last"):
        again(quantized)
    assert len(cut.keep_layers(quantized, [1]).layers) == 1, "whole layers come and go"


def test_no_method_follows(quantized: Encoder) -> None:
    for name in plugins.names("method"):
        reason = plugins.load("method", name)().supports(quantized.spec)
        assert reason is not None, name
        assert "quantize last" in reason, name


def test_torchao_is_imported_only_where_it_is_needed(tmp_path: Path) -> None:
    store.save(cut.quantize(build(tiny(), seed=0), "int8"), tmp_path / "model")
    code = (
        "import sys, compressors.quantization; from encoders import store; "
        f"store.load({str(tmp_path / 'model')!r}); assert 'torchao' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
