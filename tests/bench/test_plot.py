import csv

import pytest
from synthetic_run import make, time_in_turns

import reports
from bench.cli import run


@pytest.fixture
def folder(tmp_path):
    made = make(tmp_path / "run", methods=("low-rank",), rates=(0.5,))
    time_in_turns(made)
    return made.path


@pytest.mark.parametrize(
    ("options", "files"),
    [
        ("", ["superb_s-params.csv", "superb_s-params.png"]),
        ("--x macs --y pr", ["pr-macs.csv", "pr-macs.png"]),
        ("--figure speedup", ["speedup.csv", "speedup.png"]),
        ("--figure speedup --format pdf,svg", ["speedup.csv", "speedup.pdf", "speedup.svg"]),
        ("--x params,macs", ["superb_s-params-macs.csv", "superb_s-params-macs.png"]),
        ("--figure tasks --x macs --style slides", ["tasks-macs.csv", "tasks-macs.png"]),
        ("--out {folder}/a", ["a.csv", "a.pdf", "a.png"]),
        ("--out {folder}/a.svg", ["a.csv", "a.svg"]),
    ],
)
def test_the_files_of_a_figure(folder, options, files, capsys):
    before = set(folder.iterdir())
    assert run(["plot", str(folder), *options.format(folder=folder).split()]) == 0
    assert sorted(path.name for path in set(folder.iterdir()) - before) == files
    assert set(capsys.readouterr().out.split()) == {str(folder / name) for name in files}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--figure speedip", "did you mean 'speedup'"),
        ("--figure speedup --x macs", "has no option --x"),
        ("--format gif", "known: png, pdf, svg"),
        ("--x parms", "did you mean 'params'"),
        ("--methods lowrank", "did you mean 'low-rank'"),
        ("--style slide", "known: paper, slides"),
        ("--figure layers --rates 2", "outside (0, 1)"),
        ("--figure all --out a.png", "name a folder"),
    ],
)
def test_bad_input_is_one_sentence(folder, options, says, capsys):
    assert run(["plot", str(folder), *options.split()]) == 2
    told = capsys.readouterr().err
    assert says in told
    assert told.count("\n") == 1


def test_all_figures_and_what_is_left_out(folder, tmp_path, capsys):
    line = ["plot", str(folder), "--figure", "all", "--x", "macs", "--out", str(tmp_path / "all")]
    assert run(line) == 0
    told = capsys.readouterr()
    drawn = {"superb_s-macs", "speedup", "tasks-macs"}
    files = {f"{tmp_path}/all/{stem}.{end}" for stem in drawn for end in ("png", "csv")}
    assert set(told.out.split()) == files
    left_out = [line.split(":")[0] for line in told.err.splitlines()]
    assert left_out == ["left out layers", "left out masks", "left out sequence"]


def test_nothing_drawn_of_all_fails(tmp_path, capsys):
    bare = make(tmp_path / "run", methods=(), tasks=())
    assert run(["plot", str(bare.path), "--figure", "all"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == len(reports.names())
    assert run(["plot", str(tmp_path / "none"), "--figure", "all"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_methods_with_options_and_several_runs(folder, tmp_path):
    other = make(tmp_path / "other", methods=("row-pruning[steps=9,seed=1]",), rates=(0.5,))
    chosen = "row-pruning[steps=9,seed=1],low-rank"
    out = tmp_path / "both.png"
    assert run(["plot", str(folder), str(other.path), "--methods", chosen, "--out", str(out)]) == 0
    with out.with_suffix(".csv").open() as file:
        drawn = {(row["run"], row["method"]) for row in csv.DictReader(file)}
    assert {("run", "low-rank"), ("other", "row-pruning[steps=9,seed=1]")} <= drawn
