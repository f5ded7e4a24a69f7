import pytest
from synthetic_run import make, probe

from core.errors import InputError
from reports._drawing import Runs
from reports.probes import Probes


def probed(path, states=4, **options):
    methods = options.pop("methods", ("low-rank", "row-pruning"))
    run = make(path, methods=methods, **{"rates": (0.25, 0.5, 0.75), "tasks": (), **options})
    probe(run, states)
    return run


def page_of(*runs, rates=(), methods=None):
    return Probes(rates).page(Runs.load([run.path for run in runs], methods))


def told(figure):
    return " ".join(figure.get_suptitle().split())


def test_a_panel_per_model_with_every_number(tmp_path):
    run = probed(tmp_path / "run")
    figure, table = page_of(run)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["dense", "random-init", "low-rank at 0.5", "row-pruning at 0.5"]
    numbers = [text.get_text() for text in figure.axes[2].texts]
    assert numbers == ["40", "50", "60", "70", "40", "30", "20", "10"]
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["phone", "pitch"]
    assert len(table) == 4 * 2 * 4
    for row in table.itertuples():
        section = run.read(row.keys).sections[f"task.probe-{row.task}"]
        assert row.value == section.details["by_state"][row.state]
    assert "in %, higher is better" in told(figure)


def test_shades_are_within_a_task_over_all_panels(tmp_path):
    table = page_of(probed(tmp_path / "run")).table
    best = table[table.shade == 1]
    assert set(zip(best.task, best.state, best.value, strict=True)) == {
        ("phone", 3, 80.0), ("pitch", 0, 50.0),
    }  # fmt: skip
    for _, rows in table.groupby("task"):
        assert rows.sort_values("value").shade.is_monotonic_increasing
        assert (rows.shade.min(), rows.shade.max()) == (0, 1)


def test_low_is_dark_where_lower_is_better(tmp_path):
    run = probed(tmp_path / "run")
    for record in run.records():
        section = record.sections["task.probe-phone"]
        section.metrics["probe_phone"] = type(section.metrics["probe_phone"])(
            "probe_phone", "%", "lower"
        )
        run.write_section(record.point.key, section)
    table = page_of(run).table
    phone = table[table.task == "phone"].sort_values("value")
    assert phone.shade.is_monotonic_decreasing


def test_rates_and_methods_are_chosen(tmp_path):
    run = probed(tmp_path / "run")
    figure, _ = page_of(run, rates=(0.25, 0.75), methods=["low-rank"])
    titles = [axes.get_title() for axes in figure.axes][2:]
    assert titles == ["low-rank at 0.25", "low-rank at 0.75"]
    with pytest.raises(InputError, match=r"rate 0.1 has no numbers by layer.*0.25, 0.5, 0.75"):
        page_of(run, rates=(0.1,))


def test_fewer_states_and_gaps_stay_white(tmp_path):
    run = probed(tmp_path / "run", methods=("first-layers",), rates=(0.5,))
    for record in run.records():
        section = record.sections["task.probe-phone"]
        if record.point.method == "first-layers":
            section.details["by_state"] = [1.0, float("nan")]
            run.write_section(record.point.key, section)
    panel = page_of(run).figure.axes[-1]
    shades = panel.collections[0].get_array()
    assert shades.mask.tolist() == [[False, True, True, True], [False] * 4]
    assert len(panel.texts) == 5


def test_seeds_are_averaged_and_many_states_have_shades_alone(tmp_path):
    row = page_of(probed(tmp_path / "run", seeds=(0, 1))).table.iloc[0]
    assert (row.seeds, row.value, row.value_low, row.value_high) == (2, 50.5, 50, 51)
    figure, _ = page_of(probed(tmp_path / "deep", states=25))
    assert not figure.axes[0].texts
    assert figure.axes[-1].get_ylabel() == "worst to best of a task"


def test_the_dense_model_alone_is_a_figure(tmp_path):
    figure, _ = page_of(probed(tmp_path / "run", methods=()))
    assert [axes.get_title() for axes in figure.axes] == ["dense", "random-init"]


def test_methods_beyond_the_first_are_named(tmp_path):
    many = tuple(f"row-pruning[steps={n}]" for n in range(5))
    figure, _ = page_of(probed(tmp_path / "run", methods=many, rates=(0.5,)))
    assert "row-pruning[steps=4] was probed too" in told(figure)


def test_no_probes_and_other_audio_are_one_sentence(tmp_path):
    with pytest.raises(InputError, match=r"no numbers by layer.*bench list tasks"):
        page_of(make(tmp_path / "none", methods=(), rates=()))
    runs = [probed(tmp_path / n, methods=(), info={"task_data": n}) for n in ("fsdd", "builtin")]
    with pytest.raises(InputError, match="'quick on builtin' and 'quick on fsdd'"):
        page_of(*runs)
