import pytest
from synthetic_run import log_masks, make

from core.errors import InputError
from reports._drawing import Runs
from reports.masks import Masks


def trained(path, *, method="structured-l0", trainings=("gates",), **options):
    run = make(path, methods=(method, "low-rank"), rates=(0.3, 0.6), tasks=(), **options)
    log_masks(run, method, trainings)
    return run


def page_of(*runs):
    return Masks().page(Runs.load([run.path for run in runs]))


def lines(axes):
    return {line.get_label(): [list(v) for v in line.get_data()] for line in axes.lines}


def test_averages_over_the_updates_with_the_target(tmp_path):
    run = trained(tmp_path / "run")
    figure, table = page_of(run)
    (axes,) = figure.axes
    drawn = lines(axes)
    assert set(drawn) == {"q/k dimensions", "FFN sub-layers", "sparsity", "target sparsity"}
    assert drawn["q/k dimensions"] == [[10, 20, 30], pytest.approx([0.8, 0.6, 0.4])]
    assert drawn["target sparsity"] == [[10, 20, 30], pytest.approx([0.15, 0.3, 0.45])]
    assert axes.get_title() == "structured-l0"
    pruned = {r.point.key for r in run.records() if r.point.method == "structured-l0"}
    assert {key for keys in table["keys"] for key in keys.split()} == pruned
    assert set(table.training) == {"gates"}, "trainings without masks are not drawn"
    assert "not drawn" not in figure.get_suptitle()


def test_a_panel_per_training(tmp_path):
    figure, _ = page_of(trained(tmp_path / "run", trainings=("rate 0.3", "rate 0.6")))
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["structured-l0\nrate 0.3", "structured-l0\nrate 0.6"]


def test_seeds_are_mean_and_band(tmp_path):
    figure, table = page_of(trained(tmp_path / "run", seeds=(0, 1)))
    row = table[(table.metric == "mask_qk") & (table.step == 20)].iloc[0]
    assert (row.seeds, row.value) == (2, pytest.approx(0.65))
    assert (row.value_low, row.value_high) == (pytest.approx(0.6), pytest.approx(0.7))
    band = figure.axes[0].collections[0].get_paths()[0].vertices[:, 1]
    assert {0.6, 0.7} <= {round(y, 6) for y in band}
    assert "range of 2 seeds" in figure.get_suptitle()


def test_several_runs_are_told_apart(tmp_path):
    figure, _ = page_of(trained(tmp_path / "a"), trained(tmp_path / "b"))
    assert [axes.get_title() for axes in figure.axes] == ["a\nstructured-l0", "b\nstructured-l0"]


def test_what_is_missing_is_one_sentence(tmp_path):
    untrained = make(tmp_path / "untrained", methods=("low-rank",), rates=(0.5,))
    with pytest.raises(InputError, match="no log of a training that learns masks"):
        page_of(untrained)
    run = trained(tmp_path / "run")
    (log,) = run.path.glob("tracks/*/log.csv")
    log.write_text("training,step,metric,value\ngates,ten,mask_qk,1\n")
    with pytest.raises(InputError, match=r"log.csv is not the log of a training"):
        page_of(run)
    log.unlink()
    with pytest.raises(InputError, match="folder tracks/"):
        page_of(run)
