"""Presets and inherited options: what an expression stands for, and how it is written."""

from __future__ import annotations

import pytest

from compressors._chain import create
from core import plugins
from core.errors import InputError
from core.method import Method, parse_methods


def test_options_of_shared_parts_belong_to_the_method():
    card = plugins.card("method", "lottery-ticket")
    options = {option.name: option for option in card.options}
    assert options["learning_rate"].about.startswith("peak")
    assert options["precision"].choices == ("bf16", "no", "fp16")
    own = plugins.load("method", "lottery-ticket")
    assert options["steps"].default == own.steps != plugins.load("method", "distillation").steps
    assert card.constants["uses_data"] == {"steps": 0}


@pytest.mark.parametrize("name", plugins.names("method"))
def test_presets_set_options_that_exist_to_values_that_they_take(name):
    card = plugins.card("method", name)
    options = {option.name: option for option in card.options}
    for values in card.presets.values():
        for key, value in values.items():
            assert type(value) is type(options[key].read(str(value)))
    trains = "steps" in options
    assert ("untrained" in card.presets) == trains


def test_a_preset_is_written_behind_the_name_and_sets_the_options():
    method = Method.parse("weight-pruning@paper[steps=7]")
    assert str(method) == "weight-pruning@paper[steps=7]"
    assert Method.parse(str(method)) == method
    made = create(method.steps[0])
    assert (made.steps, made.learning_rate, made.schedule) == (7, 1e-5, "iterative")


def test_what_a_preset_sets_anyway_is_not_written():
    assert str(Method.parse("weight-pruning@paper[learning_rate=1e-5]")) == "weight-pruning@paper"
    quick = plugins.load("method", "lottery-ticket").steps
    assert str(Method.parse(f"lottery-ticket@paper[steps={quick}]" if "paper" in plugins.card(
        "method", "lottery-ticket").presets else f"lottery-ticket@untrained[steps={quick}]"
    )).endswith(f"[steps={quick}]")  # fmt: skip


def test_a_preset_for_all_reaches_the_methods_that_have_it():
    methods = dict(zip(plugins.names("method"), parse_methods("all", "paper"), strict=True))
    assert str(methods["weight-pruning"]) == "weight-pruning@paper"
    assert str(methods["first-layers"]) == "first-layers"
    idle = dict(zip(plugins.names("method"), parse_methods("all", "untrained"), strict=True))
    assert str(idle["lottery-ticket"]) == "lottery-ticket@untrained"
    assert str(idle["weight-pruning"]) == "weight-pruning"  # one-shot: there is nothing to leave


def test_unknown_presets_are_named():
    with pytest.raises(InputError, match=r"'head-pruning' has no preset 'papre'.*paper"):
        Method.parse("head-pruning@papre")
    with pytest.raises(InputError, match=r"no method has a preset 'papre'.*did you mean 'paper'"):
        parse_methods("all", "papre")


def test_models_depend_on_the_corpus_where_options_make_them():
    assert not Method.parse("weight-pruning").uses_data
    assert Method.parse("weight-pruning[schedule=iterative]").uses_data
    assert Method.parse("lottery-ticket").uses_data
    assert not Method.parse("lottery-ticket@untrained").uses_data
    assert Method.parse("row-pruning+distillation").uses_data
