import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from synthetic_run import make, time_in_turns

import reports.html
from bench.cli import run as bench
from core.point import Point
from core.record import Section
from reports._looks import MARKERS, STROKES, appearances
from reports.html.content import DASHES, FACTS, SYMBOLS, content
from reports.html.gaps import UNRECORDED
from results.store import RunFolder
from results.table import load

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(tmp_path):
    run = make(tmp_path / "run", methods=("low-rank", "row-pruning"), rates=(0.1, 0.5, 0.9))
    time_in_turns(run)
    return run


def told(file):
    """The content of a page, as a browser would read it."""
    text = file.read_text(encoding="utf-8")
    return json.loads(
        re.search(r'<script type="application/json"[^>]*>(.*?)</script>', text, re.DOTALL)[1]
    )


def rows(found):
    return [dict(zip(found["fields"], values, strict=True)) for values in found["points"]]


def by_key(found):
    return {row["key"]: row for row in rows(found)}


def test_every_point_with_every_number(run, tmp_path):
    assert reports.html.write([run.path], tmp_path / "a.html") == 9
    found = told(tmp_path / "a.html")
    frame, points = load([run.path]), by_key(found)
    assert [row["key"] for row in points.values()] == frame["key"].tolist()
    numbers = {column["name"] for column in found["columns"]}
    assert numbers == {"superb_s", "rate", *map(str, frame)} - set(FACTS) - {
        "superb_tasks", "anchors",
    }  # fmt: skip
    for row in frame.to_dict("records"):
        for name in numbers:
            value = points[row["key"]][name]
            assert (float("nan") if value is None else value) == pytest.approx(
                row[name], nan_ok=True
            )


def test_axes_have_units_directions_and_what_keeps_points_apart(run):
    columns = {column["name"]: column for column in content([run.path])["columns"]}
    params, latency, errors = (columns[c] for c in ("params_total", "latency_s_p50", "pr_per"))
    assert (params["title"], params["unit"], params["divisor"]) == ("Parameters", "M", 1e6)
    assert (latency["unit"], latency["divisor"], latency["better"]) == ("ms", 1e-3, "lower")
    assert [c["apart"] for c in (params, latency, errors)] == ["", "device", "task_data"]
    assert columns["superb_s"]["apart"] == "grade"
    assert columns["superb_s"]["about"].endswith("mean of ks pr")
    shown = {name for name, column in columns.items() if column["shown"]}
    assert shown == {
        "superb_s", "params_total", "macs_per_second", "latency_s_paired", "speedup", "pr_per",
        "ks_acc", "sid_acc", "rate",
    }  # fmt: skip


def test_what_does_not_compare_is_told_apart(run, tmp_path):
    other = make(tmp_path / "other", methods=("low-rank",), rates=(0.5,), tasks=("pr",),
                 device="another cpu")  # fmt: skip
    points = rows(content([run.path, other.path]))
    kinds = {(row["run"], row["device"], row["grade"]) for row in points if row["params_total"]}
    assert kinds == {
        ("run", "cpu", "quick:fbank-dense of builtin over ks pr"),
        ("other", "another cpu", "quick:fbank-dense of builtin over pr"),
    }


def test_methods_look_as_in_the_figures(run):
    assert {*MARKERS, "*", ""} == set(SYMBOLS)
    assert {*STROKES, "none"} == set(DASHES)
    looks = appearances(load([run.path]))
    found = {(look["run"], look["method"]): look for look in content([run.path])["looks"]}
    assert found.keys() == looks.keys()
    for pair, look in looks.items():
        assert found[pair]["colour"] == look.colour
        assert found[pair]["symbol"] == SYMBOLS[look.marker]


def test_figures_are_drawn_or_say_why_not(run, tmp_path):
    (run.path / "heat.svg").write_text("<svg/>")
    for stem in ("pareto", "superb_s-params"):
        (run.path / f"{stem}.png").write_bytes(b"drawn earlier")
    figures = {figure["name"]: figure for figure in content([run.path])["figures"]}
    assert figures.keys() == {*reports.names(), "heat"}
    assert figures["heat"]["image"] == "data:image/svg+xml;base64,PHN2Zy8+"
    assert figures["pareto"]["image"].startswith("data:image/png;base64,iVBOR")
    assert figures["speedup"]["about"].startswith("Is smaller always faster?")
    untimed = make(tmp_path / "untimed", methods=("low-rank",), rates=(0.5,))
    figures = {figure["name"]: figure for figure in content([untimed.path])["figures"]}
    assert "has no speed-up" in figures["speedup"]["why"]


def test_every_record_is_read_once(run, monkeypatch):
    read, find = [], RunFolder.find
    monkeypatch.setattr(RunFolder, "find", lambda self, key: read.append(key) or find(self, key))
    assert len(content([run.path])["points"]) == 9
    assert sorted(read) == run.keys()


