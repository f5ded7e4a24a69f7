"""What the harness does for a section must not depend on how many sections there are."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from pretending import Pretending

from bench.jobs import Source
from bench.plan import Plan, Request
from bench.sweep import Sweep
from bench.wanted import Wanted
from core.method import Method, parse_methods
from results import store


@pytest.fixture
def asked(small_model, small_data):
    def build(points: int) -> Request:
        rates = tuple((rate + 1) / (points + 1) for rate in range(points))
        return Request(
            str(small_model), tuple(parse_methods("low-rank")), rates, (0,),
            Source(str(small_data)), (), Source(str(small_data)), ("params", "latency"),
        )  # fmt: skip

    return build


def steps(act) -> int:
    """How many instructions of Python an act takes."""
    count = 0

    def trace(frame, event, _):
        nonlocal count
        count += event == "opcode"
        frame.f_trace_opcodes = True
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    finally:
        sys.settrace(before)
    return count


def test_a_section_costs_the_same_in_a_large_sweep(asked, tmp_path, monkeypatch):
    for write in ("write_point", "write_section"):  # what is left is the sweep's own bookkeeping
        monkeypatch.setattr(store.RunFolder, write, lambda *_: None)

    def cost(points: int) -> int:
        sweep = Sweep(Plan.of(asked(points), tmp_path / str(points)), Pretending())
        return steps(sweep.run)

    cost(1)  # imports, plug-ins' cards
    few, more, many = cost(25), cost(50), cost(75)
    assert many - more < 1.02 * (more - few), "each section goes through all the others"


def test_a_plan_reads_every_record_once(asked, tmp_path, monkeypatch):
    Sweep(Plan.of(asked(5), tmp_path), Pretending()).run()
    read = []
    real = store._read_json

    def count(path: Path):
        read.append(path)
        return real(path)

    monkeypatch.setattr(store, "_read_json", count)
    plan = Plan.of(asked(5), tmp_path)
    records = sorted(tmp_path.glob("points/*/*.json"))
    assert sorted(read) == records
    assert len(records) == 4 * 7
    assert [pair for pair in plan.todo() if pair[1] != "compress"] == []


def test_a_plan_parses_each_method_once(asked, tmp_path, monkeypatch):
    plan = Plan.of(replace(asked(50), seeds=(0, 1)), tmp_path)
    parsed = []
    real = Method.parse
    monkeypatch.setattr(Method, "parse", lambda text: parsed.append(text) or real(text))
    plan.todo()
    for key, name in plan.pairs():
        plan.fingerprint(key, name)
    assert len(parsed) == 2, "one track of each seed"


def test_what_is_wanted_is_counted_by_name_and_by_point():
    wanted = Wanted([("a", "compress"), ("a", "task.ks"), ("b", "compress"), ("a", "task.ks")])
    assert len(wanted) == 3
    assert wanted.of("a") == ["compress", "task.ks"]
    wanted.remove(("a", "compress"))
    assert ("a", "compress") not in wanted
    assert list(wanted) == [("a", "task.ks"), ("b", "compress")]
    wanted.remove(("a", "task.ks"))
    assert wanted.points() == ["b"]
    assert +wanted.by_name == {"compress": 1}
