"""What every compressor promises. A new file in `compressors/` is tested here without a change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch

from compressors._base import Compressor, Setting
from core import plugins
from core.errors import Unsupported
from core.spec import (
    ROLES,
    ConvFrontEnd,
    LayerSpec,
    MelFrontEnd,
    ModelSpec,
    Positions,
)  # fmt: skip
from encoders.corpora import Corpus, Item
from encoders.cut import factorise
from encoders.model import Encoder, build
from encoders.quantized import weights
from encoders.roles import linear
from encoders.workload import Workload
from profilers._ways import ways_of

RATES = (0.1, 0.5, 0.9)
SAMPLES = 4_000

_MEL = ModelSpec(
    "melhubert", MelFrontEnd(bins=10, stack=2), 32, 4, 8, (LayerSpec.dense(4, 8, 64),) * 3,
    Positions(bias_reach=5), feature_norm=False,
)  # fmt: skip
_CONV = replace(
    _MEL, family="hubert", front_end=ConvFrontEnd(channels=(16,) * 7),
    positions=Positions(conv_kernel=8, conv_groups=4), feature_norm=True,
)  # fmt: skip
_UNEVEN = LayerSpec((0, 3), (8, 4), (8, 2), 20)

SHAPES: dict[str, ModelSpec] = {
    "mel": _MEL,
    "conv": _CONV,
    "prenorm": replace(_CONV, norm_first=True, normalize_waveform=True),
    "wavlm": replace(_CONV, positions=Positions(8, 4, gated_buckets=16, gated_distance=40)),
    "uneven": replace(_CONV, layers=(_MEL.layers[0], _UNEVEN, _MEL.layers[0])),
    "half": replace(_MEL, dtype="bfloat16"),
    "shallow": replace(_MEL, layers=_MEL.layers[:1]),
    "no-layers": replace(_MEL, layers=()),
}


def make(shape: str) -> Encoder:
    """A small encoder of that shape, no weight of it zero; `factored` holds low-rank maps."""
    encoder = build(SHAPES.get(shape, _CONV), seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.ndim == 1:
                parameter += torch.randn(parameter.shape, generator=generator) * 0.1
    if shape == "factored":
        factors = {}
        for role in ROLES:
            weight = linear(encoder, 1, role).weight.detach()
            u, s, v = torch.linalg.svd(weight, full_matrices=False)
            factors[1, role] = ((u * s)[:, :12], v[:12])
        encoder = factorise(encoder, factors)
    return encoder.eval()


def outputs(encoder: Encoder) -> list[torch.Tensor]:
    waveforms = torch.randn(2, SAMPLES, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        return encoder(waveforms, torch.tensor([SAMPLES, SAMPLES - 900])).states


def total(encoder: Encoder) -> int:
    return sum(weight.numel() for weight in weights(encoder))


def nonzero(encoder: Encoder) -> int:
    return sum(int(weight.count_nonzero()) for weight in weights(encoder))


def stored(encoder: Encoder) -> int:
    return sum(t.numel() * t.element_size() for t in encoder.state_dict().values())


def work(encoder: Encoder) -> int:
    """Layers times the tokens they run on, for MACs, which are counted in the profilers' tests."""
    return sum(way.tokens * way.depth for way in ways_of(encoder, Workload.parse("corpus", SPEECH)))


COST: dict[str, Callable[[Encoder], int]] = {
    "params_total": total, "params_nonzero": nonzero, "bytes_stored": stored, "macs_dense": work,
}  # fmt: skip

#: By how much what is achieved may miss a rate on these shapes, by what the rate is a fraction of:
#: half a head of 4, half a layer of 3, or one head or layer that always stays; a whole bit width.
GRANULARITY = {
    "attention heads": 0.16, "Transformer layers": 0.24, "bits of the linear maps' weights": 0.1,
    "parameters of the Transformer layers": 0.24, "nothing": 1.0,
}  # fmt: skip


#: Enough of a training to go through all of it.
BRIEF = {
    "steps": 1, "batch_seconds": 0.5, "crop_seconds": 0.25, "clusters": 4, "stages": "0.1 0.5 0.9",
}  # fmt: skip

#: Choices that are the training loop's, tested with it, and losses that most models do not have.
SHARED = ("precision", "loss")


def variants() -> list[tuple[str, dict[str, object]]]:
    """Every method with its defaults, and once more with each other choice of each option.

    Those that train do so for an update.
    """
    found: list[tuple[str, dict[str, object]]] = []
    for name in plugins.names("method"):
        options = plugins.card("method", name).options
        brief = {o.name: BRIEF[o.name] for o in options if o.name in BRIEF and o.default}
        found.append((name, brief))
        for option in options:
            others = [c for c in option.choices if c != option.default]
            found += [
                (name, {**brief, option.name: c}) for c in others if option.name not in SHARED
            ]
    return found


class Noise(Corpus):
    """Half seconds of noise."""

    def waveform(self, item: Item) -> torch.Tensor:
        generator = torch.Generator().manual_seed(int(item.key))
        return torch.randn(item.samples, generator=generator)