def test_gaps_name_what_failed_is_missing_or_was_disturbed(run):
    run.write_run({
        "methods": ["low-rank", "row-pruning"], "rates": [0.1, 0.2], "seeds": [0],
        "tasks": ["pr", "ks", "sid", "ic"], "profilers": ["params", "macs", "latency"],
    })  # fmt: skip
    key = Point("builtin", "low-rank", 0.1, 0, "builtin").key
    latency = run.read(key).sections["profile.latency"]
    latency.details["disturbed"] = True
    run.write_section(key, latency)
    run.write_section(key, Section("task.ks", "failed", "f", reason="no  luck\nat all"))
    gaps = content([run.path])["gaps"]
    found = {(gap["status"], gap["sections"]): gap for gap in gaps}
    assert [gap["status"] for gap in gaps] == sorted(
        (gap["status"] for gap in gaps), key=["failed", "missing", "disturbed", "unsupported"].index
    )
    assert found["failed", "task.ks"]["reason"] == "no luck at all"
    assert found["failed", "task.ks"]["points"] == ["low-rank at 0.1 (seed 0)"]
    assert found["disturbed", "profile.latency"]["points"] == ["low-rank at 0.1 (seed 0)"]
    absent = found["missing", "point"]
    assert absent["points"] == ["low-rank at 0.2 (seed 0)", "row-pruning at 0.2 (seed 0)"]
    assert absent["reason"] == UNRECORDED
    assert len(found["missing", "task.ic"]["points"]) == 9
    nothing = found["unsupported", "profile.latency, profile.macs, profile.params"]
    assert nothing["points"] == ["fbank (seed 0)"]


def test_no_text_breaks_out_of_the_page(run, tmp_path):
    reason = "</script><script>alert(1)</script><!-- {{style}} <!--style--> \u2028"
    point = Point("builtin", "low-rank", 0.3, 0, "builtin")
    run.write_point(point)
    run.write_section(point.key, Section("compress", "failed", "f", reason=reason))
    folder = run.path.rename(tmp_path / "<b>&run")
    reports.html.write([folder], tmp_path / "a.html")
    assert by_key(told(tmp_path / "a.html"))[point.key]["reason"] == f"compress: {reason[:-2]}"
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "<title>&lt;b&gt;&amp;run</title>" in text
    assert text.count("<script") - text.count("</script") == 0
    assert "alert(1)</script>" not in text


def test_one_file_without_network_the_same_each_time(run, tmp_path):
    reports.html.write([run.path], tmp_path / "a.html")
    code = (
        "import sys; from reports.html import write; "
        f"write([{str(run.path)!r}], {str(tmp_path / 'b.html')!r}); "
        "assert 'torch' not in sys.modules and 'plotly' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    page = (tmp_path / "a.html").read_bytes()
    assert page == (tmp_path / "b.html").read_bytes()
    assert b"default-src 'none'" in page
    assert not re.search(rb"<(script|img|link)[^>]*(src|href)=", page)
    assert str(tmp_path).encode() not in page


def test_failures_alone_and_one_point(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.write_run({})
    point = Point("builtin", "low-rank", 0.5, 0, "builtin")
    run.write_point(point)
    run.write_section(point.key, Section("compress", "failed", "f", reason="no luck"))
    found = content([run.path])
    assert [column["name"] for column in found["columns"]] == ["rate"]
    assert found["gaps"][0]["reason"] == "no luck"
    assert all("was measured" in figure["why"] for figure in found["figures"])


def test_numbers_that_are_none(run):
    key = Point("builtin", "low-rank", 0.1, 0, "builtin").key
    section = run.read(key).sections["task.pr"]
    section.values["pr_per"] = float("nan")
    run.write_section(key, section)
    point = by_key(content([run.path]))[key]
    assert point["pr_per"] is None
    assert point["superb_s"] is None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("{run} --out a.htm", "expected a file ending in .html"),
        ("{tmp}/nothing", "holds no run"),
        ("{tmp}/empty", "has no points yet"),
    ],
)
def test_bad_input_is_one_sentence(run, tmp_path, capsys, monkeypatch, options, says):
    monkeypatch.chdir(tmp_path)
    RunFolder(tmp_path / "empty").write_run({})
    assert bench(["report", *options.format(run=run.path, tmp=tmp_path).split()]) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1
    assert not list(tmp_path.glob("*.htm*"))


def test_the_command_writes_a_file_that_needs_no_other(run, tmp_path, capsys):
    out = tmp_path / "page" / "report.html"
    assert bench(["report", str(run.path), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"9 points in {out}\n"
    assert out.stat().st_size > 1e6
    assert "Permission is hereby granted" in out.read_text(), "plotly's licence goes with it"
