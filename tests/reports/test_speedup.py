import csv
import math

import numpy as np
import pytest
from synthetic_run import make, time_in_turns

import reports
from core.errors import InputError
from core.point import Point
from core.record import Section
from reports._drawing import Runs
from reports.speedup import Speedup

METHODS = ("low-rank", "quantization", "row-pruning", "weight-pruning")


def timed(path, *, methods=METHODS, rates=(0.3, 0.6, 0.9), limits=True, integer=(), **options):
    run = make(path, methods=methods, rates=rates, tasks=(), **options)
    time_in_turns(run, limits=limits, integer=integer)
    return run


def page_of(*runs):
    return Speedup().page(Runs.load([run.path for run in runs]))


def lines(axes):
    return {line.get_label(): np.array(line.get_xydata()) for line in axes.lines}


def test_what_was_drawn_is_beside_it(tmp_path):
    run = timed(tmp_path / "run")
    files = reports.draw(Speedup(), [run.path], run.path / "speedup.png")
    assert [f.name for f in files] == ["speedup.png", "speedup.pdf", "speedup.csv"]
    with files[2].open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 1 + 3 * len(METHODS), "neither FBANK nor the random encoder"
    for row in rows:
        size = 1.0 if row["method"] == "weight-pruning" else 1 - 0.9 * float(row["rate"])
        faster = size**-0.5
        expected = {
            "mac_reduction": 1 / size, "speedup": faster, "speedup_low": faster,
            "interval95_low": 0.9 * faster, "interval95_high": 1.2 * faster,
            "intensity": 6.5e7 * size / 5e6, "macs_per_s": 1e10 * faster,
            "product_rate": 4e10, "bandwidth": 2e10,
        }  # fmt: skip
        assert {k: float(row[k]) for k in expected} == pytest.approx(expected)
        point = run.read(row["keys"]).point
        assert (point.method, point.rate) == (row["method"], float(row["rate"]))


def test_the_diagonal_and_a_line_per_method_through_its_rates(tmp_path):
    left = page_of(timed(tmp_path / "run")).figure.axes[0]
    drawn = lines(left)
    assert {*METHODS, "dense", "as much faster as smaller"} <= set(drawn)
    diagonal = drawn["as much faster as smaller"]
    assert (diagonal[:, 0] == diagonal[:, 1]).all()
    assert (diagonal.min(), diagonal.max()) == pytest.approx((1, 1 / 0.19))
    sizes = np.array([0.73, 0.46, 0.19])
    assert drawn["low-rank"] == pytest.approx(np.stack([1 / sizes, sizes**-0.5], axis=1))
    bars = [segment for bar in left.collections for segment in bar.get_segments()]
    spans = sorted((segment[0, 1], segment[1, 1]) for segment in bars)
    assert spans[-1] == pytest.approx((0.9 * 0.19**-0.5, 1.2 * 0.19**-0.5))
    assert len(bars) == 1 + 3 * len(METHODS)


@pytest.mark.parametrize(("rates", "scale"), [((0.3, 0.5), "linear"), ((0.3, 0.9), "log")])
def test_both_axes_are_logarithmic_where_ratios_span_much(tmp_path, rates, scale):
    left = page_of(timed(tmp_path / "run", rates=rates)).figure.axes[0]
    assert (left.get_xscale(), left.get_yscale()) == (scale, scale)


def test_the_ceilings_are_those_of_the_records(tmp_path):
    right = page_of(timed(tmp_path / "run")).figure.axes[1]
    drawn = lines(right)
    memory, products = drawn["memory: 20 GB/s"], drawn["products: 40 GMAC/s"]
    assert memory[:, 1] == pytest.approx(20 * memory[:, 0])
    assert (products[:, 1] == 40).all()
    assert memory[-1] == pytest.approx((2, 40)), "they meet where memory keeps the products busy"
    assert products[0] == pytest.approx((2, 40))
    assert drawn["dense"] == pytest.approx(np.array([[13.0, 10.0]]))
    assert (right.get_xscale(), right.get_yscale()) == ("log", "log")


def test_ceilings_that_differ_are_a_range(tmp_path):
    run = timed(tmp_path / "run")
    record = next(r for r in run.records() if r.point.method == "low-rank")
    section = record.sections["profile.latency"]
    section.details["limit"]["bytes_per_s"] = 8e10
    run.write_section(record.point.key, section)
    assert "memory: 20 to 80 GB/s" in lines(page_of(run).figure.axes[1])


