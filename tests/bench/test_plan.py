from __future__ import annotations

from dataclasses import replace

import pytest

from bench.jobs import Source
from bench.plan import Plan, Request
from core.method import parse_methods
from core.point import DENSE, RANDOM
from core.record import Section
from results.store import RunFolder


@pytest.fixture
def request_(small_model, small_data) -> Request:
    return Request(
        str(small_model), tuple(parse_methods("low-rank,random-pruning")), (0.25, 0.5), (0, 1),
        Source(str(small_data)), ("ks",), Source(str(small_data)), ("params", "latency"),
    )  # fmt: skip


def write(plan: Plan, key: str, name: str, **changes) -> None:
    """Record the section as done by the present state of everything."""
    section = Section(name, "done", plan.fingerprint(key, name) or "")
    if name == "compress":
        section.details["weights"] = f"weights of {key}"
    section = replace(section, **changes)
    plan.run.write_point(plan.records[key].point)
    plan.run.write_section(key, section)
    plan.records[key].sections[name] = section


def write_all(plan: Plan) -> None:
    for name in ("compress", "profile.params", "profile.latency", "task.ks"):
        for key, record in plan.records.items():
            if name in plan.request.sections(record.point):
                write(plan, key, name)
                folder = plan.run.model_folder(key)
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "model.safetensors").touch()


def states(plan: Plan) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for key, name in plan.pairs():
        found.setdefault(name, set()).add(plan.state(key, name))
    return found


def key_of(plan: Plan, method: str, rate: float = 0.0, seed: int = 0) -> str:
    (key,) = [
        key
        for key, r in plan.records.items()
        if (r.point.method, r.point.rate, r.point.seed) == (method, rate, seed)
    ]
    return key


def test_references_come_first_and_every_seed_has_them(request_):
    tracks = list(request_.tracks())
    assert [[(p.method, p.seed) for p in track] for track in tracks[:6]] == [
        [("dense", 0)], [("fbank", 0)], [("random-init", 0)],
        [("dense", 1)], [("fbank", 1)], [("random-init", 1)],
    ]  # fmt: skip
    assert [[(p.method, p.rate, p.seed) for p in track] for track in tracks[6:8]] == [
        [("low-rank", 0.25, 0), ("low-rank", 0.5, 0)],
        [("low-rank", 0.25, 1), ("low-rank", 0.5, 1)],
    ]
    assert len({p.key for track in tracks for p in track}) == 14


def test_the_random_encoder_is_there_for_its_scores_alone(request_):
    random = next(p for (p, *_) in request_.tracks() if p.method == RANDOM)
    assert request_.sections(random) == ["compress", "task.ks"]
    without = replace(request_, tasks=())
    assert RANDOM not in {p.method for (p, *_) in without.tracks()}


def test_a_new_run_lacks_everything_and_a_complete_one_nothing(request_, tmp_path):
    plan = Plan.of(request_, tmp_path)
    assert set().union(*states(plan).values()) == {"missing"}
    write_all(plan)
    again = Plan.of(request_, tmp_path)
    assert set().union(*states(again).values()) == {"done"}
    assert again.todo() == []


def test_changed_data_makes_what_ran_on_it_stale(request_, tmp_path, small_data):
    write_all(Plan.of(request_, tmp_path / "run"))
    other = tmp_path / "other.csv"
    other.write_text(f"path,split,label\n{small_data}/0.wav,test,a\n")
    changed = Plan.of(replace(request_, task_source=Source(str(other))), tmp_path / "run")
    found = states(changed)
    assert found["task.ks"] == {"stale"}
    assert found["compress"] == found["profile.params"] == {"done"}


def test_a_changed_model_makes_its_descendants_stale_but_not_fbank(request_, tmp_path):
    write_all(Plan.of(replace(request_, seeds=(0,)), tmp_path))
    plan = Plan.of(replace(request_, seeds=(0,)), tmp_path)
    plan.request.__dict__["model_fingerprint"] = "another"
    assert plan.state(key_of(plan, DENSE), "compress") == "stale"
    assert plan.state(key_of(plan, "low-rank", 0.5), "task.ks") == "stale"
    assert plan.state(key_of(plan, "fbank"), "compress") == "done"


def test_equal_models_have_equal_measurements_but_tasks_differ_by_seed(request_, tmp_path):
    plan = Plan.of(request_, tmp_path)
    keys = [key_of(plan, "low-rank", 0.5, seed) for seed in (0, 1)]
    for key in keys:
        write(plan, key, "compress", details={"weights": "the same"})
    first, second = ({n: plan.fingerprint(k, n) for n in ("profile.params", "task.ks")}
                     for k in keys)  # fmt: skip
    assert first["profile.params"] == second["profile.params"]
    assert first["task.ks"] != second["task.ks"]


def test_what_failed_is_left_alone_unless_it_is_to_be_retried(request_, tmp_path):
    plan = Plan.of(request_, tmp_path)
    write_all(plan)
    key = key_of(plan, "low-rank", 0.5)
    write(plan, key, "compress", status="failed", reason="no luck")
    assert plan.state(key, "task.ks") == "failed"
    assert plan.todo() == []
    assert {pair for pair in plan.todo(retry_failed=True) if pair[0] == key} == {
        (key, name) for name in request_.sections(plan.records[key].point)
    }


def test_a_model_that_was_removed_is_made_again_only_where_it_is_needed(request_, tmp_path):
    plan = Plan.of(request_, tmp_path)
    write_all(plan)
    key = key_of(plan, "low-rank", 0.5)
    for each in (key, key_of(plan, DENSE), key_of(plan, "fbank")):
        (RunFolder(tmp_path).model_folder(each) / "model.safetensors").unlink()
    assert plan.todo() == []
    write(plan, key, "profile.latency", fingerprint="old")
    assert plan.todo() == [
        (key_of(plan, DENSE), "compress"), (key, "compress"), (key, "profile.latency")
    ]  # fmt: skip
