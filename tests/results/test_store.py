import errno
import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InputError
from core.metric import Metric
from core.point import Point
from core.record import Section
from results.store import RunFolder, write_whole

POINT = Point("builtin", "low-rank", 0.5, 0, "builtin")


def section(value=1.5, name="profile.params"):
    metric = Metric("params_total", "", "lower", "parameters")
    return Section(
        name, "done", "abc", {"params_total": value}, {"params_total": metric}, {"raw": [1, 2]},
        seconds=0.1, environment={"cpu": "x"},
    )  # fmt: skip


@pytest.fixture
def run(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.write_point(POINT)
    run.write_section(POINT.key, section())
    return run


def test_what_is_written_is_read(run):
    run.write_run({"model": "builtin", "random_weights": True})
    assert run.run_info() == {"model": "builtin", "random_weights": True}
    assert run.keys() == [POINT.key]
    record = run.read(POINT.key)
    assert record.point == POINT
    assert record.sections == {"profile.params": section()}
    assert run.records() == [record]
    assert run.model_folder(POINT.key) == run.path / "models" / POINT.key


@given(value=st.floats())
def test_any_number_survives_as_strict_json(tmp_path_factory, value):
    run = RunFolder(tmp_path_factory.mktemp("run"))
    run.write_point(POINT)
    run.write_section(POINT.key, section(value))
    text = (run.path / "points" / POINT.key / "profile.params.json").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    found = run.read(POINT.key).sections["profile.params"].values["params_total"]
    assert found == value if math.isfinite(value) else math.isnan(found)


def test_a_section_replaces_the_one_before_it_and_leaves_nothing_else(run):
    run.write_section(POINT.key, section(2.0))
    assert run.read(POINT.key).values() == {"params_total": 2.0}
    names = sorted(p.name for p in (run.path / "points" / POINT.key).iterdir())
    assert names == ["point.json", "profile.params.json"]


def test_an_empty_or_absent_folder_has_no_records(tmp_path):
    assert RunFolder(tmp_path / "none").records() == []
    assert RunFolder(tmp_path / "none").run_info() == {}
    with pytest.raises(InputError, match="holds no run"):
        RunFolder.existing(tmp_path)


def test_strangers_and_leftovers_are_ignored(run):
    folder = run.path / "points" / POINT.key
    (folder / ".task.pr.json.0badf00d.tmp").write_text('{"name": "ta')
    (folder / "notes.txt").write_text("mine")
    (run.path / "points" / "empty").mkdir()
    (run.path / "points" / ".DS_Store").write_bytes(b"\0")
    assert [list(r.sections) for r in run.records()] == [["profile.params"]]


def test_a_half_written_file_counts_as_never_written_and_is_named(run, caplog):
    path = run.path / "points" / POINT.key / "task.pr.json"
    path.write_text(json.dumps(section(name="task.pr").to_json())[:40])
    assert list(run.read(POINT.key).sections) == ["profile.params"]
    assert str(path) in caplog.text
    (path.parent / "point.json").write_text("")
    assert run.records() == []


def test_a_glance_tells_what_a_plan_needs_as_reading_does(run):
    done = section(name="task.pr")
    made = replace(section(name="compress"), details={"weights": "f00", "layers": [1]})
    failed = replace(section(name="profile.macs"), status="failed", reason='no "luck"')
    for each in (done, made, failed):
        run.write_section(POINT.key, each)
    found = run.glance(POINT)
    assert found.point == POINT
    assert found.sections == {n: s.brief() for n, s in run.read(POINT.key).sections.items()}
    assert found.sections["compress"].details == {"weights": "f00"}
    assert found.sections["profile.macs"].reason == failed.reason
    assert run.glance(Point("builtin", "low-rank", 0.25, 0, "builtin")).sections == {}


def test_a_glance_opens_a_finished_measurement_without_parsing_it(run, monkeypatch):
    parsed, real = [], json.loads
    monkeypatch.setattr(json, "loads", lambda text: parsed.append(text) or real(text))
    assert list(run.glance(POINT).sections) == ["profile.params"]
    assert [b"low-rank" in text for text in parsed] == [True], "the point alone"


@pytest.mark.parametrize("left", [0, 40, 200, -2, -3])
def test_a_glance_counts_a_half_written_file_as_never_written(run, caplog, left):
    path = run.path / "points" / POINT.key / "profile.params.json"
    path.write_bytes(path.read_bytes()[:left])
    assert run.glance(POINT).sections == {} == run.read(POINT.key).sections
    assert str(path) in caplog.text


@pytest.mark.parametrize("content", ["[1]", '{"a": 1}', "3", '{"name": "task.ks"}'])
@pytest.mark.parametrize("name", ["task.pr.json", "point.json"])
def test_a_glance_refuses_a_foreign_file_by_name(run, name, content):
    (run.path / "points" / POINT.key / name).write_text(content)
    with pytest.raises(InputError, match=name):
        run.glance(POINT)


def test_a_glance_refuses_a_section_under_anothers_name(run):
    folder = run.path / "points" / POINT.key
    (folder / "profile.params.json").rename(folder / "profile.macs.json")
    with pytest.raises(InputError, match=r"profile\.macs"):
        run.glance(POINT)


@pytest.mark.parametrize(
    ("name", "seconds", "status", "waited_for"),
    [
        ("compress", 5.0, "done", {"point.json", "model.safetensors", "compress.json"}),
        ("task.ks", 5.0, "done", {"point.json", "task.ks.json"}),
        ("task.ks", 0.0, "failed", {"point.json", "task.ks.json"}),
        ("task.ks", 0.01, "done", set()),
        ("compress", 0.01, "done", set()),
    ],
)
def test_what_is_dear_is_waited_for_with_what_it_needs(
    run, monkeypatch, name, seconds, status, waited_for
):
    (run.model_folder(POINT.key)).mkdir(parents=True)
    (run.model_folder(POINT.key) / "model.safetensors").write_text("weights")
    waited, real = set(), os.fsync

    def count(file):
        waited.add(os.fstat(file).st_ino)
        real(file)

    monkeypatch.setattr(os, "fsync", count)
    made = replace(section(name=name), seconds=seconds, status=status)
    run.write_section(POINT.key, made)
    assert {p.name for p in run.path.rglob("*.*") if p.stat().st_ino in waited} == waited_for
    assert run.read(POINT.key).sections[name] == made


@pytest.mark.parametrize("content", ["[1]", '{"a": 1}', "3", '{"name": "task.ks"}'])
@pytest.mark.parametrize("name", ["task.pr.json", "point.json"])
def test_a_foreign_file_is_refused_by_name(run, name, content):
    path = run.path / "points" / POINT.key / name
    path.write_text(content)
    with pytest.raises(InputError, match=name):
        run.records()


def test_a_point_in_another_points_folder_is_refused(run):
    folder = run.path / "points" / POINT.key
    folder.rename(folder.with_name("0" * 16))
    with pytest.raises(InputError, match="key '0000000000000000'"):
        run.records()


def test_a_missing_point_is_named(run):
    with pytest.raises(InputError, match="no point 'abc'"):
        run.read("abc")


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"):
        RunFolder(tmp_path / "file").write_run({})


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO])
def test_a_disk_that_takes_no_more_keeps_the_old_file(tmp_path, monkeypatch, number):
    path = tmp_path / "point.json"
    write_whole(path, b"old")

    def full(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=os.strerror(number)) as error:
        write_whole(path, b"new")
    assert str(tmp_path) in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["point.json"]
    assert path.read_bytes() == b"old"


def test_records_keep_of_details_and_environments_what_is_asked_for(run):
    run.write_section(POINT.key, section())
    whole, pared, bare = run.records()[0], run.records(["raw"])[0], run.records(())[0]
    for record, details, environment in (
        (whole, {"raw": [1, 2]}, {"cpu": "x"}), (pared, {"raw": [1, 2]}, {}), (bare, {}, {})
    ):  # fmt: skip
        found = record.sections["profile.params"]
        assert (found.details, found.environment) == (details, environment)
        assert found.values == {"params_total": 1.5}


def test_what_a_metric_means_is_read_once_for_all_records(run):
    run.write_section(POINT.key, section())
    first, second = (run.read(POINT.key).sections["profile.params"].metrics for _ in range(2))
    assert first["params_total"] is second["params_total"]
    assert first is not second


def test_records_need_the_standard_library_alone(run):
    code = (
        "import sys; from results.store import RunFolder; import results.superb;"
        f"assert len(RunFolder({str(run.path)!r}).records()) == 1;"
        "heavy = {'torch', 'pandas', 'numpy', 'matplotlib', 'rich'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
