"""`bench profile`: parts beside totals, speed-ups against a model, two runs held together."""

from __future__ import annotations

import json

import pytest

from bench.cli import run
from bench.profile import Profile
from bench.profile_report import compared
from core.metric import Metric


def test_superb32_stands_with_its_buckets_and_modules(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["profile", "random:tiny", "--profilers", "macs"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    numbers = {row[0]: float(row[1].replace(",", "")) for row in rows}
    buckets = [numbers[name] for name in ("short", "medium", "long", "longer")]
    assert sum(buckets) == pytest.approx(numbers["macs_dense"], rel=1e-5)
    assert buckets == sorted(buckets)
    parts = [numbers[name] for name in ("front_end", "projection", "attention", "ffn", "other")]
    assert sum(parts) == pytest.approx(numbers["macs_dense"], rel=1e-5)


def test_against_gives_a_speedup_with_its_interval(capsys: pytest.CaptureFixture[str]) -> None:
    line = "profile random:tiny --profilers latency --workload seconds:0.5 --repeats 2 --json"
    assert run([*line.split(), "--against", "random:tiny", "--dtype", "bfloat16"]) == 0
    found = json.loads(capsys.readouterr().out)
    low, high = found["details"]["latency"]["speedup_interval95"]
    assert low <= found["values"]["speedup"] <= high
    assert found["details"]["latency"]["runtime"]["dtype"] == "bfloat16"
    assert found["details"]["latency"]["dtype"] == "bfloat16"


def test_verify_shows_both_runs(capsys: pytest.CaptureFixture[str]) -> None:
    line = "profile random:tiny --profilers params,latency --workload seconds:0.5 --repeats 2"
    assert run([*line.split(), "--verify"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["first", "second", "difference"]
    assert "latency_s_p50" in {row.split()[0] for row in rows}
    assert not any(row.startswith("params") for row in rows)


@pytest.mark.slow
def test_another_runtime_is_named_and_leaves_the_counts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    line = "profile random:tiny --profilers macs,latency --workload seconds:0.5 --repeats 2"
    assert run([*line.split(), "--runtime", "onnxruntime", "--against", "random:tiny"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[:2] == ["runtime", "onnxruntime"]
    assert {"macs_dense", "latency_s_p50", "speedup"} <= {row.split()[0] for row in rows}


def test_a_runtime_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for options, says in (("onnx", "did you mean 'onnxruntime'"), ("onnxruntime --compile", "own")):
        assert run(["profile", "random:tiny", "--runtime", *options.split()]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert says in error


def test_differences_are_relative_to_the_first_run() -> None:
    metric = Metric("a", "s", "lower", "")
    first = Profile({"a": 2.0, "b": 0.0}, {"a": metric, "b": metric})
    second = Profile({"a": 2.5, "b": 0.0}, {"a": metric, "b": metric})
    _, a, b = compared(first, second).splitlines()
    assert a.split() == ["a", "2", "2.5", "+25.0", "%"]
    assert b.split() == ["b", "0", "0", "-"]
