import numpy as np
import pytest
from synthetic_run import lengthen, make

from core.errors import InputError
from reports._drawing import Runs
from reports.sequence import Sequence
from results.table import load

METHODS = ("ofa-sequence", "row-pruning", "subsampling")


def periods(path, **options):
    run = make(path, **{"methods": METHODS, "rates": (0.3, 0.6, 0.9), **options})
    lengthen(run)
    return run


def page_of(*runs):
    return Sequence().page(Runs.load([run.path for run in runs]))


def lines(axes):
    return {line.get_label(): line for line in axes.lines}


def test_every_task_against_the_frame_period(tmp_path):
    run = periods(tmp_path / "run")
    figure, table = page_of(run)
    frame = load([run.path])
    assert [axes.get_title()[:3] for axes in figure.axes] == ["ks_", "pr_", "sid"]
    for axes, column in zip(figure.axes, ("ks_acc", "pr_per", "sid_acc"), strict=True):
        assert axes.get_xscale() == "log"
        assert axes.yaxis_inverted() == (column == "pr_per")
        scores = frame[frame.method == "ofa-sequence"][column]
        drawn = np.array(lines(axes)["ofa-sequence"].get_xydata())
        assert drawn == pytest.approx(np.stack([20 / (1 - np.array([0.3, 0.6, 0.9])), scores], 1))
    assert set(table.method) == {"dense", "ofa-sequence", "subsampling"}, "others keep their frames"
    for row in table.itertuples():
        assert run.read(row.keys).point.method == row.method
        assert row.x == pytest.approx(20 / (1 - row.rate))


def test_once_for_all_is_a_line_and_fixed_rates_are_crosses(tmp_path):
    figure, _ = page_of(periods(tmp_path / "run"))
    drawn = lines(figure.axes[0])
    assert drawn["ofa-sequence"].get_linestyle() == "-"
    assert (drawn["subsampling"].get_linestyle(), drawn["subsampling"].get_marker()) == (
        "None",
        "x",
    )
    dense = drawn["dense"].get_xydata()
    assert dense[0, 0] == 20
    levels = [set(line.get_ydata()) for line in figure.axes[0].lines if len(line.get_xdata()) == 2]
    assert {dense[0, 1]} in levels
    assert "crosses: made for a fixed rate" in told(figure)


def test_a_learned_lambda_is_marked_and_its_absence_said(tmp_path):
    run = periods(tmp_path / "run")
    assert "no model here has learned its period" in told(page_of(run).figure)
    learned = periods(tmp_path / "learned", methods=())
    for record in learned.records():
        if record.point.method == "dense":
            compress, macs = (record.sections[s] for s in ("compress", "profile.macs"))
            compress.details["shortening"] = {"kind": "cif", "factor": 4.0, "strength": 1.25}
            macs.details["token_ms"] = 80.0
            learned.write_section(record.point.key, compress)
            learned.write_section(record.point.key, macs)
    figure, table = page_of(run, learned)
    marked = lines(figure.axes[0])["learned: learned, $\\lambda$ = 1.25"]
    assert (list(marked.get_xdata()), marked.get_marker()) == ([80.0], "P")
    assert "no model here" not in told(figure)
    assert len(table[table.run == "learned"]) == 3


def test_seeds_are_ranges_on_both_axes(tmp_path):
    run = periods(tmp_path / "run", seeds=(0, 1), rates=(0.5,), tasks=("ks",))
    record = next(r for r in run.records() if r.point.method == "ofa-sequence" and r.point.seed)
    section = record.sections["profile.macs"]
    section.details["token_ms"] = 60.0
    run.write_section(record.point.key, section)
    row = page_of(run).table.set_index("method").loc["ofa-sequence"]
    assert (row.seeds, row.x, row.x_low, row.x_high) == (2, 50, 40, 60)


@pytest.mark.parametrize(
    ("methods", "tasks", "counted", "says"),
    [
        (METHODS, ("ks",), False, "has no frame periods.*--profilers macs"),
        (("row-pruning",), ("ks",), True, "no method makes frames longer.*ofa-sequence"),
        (METHODS, (), True, "has no scores.*--tasks"),
    ],
)
def test_what_is_missing_is_one_sentence(tmp_path, methods, tasks, counted, says):
    run = make(tmp_path / "run", methods=methods, rates=(0.5,), tasks=tasks)
    if counted:
        lengthen(run)
    with pytest.raises(InputError, match=says):
        page_of(run)


def told(figure):
    return " ".join(figure.get_suptitle().split())
