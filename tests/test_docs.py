"""The guides' code runs as it stands."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch

from core import plugins
from core.method import Method
from encoders import zoo
from encoders.model import build

DOCS = Path(__file__).parents[1] / "docs"


def test_example_of_a_method_is_a_plugin(tmp_path, monkeypatch):
    """It can be listed from its source, and halves the layers of a model."""
    guide = (DOCS / "add-a-plugin.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", guide, re.DOTALL).group(1)
    file = tmp_path / "every_second.py"
    file.write_text(code, encoding="utf-8")
    monkeypatch.setattr(plugins, "folder", lambda _: tmp_path)
    card = plugins.card("method", "every-second")
    assert card.summary == "Keeps every second layer (an example)."
    assert [option.name for option in card.options] == ["first"]

    spec = importlib.util.spec_from_file_location("every_second", file)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "every_second", module)
    spec.loader.exec_module(module)
    dense = build(zoo.tiny(), seed=0).eval()
    method = module.EverySecond()
    ((_, made),) = method.track(dense, [0.5])
    assert method.supports(dense.spec) is None
    assert len(made.spec.layers) == len(made.layers) == 3
    assert method.achieved(dense, made) == 0.5
    wave = torch.randn(1, 16000)
    assert torch.equal(made(wave).states[0], dense(wave).states[0])


def test_expressions_of_the_methods_guide_can_be_read():
    guide = (DOCS / "methods.md").read_text(encoding="utf-8")
    block = re.search(r"```\n(.*?)```", guide, re.DOTALL).group(1)
    inline = re.findall(r"`([\w-]+[@\[+][^` ]*)`", guide)
    expressions = [line.split()[0] for line in block.splitlines()] + inline
    assert len(expressions) > 8
    for expression in expressions:
        assert Method.parse(expression)


@pytest.mark.parametrize(("guide", "count"), [("docs/publish.md", 2), ("README.md", 1)])
def test_code_for_users_of_the_library_runs(guide, count):
    text = (DOCS.parent / guide).read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == count
    for block in blocks:
        exec(compile(block, guide, "exec"), {})
