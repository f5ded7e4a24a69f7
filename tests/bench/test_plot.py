import csv

import pytest
from synthetic_run import make, score_officially, time_in_turns

import reports
from bench.cli import run
from reports._drawing import Runs
from reports.pareto import Pareto
from results import superb
from results.store import RunFolder


@pytest.fixture
def folder(tmp_path):
    made = make(tmp_path / "run", methods=("low-rank",), rates=(0.5,))
    time_in_turns(made)
    score_officially(made)
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
        (
            "--anchors leaderboard",
            ["superb_s-params-leaderboard.csv", "superb_s-params-leaderboard.png"],
        ),
        ("--y pr --published", ["pr-params-published.csv", "pr-params-published.png"]),
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
        ("--figure probes --rates 0.5", "no numbers by layer"),
        ("--figure heads", "--profilers attention"),
        ("--figure speedup --published", "has no option --published"),
        ("--published --anchors quick", "no axis should mix"),
        ("--published --y pr --x latency", "published models have no superb.pr_per over latency"),
        ("--published --y sid", "has no official superb.sid_acc, and quick scores are another"),
        ("--anchors leaderbord", "did you mean 'leaderboard'"),
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
    absent = ("finetune", "heads", "layers", "masks", "probes", "sequence")
    assert left_out == [f"left out {name}" for name in absent]


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


def test_published_models_alone_or_beside_official_scores(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["plot", "--published", "--x", "params,macs"]) == 0
    alone = rows(tmp_path / "superb_s-params-macs-published.csv")
    assert {row["method"] for row in alone} == {"published"}
    assert {row["x_metric"] for row in alone} == {"params_total", "macs_superb32"}
    assert {"WavLM Large", "DPWavLM"} <= {r["model"] for r in alone if r["on_front"] == "True"}
    score_officially(RunFolder(folder), tasks=superb.CONVENTIONS["leaderboard"].tasks)
    out = tmp_path / "beside.png"
    assert run(["plot", str(folder), "--published", "--out", str(out)]) == 0
    drawn = {row["method"]: float(row["y"]) for row in rows(out.with_suffix(".csv"))}
    assert set(drawn) == {"dense", "low-rank", "published"}
    assert drawn["dense"] == pytest.approx(1000)


def test_published_models_are_marks_without_a_line(folder):
    score_officially(RunFolder(folder), tasks=superb.CONVENTIONS["leaderboard"].tasks)
    figure = Pareto(published=True).page(Runs.load([folder])).figure
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.lines}
    assert lines["published models"].get_linestyle() == "None"
    assert len(lines["published models"].get_xdata()) == 29
    assert lines["dense"].get_marker() != lines["published models"].get_marker()
    assert "WavLM Large" in {text.get_text() for text in axes.texts}
    assert "29 of 31 published models drawn (leaderboard:fbank-leaderboard)" in " ".join(
        figure.get_suptitle().split()
    )


def test_quick_scores_are_not_drawn_beside_published_ones(tmp_path, capsys):
    quick = make(tmp_path / "run", methods=("low-rank",), rates=(0.5,))
    assert run(["plot", str(quick.path), "--published"]) == 2
    told = capsys.readouterr().err
    assert "has no official superb_s, and quick scores are another grade" in told
    assert told.count("\n") == 1


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))
