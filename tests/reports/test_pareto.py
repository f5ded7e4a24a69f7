import csv

import pytest
from synthetic_run import make

import reports
from core.errors import InputError
from core.point import Point
from core.record import Section
from reports._drawing import Runs
from reports._looks import appearances
from reports.pareto import Pareto
from results.curves import curves
from results.store import RunFolder
from results.table import load


@pytest.fixture
def run(tmp_path):
    return make(tmp_path / "run", methods=("low-rank", "row-pruning"), rates=(0.1, 0.5, 0.9))


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def figure_of(path, x, y):
    figure = Pareto(x, y).page(Runs.load([path])).figure
    return figure, figure.get_suptitle()


def test_files_and_what_was_drawn(run, tmp_path):
    out = tmp_path / "figures" / "pareto.png"
    files = reports.draw(Pareto(["params", "macs", "latency"], "superb_s"), [run.path], out)
    assert [f.name for f in files] == ["pareto.png", "pareto.pdf", "pareto.csv"]
    assert files[0].read_bytes().startswith(b"\x89PNG")
    assert files[1].read_bytes().startswith(b"%PDF")
    drawn = rows(files[2])
    assert len(drawn) == 3 * (3 + 6)
    assert {row["keys"] for row in drawn} == set(run.keys())
    frame = load([run.path]).set_index("key")
    for row in drawn:
        assert float(row["y"]) == pytest.approx(frame.superb_s[row["keys"]])
        cost = frame[row["x_metric"]][row["keys"]]
        assert float(row["x"] or "nan") == pytest.approx(cost, nan_ok=True)


def test_seeds_become_mean_and_range(tmp_path):
    run = make(tmp_path / "run", methods=("low-rank",), rates=(0.5,), seeds=(0, 1, 2))
    frame = load([run.path])
    row = curves(frame, "latency_s_p50", "superb_s").set_index("method").loc["low-rank"]
    seeds = frame[frame.method == "low-rank"]
    assert row.seeds == 3
    for axis, column in (("x", "latency_s_p50"), ("y", "superb_s")):
        values = seeds[column]
        found = row[axis], row[f"{axis}_low"], row[f"{axis}_high"]
        assert found == (values.mean(), values.min(), values.max())
    assert set(row["keys"].split()) == set(seeds["key"])
    assert "3 seeds" in figure_of(run.path, ["params"], "superb_s")[1]


def test_the_front_is_global_and_minds_directions(run):
    table = curves(load([run.path]), "params_total", "pr_per")
    kept = table[table.on_front]
    assert {"fbank", "random-init"}.isdisjoint(kept.method)
    best = table[~table.method.isin(["fbank", "random-init"])].sort_values("y").iloc[0]
    assert best.on_front, "the lowest error is never beaten"
    assert kept.sort_values("x").y.is_monotonic_decreasing


def test_lower_is_better_axes_are_turned_and_say_so(run):
    figure, _ = figure_of(run.path, ["params"], "pr")
    axes = figure.axes[0]
    assert axes.yaxis_inverted()
    assert axes.get_ylabel() == "pr_per (%), lower is better"
    assert axes.get_xlabel() == "Parameters (M)"
    assert not figure_of(run.path, ["params"], "ks")[0].axes[0].yaxis_inverted()


@pytest.mark.parametrize(("rates", "scale"), [((0.1, 0.99), "log"), ((0.1, 0.9), "linear")])
def test_costs_over_more_than_a_decade_are_logarithmic(tmp_path, rates, scale):
    run = make(tmp_path / "run", methods=("low-rank",), rates=rates)
    for record in run.records():
        section = record.sections["profile.params"]
        if section.values:
            section.values["params_total"] **= 1.2
            run.write_section(record.point.key, section)
    assert figure_of(run.path, ["params"], "superb_s")[0].axes[0].get_xscale() == scale


def test_methods_keep_their_look_when_fewer_are_drawn(tmp_path):
    frame = load([make(tmp_path / "run", rates=(0.5,)).path])
    looks = appearances(frame)
    styles = {(look.colour, look.marker) for look in looks.values()}
    assert len(styles) == len(looks)
    markers = [looks["run", m].marker for m in set(frame.method) - {"fbank", "random-init"}]
    assert len(set(markers)) == len(markers), "markers alone tell methods apart"


