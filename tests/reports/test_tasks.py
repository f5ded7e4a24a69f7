import numpy as np
import pytest
from synthetic_run import make

from core.errors import InputError
from reports._drawing import Runs
from reports.tasks import Tasks
from results.table import load


def page_of(*runs, x=("params",), **options):
    return Tasks(x).page(Runs.load([run.path for run in runs], **options))


def lines(axes):
    return {line.get_label(): np.array(line.get_xydata()) for line in axes.lines}


def test_a_panel_per_task_with_its_own_metric(tmp_path):
    run = make(tmp_path / "run", methods=("low-rank", "row-pruning"), rates=(0.3, 0.6))
    figure, table = page_of(run)
    assert [axes.get_title() for axes in figure.axes] == [
        "ks_acc (%)",
        "pr_per (%) ↓",
        "sid_acc (%)",
    ]
    assert [axes.yaxis_inverted() for axes in figure.axes] == [False, True, False]
    assert set(table.y_metric) == {"ks_acc", "pr_per", "sid_acc"}
    assert set(table["keys"]) == set(run.keys())
    frame = load([run.path])
    low_rank = frame[frame.method == "low-rank"]
    for axes, column in zip(figure.axes, ("ks_acc", "pr_per", "sid_acc"), strict=True):
        drawn = lines(axes)
        expected = np.stack([low_rank.params_total / 1e6, low_rank[column]], axis=1)
        assert drawn["low-rank"] == pytest.approx(expected)
        fbank = frame.loc[frame.method == "fbank", column].item()
        assert drawn["fbank"][:, 1] == pytest.approx(fbank), "a level"
        dense = frame.loc[frame.method == "dense", column].item()
        levels = [y for line in axes.lines if len(set(y := list(line.get_ydata()))) == 1]
        assert [dense, dense] in levels


def test_several_costs_are_several_sets_of_panels(tmp_path):
    run = make(tmp_path / "run", methods=("low-rank",), rates=(0.5,), tasks=("ks", "sid"))
    figure, table = page_of(run, x=("params", "macs"))
    assert [axes.get_xlabel() for axes in figure.axes] == 2 * ["Parameters (M)"] + 2 * [
        "MACs per second of audio (M)"
    ]
    assert set(table.x_metric) == {"params_total", "macs_per_second"}
    assert Tasks(("params", "macs")).stem == "tasks-params-macs"


def test_seeds_are_intervals(tmp_path):
    run = make(
        tmp_path / "run", methods=("low-rank",), rates=(0.5,), seeds=(0, 1, 2), tasks=("ks",)
    )
    figure, table = page_of(run)
    row = table.set_index("method").loc["low-rank"]
    assert row.seeds == 3
    _, caps = figure.axes[0].containers  # of the dense model, of low-rank
    upright = caps.lines[2][1].get_segments()[0]
    assert upright[:, 1] == pytest.approx((row.y_low, row.y_high))
    assert "range of 3 seeds" in figure.get_suptitle()


@pytest.mark.parametrize(
    ("x", "tasks", "says"),
    [
        (("params",), (), "has no scores.*--tasks"),
        (("parms",), ("ks",), "did you mean 'params'"),
        ((), ("ks",), "--x"),
    ],
)
def test_what_is_missing_is_one_sentence(tmp_path, x, tasks, says):
    run = make(tmp_path / "run", methods=("low-rank",), rates=(0.5,), tasks=tasks)
    with pytest.raises(InputError, match=says):
        page_of(run, x=x)


def test_devices_do_not_share_an_axis(tmp_path):
    runs = [
        make(tmp_path / d, methods=("low-rank",), rates=(0.5,), tasks=("ks",), device=d)
        for d in ("x", "y")
    ]
    with pytest.raises(InputError, match="measured on 'x' and on 'y'"):
        page_of(*runs, x=("latency",))
    assert {"x: low-rank", "y: low-rank"} <= set(lines(page_of(*runs).figure.axes[0]))
