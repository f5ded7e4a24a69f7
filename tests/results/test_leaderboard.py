import csv
from io import StringIO

import pytest
from rich.console import Console
from synthetic_run import make

from core.errors import InputError
from core.point import Point
from core.record import Section
from results import leaderboard, summary, superb
from results.table import load


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def shown(renderable, width=100):
    console = Console(width=width, file=StringIO())
    console.print(renderable)
    return console.file.getvalue()


def fail(run, method="row-pruning", rate=0.3):
    point = Point("builtin", method, rate, 0, "builtin")
    run.write_point(point)
    run.write_section(point.key, Section("compress", "failed", "f", reason="no rows\nleft"))


def test_the_text_does_not_depend_on_the_order_of_work(tmp_path):
    a = make(tmp_path / "a/run", methods=("low-rank", "row-pruning"), rates=(0.1, 0.5))
    b = make(tmp_path / "b/run", methods=("row-pruning", "low-rank"), rates=(0.5, 0.1))
    for run in (a, b):
        leaderboard.write([run.path], run.path / "leaderboard.csv")
    text = (a.path / "leaderboard.csv").read_bytes()
    assert text == (b.path / "leaderboard.csv").read_bytes()
    assert b"\r" not in text
    assert text.count(b"\n") == 1 + 3 + 4
    header = text.decode().splitlines()[0].split(",")
    assert header[:4] == ["model", "method", "rate", "achieved_rate"]
    numbers = header[header.index("key") + 1 :]
    assert numbers == sorted(numbers)
    assert "run" not in header


def test_failures_are_rows(tmp_path):
    run = make(tmp_path / "run", methods=("low-rank",), rates=(0.5,))
    fail(run)
    frame = leaderboard.write([run.path], tmp_path / "out.csv")
    found = [row for row in rows(tmp_path / "out.csv") if row["method"] == "row-pruning"]
    assert [(r["status"], r["reason"], r["superb_s"]) for r in found] == [
        ("failed", "compress: no rows left", "")
    ]
    assert len(frame) == 5


def test_several_runs_and_random_weights_are_said(tmp_path):
    real = make(tmp_path / "real", methods=())
    random = make(tmp_path / "noise", methods=(), info={"random_weights": True})
    leaderboard.write([real.path, random.path], tmp_path / "out.csv")
    found = {(row["run"], row["random_weights"]) for row in rows(tmp_path / "out.csv")}
    assert found == {("noise", "yes"), ("real", "no")}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (94371712, "94371712"), (94371712.0, "94371712"), (0.1 + 0.2, "0.3"), (1e-7, "0.0000001"),
        (7421234567.3, "7421230000"), (float("nan"), ""), (True, "yes"), ("a", "a"),
        (-172.949002, "-172.949"), (float("inf"), "inf"),
    ],
)  # fmt: skip
def test_cells(value, text):
    assert leaderboard.cell(value) == text


def test_an_unwritable_leaderboard_is_named(tmp_path):
    run = make(tmp_path / "run", methods=())
    with pytest.raises(InputError, match=r"run\.json"):
        leaderboard.write([run.path], run.path / "run.json" / "out.csv")


def test_the_summary_shows_references_first_then_methods_and_troubles(tmp_path):
    run = make(tmp_path / "run", methods=("low-rank",), rates=(0.1, 0.9), seeds=(0, 1))
    fail(run)
    text = shown(summary.render(run.path))
    first = [line.split()[0] for line in text.splitlines() if line.strip()]
    assert first[:7] == [
        "method", "dense", "fbank", "random-init", "low-rank", "low-rank", "row-pruning"
    ]  # fmt: skip
    assert "failed: row-pruning 0.3 (compress: no rows left)" in text
    dense = next(line for line in text.splitlines() if line.startswith("dense"))
    assert dense.split()[1:4] == ["1000", "1.20", "0.065"]
    tasks = next(line for line in text.splitlines() if line.startswith("pr_per"))
    assert tasks.split()[-4:] == ["28.00", "61.00", "70.00", "yes"]


def test_the_summary_of_an_empty_run_says_that_references_are_absent(tmp_path):
    run = make(tmp_path / "run", seeds=())
    text = shown(summary.render(run.path))
    assert text.count("absent") == 3


def test_a_narrow_terminal_cuts_names_and_no_numbers(tmp_path):
    method = "distillation+head-pruning+row-pruning"
    run = make(tmp_path / "run", methods=(method, "low-rank"), rates=(0.5,))
    wide, narrow = (shown(summary.render(run.path), width).splitlines() for width in (120, 70))
    head, *rows = [line.split() for line in wide[:6]]
    assert head[:5] == ["method", "rate", "superb_s", "params", "(M)"]
    assert rows[3][:2] == [method, "0.5"]
    assert [len(line) for line in narrow[:6]] == [70] * 6
    assert narrow[4].startswith("distillation+he…   0.5")
    assert [line.split()[1:] for line in narrow[:6]] == [head[1:], *(row[1:] for row in rows)]


def test_the_summary_says_that_weights_are_random(tmp_path):
    run = make(tmp_path / "run", methods=(), info={"random_weights": True})
    assert "Random weights" in shown(summary.render(run.path)).splitlines()[0]


def test_published_scores_are_shown_with_what_they_leave_out():
    scores = {
        "all": superb.superb_s(superb.ANCHORS["leaderboard"]),
        "some": superb.superb_s({"pr_per": 3.53, "ks_acc": 41.38}),
    }
    lines = shown(summary.render_scores(scores)).splitlines()
    assert lines[1].split() == ["all", "1000.00", "all", "leaderboard:fbank-leaderboard"]
    assert lines[2].split()[:5] == ["some", "500.00", "only", "ks", "pr"]


def test_the_readable_tables_have_a_row_per_method_and_rate(tmp_path):
    run = make(tmp_path / "run", methods=("low-rank",), rates=(0.3, 0.5), seeds=(0, 1, 2))
    fail(run)
    leaderboard.write([run.path], tmp_path / "out.md")
    leaderboard.write([run.path], tmp_path / "out.tex")
    markdown = (tmp_path / "out.md").read_text().splitlines()
    assert markdown[0].startswith("| method | rate | superb_s | ks_acc | pr_per | sid_acc | params")
    found = {tuple(c.strip() for c in line.split("|")[1:4]) for line in markdown[2:]}
    assert ("row-pruning", "0.3", "failed") in found
    assert len(markdown) == 2 + 3 + 2 + 1
    low_rank = next(line for line in markdown if line.startswith("| low-rank | 0.5"))
    scores = load([run.path]).query("method == 'low-rank' and rate == 0.5").superb_s
    expected = f"{scores.mean():.0f} ({scores.min():.0f}..{scores.max():.0f})"
    assert f"| {expected} |" in low_rank
    latex = (tmp_path / "out.tex").read_text()
    assert latex.startswith("\\begin{tabular}{lrrr")
    assert latex.count("\\\\\n") == 1 + 3 + 2 + 1
    assert "superb\\_s" in latex
    assert "--" in latex
    for row in latex.splitlines():
        assert row.startswith("\\") or row.endswith(" \\\\")


def test_an_unknown_format_is_refused(tmp_path):
    run = make(tmp_path / "run", methods=())
    with pytest.raises(InputError, match=r"out\.xls.*ending in \.csv, \.md, \.tex"):
        leaderboard.write([run.path], tmp_path / "out.xls")
