"""Numbers behind a curve, by hand and against a count of random darts."""

from __future__ import annotations

import math
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_run import make

from core.errors import InputError
from results.analysis import Curve, analyse
from results.front import front

UNIT = st.floats(0.01, 0.99)
FRONTS = st.lists(st.tuples(UNIT, UNIT), min_size=1, max_size=6)


def curve(points: list[tuple[float, float]]) -> Curve:
    costs, scores = zip(*points, strict=True)
    kept = front(costs, scores)
    return Curve("", "", tuple(costs[i] for i in kept), tuple(scores[i] for i in kept))


def test_hypervolume_by_hand() -> None:
    made = Curve("", "", (1.0, 3.0), (20.0, 40.0))
    assert made.hypervolume(4.0, 10.0, 50.0) == pytest.approx((2 * 10 + 1 * 30) / (4 * 40))
    assert Curve("", "", (5.0,), (20.0,)).hypervolume(4.0, 10.0, 50.0) == 0
    assert Curve("", "", (1.0,), (5.0,)).hypervolume(4.0, 10.0, 50.0) == 0


@given(FRONTS)
def test_hypervolume_is_the_share_of_darts_below(points: list[tuple[float, float]]) -> None:
    darts, random = 4000, Random(0)
    below = 0
    for _ in range(darts):
        x, y = random.random(), random.random()
        below += any(cost <= x and score >= y for cost, score in points)
    assert curve(points).hypervolume(1.0, 0.0, 1.0) == pytest.approx(below / darts, abs=0.04)


@given(FRONTS)
def test_a_better_point_never_lowers_it(points: list[tuple[float, float]]) -> None:
    more = [*points, (0.5, 0.5)]
    assert (
        curve(more).hypervolume(1.0, 0.0, 1.0) >= curve(points).hypervolume(1.0, 0.0, 1.0) - 1e-12
    )


def test_readings() -> None:
    made = Curve("", "", (1.0, 3.0, 4.0), (20.0, 40.0, 50.0))
    assert made.score_at(2.0) == (30.0, True)
    assert made.score_at(3.0) == (40.0, False)
    assert made.cost_at(45.0) == (3.5, True)
    assert str(made.score_at(2.0)) == "~30"
    assert str(made.score_at(3.0)) == "40"
    for outside in (0.5, 5.0):
        assert math.isnan(made.score_at(outside).value)
        assert str(made.score_at(outside)) == "-"


def test_who_beats_whom(tmp_path: Path) -> None:
    run = make(tmp_path / "run", rates=(0.3, 0.6), seeds=(0, 1, 2))
    found = analyse([run.path], "params", "pr", ["0.7M"], ["50%"])
    assert (found.x, found.y) == ("params_total", "pr_per")
    points = found.points.set_index(["method", "rate"])
    for _, row in points.iterrows():
        rivals = points[(points["x"] <= row["x"]) & (points["y"] < row["y"])]
        rivals = (
            rivals if len(rivals) else points[(points["x"] < row["x"]) & (points["y"] <= row["y"])]
        )
        assert (row["dominated_by"] == "") == rivals.empty
        if len(rivals):
            method, _, rate = row["dominated_by"].rpartition(" at ")
            rival = points.loc[(method or rate, float(rate) if method else 0.0)]
            assert rival["y"] == rivals["y"].min()
            overlap = rival["y_low"] <= row["y_high"] and row["y_low"] <= rival["y_high"]
            assert row["tied"] == overlap
    assert found.methods["hypervolume"].is_monotonic_decreasing
    assert "pr_per at params_total 0.7M" in found.methods


def test_a_benefit_is_no_cost(tmp_path: Path) -> None:
    run = make(tmp_path / "run", methods=("low-rank",), rates=(0.5,))
    with pytest.raises(InputError, match="no cost"):
        analyse([run.path], "ks", "pr")


def test_without_fbank_there_is_no_corner(tmp_path: Path) -> None:
    run = make(tmp_path / "run", methods=("low-rank",), rates=(0.5,), tasks=())
    with pytest.raises(InputError, match="not measured"):
        analyse([run.path], "params", "superb_s")
