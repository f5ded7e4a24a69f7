"""Chains: each step sees the last one's result, and kept fractions multiply."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compressors._chain import create, share, track_method
from core.errors import InputError, Unsupported
from core.method import Method, Step
from encoders.model import Encoder, build
from encoders.zoo import tiny


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return build(tiny(), seed=0)


def track(text: str, encoder: Encoder, *rates: float) -> list[tuple[float, object, float]]:
    return list(track_method(Method.parse(text), encoder, rates))


def test_a_step_is_created_with_its_options() -> None:
    compressor = create(Method.parse("head-pruning[scope=model]").steps[0])
    assert (type(compressor).__name__, vars(compressor)) == ("HeadPruning", {"scope": "model"})


def test_one_step_gets_the_rate_itself(encoder: Encoder) -> None:
    outcomes = track("head-pruning", encoder, 0.25, 0.5)
    assert [(rate, achieved) for rate, _, achieved in outcomes] == [(0.25, 0.25), (0.5, 0.5)]
    for _, made, achieved in outcomes:
        assert isinstance(made, Encoder)
        assert len(made.spec.layers[0].heads) == 8 * (1 - achieved)


def test_a_chain_shares_the_rate(encoder: Encoder) -> None:
    [(rate, made, achieved)] = track("head-pruning+row-pruning", encoder, 0.75)
    assert (rate, achieved) == (0.75, 0.75)
    assert isinstance(made, Encoder)
    for layer in made.spec.layers:
        assert (len(layer.heads), layer.ffn) == (4, 256)


@pytest.mark.parametrize(
    "text",
    [
        "low-rank+head-pruning",
        "head-pruning+low-rank",
        "low-rank[where=ffn]+row-pruning",
        "first-layers+head-pruning[scope=model]+weight-pruning",
    ],
)
def test_steps_follow_one_another_in_either_order(encoder: Encoder, text: str) -> None:
    outcomes = track(text, encoder, 0.36, 0.75)
    assert [rate for rate, _, _ in outcomes] == [0.36, 0.75]
    for rate, made, achieved in outcomes:
        assert isinstance(made, Encoder)
        assert achieved == pytest.approx(rate, abs=0.09)
        rebuilt = build(made.spec, seed=1).eval()
        rebuilt.load_state_dict(made.state_dict(), strict=True)
        waveforms = torch.randn(1, 4_000, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            assert torch.equal(rebuilt(waveforms).states[-1], made.eval()(waveforms).states[-1])


def test_a_step_that_does_not_exist_ends_its_rate_only(encoder: Encoder) -> None:
    [(_, good, _), (_, bad, achieved)] = track("first-layers+first-layers", encoder, 0.5, 0.99)
    assert isinstance(good, Encoder)
    assert isinstance(bad, Unsupported)
    assert achieved == 0
    assert "only the one layer" in str(bad)


def test_what_a_method_cannot_do_is_an_outcome_at_every_rate() -> None:
    shallow = build(tiny(), seed=0)
    [(_, shallow, _)] = track("first-layers", shallow, 0.99)  # type: ignore[assignment]
    outcomes = track("first-layers", shallow, 0.2, 0.4)
    assert [rate for rate, _, _ in outcomes] == [0.2, 0.4]
    assert all(isinstance(made, Unsupported) for _, made, _ in outcomes)


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_rates_lie_between_0_and_1(encoder: Encoder, rate: float) -> None:
    with pytest.raises(InputError, match="out of range"):
        track("head-pruning", encoder, rate)


@given(st.floats(0.001, 0.999), st.integers(1, 5))
def test_shares_multiply_to_what_the_rate_leaves(rate: float, steps: int) -> None:
    assert (1 - share(rate, steps)) ** steps == pytest.approx(1 - rate, rel=1e-9)


def test_a_method_is_what_its_steps_are() -> None:
    assert Method.parse("low-rank+head-pruning").steps == (Step("low-rank"), Step("head-pruning"))
