from __future__ import annotations

import json
import subprocess
import sys

import pytest

from bench.cli import run
from core import plugins

#: Packages that cost a large part of a second to import.
HEAVY = {"torch", "pandas", "matplotlib", "sklearn", "scipy", "fvcore"}


def heavy_imports(arguments: list[str]) -> set[str]:
    """Which of HEAVY a command imports, in a fresh interpreter."""
    code = (
        "import sys; from bench.cli import run; code = run(sys.argv[1:]); "
        f"print('\\n' + ' '.join({HEAVY} & set(sys.modules))); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "arguments",
    ["--help", "sweep --help", "list methods", "list methods low-rank", "list models",
     "list tasks", "list profilers"],
)  # fmt: skip
def test_help_and_lists_import_nothing_heavy(arguments):
    assert heavy_imports(arguments.split()) == set()


@pytest.mark.parametrize(
    ("kinds", "kind"), [("methods", "method"), ("tasks", "task"), ("profilers", "profiler")]
)
def test_lists_name_every_plugin_with_its_summary(kinds, kind, capsys):
    assert run(["list", kinds]) == 0
    out = capsys.readouterr().out
    for name in plugins.names(kind):
        assert name in out
        assert plugins.card(kind, name).summary in out


def test_details_tell_what_the_rate_counts_and_the_options(capsys):
    assert run(["list", "methods", "head-pruning"]) == 0
    out = capsys.readouterr().out
    assert "attention heads" in out
    assert "scope=layer (layer|model)" in out
    assert "compressors/head_pruning.py" in out


@pytest.mark.parametrize("name", ["builtin", "random:wavlm_large"])
def test_models_are_described(name, capsys):
    assert run(["list", "models", name]) == 0
    assert "layers:" in capsys.readouterr().out


BAD = [
    ("sweep --methods head-prunning", "did you mean 'head-pruning'"),
    ("sweep --methods head-pruning[scope=hand]", "'layer' or 'model'"),
    ("sweep --methods low-rank[", "cannot be read"),
    ("sweep --tasks kss", "did you mean 'ks'"),
    ("sweep --profilers mac", "did you mean 'macs'"),
    ("sweep --model builtn", "did you mean 'builtin'"),
    ("sweep --model random:hubert", "did you mean 'hubert_base'"),
    ("sweep --rates 0.9:0.1", "reversed"),
    ("sweep --rates 1.5", "outside (0, 1)"),
    ("sweep --seeds -1", "whole numbers"),
    ("sweep --seeds ,", "whole numbers"),
    ("sweep --workers 0", "workers"),
    ("sweep --cache-limit much", "expected a number such as"),
    ("sweep --cache-limit -1GB", "cache limit"),
    ("sweep --cache-dtype float8", "float32 or float16"),
    ("sweep --colour red", "--colour"),
    ("sweep --model random:tiny --data {tmp}/nowhere", "does not exist"),
    ("sweep --model random:tiny --data {tmp}/empty", "holds no audio"),
    ("sweep --model random:tiny --data {tmp}/corrupt", "broken.flac"),
    ("sweep --model random:tiny --data builtin --subset dev", "subset"),
    ("sweep --model {tmp}/empty", "holds no model"),
    ("sweep --model random:tiny --data {data} --tasks none --out {tmp}/file", "cannot write"),
    ("sweep --model random:tiny --data {data} --out {tmp}/file/run", "file is a file"),
    ("compress random:tiny --method low-rank,head-pruning --rate 0.5 --out {tmp}/m", "one method"),
    ("compress random:tiny --method low-rank --rate 0.1:0.5 --out {tmp}/m", "one rate"),
    ("compress random:tiny --method low-rank --rate 0.5 --out {tmp}/file/m", "cannot write"),
    ("compress random:fbank --method low-rank --rate 0.5 --out {tmp}/m", "no Transformer layers"),
    ("compress random:tiny --method low-rank", "--rate"),
    ("profile random:tiny --workload superb33", "superb32"),
    ("profile random:tiny --workload seconds:x", "seconds:N"),
    ("profile nothing", "unknown model"),
    ("profile random:tiny --device cuda:99", "torch sees"),
    ("profile random:tiny --dtype float8", "float32, float16, bfloat16"),
    ("profile random:tiny --tf32", "--device cuda"),
    ("profile random:tiny --profilers params --verify", "the same on every machine"),
    ("profile random:tiny --data {tmp}/nowhere", "does not exist"),
    ("sweep --model random:tiny --device tpu", "cpu, cuda or cuda:N"),
    ("sweep --model random:tiny --device cuda:99", "torch sees"),
    ("plot {tmp}/empty", "no run"),
    ("leaderboard {tmp}/nowhere --out {tmp}/x.csv", "no run"),
    ("superb-s {tmp}/nowhere.csv", "cannot read"),
    ("superb-s {tmp}/file --anchors wong", "wang2023"),
    ("list method", "did you mean 'methods'"),
    ("list tasks prr", "did you mean 'pr'"),
    ("list models random:tinny", "did you mean"),
    ("swep", "sweep"),
]


