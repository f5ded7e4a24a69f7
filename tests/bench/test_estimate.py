"""What `--dry-run` tells of the hours and the disk that are still to go."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench import environment
from bench.estimate import estimate, lengths
from bench.jobs import Source
from bench.plan import Plan, Request
from bench.run_sweep import preview
from core.method import parse_methods
from core.record import Section
from core.runtime import Runtime
from encoders.store import WEIGHTS

SECONDS = {"compress": 60.0, "profile.params": 10.0, "profile.latency": 5.0}


@pytest.fixture
def asked(small_model, small_data) -> Request:
    return Request(
        str(small_model), tuple(parse_methods("low-rank,random-pruning")), (0.25, 0.5), (0,),
        Source(str(small_data)), (), Source(str(small_data)), ("params", "latency"),
    )  # fmt: skip


def measure(plan: Plan, method: str, names=tuple(SECONDS)) -> None:
    """Record that the method's points took so long and weigh 3 MB each."""
    plan.run.write_run({"model": plan.request.model, "runtime": str(plan.request.runtime)})
    for key, record in plan.records.items():
        if record.point.method != method:
            continue
        plan.run.write_point(record.point)
        for name in names:
            section = Section(name, "done", plan.fingerprint(key, name) or "")
            section.seconds, section.details["weights"] = SECONDS[name], key
            plan.run.write_section(key, section)
            record.sections[name] = section
        folder = plan.run.model_folder(key)
        folder.mkdir(parents=True)
        (folder / WEIGHTS).write_bytes(bytes(3_000_000))


def test_nothing_is_foretold_where_nothing_was_measured(asked, tmp_path):
    told = estimate(Plan.of(asked, tmp_path / "run"), 2)
    assert told == "nothing like it was measured yet, so hours and disk are not known"


def test_what_is_left_takes_as_long_as_its_like_did(asked, tmp_path):
    measure(Plan.of(asked, tmp_path), "low-rank")
    told = estimate(Plan.of(asked, tmp_path), 2)
    # Four points are left: two workers make and count them, and they are timed one by one.
    assert "about 2 min 40 s and 12 MB still to go" in told
    assert f"by what is in {tmp_path}" in told


def test_without_a_record_of_its_own_a_run_is_told_by_those_of_the_model_beside_it(asked, tmp_path):
    measure(Plan.of(asked, tmp_path / "there"), "low-rank", ("compress", "profile.params"))
    told = estimate(Plan.of(asked, tmp_path / "here"), 1)
    assert "about 7 min 00 s and 18 MB still to go" in told
    assert "without profile.latency, as none was made yet" in told
    assert f"by the runs beside {tmp_path / 'here'}" in told
    other = replace(asked, model="random:tiny")
    assert "not known" in estimate(Plan.of(other, tmp_path / "other"), 1)


def test_a_preview_counts_the_workers_that_a_sweep_would_start(asked, tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "cores", lambda: 8)
    asked = replace(asked, runtime=Runtime(threads=4))
    measure(Plan.of(asked, tmp_path), "low-rank")
    assert "about 2 min 40 s and" in preview(asked, tmp_path)
    assert "about 5 min 00 s and" in preview(asked, tmp_path, workers=1)


def test_what_trains_together_takes_as_many_workers(asked, tmp_path):
    asked = replace(asked, methods=tuple(parse_methods("low-rank[steps=2],small-model")))
    measure(Plan.of(asked, tmp_path / "one"), "low-rank[steps=2]")
    together = replace(asked, processes=2)
    # Of six points four are of methods that train; the references are made by one process.
    for request, minutes in ((asked, 7), (together, 11)):
        told = estimate(Plan.of(request, tmp_path / "other"), 1)
        assert f"about {minutes} min 30 s" in told


def test_lengths_tell_an_order_whether_anything_was_measured_or_not(asked, tmp_path):
    methods = "random-pruning,low-rank,low-rank[steps=9],small-model[steps=9]"
    asked = replace(asked, methods=tuple(parse_methods(methods)))
    names = [str(method) for method in asked.methods]
    length = lengths(Plan.of(asked, tmp_path / "run"))
    assert [length(name, "compress") for name in names] == [0, 0, 9 * 24, 9 * 4]
    assert length("dense", "compress") == length(names[0], "profile.params") == 0
    measure(Plan.of(asked, tmp_path / "run"), names[2])
    length = lengths(Plan.of(asked, tmp_path / "run"))
    assert [length(name, "compress") for name in names] == [0, 0, 60, 10]
    assert length("dense", "profile.params") == 10


def test_nothing_is_said_where_nothing_is_left(asked, tmp_path):
    plan = Plan.of(replace(asked, methods=(), profilers=()), tmp_path)
    for method in ("dense", "fbank"):
        measure(plan, method, ("compress",))
    assert estimate(Plan.of(plan.request, tmp_path), 1) == ""
