from __future__ import annotations

import json
from pathlib import Path

import pytest
from synthetic_run import make

from bench.cli import run
from bench.merge import Conflict
from core.point import DENSE, Point
from core.record import Section
from results.store import RunFolder

METHODS = ("low-rank", "row-pruning")
RATES = (0.3, 0.6)
INFO = {"methods": METHODS, "rates": RATES, "seeds": [0], "tasks": ["pr"], "profilers": ["params"]}


@pytest.fixture
def runs(tmp_path):
    """Two runs on one device, that share the references and a point; models are a byte or two."""
    made = [
        make(tmp_path / name, methods=methods, rates=RATES, tasks=("pr",), info=INFO | mine)
        for name, methods, mine in (
            ("a", METHODS, {"machine": "one"}),
            ("b", METHODS[1:], {"methods": ["row-pruning", "first-layers"], "seeds": [0, 1]}),
        )
    ]
    for one in made:
        for record in one.records():
            edit(one, record, "compress", details={"weights": str(record.point)})
            folder = one.model_folder(record.point.key)
            folder.mkdir(parents=True)
            (folder / "model.safetensors").write_text(str(record.point))
    return made


def edit(folder: RunFolder, record, name: str, **changes) -> None:
    section = record.sections[name]
    for field, value in changes.items():
        setattr(section, field, value)
    folder.write_section(record.point.key, section)


def find(folder: RunFolder, method: str, rate: float = 0.0):
    return next(r for r in folder.records() if (r.point.method, r.point.rate) == (method, rate))


def files(folder) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*") if path.is_file() and not path.match("pareto.*")
    }  # fmt: skip


def merge(*paths, out, **options) -> int:
    extra = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    return run(["merge", *map(str, paths), "--out", str(out), *extra])


def test_runs_are_joined_with_their_models(runs, tmp_path, capsys):
    a, b = runs
    only = find(a, "low-rank", 0.3).point.key
    (tmp_path / "b" / "points" / only).mkdir()  # as a sweep leaves it that was cut right away
    assert merge(a.path, b.path, out=tmp_path / "out") == 0
    joined = RunFolder(tmp_path / "out")
    assert set(joined.keys()) == set(a.keys()) | set(b.keys())
    for record in joined.records():
        model = joined.model_folder(record.point.key) / "model.safetensors"
        assert model.read_text() == str(record.point)
    linked = a.model_folder(only) / "model.safetensors"
    assert linked.samefile(joined.model_folder(only) / "model.safetensors")
    info = joined.run_info()
    assert info["methods"] == ["low-rank", "row-pruning", "first-layers"]
    assert info["seeds"] == [0, 1]
    assert [entry["machine"] for entry in info["merged"]] == ["one", None]
    out = capsys.readouterr().out
    assert "7 points" in out
    assert (tmp_path / "out" / "leaderboard.csv").is_file()


def test_each_run_gives_what_the_other_lacks(runs, tmp_path):
    a, b = runs
    key = find(a, "row-pruning", 0.3).point.key
    edit(a, find(a, "row-pruning", 0.3), "task.pr", status="failed", reason="no luck", values={})
    (a.path / "points" / key / "profile.params.json").unlink()
    assert merge(a.path, b.path, out=tmp_path / "out") == 0
    found = RunFolder(tmp_path / "out").read(key).sections
    assert {section.status for section in found.values()} == {"done"}
    assert found["profile.params"].values == b.read(key).sections["profile.params"].values


def test_a_conflict_is_told_and_nothing_is_overwritten(runs, tmp_path, capsys):
    a, b = runs
    theirs = find(b, "row-pruning", 0.6)
    ours = find(a, "row-pruning", 0.6).sections["task.pr"].values["pr_per"]
    edit(b, theirs, "task.pr", values={"pr_per": 1.5})
    assert merge(a.path, b.path, out=tmp_path / "out") == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "pr_per 1.5" in line]
    assert line.strip() == (
        f"row-pruning at 0.6 (seed 0): task.pr: pr_per {ours:.6g} in {a.path}, "
        f"pr_per 1.5 in {b.path}"
    )
    kept = find(RunFolder(tmp_path / "out"), "row-pruning", 0.6).sections["task.pr"]
    assert kept.values == {"pr_per": ours}


