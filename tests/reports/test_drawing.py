import csv
import subprocess
import sys
from pathlib import Path

import pytest
from synthetic_run import lengthen, log_masks, look, make, probe, shape, time_in_turns, tune

import reports
from core.errors import InputError
from reports import _drawing
from results.table import CONDITIONS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One that every figure can be drawn of."""
    rows = ("row-pruning[steps=9]", "row-pruning[steps=9,seed=1]")
    methods = ("head-pruning", "low-rank", "ofa-sequence", *rows)
    folder = tmp_path_factory.mktemp("one") / "run"
    run = make(folder, methods=methods, rates=(0.1, 0.5, 0.9))
    time_in_turns(run)
    shape(run)
    lengthen(run)
    log_masks(run, rows[0])
    look(run)
    probe(run)
    tune(run)
    return run


def test_every_file_is_a_figure():
    assert reports.names() == [
        "finetune", "heads", "layers", "masks", "pareto", "probes", "sequence", "speedup", "tasks"
    ]  # fmt: skip
    for name in reports.names():
        assert type(reports.figure(name)).__name__.lower() == name
    assert reports.figure("pareto", x=["macs"], y="pr").stem == "pr-macs"
    assert reports.figure("speedup").stem == "speedup"


def test_figures_and_options_that_are_not_there():
    with pytest.raises(
        InputError, match=r"'speedip' \(did you mean 'speedup'\?\); known: finetune, "
    ):
        reports.figure("speedip")
    with pytest.raises(InputError, match="unknown figure '_page'"):
        reports.figure("_page")
    with pytest.raises(InputError, match="'speedup' has no option --y; its options: none"):
        reports.figure("speedup", y="pr")
    with pytest.raises(InputError, match="its options: --x, --y, --anchors, --published"):
        reports.figure("pareto", z="pr")
    assert reports.options("pareto") == ["x", "y", "anchors", "published"]
    assert reports.options("masks") == []


#: All formats of a figure of marks and of one of images; of the others what tells most.
FORMATS = {
    name: ("png", "pdf", "svg") if name in ("pareto", "heads") else ("svg",)
    for name in reports.names()
}


@pytest.fixture(scope="module")
def again(run, tmp_path_factory) -> Path:
    """Every figure as another process draws it."""
    folder = tmp_path_factory.mktemp("again")
    code = (
        f"import reports, sys; [reports.draw(reports.figure(name), [{str(run.path)!r}], "
        f"{str(folder)!r} + '/' + name, formats) for name, formats in {FORMATS!r}.items()]; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    return folder


@pytest.mark.parametrize("name", reports.names())
def test_figures_drawn_again_are_the_same_bytes(name, run, again, tmp_path):
    first = reports.draw(reports.figure(name), [run.path], tmp_path / name, FORMATS[name])
    assert [path.suffix[1:] for path in first] == [*FORMATS[name], "csv"]
    for path in first:
        assert path.read_bytes() == (again / path.name).read_bytes()
        assert b"CreationDate" not in path.read_bytes()


@pytest.mark.parametrize("name", reports.names())
def test_a_figure_names_the_details_that_it_draws(name, run):
    """Others are not kept when records are read."""
    drawing = reports.figure(name)
    known, kept = (_drawing.Runs.load([run.path], details=d) for d in (None, drawing.reads))
    assert drawing.page(kept).table.equals(drawing.page(known).table)
    for section in ("compress", "profile.latency", "task.probe-phone"):
        named = {detail for told in kept.details(section).values() for detail in told}
        assert named <= {*drawing.reads, *CONDITIONS}


def test_what_is_not_drawn_needs_no_heavy_packages():
    lazy = (
        "import reports, sys; reports.names(); "
        "assert not {'matplotlib', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", lazy], check=True, cwd=ROOT)


def test_only_the_methods_asked_for(run, tmp_path):
    pareto = reports.figure("pareto")
    *_, table = reports.draw(pareto, [run.path], tmp_path / "a", ("png",), ["low-rank"])
    with table.open() as file:
        drawn = {row["method"] for row in csv.DictReader(file)}
    assert drawn == {"dense", "fbank", "random-init", "low-rank"}
    *_, table = reports.draw(pareto, [run.path], tmp_path / "b", ("png",), ["row-pruning"])
    with table.open() as file:
        drawn = {row["method"] for row in csv.DictReader(file)}
    assert len(drawn) == 5, "a plain name stands for all its options"
    with pytest.raises(InputError, match="did you mean 'low-rank'"):
        reports.draw(pareto, [run.path], tmp_path / "a", methods=["lowrank"])


def test_an_unknown_format_and_an_unwritable_folder(run, tmp_path):
    pareto = reports.figure("pareto")
    with pytest.raises(InputError, match="known: png, pdf, svg"):
        reports.draw(pareto, [run.path], tmp_path / "a", ("gif",))
    with pytest.raises(InputError, match="cannot write"):
        reports.draw(pareto, [run.path], run.path / "run.json" / "a", ("png",))


@pytest.mark.parametrize("name", ["pareto", "tasks"])
def test_slides_are_wide_and_in_larger_letters(name, run, tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(_drawing, "_image", lambda figure, _: figures.append(figure) or b"")
    for style in ("paper", "slides"):
        reports.draw(reports.figure(name), [run.path], tmp_path / style, ("svg",), style=style)
    paper, slides = figures
    assert slides.get_figwidth() / slides.get_figheight() == pytest.approx(16 / 9)
    assert slides.get_figwidth() >= paper.get_figwidth()
    for letters in (lambda f: f._suptitle, lambda f: f.axes[0].xaxis.label):
        assert letters(slides).get_size() == 1.25 * letters(paper).get_size()
    with pytest.raises(InputError, match="unknown figure style 'slide'; known: paper, slides"):
        reports.draw(reports.figure(name), [run.path], tmp_path / "a", style="slide")


def test_all_figures_of_what_there_is(run, tmp_path):
    drawings = [reports.figure(name) for name in reports.names()]
    found = list(reports.draw_all(drawings, [run.path], tmp_path / "all", ("png",)))
    assert [files[0].name for files in found] == [f"{drawing.stem}.png" for drawing in drawings]
    bare = make(tmp_path / "bare", methods=("low-rank",), rates=(0.5,))
    found = list(reports.draw_all(drawings, [bare.path], tmp_path / "some", ("png",)))
    drawn = [d.stem for d, files in zip(drawings, found, strict=True) if isinstance(files, list)]
    assert drawn == ["superb_s-params", "tasks-params"]
