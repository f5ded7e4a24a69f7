"""Inference on CPUs computes what training does, from the weights as they are now."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import prune
from torch.utils._python_dispatch import TorchDispatchMode

from core.spec import ConvFrontEnd, LayerSpec, ModelSpec, Positions
from encoders import build, kernels, zoo
from encoders.layer import Attention
from encoders.linear import Convolution
from encoders.model import Encoder, from_state
from encoders.positions import ConvPositions

DIM, HEADS = 24, 4
LAYER = LayerSpec.dense(HEADS, 6, 40)
UNEVEN = LayerSpec((0, 2, 3), (6, 2, 4), (1, 6, 6), 9)
GROUP = ConvFrontEnd((8, 8, 12), (10, 3, 2), (5, 2, 2), norm="group")
POSITIONS = {
    "none": Positions(),
    "convolution": Positions(conv_kernel=8, conv_groups=4),
    "odd convolution": Positions(conv_kernel=5, conv_groups=2),
    "bias": Positions(bias_reach=5),
    "gated bias": Positions(conv_kernel=8, conv_groups=4, gated_buckets=8, gated_distance=20),
}
FRONT_ENDS = {"group": GROUP, "layer": replace(GROUP, norm="layer", bias=True)}


def small(front_end: ConvFrontEnd, positions: Positions, causal: bool = False) -> ModelSpec:
    return ModelSpec(
        "test", front_end, DIM, HEADS, 6, (LAYER, UNEVEN), positions, causal=causal
    )  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def shaken(module: nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)


def same(encoder: Encoder, waveforms: Tensor, lengths: Tensor | None) -> None:
    plain = encoder(waveforms, lengths)
    with torch.no_grad():
        fast = encoder(waveforms, lengths)
    valid = torch.arange(plain.states[0].shape[1]) < plain.lengths[:, None]
    for a, b in zip(fast.states, plain.states, strict=True):
        torch.testing.assert_close(a[valid], b[valid], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("positions", POSITIONS.values(), ids=POSITIONS)
@pytest.mark.parametrize("front_end", FRONT_ENDS.values(), ids=FRONT_ENDS)
def test_inference_computes_what_training_does(
    front_end: ConvFrontEnd, positions: Positions, padded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    attend = kernels.attend
    monkeypatch.setattr(kernels, "attend", lambda *a: calls.append(1) or attend(*a))
    waveforms = torch.randn(2, 9000, generator=torch.Generator().manual_seed(0)) + 0.5
    lengths = torch.tensor([9000, 4321]) if padded else None
    for causal in {False, not positions.conv_kernel}:
        encoder = build(small(front_end, positions, causal), seed=0)
        shaken(encoder)
        same(encoder, waveforms, lengths)
    assert calls, "the sequence is long enough for the attention of its own"


def test_attention_of_its_own_leaves_threads_and_chosen_kernels_alone() -> None:
    assert kernels.attends(kernels.LONG, light=True)
    assert not kernels.attends(kernels.LONG - 1, light=True)
    assert kernels.attends(1, light=False)
    with sdpa_kernel(SDPBackend.MATH):
        assert not kernels.attends(kernels.LONG, light=False)
    torch.set_num_threads(2)
    assert not kernels.attends(kernels.LONG, light=False)


@pytest.mark.parametrize("positions", ["convolution", "gated bias"])
def test_bfloat16_stays_near_float32(positions: str) -> None:
    spec = small(GROUP, POSITIONS[positions])
    encoder = build(spec, seed=0)
    half = from_state(replace(spec, dtype="bfloat16"), encoder.state_dict())
    waveforms = torch.randn(2, 9000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for exact, rough in zip(encoder(waveforms).states, half(waveforms).states, strict=True):
            assert rough.dtype == torch.bfloat16
            assert (exact - rough.float()).norm() < 2e-2 * exact.norm()


def test_a_tracer_sees_the_plain_operations() -> None:
    encoder = build(small(GROUP, POSITIONS["gated bias"]), seed=0).requires_grad_(False)
    with torch.no_grad():
        trace = torch.jit.trace(
            lambda waveforms: encoder(waveforms).states[-1], torch.randn(1, 9000), check_trace=False
        )
    kinds = {node.kind() for node in trace.inlined_graph.nodes()}
    assert {"aten::_convolution", "aten::group_norm", "aten::linear"} <= kinds
    assert not any(kind.startswith("mkldnn") for kind in kinds)


# --- weights that change after they were folded -------------------------------------------------


def in_place(module: nn.Module) -> None:
    shaken(module)


def optimised(module: nn.Module) -> None:
    optimizer = torch.optim.SGD(module.parameters(), 1.0)
    module.train()
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    module.eval()


def loaded(module: nn.Module) -> None:
    module.load_state_dict({n: t * 1.5 + 0.1 for n, t in module.state_dict().items()})


def assigned(module: nn.Module) -> None:
    state = {n: t * 1.5 + 0.1 for n, t in module.state_dict().items()}
    module.load_state_dict(state, assign=True)


def exchanged(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter.data = parameter.data * 1.5 + 0.1


def masked(module: nn.Module) -> None:
    for own in module.modules():
        if type(own) is Convolution:
            prune.l1_unstructured(own, "weight", 0.5)


def cast(module: nn.Module) -> None:
    module.to(torch.float64).to(torch.bfloat16).to(torch.float32)


CHANGES = (in_place, optimised, loaded, assigned, exchanged, masked, cast)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    "make",
    [
        lambda: ConvPositions(8, 4, 2),
        lambda: nn.Sequential(Convolution(8, 8, 3, stride=2)),
        lambda: nn.Sequential(Convolution(1, 8, 10, stride=5), Convolution(8, 8, 3)),
    ],
    ids=["positions", "one", "two"],
)
def test_folded_weights_are_never_stale(
    make: Callable[[], nn.Module], change: Callable[[nn.Module], None]
) -> None:
    module = make()
    first = next(m for m in module.modules() if isinstance(m, nn.Conv1d))
    x = torch.randn(2, 60, first.in_channels)
    with torch.no_grad():
        before = module(x)
    twin = copy.deepcopy(module)
    change(module)
    with torch.no_grad():
        torch.testing.assert_close(module(x), module_with_grad(module, x), atol=1e-5, rtol=1e-5)
        assert torch.equal(twin(x), before)
        change(twin)
        assert torch.equal(twin(x), module(x))


def module_with_grad(module: nn.Module, x: Tensor) -> Tensor:
    with torch.enable_grad():
        return module(x).detach()


def test_folded_weights_are_kept_until_then_and_saved_with_nothing() -> None:
    module = ConvPositions(8, 4, 2)
    names = set(module.state_dict())
    with torch.no_grad():
        module(torch.randn(1, 30, 8))
        folded = module.convolution.folded._value
        module(torch.randn(1, 40, 8))
    assert folded is not None
    assert module.convolution.folded._value is folded
    assert copy.deepcopy(module).convolution.folded._value is None
    assert set(module.state_dict()) == names


def test_inference_tensors_are_folded_each_time() -> None:
    with torch.inference_mode():
        module, x = ConvPositions(8, 4, 2), torch.randn(1, 30, 8)
        first = module(x)
        shaken(module)
        changed = module(x)
    assert not torch.allclose(first, changed)
    assert module.convolution.folded._value is None


def test_nothing_is_folded_where_gradients_flow() -> None:
    encoder = build(replace(zoo.tiny(), positions=POSITIONS["convolution"]), seed=0)
    encoder(torch.randn(1, 4000))
    assert encoder.conv_positions is not None
    assert encoder.conv_positions.convolution.folded._value is None


# --- heads of unequal widths --------------------------------------------------------------------

THIN = LayerSpec((0, 1, 3), (3, 0, 5), (2, 6, 0), 9)
SHAPES = {
    "thin": THIN,
    "no queries": LayerSpec((0, 2), (0, 0), (3, 5), 9),
    "queries alone": LayerSpec((0, 2), (2, 2), (6, 6), 9),
    "factored": replace(THIN, ranks=(("q", 2), ("out", 3))),
}
PLAIN = [name for name in SHAPES if name != "factored"]


class Attend(nn.Module):
    """An attention with a bias and padding of its own."""

    def __init__(self, layer: LayerSpec) -> None:
        super().__init__()
        self.attention = Attention(layer, small(GROUP, Positions()))
        shaken(self)

    def forward(self, x: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(2)
        bias = torch.randn(1, HEADS, x.shape[1], x.shape[1], generator=generator)
        padding = torch.arange(x.shape[1]) >= torch.tensor([[x.shape[1]], [x.shape[1] // 2]])
        return self.attention(x, bias, padding[:, None, None])


class Operations(TorchDispatchMode):
    """Counts the operations that run."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        self.seen[func.overloadpacket.__name__.strip("_")] += 1
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def operations(module: nn.Module, x: Tensor) -> Counter[str]:
    """What an inference that agrees with training runs once the weights are folded."""
    expected = module_with_grad(module, x)
    assert (module(x) - expected).abs().max() < 1e-6 * expected.abs().max()
    with Operations() as seen:
        module(x)
    return seen.seen


