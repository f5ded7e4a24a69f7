from __future__ import annotations

import json
import os
import resource
import signal
from pathlib import Path

import pytest
from running import start, wait_until

from bench import run_sweep
from bench.cli import run
from bench.executors._base import Ended
from bench.executors.local import Local
from bench.jobs import Compress, Job
from bench.sweep import LIVES
from results.store import RunFolder


def sections(folder: Path) -> dict[tuple[str, float, str], dict]:
    """Every section of a run, by method, rate and name."""
    return {
        (record.point.method, record.point.rate, name): section.to_json()
        for record in RunFolder(folder).records()
        for name, section in record.sections.items()
    }


def files(folder: Path) -> dict[Path, int]:
    """The records on disk, with the time of their last change."""
    return {path: path.stat().st_mtime_ns for path in folder.glob("points/*/*.json")}


def finish(arguments, **options) -> tuple[int, str, str]:
    process = start(arguments, **options)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def gone(pid: int) -> bool:
    """Whether the process has ended; one that nobody has buried yet has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_dry_run_tells_states_and_writes_nothing(arguments, tmp_path, capsys):
    line = arguments(methods="first-layers,low-rank", rates="0.3,0.5")
    assert run([*line, "--dry-run"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert "dense (seed 0): missing: compress, profile.params" in out
    assert "low-rank at 0.3 (seed 0): missing: compress, profile.params" in out
    assert out[-2].startswith("6 points in")
    assert out[-2].endswith("sections: 12 missing")
    assert "nothing like it was measured yet" in out[-1]
    assert not (tmp_path / "run").exists()


def test_a_dry_run_foresees_what_does_not_exist(arguments, capsys):
    line = arguments(model="random:fbank", methods="low-rank")
    assert run([*line, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "low-rank at 0.5 (seed 0): unsupported (the model has no Transformer layers)" in out


def test_a_sweep_leaves_records_models_and_a_leaderboard(arguments, tmp_path, capsys):
    line = arguments(methods="row-pruning,low-rank", rates="0.5", profilers="params,macs,latency")
    assert run(line) == 0
    out = capsys.readouterr().out
    folder = tmp_path / "run"
    found = sections(folder)
    assert {s["status"] for s in found.values()} == {"done"}
    dense = found["dense", 0.0, "profile.params"]["values"]["params_total"]
    assert found["row-pruning", 0.5, "profile.params"]["values"]["params_total"] < dense
    assert found["row-pruning", 0.5, "compress"]["values"]["achieved_rate"] == pytest.approx(0.5)
    timing = found["low-rank", 0.5, "profile.latency"]
    assert timing["values"]["speedup"] > 0
    assert timing["environment"]["cpu"]
    for place in ("points", "models", "leaderboard.csv"):
        assert str(folder / place) in out
        assert (folder / place).exists()
    assert "no task was scored" in out


def test_records_tell_the_shape_of_layers_and_the_shortening(arguments, tmp_path):
    methods = "head-pruning,row-pruning,subsampling@untrained"
    assert run(arguments(methods=methods, rates="0.5")) == 0
    found = sections(tmp_path / "run")
    told = {method: found[method, rate, "compress"]["details"] for method, rate, section in found
            if section == "compress"}  # fmt: skip
    dense = {"heads": 4, "qk": 32, "vo": 32, "ffn": 48, "kept": [0, 1, 2, 3]}
    assert told["dense"]["layers"] == 2 * [dense]
    kept = [layer.pop("kept") for layer in told["head-pruning"]["layers"]]
    assert all(len(heads) == 2 and set(heads) < {0, 1, 2, 3} for heads in kept)
    pruned = {"heads": 2, "qk": 16, "vo": 16, "ffn": 48}
    assert told["head-pruning"]["layers"] == 2 * [pruned]
    assert told["row-pruning"]["layers"] == 2 * [dense | {"ffn": 24}]
    assert "layers" not in told["fbank"]
    assert told["subsampling@untrained"]["shortening"]["factor"] == 2
    assert "shortening" not in told["dense"]


def test_a_finished_sweep_does_nothing_and_imports_no_torch(arguments, tmp_path):
    assert run(arguments()) == 0
    before = files(tmp_path / "run")
    code = (
        "import sys; from bench.cli import run; code = run(sys.argv[1:]); "
        "assert 'torch' not in sys.modules; assert 'matplotlib' not in sys.modules; sys.exit(code)"
    )
    process = start(arguments(), code)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert files(tmp_path / "run") == before


def test_a_wider_request_adds_points_and_keeps_the_others(arguments, tmp_path):
    assert run(arguments(rates="0.5")) == 0
    before = files(tmp_path / "run")
    assert run(arguments(rates="0.5,0.9", profilers="params,macs")) == 0
    after = files(tmp_path / "run")
    assert before.items() <= after.items()
    added = sections(tmp_path / "run")
    assert added["first-layers", 0.5, "profile.macs"]["status"] == "done"
    assert ("first-layers", 0.9, "compress") in added


def test_equal_models_are_measured_and_stored_once(arguments, tmp_path):
    assert run(arguments(rates="0.5,0.6", seeds="0,1")) == 0  # of two layers, both keep one
    run_folder = RunFolder(tmp_path / "run")
    pruned = [r for r in run_folder.records() if r.point.method == "first-layers"]
    copies = [r.sections["profile.params"].details.get("same_as") for r in pruned]
    assert len(pruned) == 4
    assert copies.count(None) == 1
    weights = {run_folder.model_folder(r.point.key) / "model.safetensors" for r in pruned}
    assert len({path.stat().st_ino for path in weights}) == 1


def test_scores_of_real_tasks_come_with_references_and_a_figure(
    arguments, speech_data, tmp_path, capsys
):
    manifest = tmp_path / "digits.csv"
    rows = ["path,split,label"]
    for index in range(10):
        split = "train" if index < 6 else "dev" if index < 8 else "test"
        rows += [
            f"{speech_data}/fsdd/recordings/{digit}_jackson_{index}.wav,{split},{digit}"
            for digit in range(3)
        ]
    manifest.write_text("\n".join(rows))
    line = arguments(**{"tasks": "ks,pr", "task-data": str(manifest), "profilers": "params"})
    assert run(line) == 0
    capsys.readouterr()
    found = sections(tmp_path / "run")
    for method in ("dense", "fbank", "random-init"):
        assert 0 <= found[method, 0.0, "task.ks"]["values"]["ks_acc"] <= 100
        assert found[method, 0.0, "task.pr"]["status"] == "unsupported"
        assert "phones" in found[method, 0.0, "task.pr"]["reason"]
    assert ("random-init", 0.0, "profile.params") not in found
    assert found["dense", 0.0, "task.ks"]["details"]["in_score"] is True


def test_random_weights_are_said_everywhere(arguments, tmp_path, capsys):
    assert run(arguments(model="random:tiny", methods="first-layers", rates="0.9")) == 0
    assert "scores of it would mean nothing" in capsys.readouterr().out
    assert RunFolder(tmp_path / "run").run_info()["random_weights"] is True
    header, first, *_ = (tmp_path / "run" / "leaderboard.csv").read_text().splitlines()
    assert dict(zip(header.split(","), first.split(","), strict=True))["random_weights"] == "yes"


def test_a_folder_is_not_shared_by_sweeps_of_different_things(arguments, capsys):
    assert run(arguments()) == 0
    capsys.readouterr()
    assert run(arguments(model="random:tiny")) == 2
    assert "choose another folder" in capsys.readouterr().err


def test_a_failing_point_is_recorded_and_the_rest_goes_on(arguments, unruly, tmp_path):
    rates = "0.09,0.3,0.4,0.5,0.6,0.7"
    line = arguments(methods="unruly,first-layers", rates=rates, **{"time-limit": "4s"})
    code, out, err = finish(line, env=unruly)
    assert code == 1, err
    found = sections(tmp_path / "run")
    hung, raised, died = (found["unruly", rate, "compress"] for rate in (0.09, 0.4, 0.6))
    assert (hung["status"], hung["reason"]) == ("failed", "it took longer than --time-limit, 4 s")
    assert hung["environment"] == found["unruly", 0.3, "compress"]["environment"]
    assert (raised["status"], raised["reason"]) == ("failed", "at 0.4")
    assert "no luck" in raised["details"]["traceback"]
    assert died["status"] == "failed"
    assert "SIGKILL" in died["reason"]
    done = [(m, r) for (m, r, name), s in found.items() if s["status"] == "done" != name]
    assert {r for m, r in done if m == "unruly"} == {0.3, 0.5, 0.7}
    assert {r for m, r in done if m == "first-layers"} == {float(r) for r in rates.split(",")}
    assert "3 of 14 points failed" in out
    assert "unruly at 0.6 (seed 0): compress" in out

    before = files(tmp_path / "run")
    assert finish(line, env=unruly)[0] == 1
    assert files(tmp_path / "run") == before, "what failed is tried again only when asked"

    plugin = tmp_path / "path" / "compressors" / "unruly.py"
    plugin.write_text(plugin.read_text().replace("if rate == 0", "if rate == 1"))
    (tmp_path / "go").touch()
    code, out, err = finish([*line, "--retry-failed"], env=unruly)
    assert code == 0, err
    assert {s["status"] for s in sections(tmp_path / "run").values()} == {"done"}


@pytest.fixture
def under_way(arguments, unruly, tmp_path):
    """A sweep in the middle of its work, and its command line."""
    line = arguments(methods="unruly", rates="0.01:0.09:0.01,0.3", workers="1")
    process = start(line, env=unruly)
    folder = tmp_path / "run"
    made = folder.glob
    wait_until(lambda: process.poll() or len([*made("points/*/compress.json")]) > 3, "some points")
    assert process.poll() is None, process.communicate()
    return process, line


def workers(tmp_path) -> list[int]:
    return [int(path.name) for path in (tmp_path / "processes").iterdir()]


def test_kill_9_loses_only_the_section_in_work(under_way, unruly, tmp_path):
    process, line = under_way
    process.kill()
    process.communicate()
    wait_until(lambda: all(map(gone, workers(tmp_path))), "the workers to end")
    folder = tmp_path / "run"
    before = files(folder)
    for path in before:
        json.loads(path.read_text())
    (tmp_path / "go").touch()
    code, _, err = finish(line, env=unruly)
    assert code == 0, err
    after = files(folder)
    kept = {path: time for path, time in before.items() if path.name != "point.json"}
    assert kept.items() <= after.items()
    found = sections(folder)
    assert {s["status"] for s in found.values()} == {"done"}
    assert len(found) == 2 * 12


def test_another_sweep_is_refused_and_ctrl_c_ends_the_children(under_way, unruly, tmp_path):
    process, line = under_way
    code, _, err = finish(line, env=unruly)
    assert code == 2
    assert "another sweep is writing" in err
    assert process.poll() is None, "the first goes on"
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "run the same command to go on" in err
    assert "Traceback" not in err
    wait_until(lambda: all(map(gone, workers(tmp_path))), "the workers to end")


def test_a_full_disk_is_one_sentence_and_earlier_records_stay(arguments, small_model, tmp_path):
    assert run(arguments(rates="0.5")) == 0
    before = files(tmp_path / "run")
    limit = (small_model / "model.safetensors").stat().st_size // 2

    def fill_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    code, _, err = finish(arguments(methods="row-pruning", rates="0.3"), preexec_fn=fill_disk)
    assert code == 2
    (sentence,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "cannot write" in sentence
    assert "Traceback" not in err
    assert before.items() <= files(tmp_path / "run").items()
    assert run(arguments(methods="row-pruning", rates="0.3")) == 0


@pytest.mark.parametrize("limit", ["soon", "0s"])
def test_a_time_limit_is_a_time(arguments, limit, capsys):
    assert run(arguments(**{"time-limit": limit})) == 2
    assert f"time limit '{limit}'" in capsys.readouterr().err


class Losing(Local):
    """Loses machines that compress, before they have begun or when all of it is on disk."""

    def __init__(self, losses: int, late: bool) -> None:
        super().__init__(workers=1)
        self.losses, self.late = losses, late
        self.submitted: list[str] = []
        self._gone: list[Job] = []

    def doomed(self, job: Job) -> bool:
        return self.losses > 0 and isinstance(job, Compress) and job.points[0].rate > 0

    def lose(self, job: Job) -> Ended:
        self.losses -= 1
        return Ended(job, "its machine went away", lost=True)

    def submit(self, job: Job) -> None:
        self.submitted.append(type(job).__name__)
        if self.doomed(job) and not self.late:
            self._gone.append(job)
        else:
            super().submit(job)

    def events(self):
        while self._gone:
            yield self.lose(self._gone.pop())
        for event in super().events():
            if not self.doomed(event.job):
                yield event
            elif isinstance(event, Ended):
                yield self.lose(event.job)


@pytest.mark.parametrize(("losses", "late", "made"), [(2, False, 5), (1, True, 3), (3, False, 5)])
def test_what_goes_with_a_machine_is_made_again_and_what_is_on_disk_is_not(
    arguments, tmp_path, monkeypatch, losses, late, made
):
    executor = Losing(losses, late)
    monkeypatch.setattr(run_sweep, "executor", lambda *_: executor)
    lost = losses == LIVES
    assert run(arguments(rates="0.5")) == (1 if lost else 0)
    assert executor.submitted.count("Compress") == made
    found = sections(tmp_path / "run").values()
    reasons = [section["reason"] for section in found if section["status"] != "done"]
    assert reasons == (["its machine went away"] if lost else [])
