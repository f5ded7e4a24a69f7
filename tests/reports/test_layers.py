import pytest
from synthetic_run import make, shape

from core.errors import InputError
from reports._drawing import Runs
from reports.layers import PARTS, Layers


def pruned(path, methods=("head-pruning", "row-pruning"), **options):
    run = make(path, methods=methods, **{"rates": (0.25, 0.5, 0.75), "tasks": (), **options})
    shape(run)
    return run


def page_of(*runs, rates=(), methods=None):
    return Layers(rates).page(Runs.load([run.path for run in runs], methods))


def cells(axes):
    """The numbers in a panel, by row."""
    count = len(axes.texts) // len(PARTS)
    numbers = [int(text.get_text()) for text in axes.texts]
    return {part: numbers[i * count : (i + 1) * count] for i, part in enumerate(PARTS)}


def test_what_remains_by_layer_and_part(tmp_path):
    run = pruned(tmp_path / "run")
    figure, table = page_of(run)
    assert [axes.get_title() for axes in figure.axes] == [
        "row-pruning at 0.5",
        "head-pruning at 0.5",
    ]
    uneven, even = map(cells, figure.axes)
    whole = [100, 100, 100]
    assert uneven == {**dict.fromkeys(PARTS, whole), "units": [50, 50, 100]}
    assert even["units"] == [50, 50, 50]
    assert len(table) == 2 * 3 * len(PARTS)
    units = table[(table.part == "units") & (table.method == "row-pruning")]
    assert list(units["size"]) == [32, 32, 64]
    assert set(units.dense) == {64}
    for row in table.itertuples():
        point = run.read(row.keys).point
        assert (point.method, point.rate) == (row.method, 0.5)


def test_rates_and_methods_are_chosen(tmp_path):
    run = pruned(tmp_path / "run")
    figure, _ = page_of(run, rates=(0.25, 0.75), methods=["row-pruning"])
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["row-pruning at 0.25", "row-pruning at 0.75"]
    assert cells(figure.axes[1])["units"] == [25, 25, 100]
    with pytest.raises(InputError, match=r"rate 0.1 has no structured pruning.*0.25, 0.5, 0.75"):
        page_of(run, rates=(0.1,))


def test_layers_and_sub_layers_that_are_gone(tmp_path):
    run = pruned(tmp_path / "run", methods=("first-layers", "row-pruning"), rates=(0.6,))
    record = next(r for r in run.records() if r.point.method == "row-pruning")
    section = record.sections["compress"]
    section.details["layers"][0] |= {"heads": 0, "qk": 0, "vo": 0, "ffn": 0}
    section.details["layers"][1]["vo"] = 0
    run.write_section(record.point.key, section)
    figure, _ = page_of(run)
    assert figure.axes[0].get_title() == "row-pruning at 0.6", "whole layers are no irregularity"
    rows, first = map(cells, figure.axes)
    assert (rows["MHA"], rows["FFN"]) == ([0, 0, 100], [0, 100, 100])
    assert (rows["heads"], rows["v/out"]) == ([0, 100, 100], [0, 0, 100])
    assert all(numbers == [100, 0, 0] for numbers in first.values())


def test_seeds_are_averaged_and_their_range_is_in_the_table(tmp_path):
    run = pruned(tmp_path / "run", methods=("row-pruning",), rates=(0.5,), seeds=(0, 1))
    record = next(r for r in run.records() if r.point.method == "row-pruning" and r.point.seed)
    section = record.sections["compress"]
    section.details["layers"][0]["ffn"] = 0
    run.write_section(record.point.key, section)
    figure, table = page_of(run)
    row = table[(table.part == "units") & (table.layer == 1)].iloc[0]
    assert (row.seeds, row.share, row.share_low, row.share_high) == (2, 0.25, 0, 0.5)
    assert cells(figure.axes[0])["units"] == [25, 50, 100]


def test_many_layers_have_shades_alone(tmp_path):
    run = make(tmp_path / "run", methods=("row-pruning",), rates=(0.5,), tasks=())
    shape(run, layers=24)
    panel, bar = page_of(run).figure.axes
    assert not panel.texts
    assert bar.get_ylabel() == "% that remain"


def test_methods_beyond_the_most_irregular_are_named(tmp_path):
    many = tuple(f"row-pruning[steps={n}]" for n in range(5))
    figure, table = page_of(pruned(tmp_path / "run", methods=many, rates=(0.5,)))
    assert table.method.nunique() == 4
    assert "row-pruning[steps=4] changed layers too" in " ".join(figure.get_suptitle().split())


def test_records_that_do_not_tell_are_one_sentence(tmp_path):
    older = make(tmp_path / "older", methods=("row-pruning",), rates=(0.5,), tasks=())
    with pytest.raises(InputError, match=r"do not tell the layers.*sweep it again") as error:
        page_of(older)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="no method takes anything out of layers"):
        page_of(pruned(tmp_path / "run", methods=("low-rank",)))
