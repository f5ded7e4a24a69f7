import pytest
from synthetic_run import make, time_in_turns

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
    ],
)
def test_bad_input_is_one_sentence(folder, options, says, capsys):
    assert run(["plot", str(folder), *options.split()]) == 2
    told = capsys.readouterr().err
    assert says in told
    assert told.count("\n") == 1
