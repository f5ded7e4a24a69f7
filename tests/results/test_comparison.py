"""Two runs held together: identical, worse, noise, gone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from synthetic_run import make

from core.errors import InputError
from results import leaderboard
from results.comparison import compare
from results.store import RunFolder


def shift(run: RunFolder, column: str, by: float, seeds: tuple[int, ...], method: str) -> None:
    """Add to one number of a method's points, in their records."""
    for file in run.path.glob("points/*/*.json"):
        point = json.loads((file.parent / "point.json").read_text())
        section = json.loads(file.read_text())
        meant = point["method"] == method and point["seed"] in seeds
        if meant and column in section.get("values", {}):
            section["values"][column] += by
            file.write_text(json.dumps(section))


def two(tmp_path: Path, seeds: tuple[int, ...] = (0,)) -> tuple[RunFolder, RunFolder]:
    methods, rates = ("low-rank", "row-pruning"), (0.3, 0.6)
    return tuple(make(tmp_path / name, methods=methods, rates=rates, seeds=seeds) for name in "ab")  # type: ignore[return-value]


def test_a_run_is_as_itself(tmp_path: Path) -> None:
    a, b = two(tmp_path)
    found = compare(a.path, b.path)
    assert found.changes == []
    assert found.same > 20
    assert found.seeds == 1


def test_one_seed_has_no_interval_and_a_worse_metric_is_a_regression(tmp_path: Path) -> None:
    a, b = two(tmp_path)
    shift(b, "pr_per", 5.0, (0,), "low-rank")
    found = compare(a.path, b.path)
    (worst, *_) = found.of("worse")
    assert {c.method for c in found.changes} == {"low-rank"}
    assert worst.interval is None
    columns = {c.column for c in found.of("worse")}
    assert columns == {"pr_per", "superb_s"}
    assert found.of("better") == []
    assert len(found.regressions(0.01)) == 4
    assert found.regressions(0.5) == []


def test_the_other_way_round_it_is_better(tmp_path: Path) -> None:
    a, b = two(tmp_path)
    shift(b, "ks_acc", 5.0, (0,), "low-rank")
    assert compare(a.path, b.path).of("worse") == []
    assert {c.column for c in compare(a.path, b.path).of("better")} == {"ks_acc", "superb_s"}


def test_seeds_tell_noise_from_change(tmp_path: Path) -> None:
    seeds = (0, 1, 2)
    a, b = two(tmp_path, seeds)
    shift(b, "sid_acc", 4.0, (0,), "low-rank")  # up here, down there
    shift(b, "sid_acc", -4.0, (1,), "low-rank")
    for seed, by in zip(seeds, (3.0, 3.1, 3.2), strict=True):
        shift(b, "sid_acc", -by, (seed,), "row-pruning")
    found = compare(a.path, b.path)
    assert {(c.method, c.verdict) for c in found.changes if c.column == "sid_acc"} == {
        ("low-rank", "noise"), ("row-pruning", "worse"),
    }  # fmt: skip
    worse = found.of("worse")[0]
    assert worse.interval is not None
    assert worse.interval[0] < worse.share < worse.interval[1] < 0


def test_a_model_that_is_gone_is_a_regression(tmp_path: Path) -> None:
    a = make(tmp_path / "a", methods=("low-rank", "row-pruning"), rates=(0.3,))
    b = make(tmp_path / "b", methods=("low-rank",), rates=(0.3,))
    found = compare(a.path, b.path)
    (lost,) = found.regressions(10.0)
    assert (lost.method, lost.verdict) == ("row-pruning", "lost")
    assert compare(b.path, a.path).changes == []


def test_speedups_are_apart_only_where_their_intervals_are(tmp_path: Path) -> None:
    a, b = two(tmp_path)
    for run, by in ((a, 0.0), (b, -0.2)):
        for file in run.path.glob("points/*/profile.latency.json"):
            method = json.loads((file.parent / "point.json").read_text())["method"]
            section = json.loads(file.read_text())
            width = 0.05 if method == "low-rank" else 0.3
            speedup = 1.5 + by
            section["values"]["speedup"] = speedup
            section["details"]["speedup_interval95"] = [speedup - width, speedup + width]
            section["metrics"]["speedup"] = {
                "name": "speedup", "unit": "x", "better": "higher", "about": ""
            }  # fmt: skip
            file.write_text(json.dumps(section))
    verdicts = {
        c.method: c.verdict
        for c in compare(a.path, b.path).changes
        if c.column == "speedup" and c.method != "dense"
    }
    assert verdicts == {"low-rank": "worse", "row-pruning": "noise"}


