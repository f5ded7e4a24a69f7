from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.rates import parse_rates
from core.errors import InputError


def test_the_three_forms():
    assert parse_rates("0.1:0.9") == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    assert parse_rates("0.1:0.9:0.2") == (0.1, 0.3, 0.5, 0.7, 0.9)
    assert parse_rates("0.5,0.25") == (0.25, 0.5)
    assert parse_rates("0.5") == (0.5,)
    assert parse_rates("0.1:0.3, 0.3, .95") == (0.1, 0.2, 0.3, 0.95)


def test_a_step_that_misses_the_last_rate_stops_before_it():
    assert parse_rates("0.1:0.9:0.3") == (0.1, 0.4, 0.7)


@given(st.integers(1, 999), st.integers(1, 999), st.integers(1, 500))
def test_a_grid_has_no_float_dust(first, last, step):
    first, last = sorted((first, last))
    text = f"{Decimal(first) / 1000}:{Decimal(last) / 1000}:{Decimal(step) / 1000}"
    assert parse_rates(text) == tuple(
        float(Decimal(n) / 1000) for n in range(first, last + 1, step)
    )


@given(st.lists(st.decimals("0.001", "0.999", places=3), min_size=1))
def test_a_list_is_sorted_and_each_rate_stands_once(rates):
    assert parse_rates(",".join(map(str, rates))) == tuple(sorted({float(r) for r in rates}))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "name none"),
        (" , ", "name none"),
        ("0.9:0.1", "reversed"),
        ("0", "outside (0, 1)"),
        ("1", "outside (0, 1)"),
        ("1.5", "outside (0, 1)"),
        ("-0.1", "outside (0, 1)"),
        ("0.1:1", "outside (0, 1)"),
        ("0:0.9", "outside (0, 1)"),
        ("half", "'half'"),
        ("0.1:", "not a number"),
        ("0.1:0.9:0", "step"),
        ("0.1:0.9:-0.1", "step"),
        ("0.1:0.9:1e-9", "step"),
        ("0.1:0.5:0.1:0.1", "colons"),
        ("nan", "finite"),
        ("0.1:inf", "finite"),
    ],
)
def test_bad_rates_are_named_in_one_sentence(text, says):
    with pytest.raises(InputError) as caught:
        parse_rates(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=12))
def test_any_text_gives_rates_inside_the_unit_interval_or_an_input_error(text):
    try:
        rates = parse_rates(text)
    except InputError:
        return
    assert rates
    assert all(0 < rate < 1 for rate in rates)
