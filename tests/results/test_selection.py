"""Choosing within limits, nearest misses, and numbers as people write them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_run import make

from core.errors import InputError
from results.quantity import read_quantity
from results.selection import Limit, candidates, open_run, read_limits


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("30M", "parameters", 30e6), ("800G", "MAC", 800e9), ("800GMAC", "MAC", 800e9),
        ("50ms", "s", 0.05), ("0.05", "s", 0.05), ("1.5GB", "B", 1.5e9), ("2MiB", "B", 2 * 2**20),
        ("20%", "%", 20), (" 1e3 ", "", 1000),
    ],
)  # fmt: skip
def test_quantities(text: str, unit: str, value: float) -> None:
    assert read_quantity(text, unit, "--max") == pytest.approx(value)


@pytest.mark.parametrize(("text", "unit"), [("", "s"), ("50M", "s"), ("ms", "s"), ("5ms", "B")])
def test_other_suffixes_are_refused(text: str, unit: str) -> None:
    with pytest.raises(InputError, match="expected a number"):
        read_quantity(text, unit, "--max-latency")


@given(st.floats(1e-3, 1e9), st.floats(1e-3, 1e9), st.booleans())
def test_a_miss_is_zero_exactly_within_the_limit(value: float, amount: float, most: bool) -> None:
    miss = Limit("x", most, amount, "").miss(value)
    assert (miss == 0) == (value <= amount if most else value >= amount)
    assert miss == pytest.approx(max(0.0, (value - amount) * (1 if most else -1)) / amount)


def test_unmeasured_is_an_endless_miss() -> None:
    assert Limit("x", True, 1.0, "").miss(math.nan) == math.inf


def test_what_fits_comes_first_and_best_score_first(tmp_path) -> None:
    run = make(tmp_path / "run", seeds=(0, 1))
    frame = open_run(run.path)
    limits = read_limits(frame, {"max_params": "0.8M", "min_score": "500"}, ["pr<=55"])
    ranked = candidates(run.path, limits, frame)
    fits = [candidate.fits for candidate in ranked]
    assert any(fits)
    assert fits == sorted(fits, reverse=True)
    chosen = [c for c in ranked if c.fits]
    assert [c.values["superb_s"] for c in chosen] == sorted(
        (c.values["superb_s"] for c in chosen), reverse=True
    )
    for candidate in ranked:
        inside = (
            candidate.values["params_total"] <= 0.8e6
            and candidate.values["superb_s"] >= 500
            and candidate.values["pr_per"] <= 55
        )
        assert candidate.fits == inside
        assert candidate.seeds == 2
    misses = [sum(c.misses.values()) for c in ranked if not c.fits]
    assert misses == sorted(misses)


def test_the_folder_is_that_of_the_best_seed(tmp_path) -> None:
    run = make(tmp_path / "run", methods=("low-rank",), rates=(0.5,), seeds=(0, 1, 2))
    frame = open_run(run.path)
    (candidate,) = [c for c in candidates(run.path, [], frame) if c.method == "low-rank"]
    rows = frame[frame["method"] == "low-rank"]
    best = rows.loc[rows["superb_s"].idxmax(), "key"]
    assert candidate.folder == run.model_folder(best)


def test_limits_on_what_is_not_there_are_refused(tmp_path) -> None:
    frame = open_run(make(tmp_path / "run", methods=(), rates=()).path)
    for condition, says in (("pr<20", "NAME<=NUMBER"), ("prr<=20", "did you mean 'pr'"),
                            ("pr<=much", "expected a number")):  # fmt: skip
        with pytest.raises(InputError, match=says):
            read_limits(frame, {}, [condition])