def test_no_run_is_refused(tmp_path: Path) -> None:
    a, _ = two(tmp_path)
    with pytest.raises(InputError, match="holds no run"):
        compare(a.path, tmp_path / "nothing")


def test_a_leaderboard_stands_for_its_run(tmp_path: Path) -> None:
    a, b = two(tmp_path)
    table = tmp_path / "leaderboard.csv"
    leaderboard.write([a.path], table)
    for pair in ((table, a.path), (a.path, table)):
        found = compare(*pair)
        assert found.changes == []
        assert found.same > 20
    shift(b, "pr_per", 5.0, (0,), "low-rank")
    for before, after, verdict in ((table, b.path, "worse"), (b.path, table, "better")):
        changes = compare(before, after).changes
        assert {(c.method, c.verdict) for c in changes} == {("low-rank", verdict)}
        assert {c.column for c in changes} == {"pr_per", "superb_s"}
    lost = make(tmp_path / "c", methods=("low-rank",), rates=(0.3, 0.6))
    assert {c.method for c in compare(table, lost.path).of("lost")} == {"row-pruning"}


def test_seeds_of_a_leaderboard_tell_noise_from_change(tmp_path: Path) -> None:
    a, b = two(tmp_path, (0, 1, 2))
    leaderboard.write([a.path], tmp_path / "leaderboard.csv")
    for seed, by in enumerate((4.0, -4.0, 0.1)):
        shift(b, "sid_acc", by, (seed,), "low-rank")
    found = compare(tmp_path / "leaderboard.csv", b.path)
    assert {c.verdict for c in found.changes} == {"noise"}
    assert found.seeds == 3


def test_published_models_in_a_leaderboard_are_not_lost(tmp_path: Path) -> None:
    a, _ = two(tmp_path)
    leaderboard.write([a.path], tmp_path / "all.csv", published=True)
    text = (tmp_path / "all.csv").read_text().splitlines()
    one = [line for line in text if not line.startswith("published,")]
    head = one[0].split(",").index("run")
    rows = [",".join(c for i, c in enumerate(line.split(",")) if i != head) for line in one]
    (tmp_path / "one.csv").write_text("\n".join(rows) + "\n")
    assert compare(tmp_path / "all.csv", a.path).changes == []
    assert compare(tmp_path / "one.csv", a.path).changes == []


def test_superb_s_over_other_tasks_is_not_compared_and_said(tmp_path: Path) -> None:
    a, _ = two(tmp_path)
    b = make(tmp_path / "c", methods=("low-rank", "row-pruning"), rates=(0.3, 0.6), tasks=("ks",))
    found = compare(a.path, b.path)
    assert "superb_s" not in {c.column for c in found.changes}
    (remark,) = found.remarks
    assert "over ks pr' and 'quick:fbank-dense over ks'" in remark


def test_what_is_no_leaderboard_is_refused(tmp_path: Path) -> None:
    a, b = two(tmp_path)
    table = tmp_path / "leaderboard.csv"
    leaderboard.write([a.path, b.path], table)
    with pytest.raises(InputError, match=r"leaderboard.csv holds several runs"):
        compare(table, a.path)
    leaderboard.write([a.path], table)
    with pytest.raises(InputError, match="both tables"):
        compare(table, table)
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="no column anchors, key, method"):
        compare(tmp_path / "other.csv", a.path)
    with pytest.raises(InputError, match=r"cannot read .*none.csv"):
        compare(tmp_path / "none.csv", a.path)
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(InputError, match=r"cannot read .*empty.csv"):
        compare(tmp_path / "empty.csv", a.path)


def test_a_number_that_is_gone_is_a_regression(tmp_path: Path) -> None:
    a, b = two(tmp_path)
    shift(b, "pr_per", float("nan"), (0,), "low-rank")
    lost = compare(a.path, b.path).regressions(10.0)
    told = {str(change) for change in lost}
    assert "low-rank at 0.3: pr_per was measured, now is not" in told
    assert {change.method for change in lost} == {"low-rank"}
    assert compare(b.path, a.path).regressions(0.0) == []
