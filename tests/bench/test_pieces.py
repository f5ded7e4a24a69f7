from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from bench import pieces, run_sweep
from bench.cli import run
from bench.jobs import Source
from bench.plan import Plan
from bench.sweep import alone
from core.errors import InputError
from core.method import parse_methods
from core.runtime import Runtime
from results.store import RunFolder

#: A worker that gets what SLURM sends to all processes of a job, and whose server gets it too.
SIGNALLED = """
import os, signal, time
from dataclasses import dataclass
from multiprocessing import forkserver
from typing import ClassVar
from bench.executors.local import Local
from bench.pieces import unsignalled

@dataclass(frozen=True)
class Signalled:
    exclusive: ClassVar[bool] = False
    processes: ClassVar[int] = 1

    def run(self, say):
        for process in (os.getppid(), os.getpid()):
            os.kill(process, signal.SIGTERM)
            os.kill(process, signal.SIGUSR2)
        time.sleep(0.2)
        say("alive")

def main():
    local = Local(1)
    with unsignalled():
        forkserver.ensure_running()
    with local:
        local.submit(Signalled())
        print([getattr(event, "message", event) for event in local.events()])
"""


@pytest.fixture
def plan(small_model, small_data, tmp_path) -> Plan:
    """Two methods at two rates and two seeds, with a cost and a timing."""
    request = run_sweep.request(
        model=str(small_model), methods="low-rank,first-layers", rates="0.3,0.5", seeds="0,1",
        tasks="none", source=Source(str(small_data)), task_source=Source("builtin"),
        profilers="params,latency", runtime=Runtime(),
    )  # fmt: skip
    return Plan.of(request, tmp_path / "run")


def test_a_sweep_is_cut_into_tracks_and_the_timings(plan):
    cut = pieces.cut(plan, 1, retry_failed=False)
    *tracks, timing = cut
    assert len({piece.name for piece in cut}) == len(cut) == 2 * 2 + 2 * 2 + 1
    assert [piece.exclusive for piece in cut] == [False] * 8 + [True]
    assert {piece.request.profilers for piece in tracks} == {("params",)}
    assert timing.request.profilers == ("latency",)
    keys = [key for piece in tracks for key in piece.keys]
    assert sorted(keys) == sorted(plan.records)
    assert timing.keys == set(keys)


def test_what_takes_longest_comes_first(plan):
    methods = "low-rank,low-rank[steps=3],small-model[steps=90],quantization"
    plan = Plan.of(replace(plan.request, methods=tuple(parse_methods(methods))), plan.run.path)
    *tracks, timing = pieces.cut(plan, 1, retry_failed=False)
    assert [piece.name.partition("-")[0] for piece in tracks[:4]] == [*2 * ["small"], *2 * ["low"]]
    assert all("steps" in piece.name for piece in tracks[:4])
    assert len(tracks) == 2 * 4 + 2 * 2
    assert timing.exclusive


def test_what_is_there_is_in_no_piece(arguments, plan, tmp_path):
    assert run(arguments(methods="low-rank", rates="0.3,0.5", profilers="params")) == 0
    there = Plan.of(plan.request, tmp_path / "run")
    names = [piece.name for piece in pieces.cut(there, 1, retry_failed=False)]
    assert len(names) == 2 + 1 + 2 + 1  # references of the other seed; first-layers; timings
    assert sum(name.startswith("low-rank") for name in names) == 1


def test_pieces_are_made_side_by_side_but_not_beside_a_whole_sweep(tmp_path):
    folder = RunFolder(tmp_path)
    with alone(folder, "a"), alone(folder, "b"):
        for other in ("a", None):
            with pytest.raises(InputError, match="another sweep"), alone(folder, other):
                pass
    with alone(folder), pytest.raises(InputError, match="another sweep"), alone(folder, "a"):
        pass
    with alone(folder, "a"):
        pass


def test_signals_to_all_of_a_job_do_not_end_its_workers(tmp_path):
    script = tmp_path / "signalled.py"
    script.write_text(SIGNALLED)
    done = subprocess.run(
        [sys.executable, "-c", "import signalled; signalled.main()"], capture_output=True,
        text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert "'alive', Ended(job=Signalled(), reason=''" in done.stdout, done.stderr


def test_collecting_takes_over_what_an_equal_model_has(arguments, tmp_path, capsys):
    assert run(arguments(methods="first-layers", rates="0.5,0.6")) == 0  # both keep one layer
    folder = RunFolder(tmp_path / "run")
    twin = next(r for r in folder.records() if r.sections["profile.params"].details.get("same_as"))
    section = twin.sections["profile.params"]
    values, section.values, section.status = section.values, {}, "failed"
    folder.write_section(twin.point.key, section)
    weights = folder.model_folder(twin.point.key) / "model.safetensors"
    content = weights.read_bytes()
    weights.unlink()
    weights.write_bytes(content)
    (tmp_path / "run" / "leaderboard.csv").unlink()
    assert run(["collect", str(tmp_path / "run")]) == 0
    assert folder.read(twin.point.key).sections["profile.params"].values == values
    assert weights.stat().st_nlink > 1
    assert (tmp_path / "run" / "leaderboard.csv").is_file()


def test_collecting_says_what_is_not_there_yet(arguments, tmp_path, capsys):
    assert run(arguments()) == 0
    next((tmp_path / "run").glob("points/*/profile.params.json")).unlink()
    capsys.readouterr()
    assert run(["collect", str(tmp_path / "run")]) == 1
    assert "1 sections are not there yet" in capsys.readouterr().out