def test_what_was_measured_of_another_model_is_not_mixed_in(runs, tmp_path, capsys):
    a, b = runs
    point = find(a, "row-pruning", 0.6).point
    (a.path / "points" / point.key / "profile.params.json").unlink()
    edit(b, find(b, "row-pruning", 0.6), "compress", details={"weights": "others"})
    assert merge(a.path, b.path, out=tmp_path / "out") == 1
    assert f"{point}: compress: weights {point} in {a.path}, weights others" in (
        capsys.readouterr().out
    )
    assert "profile.params" not in RunFolder(tmp_path / "out").read(point.key).sections


def test_seconds_and_machines_are_no_conflict(runs, tmp_path):
    a, b = runs
    edit(b, find(b, DENSE), "task.pr", seconds=99.0, environment={"cpu": "another"})
    assert merge(a.path, b.path, out=tmp_path / "out") == 0


def test_the_first_of_two_timings_on_one_device_is_taken(runs, tmp_path, capsys):
    a, b = runs
    edit(b, find(b, DENSE), "profile.latency", values={"latency_s_p50": 9.0})
    assert merge(a.path, b.path, out=tmp_path / "out") == 0
    kept = find(RunFolder(tmp_path / "out"), DENSE).sections["profile.latency"].values
    assert kept == find(a, DENSE).sections["profile.latency"].values
    assert "the first run's are taken: 1" in capsys.readouterr().out


def test_timings_of_two_devices_are_not_mixed(runs, tmp_path, capsys):
    a, b = runs
    for record in b.records():
        if "latency_s_p50" in record.sections["profile.latency"].values:
            edit(b, record, "profile.latency", environment={"cpu": "slower"})
    assert merge(a.path, b.path, out=tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "slower" in said
    assert f"bench report {a.path} {b.path}" in said
    assert not (tmp_path / "out").exists()
    assert merge(a.path, b.path, out=tmp_path / "out", timings=b.path) == 0
    joined = RunFolder(tmp_path / "out")
    assert "profile.latency" not in find(joined, "low-rank", 0.3).sections
    timed = find(joined, "row-pruning", 0.3).sections["profile.latency"]
    assert timed.environment == {"cpu": "slower"}


def test_a_merge_that_was_interrupted_is_repeated(runs, tmp_path):
    a, b = runs
    assert merge(a.path, b.path, out=tmp_path / "whole") == 0
    whole = files(tmp_path / "whole")
    for cut in (5, 20, 40):
        out = tmp_path / f"cut-{cut}"
        for name in list(whole)[:cut]:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(whole[name])
        assert merge(a.path, b.path, out=out) == 0
        found = files(out)
        assert {k: v for k, v in found.items() if k != "run.json"} == {
            k: v for k, v in whole.items() if k != "run.json"
        }
        assert json.loads(found["run.json"]) == json.loads(whole["run.json"])


@pytest.mark.parametrize("field", ["model", "runtime"])
def test_runs_of_different_things_stay_apart(runs, tmp_path, capsys, field):
    a, b = runs
    b.write_run(b.run_info() | {field: "another"})
    assert merge(a.path, b.path, out=tmp_path / "out") == 2
    assert f"sweep of {field} 'another'" in capsys.readouterr().err


def test_a_run_is_not_merged_into_itself(runs, capsys):
    a, b = runs
    assert merge(a.path, b.path, out=a.path) == 2
    assert "one of the runs" in capsys.readouterr().err


def test_a_conflict_of_models_tells_how_many_processes_trained_them():
    made = [Section("compress", "done", "f", details=details) for details in (
        {"weights": "a"}, {"weights": "b", "processes": 2}
    )]  # fmt: skip
    point = Point("builtin", "low-rank", 0.5, 0, "builtin")
    told = str(Conflict(point, (made[0], made[1]), (Path("one"), Path("two"))))
    assert told.endswith("weights a in one, weights b (trained by 2 processes) in two")
