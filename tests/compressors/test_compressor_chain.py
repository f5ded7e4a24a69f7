"""Chains: each step sees the last one's result, and kept fractions multiply."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compressors._base import Compressor, Setting
from compressors._chain import create, track_method
from core.errors import InputError, Unsupported
from core.method import Method, Step
from encoders.model import Encoder, build
from encoders.tracking import UNTRACKED
from encoders.zoo import tiny


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return build(tiny(), seed=0)


def track(text: str, encoder: Encoder, *rates: float) -> list[tuple[float, object, float]]:
    return list(track_method(Method.parse(text), encoder, rates))


def test_a_step_is_created_with_its_options() -> None:
    compressor = create(Method.parse("head-pruning[scope=model]").steps[0])
    assert (type(compressor).__name__, vars(compressor)["scope"]) == ("HeadPruning", "model")


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


def chain(shares: list[float | None], rates: list[float | None]) -> Method:
    pairs = zip(shares, rates, strict=True)
    return Method(tuple(Step("head-pruning", share=share, rate=rate) for share, rate in pairs))


@given(st.floats(0.001, 0.999), st.integers(1, 5))
def test_without_a_word_a_chain_splits_evenly(rate: float, steps: int) -> None:
    parts = chain([None] * steps, [None] * steps).split(rate)
    assert len(set(parts)) == 1
    assert (1 - parts[0]) ** steps == pytest.approx(1 - rate, rel=1e-9)
    assert steps > 1 or parts == (rate,)


@given(
    st.floats(0.001, 0.999), st.lists(st.floats(0.01, 1), min_size=2, max_size=4), st.integers(0, 3)
)
def test_shares_are_exponents_of_what_is_kept(
    rate: float, weights: list[float], unnamed: int
) -> None:
    total = sum(weights) * (1 + unnamed / 2)
    given = [weight / total for weight in weights]
    parts = chain([*given, *[None] * unnamed], [None] * (len(given) + unnamed)).split(rate)
    for share, part in zip(given, parts, strict=False):
        assert 1 - part == pytest.approx((1 - rate) ** share, rel=1e-9)
    assert len(set(parts[len(given) :])) <= 1, "the others divide the rest evenly"
    assert math.prod(1 - part for part in parts) == pytest.approx(1 - rate, rel=1e-9)


@given(st.floats(0.3, 0.99), st.floats(0.01, 0.29))
def test_a_rate_of_its_own_is_kept_and_the_others_do_the_rest(rate: float, own: float) -> None:
    parts = chain([0.75, None, None], [None, own, None]).split(rate)
    assert parts[1] == own
    assert math.prod(1 - part for part in parts) == pytest.approx(1 - rate, rel=1e-9)
    assert 1 - parts[0] == pytest.approx(((1 - rate) / (1 - own)) ** 0.75, rel=1e-9)


def test_the_split_is_written_with_the_steps(encoder: Encoder) -> None:
    text = "head-pruning[scope=model,share=0.75]+row-pruning+low-rank[where=ffn,rate=0.3]"
    method = Method.parse(text)
    assert [(s.share, s.rate) for s in method.steps] == [(0.75, None), (None, None), (None, 0.3)]
    assert str(method) == text
    assert Method.parse(str(method)) == method
    [(_, made, achieved)] = track("head-pruning[share=0.75]+row-pruning", encoder, 0.75)
    assert isinstance(made, Encoder)
    heads, units = 8 * 0.25**0.75, 512 * 0.25**0.25
    assert {len(layer.heads) for layer in made.spec.layers} == {round(heads)}
    assert {layer.ffn for layer in made.spec.layers} == {round(units)}
    assert achieved == pytest.approx(1 - round(heads) / 8 * round(units) / 512)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("head-pruning[share=0.5]", "no chain"),
        ("head-pruning[rate=0.5]", "no chain"),
        ("head-pruning[share=0.5]+row-pruning[share=0.6]", "sum to 1.1; expected 1$"),
        ("head-pruning[share=0.5]+row-pruning[share=0.4]", "sum to 0.9"),
        ("head-pruning[share=1]+row-pruning", "between 0 and 1"),
        (
            "head-pruning[share=0.6]+row-pruning[share=0.4]+low-rank",
            "nothing for the steps without one",
        ),
        ("head-pruning[share=0]+row-pruning", "between 0 and 1"),
        ("head-pruning[share=half]+row-pruning", "between 0 and 1"),
        ("head-pruning[rate=1]+row-pruning", "between 0 and 1"),
        ("head-pruning[rate=nan]+row-pruning", "between 0 and 1"),
        ("head-pruning[rate=0.2,share=0.2]+row-pruning", "both"),
        ("head-pruning[rate=0.2]+row-pruning[rate=0.3]", "can have none"),
    ],
)
def test_a_split_that_makes_no_sense_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Method.parse(text)
    assert "\n" not in str(caught.value)


def test_a_rate_below_what_is_fixed_does_not_exist(encoder: Encoder) -> None:
    """In its place in the order, whatever that is."""
    text = "head-pruning[rate=0.5]+row-pruning"
    outcomes = track(text, encoder, 0.75, 0.3, 0.875, 0.5)
    assert [rate for rate, _, _ in outcomes] == [0.75, 0.3, 0.875, 0.5]
    kinds = [isinstance(made, Encoder) for _, made, _ in outcomes]
    assert kinds == [True, False, True, False]
    assert "remove 0.5 by themselves" in str(outcomes[1][1])
    assert [achieved for _, _, achieved in outcomes] == [0.75, 0, 0.875, 0]


@dataclass
class Noted(Compressor):
    """Passes its input on and notes what it was asked for."""

    acts_on: ClassVar[str] = "nothing"
    reduces: ClassVar[str] = "params_total"

    name: str
    notes: list[tuple[str, int, Setting]]

    def track(
        self, encoder: Encoder, rates: Sequence[float], setting: Setting | None = None
    ) -> Iterator[tuple[float, Encoder | Unsupported]]:
        assert setting is not None
        self.notes.append((self.name, len(rates), setting))
        yield from ((rate, encoder) for rate in rates)

    def achieved(self, dense: Encoder, compressed: Encoder) -> float:
        return 0.0


@pytest.mark.parametrize(
    ("text", "trackings"),
    [
        ("head-pruning[rate=0.5]+row-pruning", [("head-pruning", 1), ("row-pruning", 3)]),
        ("head-pruning+row-pruning", [("head-pruning", 3), *[("row-pruning", 1)] * 3]),
        (
            "first-layers[rate=0.1]+head-pruning[rate=0.2]+row-pruning",
            [("first-layers", 1), ("head-pruning", 1), ("row-pruning", 3)],
        ),
    ],
)
def test_each_distinct_input_is_tracked_once_in_a_folder_of_its_own(
    text: str,
    trackings: list[tuple[str, int]],
    encoder: Encoder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    notes: list[tuple[str, int, Setting]] = []
    monkeypatch.setattr("compressors._chain.create", lambda step: Noted(step.name, notes))
    setting = Setting(seed=7, folder=tmp_path)
    outcomes = list(track_method(Method.parse(text), encoder, [0.6, 0.75, 0.9], setting))
    assert [rate for rate, _, _ in outcomes] == [0.6, 0.75, 0.9]
    assert [(name, rates) for name, rates, _ in notes] == trackings
    assert len({own.folder for _, _, own in notes}) == len(notes)
    own = [replace(own, folder=tmp_path, tracking=UNTRACKED) for _, _, own in notes]
    assert own == [setting] * len(notes)


def test_a_method_is_what_its_steps_are() -> None:
    assert Method.parse("low-rank+head-pruning").steps == (Step("low-rank"), Step("head-pruning"))
