import math

import pytest
from synthetic_run import TASKS, make, write

from core.errors import InputError
from core.metric import Metric
from core.point import Point
from core.record import Section
from results import axes, table


@pytest.fixture
def run(tmp_path):
    return make(tmp_path / "run", methods=("low-rank",), rates=(0.5, 0.1), seeds=(1, 0))


def test_one_row_per_point_references_first(run):
    frame = table.load([run.path])
    expected = [
        (method, rate, seed)
        for method, rates in {
            "dense": [0], "fbank": [0], "random-init": [0], "low-rank": [0.1, 0.5]
        }.items()
        for rate in rates
        for seed in (0, 1)
    ]  # fmt: skip
    assert list(frame[["method", "rate", "seed"]].itertuples(index=False, name=None)) == expected
    assert tuple(frame.columns[: len(table.LEADING)]) == table.LEADING
    assert frame.attrs["metrics"]["pr_per"] == TASKS["pr"][0]
    assert frame.attrs["sections"]["latency_s_p50"] == "profile.latency"


def test_superb_s_is_the_mean_over_counting_tasks_of_the_same_seed(run):
    frame = table.load([run.path])
    for row in frame.to_dict("records"):
        terms = []
        for task in ("pr", "ks"):
            metric, fbank, dense, *_ = TASKS[task]
            terms.append(1000 * (row[metric.name] - fbank) / (dense - fbank))
            assert row[f"score.{task}"] == pytest.approx(terms[-1])
        assert row["superb_s"] == pytest.approx(sum(terms) / 2)
        assert row["superb_tasks"] == "ks pr", "sid does not count"
        assert row["anchors"] == "quick:fbank-dense"
    assert frame.loc[frame.method == "dense", "superb_s"].tolist() == [1000, 1000]
    assert frame.loc[frame.method == "fbank", "superb_s"].tolist() == [0, 0]


def test_references_of_another_seed_are_not_used(run):
    frame = table.load([run.path])
    dense = Point("builtin", "dense", 0.0, 1, "builtin")
    metric = TASKS["pr"][0]
    run.write_section(
        dense.key,
        Section("task.pr", "done", "f", {"pr_per": 44.5}, {"pr_per": metric}, {"in_score": True}),
    )
    changed = table.load([run.path])
    same = changed.seed == 0
    assert (changed.loc[same, "superb_s"] == frame.loc[same, "superb_s"]).all()
    point = changed[(changed.seed == 1) & (changed.rate == 0.5)].iloc[0]
    assert point["score.pr"] == pytest.approx(1000 * (point.pr_per - 61) / (44.5 - 61))


def test_a_missing_task_leaves_superb_s_empty_and_the_reason_told(run):
    point = Point("builtin", "low-rank", 0.5, 0, "builtin")
    run.write_section(point.key, Section("task.ks", "failed", "f", reason="out of\nmemory"))
    row = table.load([run.path]).set_index("key").loc[point.key]
    assert math.isnan(row.superb_s)
    assert row.superb_tasks == ""
    assert row["score.pr"] == pytest.approx(1000 * (row.pr_per - 61) / (28 - 61))
    assert (row.status, row.reason) == ("failed", "task.ks: out of memory")


def test_a_task_that_cannot_tell_the_anchors_apart_is_left_out(run):
    for method in ("dense", "fbank"):
        point = Point("builtin", method, 0.0, 0, "builtin")
        metric = Metric("ks_acc", "%", "higher")
        section = Section("task.ks", "done", "f", {"ks_acc": 10.0}, {"ks_acc": metric})
        run.write_section(point.key, section)
    frame = table.load([run.path])
    assert set(frame.loc[frame.seed == 0, "superb_tasks"]) == {"pr"}


