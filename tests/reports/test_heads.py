import csv
from base64 import b64decode

import pytest
from synthetic_run import look, make

import reports
from core.errors import InputError
from reports._drawing import Runs
from reports.heads import Heads

RATES = (0.25, 0.5, 0.75)


def looked(path, methods=("head-pruning", "low-rank"), **options):
    run = make(path, methods=methods, **{"rates": RATES, "tasks": (), **options})
    look(run)
    return run


def page_of(run, methods=None):
    return Heads().page(Runs.load([run.path], methods))


def test_every_head_with_its_map_and_when_it_went(tmp_path):
    run = looked(tmp_path / "run")
    figure, table = page_of(run)
    maps, order = figure.axes
    assert set(table.method) == {"head-pruning"}, "low-rank takes no heads"
    assert len(table) == 2 * 4
    heads = table[table.layer == 1].set_index("head")
    assert list(heads.went) == pytest.approx([0.25, 0.5, 0.75, float("nan")], nan_ok=True)
    assert list(heads.diagonality) == pytest.approx([-0.4, -0.3, -0.2, -0.1])
    assert b64decode(heads["map"].iloc[0]) == bytes(range(16))
    for keys in table["keys"]:
        assert {run.read(key).point.method for key in keys.split()} == {"dense", "head-pruning"}
    drawn = order.collections[0].get_offsets()
    assert sorted(drawn[:, 1].round(2)) == sorted(table.diagonality.round(2))
    assert [text.get_text() for text in order.get_xticklabels()] == ["0.25", "0.5", "0.75", "kept"]
    assert order.get_title() == "head-pruning\nrank correlation +0.98"
    assert len(maps.images) == 1


def test_maps_are_framed_by_when_their_head_went(tmp_path):
    figure, _ = page_of(looked(tmp_path / "run"))
    picture = figure.axes[0].images[0].get_array()
    side = picture.shape[1] // 4
    corners = [tuple(picture[2, side * head + 2]) for head in range(4)]
    assert len(set(corners)) == 4
    brightness = [sum(colour) for colour in corners]
    assert brightness == sorted(brightness, reverse=True), (
        "in grey the first to go are the lightest"
    )


def test_a_head_that_comes_back_went_later(tmp_path):
    run = looked(tmp_path / "run")
    for record in run.records():
        section = record.sections["compress"]
        if (record.point.method, record.point.rate) == ("head-pruning", 0.5):
            section.details["layers"][0]["kept"] = [0, 2, 3]
            run.write_section(record.point.key, section)
    table = page_of(run).table.set_index(["layer", "head"])
    assert table.went[1, 1] == 0.75
    assert table.went[2, 1] == 0.25


def test_methods_that_cut_layers_are_left_out_and_more_methods_named(tmp_path):
    methods = tuple(f"head-pruning[steps={n}]" for n in range(4))
    run = looked(tmp_path / "run", (*methods, "first-layers"))
    for record in run.records():
        section = record.sections["compress"]
        if record.point.method == "first-layers":
            del section.details["layers"][0]
            run.write_section(record.point.key, section)
    figure, table = page_of(run)
    assert set(table.method) == set(methods[:3])
    assert "head-pruning[steps=3] removed heads too" in " ".join(figure.get_suptitle().split())
    _, chosen = page_of(run, ["head-pruning"])
    assert set(chosen.method) == set(methods)


def test_seeds_are_marks(tmp_path):
    figure, table = page_of(looked(tmp_path / "run", seeds=(0, 1)))
    assert len(figure.axes[1].collections[0].get_offsets()) == len(table) == 2 * 2 * 4
    assert "marks of 2 seeds" in figure.get_suptitle()


def test_files(tmp_path):
    run = looked(tmp_path / "run")
    files = reports.draw(Heads(), [run.path], tmp_path / "heads", ["png", "pdf", "svg"])
    assert [file.suffix for file in files] == [".png", ".pdf", ".svg", ".csv"]
    with files[-1].open() as file:
        rows = list(csv.DictReader(file))
    assert rows[-1]["went"] == ""
    assert {"layer", "head", "diagonality", "map", "keys"} <= set(rows[0])


def test_what_is_missing_is_one_sentence(tmp_path):
    unseen = make(tmp_path / "unseen", methods=("head-pruning",), rates=RATES, tasks=())
    with pytest.raises(InputError, match=r"no attention maps.*--profilers attention"):
        page_of(unseen)
    older = looked(tmp_path / "older")
    for record in older.records():
        section = record.sections["compress"]
        for layer in section.details.get("layers", ()):
            layer.pop("kept", None)
        older.write_section(record.point.key, section)
    with pytest.raises(InputError, match=r"do not tell which heads.*into another folder"):
        page_of(older)
    with pytest.raises(InputError, match="no method removes heads; sweep head-pruning"):
        page_of(looked(tmp_path / "run", methods=("low-rank",)))
