"""What the harness does for a section must not depend on how many sections there are."""

from __future__ import annotations

import gc
import shutil
import sys
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
from pretending import Pretending

import encoders.store
from bench.executors._base import Said
from bench.jobs import Evaluate, Finished, Source
from bench.plan import Plan, Request
from bench.sweep import Sweep
from bench.wanted import Wanted
from core import plugins
from core.method import Method, parse_methods
from core.point import DENSE, Point
from core.runtime import Runtime
from encoders.hidden_cache import Cache
from results import store
from results.store import RunFolder


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
    real = store._read

    def count(path: Path | str):
        read.append(Path(path))
        return real(path)

    monkeypatch.setattr(store, "_read", count)
    plan = Plan.of(asked(5), tmp_path)
    records = sorted(tmp_path.glob("points/*/*.json"))
    assert sorted(read) == records
    assert len(records) == 4 * 7
    assert [pair for pair in plan.todo() if pair[1] != "compress"] == []


def test_a_plan_looks_for_profilers_once(asked, tmp_path, monkeypatch):
    Sweep(Plan.of(asked(5), tmp_path), Pretending()).run()
    looked, real = [], plugins.names
    monkeypatch.setattr(plugins, "names", lambda kind: looked.append(kind) or real(kind))
    plan = Plan.of(asked(5), tmp_path)
    assert {plan.state(*pair) for pair in plan.pairs()} == {"done"}
    plan.todo()
    assert "profiler" not in looked


def test_a_sweep_holds_of_a_section_what_a_plan_needs(asked, tmp_path):
    class Wordy(Pretending):
        def events(self):
            for event in super().events():
                if isinstance(event, Said) and isinstance(event.message, Finished):
                    event.message.section.details["samples"] = list(range(1000))
                    event.message.section.environment["cpu"] = "a name"
                yield event

    sweep = Sweep(Plan.of(asked(5), tmp_path), Wordy())
    sweep.run()
    held = [s for record in sweep.plan.records.values() for s in record.sections.values()]
    assert len(held) == 3 * 7
    assert not any(section.values or section.environment for section in held)
    assert {tuple(section.details) for section in held} == {("weights",), ()}


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


def test_tasks_get_a_model_of_their_own_when_that_of_the_costs_is_gone(
    small_model, small_data, tmp_path, monkeypatch
):
    point, data = Point(str(small_model), DENSE, 0.0, 0, str(small_data)), Source(str(small_data))
    run = RunFolder(tmp_path)
    run.write_point(point)
    shutil.copytree(small_model, run.model_folder(point.key))
    loaded: list[weakref.ref] = []

    def load(folder, load=encoders.store.load):
        gc.collect()
        assert not any(other() for other in loaded), "two models are held at a time"
        loaded.append(weakref.ref(encoder := load(folder)))
        return encoder

    monkeypatch.setattr(encoders.store, "load", load)
    names = ["profile.params", "profile.macs", "task.ks"]
    Evaluate(
        tmp_path, (point,), {(point.key, name): "f" for name in names}, source=data,
        task_source=data, runtime=Runtime(), cache=Cache(),
    ).run(lambda message: None)  # fmt: skip
    assert len(loaded) == 2, "one for the costs, one for the tasks"
    statuses = {name: s.status for name, s in run.read(point.key).sections.items()}
    assert statuses == {"profile.params": "done", "profile.macs": "done", "task.ks": "unsupported"}
