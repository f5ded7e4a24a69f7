"""Slot filling: how slots are spelled, and read again."""

from __future__ import annotations

from encoders.corpora.base import Item
from tasks.sf import Sf, slots, text, type_f1, value_cer


def item(words: str, marks: str) -> Item:
    return Item("x", 1.0, {"text": words, "slots": marks})


def test_slots_are_symbols_around_their_words():
    spelled = Sf().spell(item("to new york at ten", "O B-city I-city O B-time"))
    assert text(spelled) == "TO B-city NEW YORK E-city AT B-time TEN E-time"
    assert spelled[3:5] == ["B-city ", "N"]
    assert slots(text(spelled)) == {"city": ["NEW YORK"], "time": ["TEN"]}


def test_slots_that_touch_are_two():
    assert slots(text(Sf().spell(item("a b", "B-x B-x")))) == {"x": ["A", "B"]}


def test_metrics_of_a_perfect_and_of_a_mute_head():
    said = slots("TO B-city ROME E-city")
    assert (type_f1([(said, said)]), value_cer([(said, said)])) == (100, 0)
    assert (type_f1([(said, {})]), value_cer([(said, {})])) == (0, 100)