SPEECH = Noise("noise", [Item(str(i), 0.5, split="train") for i in range(4)], "0")


@pytest.fixture(
    params=variants(),
    ids=lambda v: "-".join([v[0], *(str(c) for n, c in v[1].items() if n not in BRIEF)]),
    scope="module",
)
def compressor(request: pytest.FixtureRequest) -> Compressor:
    name, options = request.param
    return plugins.load("method", name)(**options)


@pytest.fixture(params=[*SHAPES, "factored"], scope="module")
def encoder(request: pytest.FixtureRequest) -> Encoder:
    return make(request.param)


@pytest.fixture(scope="module")
def supported(compressor: Compressor, encoder: Encoder) -> Compressor:
    reason = compressor.supports(encoder.spec)
    if reason is not None:
        assert len(reason.split()) > 3, "a reason is a sentence"
        pytest.skip(reason)
    return compressor


def compress(
    compressor: Compressor, encoder: Encoder, rates: Sequence[float] = RATES
) -> dict[float, Encoder]:
    """Rate -> encoder, for the rates that exist."""
    made = dict(compressor.track(encoder, rates, Setting(SPEECH)))
    assert list(made) == list(rates), "each rate once, in order"
    return {rate: e for rate, e in made.items() if isinstance(e, Encoder)}


@pytest.fixture(scope="module")
def made(supported: Compressor, encoder: Encoder) -> dict[float, Encoder]:
    """Compressed once for all tests that only look."""
    made = compress(supported, encoder)
    assert made, "of what is supported some rate exists"
    return made


def test_the_dense_shapes_are_supported(compressor: Compressor) -> None:
    for shape in ("mel", "conv", "prenorm", "wavlm"):
        assert compressor.supports(SHAPES[shape]) is None
    assert compressor.supports(SHAPES["no-layers"]) is not None


def test_the_card_says_what_the_rate_means(compressor: Compressor) -> None:
    name = next(
        n for n in plugins.names("method") if isinstance(compressor, plugins.load("method", n))
    )
    card = plugins.card("method", name)
    assert card.constants["acts_on"] == compressor.acts_on
    assert card.constants["reduces"] == compressor.reduces in (*COST, "nothing")
    assert card.summary.endswith(".")
    assert all(option.about for option in card.options), "each option says what it is"


def test_spec_and_weights_rebuild_the_result(made: dict[float, Encoder]) -> None:
    for compressed in made.values():
        assert ModelSpec.from_json(compressed.spec.to_json()) == compressed.spec
        rebuilt = build(compressed.spec, seed=9).eval()
        rebuilt.load_state_dict(compressed.state_dict(), strict=True)
        for one, other in zip(outputs(compressed), outputs(rebuilt), strict=True):
            assert torch.equal(one, other)
            assert one.isfinite().all()


def test_cost_falls_with_the_rate(
    supported: Compressor, encoder: Encoder, made: dict[float, Encoder]
) -> None:
    if supported.reduces == "nothing":
        return
    counted = {supported.reduces}
    if supported.reduces == "params_total":
        counted.add("params_nonzero")
    for cost in (COST[name] for name in counted):
        costs = [cost(e) for e in made.values()]
        assert costs == sorted(costs, reverse=True)
        assert costs[-1] < cost(encoder)


def test_achieved_is_near_the_rate(
    supported: Compressor, encoder: Encoder, made: dict[float, Encoder]
) -> None:
    assert supported.achieved(encoder, encoder) == 0
    achieved = [supported.achieved(encoder, e) for e in made.values()]
    assert achieved == sorted(achieved)
    if encoder.spec.layers == (encoder.spec.layers[0],) * 3:
        near = GRANULARITY.get(supported.acts_on, 0.03)
        assert achieved == pytest.approx(list(made), abs=near)


def test_the_same_arguments_give_the_same_result_and_leave_the_input_as_it_is(
    supported: Compressor, encoder: Encoder, made: dict[float, Encoder]
) -> None:
    spec, state = encoder.spec, {k: v.clone() for k, v in encoder.state_dict().items()}
    generator = torch.get_rng_state()
    rate = list(made)[len(made) // 2]
    again = compress(supported, encoder, [rate])[rate]  # whatever other rates are asked for
    assert made[rate].spec == again.spec
    assert not any(m._forward_pre_hooks for m in again.layers.modules())
    first = made[rate].state_dict()
    assert all(torch.equal(t, first[name]) for name, t in again.state_dict().items())
    with torch.no_grad():
        for tensor in again.state_dict().values():
            tensor.fill_(7)
    assert encoder.spec == spec
    assert encoder.state_dict().keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in encoder.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)


def test_a_rate_that_does_not_exist_is_an_outcome(compressor: Compressor) -> None:
    for _, made in compressor.track(make("mel"), (0.5, 0.9999), Setting(SPEECH)):
        if isinstance(made, Unsupported):
            assert "\n" not in str(made)
        else:
            assert total(made) > 0
