"""The guide of large studies says what its simulation says, and names commands that there are."""

from __future__ import annotations

import re
import shlex

import pytest
import scale_study
from typer.main import get_command

from bench.cli import app
from core import plugins

QUICKLY = [name for name in scale_study.FILES if name != "outcomes"]


def as_read(rows) -> list[dict]:
    return [{key: scale_study.number(str(value)) for key, value in row.items()} for row in rows]


def test_the_guide_has_the_tables_of_the_results():
    assert scale_study.main(["--check"]) == 0


@pytest.mark.parametrize("name", QUICKLY)
def test_the_results_are_those_of_the_script(name):
    assert as_read(scale_study.FILES[name]()) == scale_study.read(name)


def test_the_plan_is_simulated_again_with_the_same_numbers():
    (plan,) = as_read([scale_study.told("as planned", "", scale_study.base())])
    assert plan in scale_study.read("outcomes")


def test_methods_train_as_their_papers_presets_do():
    for method, work in scale_study.PAPER.items():
        card = plugins.card("method", method)
        preset = card.preset("paper")
        if preset:
            assert preset["steps"] == work.steps
            assert preset.get("batch_seconds", 24) == work.batch


def test_quick_trainings_are_those_that_were_measured():
    for method, work in scale_study.QUICK.items():
        options = {option.name: option.default for option in plugins.card("method", method).options}
        assert (options["steps"], options["batch_seconds"]) == (work.steps, work.batch)


def test_the_guides_commands_exist():
    text = scale_study.GUIDE.read_text(encoding="utf-8")
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
    lines = [shlex.split(line, comments=True) for line in blocks.splitlines()]
    commands = get_command(app).commands
    found = [words[words.index("bench") + 1 :] for words in lines if "bench" in words]
    assert {name for name, *_ in found} >= {"sweep", "status", "collect", "merge"}
    for name, *words in found:
        known = {option for param in commands[name].params for option in param.opts}
        assert {word for word in words if word.startswith("--")} <= known