def test_status_of_points(run):
    cases = {
        "head-pruning": ([("compress", "unsupported")], "unsupported"),
        "row-pruning": ([("compress", "failed")], "failed"),
        "first-layers": ([("compress", "done"), ("profile.memory", "unsupported")], "done"),
        "random-pruning": ([], "missing"),
    }
    for method, (sections, _) in cases.items():
        point = Point("builtin", method, 0.5, 0, "builtin")
        run.write_point(point)
        for name, status in sections:
            run.write_section(point.key, Section(name, status, "f", reason="because"))
    found = table.load([run.path]).set_index("method").status
    assert {m: found[m] for m in cases} == {m: status for m, (_, status) in cases.items()}


def test_runs_without_references_have_no_superb_s(tmp_path):
    run = make(tmp_path / "run", methods=(), seeds=())
    write(run, Point("random:tiny", "low-rank", 0.5, 0, "builtin"), ("pr",), "cpu")
    row = table.load([run.path]).iloc[0]
    assert math.isnan(row.superb_s)
    assert row.random_weights


def test_several_runs_are_told_apart(tmp_path):
    runs = [make(tmp_path / name, methods=()).path for name in ("b/run", "a/run")]
    labels = list(dict.fromkeys(table.load(runs)["run"]))
    assert labels == sorted(path.as_posix() for path in runs)
    assert len(table.load([runs[0], runs[0]])) == 3, "the same run twice counts once"


def test_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no run"):
        table.load([tmp_path / "nothing"])


@pytest.mark.parametrize(
    ("details", "environment", "device"),
    [
        ({"device": "cpu", "threads": 2}, {"cpu": "EPYC"}, "EPYC, 2 threads"),
        ({"device": "cpu", "threads": 1}, {"device": "x"}, "x, 1 thread"),
        ({"device": "NVIDIA H100"}, {"cpu": "EPYC"}, "NVIDIA H100"),
        ({}, {}, "cpu"),
        (
            {"device": "cpu", "runtime": {"threads": 2, "dtype": "bfloat16", "compile": True}},
            {"cpu": "EPYC"},
            "EPYC, 2 threads, bfloat16, compiled",
        ),
        (
            {"device": "NVIDIA H100", "runtime": {"attention": "flash", "tf32": True}},
            {},
            "NVIDIA H100, flash attention, TF32",
        ),
    ],
)
def test_the_device_of_a_point(run, details, environment, device):
    key = Point("builtin", "dense", 0.0, 0, "builtin").key
    section = Section("profile.latency", "done", "f", details=details, environment=environment)
    run.write_section(key, section)
    assert table.load([run.path]).set_index("key").device[key] == device


def test_a_table_needs_of_details_what_it_names(run):
    """What is dropped while records are read is in no column."""
    key = Point("builtin", "low-rank", 0.5, 0, "builtin").key
    latency = run.read(key).sections["profile.latency"]
    latency.details = {
        "device": "cpu", "threads": 3, "dtype": "float32", "disturbed": True, "raw": [1.0, 2.0],
        "attention_kernels": ["flash"], "runtime": {"dtype": "float32", "compile": True},
    }  # fmt: skip
    latency.environment = {"cpu": "EPYC", "python": "3"}
    run.write_section(key, latency)
    metric = Metric("ks_acc", "%", "higher")
    changed = Section("superb.ks", "done", "f", {"ks_acc": 9.0}, {"ks_acc": metric},
                      {"changed": ["lr"], "raw": 1})  # fmt: skip
    run.write_section(key, changed)
    pared = table.read([run.path], ())
    row = table.tabulate(pared).set_index("key").loc[key]
    assert (row.device, row["dtype"], row.attention) == (
        "EPYC, 3 threads, float32, compiled", "float32", "flash",
    )  # fmt: skip
    assert row.disturbed
    assert (row["changed.ks_acc"], row.superb_tasks) == (9.0, "ks pr")
    assert table.tabulate(pared).equals(table.tabulate(table.read([run.path])))
    told = {name for r in pared[0].records for s in r.sections.values() for name in s.details}
    assert "raw" not in told