def test_random_weights_are_in_the_title(tmp_path):
    run = make(tmp_path / "run", methods=("low-rank",), info={"random_weights": True})
    figure, caption = figure_of(run.path, ["params"], "superb_s")
    assert "RANDOM WEIGHTS" in caption
    assert figure.get_suptitle() == caption


def test_devices_do_not_share_an_axis(tmp_path):
    paths = [
        make(tmp_path / d, methods=("low-rank",), rates=(0.5,), device=d).path for d in ("x", "y")
    ]
    with pytest.raises(InputError, match="latency_s_p50 was measured on 'x' and on 'y'"):
        reports.draw(Pareto(["latency"], "superb_s"), paths, tmp_path / "a")
    assert reports.draw(Pareto(["params"], "superb_s"), paths, tmp_path / "a", ("png",))
    assert "timed on x" in figure_of(paths[0], ["latency"], "superb_s")[1]


def test_scores_over_different_tasks_do_not_share_an_axis(tmp_path):
    paths = [
        make(tmp_path / t, methods=("low-rank",), rates=(0.5,), tasks=(t, "sid")).path
        for t in ("pr", "ks")
    ]
    with pytest.raises(InputError, match="over ks' and 'quick:fbank-dense of builtin over pr'"):
        reports.draw(Pareto(["params"], "superb_s"), paths, tmp_path / "a")
    assert reports.draw(Pareto(["params"], "sid"), paths, tmp_path / "a", ("png",))


def test_gaps_are_said(run):
    point = Point("builtin", "head-pruning", 0.5, 0, "builtin")
    run.write_point(point)
    run.write_section(point.key, Section("compress", "failed", "f", reason="no heads"))
    figure, caption = figure_of(run.path, ["params", "memory"], "superb_s")
    assert "1 point is not drawn (1 failed)" in caption
    nan = next(record for record in run.records() if record.point.method == "low-rank")
    section = nan.sections["task.pr"]
    section.values["pr_per"] = float("nan")
    run.write_section(nan.point.key, section)
    caption = " ".join(figure_of(run.path, ["params"], "pr")[1].split())
    assert "2 points are not drawn" in caption
    assert "1 without these numbers" in caption
    assert [text.get_text() for text in figure.axes[1].texts] == ["peak_bytes\nnot measured"]


def test_one_point_is_a_figure(tmp_path):
    run = make(tmp_path / "run", methods=(), tasks=("pr",))
    assert len(reports.draw(Pareto(["params", "latency"], "pr"), [run.path], tmp_path / "a")) == 3


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (["parms"], "superb_s", "did you mean 'params'"),
        (["params"], "superb", "did you mean 'superb_s'"),
        (["params"], "ic", "'ic' was not measured in this run"),
        (["memory"], "superb_s", "'memory' was not measured"),
        ([], "superb_s", "--x"),
    ],
)
def test_names_that_are_not_there(run, tmp_path, x, y, message):
    with pytest.raises(InputError, match=message) as error:
        reports.draw(Pareto(x, y), [run.path], tmp_path / "a")
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == [run.path], "nothing is written"


def test_nothing_to_draw(tmp_path):
    empty = RunFolder(tmp_path / "empty")
    empty.write_run({})
    with pytest.raises(InputError, match="no points yet"):
        reports.draw(Pareto(["params"], "superb_s"), [empty.path], tmp_path / "a")
    point = Point("builtin", "low-rank", 0.5, 0, "builtin")
    empty.write_point(point)
    empty.write_section(point.key, Section("compress", "failed", "f", reason="too small"))
    with pytest.raises(InputError, match=r"none of the 1 points.*failed: compress: too small"):
        reports.draw(Pareto(["params"], "superb_s"), [empty.path], tmp_path / "a")
    costs_only = make(tmp_path / "costs", tasks=())
    with pytest.raises(InputError, match="'superb_s' was not measured"):
        reports.draw(Pareto(["params"], "superb_s"), [costs_only.path], tmp_path / "a")