FRAMES = torch.randn(2, 30, DIM, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("name", PLAIN)
def test_uneven_heads_are_padded_once_by_their_weights(name: str) -> None:
    seen = operations(Attend(SHAPES[name]), FRAMES)
    assert seen["linear_pointwise"] == 2, "q, k and v at once, and out"
    assert seen["scaled_dot_product_flash_attention_for_cpu"] == 1
    assert not seen["constant_pad_nd"]
    assert not seen["cat"]


@pytest.mark.parametrize("name", SHAPES)
def test_where_that_is_dear_heads_are_padded_frame_by_frame_or_not_at_all(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = Attend(SHAPES[name])
    monkeypatch.setattr(kernels, "SPARE", 0)
    assert not operations(module, FRAMES)["scaled_dot_product_flash_attention_for_cpu"]
    torch.set_num_threads(2)
    assert operations(module, FRAMES)["scaled_dot_product_flash_attention_for_cpu"] == 1
    monkeypatch.undo()
    if name not in PLAIN:
        assert operations(module, FRAMES)["constant_pad_nd"]


@pytest.mark.parametrize("change", CHANGES)
def test_padded_weights_are_never_stale(change: Callable[[nn.Module], None]) -> None:
    module = Attend(THIN)
    operations(module, FRAMES)
    change(module)
    operations(module, FRAMES)


@pytest.mark.parametrize("role", ["q", "k", "v", "out"])
def test_who_listens_to_a_map_hears_its_real_width(role: str) -> None:
    module = Attend(THIN)
    operations(module, FRAMES)
    heard: list[tuple[int, ...]] = []
    own = getattr(module.attention, role)
    own.register_forward_hook(lambda _, x, y: heard.append((x[0].shape[-1], y.shape[-1])))
    operations(module, FRAMES)
    assert set(heard) == {THIN.linear_shape(role, DIM)[::-1]}