SECTIONS = {
    "params_total": "profile.params", "macs_superb32": "profile.macs", "rtf": "profile.latency",
    "macs_dense": "profile.macs", "pr_per": "task.pr", "pr_ins": "task.pr",
    "pretext_acc": "task.pretext", "params_nonzero": "profile.params",
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("params", "params_total"), ("macs", "macs_superb32"), ("pr", "pr_per"),
        ("task.pr", "pr_per"), ("rtf", "rtf"),
    ],
)  # fmt: skip
def test_names_of_axes(name, column):
    assert axes.resolve(name, SECTIONS) == column


@pytest.mark.parametrize(("name", "near"), [("parms", "params"), ("pretxt", "pretext")])
def test_an_unknown_axis_gets_the_closest_name(name, near):
    with pytest.raises(InputError, match=f"did you mean '{near}'"):
        axes.resolve(name, SECTIONS)


def test_a_short_name_stands_for_its_own_columns_alone():
    with pytest.raises(InputError, match="'params' was not measured"):
        axes.resolve("params", {"params_nonzero": "profile.params"})


@pytest.mark.parametrize(
    ("unit", "largest", "scaled"),
    [
        ("", 9.4e7, (1e6, "M")), ("MAC/s", 7.4e9, (1e9, "G")), ("s", 0.021, (1e-3, "ms")),
        ("B", 2.5e6, (1e6, "MB")), ("%", 61.0, (1.0, "%")), ("", 0.004, (1.0, "")),
        ("s", 0.0, (1.0, "s")),
    ],
)  # fmt: skip
def test_scales(unit, largest, scaled):
    assert axes.scale(unit, largest) == scaled


@pytest.mark.parametrize(("dense_per", "counts"), [(56.5, False), (55.5, True), (66.0, False)])
def test_task_without_a_margin_is_shown_but_does_not_count(run, dense_per, counts):
    """FBANK has 61 % phone errors: 4.5 points better are too few, worse is no margin at all."""
    for seed in (0, 1):
        run.write_section(
            Point("builtin", "dense", 0.0, seed, "builtin").key,
            Section(
                "task.pr", "done", "f", {"pr_per": dense_per}, {"pr_per": TASKS["pr"][0]},
                {"in_score": True},
            ),
        )  # fmt: skip
    frame = table.load([run.path])
    assert ("pr" in frame["superb_tasks"].iloc[0].split()) is counts
    assert frame["score.pr"].notna().any()
    assert frame.attrs["meant"] == {"pr", "ks"}


def test_run_without_any_margin_has_no_superb_s(run):
    for seed in (0, 1):
        for task, value in (("pr", 60.0), ("ks", 52.0)):
            metric = TASKS[task][0]
            run.write_section(
                Point("builtin", "dense", 0.0, seed, "builtin").key,
                Section(f"task.{task}", "done", "f", {metric.name: value}, {metric.name: metric},
                        {"in_score": True}),
            )  # fmt: skip
    assert table.load([run.path])["superb_s"].isna().all()


def test_latency_is_taken_relative_to_the_dense_model_of_the_same_minute(run):
    """Twice as slow a machine while one point was timed must not read as an effect."""
    low = Point("builtin", "low-rank", 0.5, 0, "builtin")
    dense = Point("builtin", "dense", 0.0, 0, "builtin")
    metrics = {"latency_s_p50": Metric("latency_s_p50", "s", "lower"),
               "speedup": Metric("speedup", "", "higher")}  # fmt: skip
    for point, median, speedup in ((dense, 0.020, 1.01), (low, 0.032, 1.25)):
        values = {"latency_s_p50": median, "speedup": speedup}
        run.write_section(point.key, Section("profile.latency", "done", "f", values, metrics))
    frame = table.load([run.path]).set_index("key")
    assert frame.loc[low.key, "latency_s_paired"] == pytest.approx(0.020 / 1.25)
    assert frame.loc[dense.key, "latency_s_paired"] == 0.020
    assert axes.resolve("latency", table.load([run.path]).attrs["sections"]) == "latency_s_paired"
