"""What a sweep keeps of hidden states: a second scoring encodes nothing, and finds the same."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from bench.jobs import Evaluate, Finished, Source, Told
from bench.plan import Plan, Request
from bench.run_sweep import request
from core.point import Point
from core.runtime import Runtime
from encoders import store
from encoders.hidden_cache import Cache, hidden_folder
from encoders.model import Encoder
from results.store import RunFolder

TASKS = ("ks", "sid", "pr")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def spoken(tmp_path_factory) -> Path:
    """A manifest of 18 utterances of noise, half a second each."""
    folder = tmp_path_factory.mktemp("spoken")
    draw = np.random.default_rng(0)
    rows = ["path,split,word,speaker,phones"]
    for index in range(18):
        soundfile.write(folder / f"{index}.wav", draw.normal(0, 0.05, 8_000), 16_000)
        split = "train" if index < 10 else "dev" if index < 14 else "test"
        rows.append(f"{index}.wav,{split},{'ab'[index % 2]},s{index % 2},{'x y y x'[: 3 + index]}")
    (folder / "words.csv").write_text("\n".join(rows))
    return folder / "words.csv"


@pytest.fixture
def evaluate(tmp_path, small_model, small_data, spoken, monkeypatch):
    """Scores a stored model; gives values by task, how many utterances it encoded, what it told."""
    calls: list[int] = []
    forward = Encoder.forward

    def count(self, waveforms, lengths=None):
        calls.append(len(waveforms))
        return forward(self, waveforms, lengths)

    monkeypatch.setattr(Encoder, "forward", count)

    def score(cache: Cache, tasks: tuple[str, ...] = TASKS, seed: int = 0, **runtime):
        point = Point(str(small_model), "dense", 0.0, seed, str(small_data))
        folder = RunFolder(tmp_path / "run")
        folder.write_point(point)
        store.save(store.load(small_model), folder.model_folder(point.key))
        calls.clear()  # a model is run once when it is saved
        said: list[object] = []
        Evaluate(
            folder.path, (point,), {(point.key, f"task.{task}"): task for task in tasks},
            source=Source(str(small_data)), task_source=Source(str(spoken)),
            runtime=Runtime(**runtime), cache=cache,
        ).run(said.append)  # fmt: skip
        done = [message.section for message in said if isinstance(message, Finished)]
        assert [section.status for section in done] == ["done"] * len(tasks), done
        values = {section.name: section.values for section in done}
        return values, sum(calls), [message.line for message in said if isinstance(message, Told)]

    return score


def test_a_point_scored_again_is_not_encoded_and_scores_the_same(evaluate):
    fresh, encoded, told = evaluate(Cache())
    assert (encoded, told) == (18, [])
    first, encoded, told = evaluate(Cache(1e8))
    assert encoded == 18
    assert told[0].startswith("hidden states of 18 utterances: ")
    again, encoded, told = evaluate(Cache(1e8))
    assert (encoded, told) == (0, [])
    assert fresh == first == again


def test_another_seed_and_tasks_of_means_find_what_is_there(evaluate):
    evaluate(Cache(1e8), tasks=("pr",))
    assert evaluate(Cache(1e8), tasks=("pr",), seed=1)[1] == 0
    assert evaluate(Cache(1e8), tasks=("ks", "sid"))[1] == 0


def test_another_numeric_type_is_encoded_anew(evaluate):
    evaluate(Cache(1e8), tasks=("ks",))
    assert evaluate(Cache(1e8), tasks=("ks",), dtype="bfloat16")[1] == 18
    assert evaluate(Cache(1e8), tasks=("ks",), dtype="bfloat16")[1] == 0


def test_a_cache_that_cannot_be_written_is_said_and_done_without(evaluate):
    hidden_folder().parent.mkdir(parents=True)
    hidden_folder().write_text("in the way")
    _, encoded, told = evaluate(Cache(1e8), tasks=("ks",))
    assert encoded == 18
    assert str(hidden_folder()) in told[0]


def test_a_sweep_keeps_what_fits_the_limit_and_says_so(arguments, spoken):
    options = {"tasks": "pr", "task-data": str(spoken), "profilers": "none", "rates": "0.5"}
    # A process of its own: workers have the environment in which the first of a process began.
    line = [sys.executable, "-m", "bench", *arguments(**options, **{"cache-limit": "10MB"})]
    swept = subprocess.run(line, capture_output=True, text=True, check=True)
    assert "hidden states of 18 utterances: " in swept.stderr
    sizes = [path.stat().st_size for path in hidden_folder().glob("*/*.safetensors")]
    assert 0 < sum(sizes) < 10e6
    assert {path.name[:6] for path in hidden_folder().glob("*/*.safetensors")} == {
        "frames",
        "means-",
    }


def wanted(tasks: Path | str, **options: str) -> Request:
    return request(
        model="random:tiny", methods="low-rank", rates="0.5", seeds="0", source=Source("builtin"),
        tasks="ks", task_source=Source(str(tasks)), profilers="none", runtime=Runtime(), **options,
    )  # fmt: skip


def test_only_ones_own_speech_is_kept_by_default(spoken):
    assert wanted("builtin").cache == Cache(0)
    assert wanted(spoken).cache == Cache(4e9)
    assert wanted(spoken, cache_limit="0").cache == Cache(0)
    assert wanted("builtin", cache_limit="1.5GiB", cache_dtype="float16").cache == Cache(
        1.5 * 2**30, "float16"
    )


def test_scores_are_stale_where_frames_are_rounded_otherwise(small_model, small_data, tmp_path):
    asked = replace(wanted(small_data), model=str(small_model), source=Source(str(small_data)))
    (key, *_) = Plan.of(asked, tmp_path / "run").records
    prints = set()
    for cache in (Cache(), Cache(1e9), Cache(1e9, "float16")):
        plan = Plan.of(replace(asked, cache=cache), tmp_path / "run")
        plan.weights = lambda _: "weights"  # type: ignore[method-assign]
        prints.add(plan.fingerprint(key, "task.ks"))
    assert len(prints) == 2
