"""The commands of the workflow and of the guides exist, with their options."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from synthetic_run import make

from bench.cli import app, run

ROOT = Path(__file__).parents[2]
WORKFLOW = ROOT / ".github" / "workflows" / "leaderboard.yml"
GUIDES = ("README.md", "docs/ci.md", "docs/reports.md")


def workflow() -> dict[str, Any]:
    """YAML reads the key `on` as True."""
    return yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))


def steps() -> list[dict[str, Any]]:
    return [step for job in workflow()["jobs"].values() for step in job["steps"]]


def commands(script: str) -> list[list[str]]:
    """The arguments of every `bench` in a script, without what the shell makes of its output."""
    lines = script.replace("\\\n", " ").splitlines()
    found = [shlex.split(line, comments=True) for line in lines if line.strip().startswith("bench")]
    return [words[: words.index("|")] if "|" in words else words for words in found]


def parse(words: list[str]) -> None:
    """Read a command line as `bench` would, and run nothing."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("bench", words[1:2], resilient_parsing=True)
    name, own, rest = command.resolve_command(context, words[1:])
    own.make_context(name, list(rest), parent=context)


def environment() -> dict[str, str]:
    """The variables as a push has them: inputs are empty, so each is what comes after `||`."""
    return {
        name: re.sub(r"\$\{\{.*\|\| '(.*)' \}\}", r"\1", str(value))
        for name, value in workflow()["env"].items()
    }


def test_the_commands_of_the_workflow_are_read_by_the_command_line():
    known, seen = environment(), []
    for step in steps():
        script = re.sub(r"\$([A-Z]+)", lambda v: known.get(v[1], v[0]), step.get("run", ""))
        for words in commands(script):
            parse(words)
            seen.append(words[1])
    assert seen == ["doctor", "sweep", "compare", "leaderboard", "leaderboard", "report"]


def test_an_option_that_is_not_there_would_be_noticed():
    with pytest.raises(Exception, match="No such option"):
        parse(["bench", "compare", "a", "b", "--fail-on-regresion", "1%"])


@pytest.mark.parametrize("guide", GUIDES)
def test_the_commands_of_the_guides_are_read_by_the_command_line(guide):
    text = (ROOT / guide).read_text(encoding="utf-8")
    found = [
        c for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for c in commands(block)
    ]
    assert found
    for words in found:
        parse(words)


def test_inputs_have_the_defaults_of_a_push():
    called = workflow()[True]["workflow_call"]["inputs"]
    known = environment()
    assert {name.upper(): str(own["default"]) for name, own in called.items()} == {
        name: known[name] for name in map(str.upper, called)
    }


def test_actions_are_pinned_to_commits_and_the_page_is_kept_when_the_gate_fails():
    used = [step["uses"] for step in steps() if "uses" in step]
    assert used
    assert all(re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", action) for action in used)
    after = [step for step in steps() if "upload" in step.get("uses", "") or "report" in
             step.get("run", "").split()]  # fmt: skip
    assert all("!cancelled()" in step["if"] for step in after[1:])
    assert workflow()["permissions"] == {"contents": "read"}


def test_the_gate_as_the_workflow_runs_it(tmp_path, monkeypatch, capsys):
    """Same run: passes; fewer models: fails. The file comes out as it went in."""
    monkeypatch.chdir(tmp_path)
    seeds, rates = (0, 1, 2), (0.5,)
    make(Path("runs/ci"), methods=("low-rank", "row-pruning"), rates=rates, seeds=seeds)
    assert run(["leaderboard", "runs/ci", "--out", "results/leaderboard.csv"]) == 0
    committed = Path("results/leaderboard.csv").read_bytes()
    gate = ["compare", "results/leaderboard.csv", "runs/ci", "--fail-on-regression", "1%"]
    assert run(gate) == 0
    assert "no regression" in capsys.readouterr().out
    assert run(["leaderboard", "runs/ci", "--out", "results/leaderboard.csv"]) == 0
    assert Path("results/leaderboard.csv").read_bytes() == committed
    make(Path("runs/less"), methods=("low-rank",), rates=rates, seeds=seeds)
    gate[2] = "runs/less"
    assert run(gate) == 1
    assert "row-pruning at 0.5" in capsys.readouterr().out