def test_seeds_are_intervals(tmp_path):
    run = timed(tmp_path / "run", methods=("low-rank",), rates=(0.5,), seeds=(0, 1, 2))
    keys = [r.point.key for r in run.records() if r.point.method == "low-rank"]
    for key, speedup in zip(keys, (1.0, 1.5, 2.0), strict=True):
        section = run.read(key).sections["profile.latency"]
        section.values["speedup"] = speedup
        section.details["speedup_interval95"] = [speedup - 0.25, speedup + 0.5]
        run.write_section(key, section)
    figure, table = page_of(run)
    row = table.set_index("method").loc["low-rank"]
    assert (row.seeds, row.speedup, row.speedup_low, row.speedup_high) == (3, 1.5, 1.0, 2.0)
    assert (row.interval95_low, row.interval95_high) == (0.75, 2.5)
    assert set(row["keys"].split()) == set(keys)
    _, caps = figure.axes[0].containers  # of the dense model, of low-rank
    upright = caps.lines[2][1].get_segments()[0]
    assert upright[:, 1] == pytest.approx((1.0, 2.0))
    assert "3 seeds" in figure.get_suptitle()
    assert "caps: range of seeds" in " ".join(figure.get_suptitle().split())


def test_integers_have_no_limit_and_the_caption_counts_them(tmp_path):
    figure, table = page_of(timed(tmp_path / "run", integer=("quantization",)))
    integers = table[table.method == "quantization"]
    assert integers.intensity.isna().all()
    assert integers.speedup.notna().all()
    assert "quantization" in lines(figure.axes[0])
    assert "quantization" not in lines(figure.axes[1])
    told = " ".join(figure.get_suptitle().split())
    assert "3 points are without a limit (integers are not probed)" in told


def test_runs_without_limits_say_so_on_the_right(tmp_path):
    figure, table = page_of(timed(tmp_path / "run", limits=False))
    left, right = figure.axes
    assert "low-rank" in lines(left)
    assert not right.lines
    assert "before limits were" in right.texts[0].get_text()
    assert table.intensity.isna().all()


def test_disturbed_and_failed_points_are_told(tmp_path):
    run = timed(tmp_path / "run")
    key = next(r.point.key for r in run.records() if r.point.method == "low-rank")
    section = run.read(key).sections["profile.latency"]
    section.details["disturbed"] = True
    run.write_section(key, section)
    point = Point("builtin", "head-pruning", 0.5, 0, "builtin")
    run.write_point(point)
    run.write_section(point.key, Section("compress", "failed", "f", reason="no heads"))
    told = " ".join(page_of(run).figure.get_suptitle().split())
    assert "1 point is marked as disturbed" in told
    assert "1 point is not drawn (1 failed)" in told


def test_runs_share_a_figure_on_one_device_alone(tmp_path):
    one, same, other = (
        timed(tmp_path / name, device=device, methods=("low-rank",))
        for name, device in (("one", "x"), ("same", "x"), ("other", "y"))
    )
    with pytest.raises(InputError, match="speedup was measured on 'x' and on 'y'"):
        page_of(one, other)
    record = next(r for r in one.records() if r.point.method == "low-rank")
    section = record.sections["profile.latency"]
    section.details["limit"]["macs_per_s"] = 7e10
    one.write_section(record.point.key, section)
    figure, table = page_of(one, same)
    assert {"one: low-rank", "same: low-rank"} <= set(lines(figure.axes[0]))
    twins = table[table["keys"] == record.point.key].set_index("run")
    assert dict(twins.product_rate) == {"one": 7e10, "same": 4e10}, "each run has its own details"


def drop(run, section, values=(), details=(), method=None):
    for record in run.records():
        known = record.sections[section]
        if known.status == "done" and method in (None, record.point.method):
            known.values = {k: v for k, v in known.values.items() if k not in values}
            known.details = {k: v for k, v in known.details.items() if k not in details}
            run.write_section(record.point.key, known)


@pytest.mark.parametrize(
    ("section", "value", "method", "says"),
    [
        ("profile.latency", "speedup", None, "has no speed-up"),
        ("profile.macs", "macs_per_second", None, "has no count of MACs"),
        ("profile.macs", "macs_per_second", "dense", "both a speed-up and the dense MACs"),
    ],
)
def test_missing_costs_are_one_sentence(tmp_path, section, value, method, says):
    run = timed(tmp_path / "run")
    drop(run, section, values=(value,), method=method)
    with pytest.raises(InputError, match=f"{says}.*--profilers macs,latency") as error:
        reports.draw(Speedup(), [run.path], tmp_path / "a")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("a.*"))


def test_a_speed_up_without_an_interval_is_a_point(tmp_path):
    run = timed(tmp_path / "run")
    drop(run, "profile.latency", details=("speedup_interval95",))
    figure, table = page_of(run)
    assert all(math.isnan(low) for low in table.interval95_low)
    assert figure.axes[0].get_ylim()[1] < 10