@pytest.fixture
def bad_inputs(tmp_path, small_data):
    (tmp_path / "empty").mkdir()
    (tmp_path / "corrupt").mkdir()
    (tmp_path / "corrupt" / "broken.flac").write_bytes(b"fLaC but no more")
    (tmp_path / "file").write_text("model\n")
    return {"tmp": tmp_path, "data": small_data}


@pytest.mark.parametrize(("line", "says"), BAD)
def test_bad_input_is_one_sentence_and_exit_code_2(line, says, bad_inputs, monkeypatch, capsys):
    monkeypatch.chdir(bad_inputs["tmp"])
    assert run(line.format(**bad_inputs).split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert says in captured.err
    assert not (bad_inputs["tmp"] / "runs").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("bench list methods head", {"head-pruning"}),
        ("bench sweep --methods low-rank,he", {"low-rank,head-pruning"}),
        ("bench sweep --model buil", {"builtin"}),
        ("bench sweep --tasks ks,s", {"ks,sd", "ks,sf", "ks,sid", "ks,superb", "ks,sv"}),
        ("bench sweep --profilers ma", {"macs"}),
        ("bench dr", set()),
        ("bench doc", {"doctor"}),
    ],
)
def test_the_shell_completes_names(words, expected):
    code = "from bench.cli import main; main()"
    environment = {
        "_BENCH_COMPLETE": "complete_bash", "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1), "PATH": "/usr/bin",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert set(done.stdout.split()) == expected


def test_doctor_tells_versions_and_real_import_errors(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "s3prl", None)
    assert run(["doctor"]) == 0
    lines = {line[4:].split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "2." in lines["torch"]
    assert lines["torch"].startswith("ok")
    assert "ModuleNotFoundError" in lines["s3prl"]
    assert lines["s3prl"].startswith("--")
    assert lines["CPU"]


def test_compress_saves_a_model_that_profile_reads(small_model, tmp_path, capsys):
    out = tmp_path / "half"
    line = ["compress", str(small_model), "--method", "row-pruning", "--rate", "0.5"]
    assert run([*line, "--out", str(out)]) == 0
    assert "parameters" in capsys.readouterr().out
    sizes = []
    for model in (small_model, out):
        assert run(["profile", str(model), "--profilers", "params", "--json"]) == 0
        sizes.append(json.loads(capsys.readouterr().out)["values"]["params_total"])
    removed = 2 * 24 * (2 * 32 + 1)  # two layers, half of 48 units: fc1 row and bias, fc2 column
    assert sizes[0] - sizes[1] == removed


def test_profile_gives_every_metric_name_that_is_part_of_the_interface(small_model, capsys):
    line = ["profile", str(small_model), "--workload", "seconds:0.5", "--repeats", "1", "--json"]
    assert run(line) == 0
    assert set(json.loads(capsys.readouterr().out)["values"]) >= {
        "params_total", "params_nonzero", "bytes_stored", "macs_dense", "macs_nonzero",
        "macs_per_second", "latency_s_p50", "rtf", "peak_bytes",
    }  # fmt: skip


def test_superb_s_reproduces_a_published_score(capsys):
    from results.superb import PUBLISHED

    assert run(["superb-s", str(PUBLISHED)]) == 0
    (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("HuBERT Base")]
    assert "941" in line or "940." in line
