"""`bench select` and `bench compare` from the command line: what is said, and the exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from synthetic_run import make, write

from bench.choosing import read_share
from bench.cli import run
from core.errors import InputError
from core.point import Point
from core.record import Section
from results.store import RunFolder


def test_select_shows_what_fits_and_where_it_lies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    made = make(tmp_path / "run")
    assert run(["select", str(made.path), "--max-params", "0.7M", "--min-score", "600"]) == 0
    out = capsys.readouterr().out
    assert str(made.path / "models") in out
    assert "nearest" not in out
    head, *rows = [line for line in out.splitlines() if line.strip()]
    assert head.split()[:2] == ["model", "superb_s"]
    scores = [float(row.split()[3]) for row in rows]  # NAME at RATE SCORE
    assert 1 <= len(scores) <= 5
    assert scores == sorted(scores, reverse=True)
    assert min(scores) >= 600


def test_select_tells_the_nearest_misses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    made = make(tmp_path / "run")
    assert run(["select", str(made.path), "--max-params", "1k", "--task", "pr<=20"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("none of 55 models keeps within all limits")
    assert "past <= 1000" in out
    assert "pr_per is" in out


def test_compare_is_a_gate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = (make(tmp_path / name, methods=("low-rank",), rates=(0.5,)) for name in "ab")
    line = ["compare", str(a.path), str(b.path)]
    assert run([*line, "--fail-on-regression", "1%"]) == 0
    assert "no regression" in capsys.readouterr().out
    for file in b.path.glob("points/*/task.pr.json"):
        section = json.loads(file.read_text())
        point = json.loads((file.parent / "point.json").read_text())
        if point["method"] == "low-rank":
            section["values"]["pr_per"] *= 1.2
            file.write_text(json.dumps(section))
    assert run(line) == 0, "without a limit it only tells"
    assert "worse: 2" in capsys.readouterr().out
    assert run([*line, "--fail-on-regression", "1%"]) == 1
    assert "2 regressions" in capsys.readouterr().out
    assert run([*line, "--fail-on-regression", "90%"]) == 0


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("select {tmp}/nothing", "holds no run"),
        ("select {tmp}/a --max-params many", "--max-params 'many': expected a number"),
        ("select {tmp}/a --max-memory 1GB", "not measured in this run"),
        ("select {tmp}/a --task pr<20", "NAME<=NUMBER"),
        ("compare {tmp}/a {tmp}/nothing", "holds no run"),
        ("compare {tmp}/a {tmp}/other", "no point in common"),
        ("compare {tmp}/a {tmp}/a --fail-on-regression lots", "1% or 0.01"),
        ("compare {tmp}/a.csv {tmp}/a", "cannot read"),
        ("analyse {tmp}/none-made", "'params' was not measured"),
        ("analyse {tmp}/alone", "no method has both params_total and superb_s"),
        ("analyse {tmp}/bare", "superb_s' was not measured in this run: it is relative to FBANK"),
        ("analyse {tmp}/a --y sidd", "did you mean 'sid'"),
        ("select {tmp}/none-made", "no finished point"),
        ("select {tmp}/bare --min-score 1", "or take a task: ks"),
        ("leaderboard --out {tmp}/a.csv", "no run has no points yet"),
        ("leaderboard {tmp}/a --out {tmp}/a.csv --anchors quik", "unknown anchors 'quik'"),
    ],
)
def test_bad_input(
    line: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "a", methods=("low-rank",), rates=(0.5,))
    make(tmp_path / "other", methods=(), rates=(), model="random:tiny")
    make(tmp_path / "alone", methods=())
    bare, failed = RunFolder(tmp_path / "bare"), RunFolder(tmp_path / "none-made")
    bare.write_run({})
    write(bare, Point("builtin", "low-rank", 0.5, 0, "builtin"), ("ks",), "cpu")
    point = Point("builtin", "low-rank", 0.5, 0, "builtin")
    failed.write_point(point)
    failed.write_section(point.key, Section("compress", "failed", "f", reason="too small"))
    assert run(line.format(tmp=tmp_path).split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert says in captured.err
    assert captured.err.count("\n") == 1


def test_shares() -> None:
    assert read_share("1%") == read_share("0.01") == 0.01
    with pytest.raises(InputError):
        read_share("-1%")


def test_analyse_says_what_it_leaves_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make(tmp_path / "run", methods=("low-rank", "row-pruning"), rates=(0.3, 0.6))
    for record in made.records():
        section = record.sections["task.pr"]
        if (record.point.method, record.point.rate) == ("low-rank", 0.6):
            section.values["pr_per"] = float("nan")
            made.write_section(record.point.key, section)
    assert run(["analyse", str(made.path)]) == 0
    assert "1 points without params_total or superb_s left out" in capsys.readouterr().out
