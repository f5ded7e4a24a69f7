"""Published models beside runs: other anchors, other columns, never the grade of quick scores."""

from __future__ import annotations

import csv

import pytest
from synthetic_run import make, score_officially

from core.errors import InputError
from results import leaderboard
from results.curves import column_of, curves, grades
from results.superb import PUBLISHED, read_published, superb_s
from results.table import load, read, tabulate


@pytest.fixture
def run(tmp_path):
    return make(tmp_path / "run", methods=("low-rank",), rates=(0.25, 0.5))


def official(run, anchors="leaderboard", published=False):
    return tabulate(read([run.path]), anchors, published)


@pytest.mark.parametrize("anchors", ["leaderboard", "wang2023"])
def test_every_published_model_has_its_score_and_costs(anchors):
    frame = tabulate([], anchors, published=True).set_index("model")
    models = read_published(PUBLISHED)
    assert set(frame.index) == set(models) - {"FBANK"}
    for name, row in frame.iterrows():
        score = superb_s(models[name], anchors)
        assert row.superb_s == score.value
        assert row.anchors == score.anchors
        assert row["score.sid"] == score.terms["sid"]
        assert row["superb.pr_per"] == models[name]["pr_per"]
    base = frame.loc["HuBERT Base"]
    assert base.superb_s == pytest.approx(
        {"leaderboard": 941, "wang2023": 837.63}[anchors], abs=0.5
    )
    assert (base.params_total, base.macs_superb32) == (94.68e6, 1669e9)


def test_quick_and_official_metrics_of_one_name_stay_apart(run):
    before = load([run.path])
    score_officially(run)
    frame = load([run.path])
    for column in ("pr_per", "ks_acc", "superb_s"):
        assert frame[column].equals(before[column])
    half = frame[(frame.method == "low-rank") & (frame.rate == 0.5)].iloc[0]
    assert half["superb.pr_per"] == pytest.approx((82.01 + 3.53) / 2)
    assert half.anchors == "quick:fbank-dense"


def test_official_scores_name_their_anchors_and_tasks(run):
    score_officially(run)
    frame = official(run)
    found = frame[frame.method != "fbank"].groupby("method").superb_s.mean()
    assert found["dense"] == pytest.approx(1000)
    half = frame[frame.rate == 0.5].iloc[0]
    assert half.superb_s == pytest.approx(500)
    assert (half.anchors, half.superb_tasks) == ("leaderboard:fbank-leaderboard", "ks pr")
    assert half["score.pr"] == pytest.approx(500)
    assert frame.set_index("method").loc["fbank"].isna().superb_s
    assert column_of(frame, "pr") == "superb.pr_per"
    assert column_of(load([run.path]), "pr") == "pr_per"


def test_a_recipe_that_was_changed_gives_no_official_score(run):
    score_officially(run, changed={"runner.total_steps": 10})
    frame = official(run, published=True)
    assert frame[frame.run == "run"].superb_s.isna().all()
    assert frame[frame.run == "run"].get("superb.pr_per").isna().all()
    assert frame["changed.pr_per"].notna().any()


def test_grades_do_not_share_an_axis(run):
    score_officially(run)
    some = official(run, published=True)
    with pytest.raises(
        InputError, match=r"'leaderboard:fbank-leaderboard over asr .*' and .* ks pr'"
    ):
        curves(some, "params_total", "superb_s")
    assert "published" in set(curves(some, "params_total", "superb.pr_per").method)
    quick = tabulate(read([run.path]), published=True)
    with pytest.raises(InputError, match="score those models by bench superb"):
        curves(quick, "params_total", "superb_s")


def test_quick_scores_of_other_models_or_audio_do_not_share_an_axis(tmp_path):
    runs = [
        make(tmp_path / "a", methods=(), info={"task_data": "builtin"}),
        make(tmp_path / "b", methods=(), info={"task_data": "/data/fsdd"}),
        make(tmp_path / "c", methods=(), info={"task_data": "builtin"}, model="other"),
    ]
    frame = load([run.path for run in runs])
    assert set(grades(frame, "ks_acc")) == {"quick on builtin", "quick on fsdd"}
    assert set(grades(frame, "params_total")) == {""}
    for pair, column in ((runs[:2], "ks_acc"), (runs[:2], "score.ks"), (runs[::2], "superb_s")):
        with pytest.raises(InputError, match="no axis should mix"):
            curves(load([run.path for run in pair]), "params_total", column)
    curves(load([run.path for run in runs[::2]]), "params_total", "ks_acc")


def test_a_leaderboard_with_published_models(run, tmp_path):
    leaderboard.write([run.path], tmp_path / "out.csv", published=True)
    with (tmp_path / "out.csv").open() as file:
        rows = {
            (row["run"], row["model"], row["method"], row["rate"]): row
            for row in csv.DictReader(file)
        }
    assert rows["published", "HuBERT Base", "published", "0"]["anchors"].startswith("leaderboard")
    assert rows["run", "builtin", "low-rank", "0.5"]["anchors"].startswith("quick")
    leaderboard.write([run.path], tmp_path / "out.md", published=True)
    lines = (tmp_path / "out.md").read_text().splitlines()
    assert "| anchors |" in lines[0]
    base = next(line for line in lines if "HuBERT Base" in line)
    assert "| 941 | leaderboard |" in base
    assert "| quick (ks pr) |" in next(line for line in lines if "low-rank | 0.5" in line)
    leaderboard.write([], tmp_path / "alone.tex", "wang2023", published=True)
    assert "wang2023" in (tmp_path / "alone.tex").read_text()


def test_a_leaderboard_of_official_scores_says_which_tasks(run, tmp_path):
    score_officially(run)
    leaderboard.write([run.path], tmp_path / "out.md", "leaderboard")
    dense = next(x for x in (tmp_path / "out.md").read_text().splitlines() if "dense" in x)
    assert "leaderboard (ks pr)" in dense
    leaderboard.write([run.path], tmp_path / "quick.md")
    assert "anchors" not in (tmp_path / "quick.md").read_text()


def test_nothing_to_list_and_unknown_anchors(tmp_path, run):
    with pytest.raises(InputError, match="no run has no points"):
        leaderboard.write([], tmp_path / "out.md")
    with pytest.raises(InputError, match="did you mean 'leaderboard'"):
        leaderboard.write([run.path], tmp_path / "out.md", "leaderbord")
