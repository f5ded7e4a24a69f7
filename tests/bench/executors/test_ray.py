from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from acting import Act, Alone

from bench.cli import run
from bench.executors._base import Ended, Said
from core.errors import InputError
from core.runtime import Runtime
from results.store import RunFolder

ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")

from ray.cluster_utils import Cluster  # noqa: E402
from running import start, wait_until  # noqa: E402

from bench.executors.ray import Ray  # noqa: E402

QUIET = {"include_dashboard": False, "object_store_memory": 80 << 20}


def cluster() -> Cluster:
    """A head that does no work, so that each of the others may die."""
    return Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **QUIET})


def node(nodes: Cluster, cpus: int):
    return nodes.add_node(num_cpus=cpus, object_store_memory=QUIET["object_store_memory"])


@pytest.fixture(scope="module")
def environment():
    """What processes of Ray inherit: where the jobs of this folder are, and the quiet of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("OMP_NUM_THREADS", "1")
        yield patch


@pytest.fixture(scope="module")
def address(environment):
    """Of a cluster with one node of two CPUs."""
    nodes = cluster()
    node(nodes, 2)
    yield nodes.address
    nodes.shutdown()


def records(folder: Path) -> dict[tuple[str, str], dict]:
    """Every section, without what the clock says."""
    found = {}
    for record in RunFolder(folder).records():
        for section in record.sections.values():
            found[record.point.key, section.name] = {**section.to_json(), "seconds": None}
    return found


def test_jobs_speak_die_and_refuse_as_they_do_on_one_machine(address):
    with Ray(Runtime(), address) as executor:
        assert executor.workers == 2
        for job in (Act("say", {"any": "thing"}), Act("die"), Act("overtime"), Alone("say", 1)):
            executor.submit(job)
        events = list(executor.events())
        said = [event.message for event in events if isinstance(event, Said)]
        ends = {(e.job.what, e.job.exclusive): e for e in events if isinstance(e, Ended)}
        assert {"any": "thing"} in said
        assert said[-1] == 1, "an exclusive job waits until all of a node is free"
        assert len(ends) == 4
        assert "SIGKILL" in ends["die", False].reason
        assert ends["overtime", False].overtime
        assert not any(end.lost for end in ends.values())
        executor.submit(Act("refuse"))
        with pytest.raises(InputError, match="the disk is full"):
            list(executor.events())


@pytest.mark.slow
def test_a_sweep_on_ray_leaves_the_records_of_a_local_one(address, arguments, tmp_path):
    where = [tmp_path / "local", tmp_path / "ray"]
    for folder, options in zip(where, ({}, {"executor": "ray", "address": address}), strict=True):
        line = arguments(
            methods="low-rank,row-pruning", profilers="params,macs", out=str(folder), **options
        )
        assert run(line) == 0
    local, far = map(records, where)
    assert far == local
    assert {section["status"] for section in far.values()} == {"done"}


@pytest.mark.slow
def test_processes_that_train_together_hold_what_they_need_on_one_node(
    address, arguments, tmp_path
):
    brief = "steps=3,precision=no,batch_seconds=0.5,crop_seconds=0.3,clusters=4"
    wanted = {"methods": f"low-rank[{brief}]", "profilers": "none", "processes-per-track": "2"}
    assert run(arguments(**wanted, out=str(tmp_path / "local"))) == 0
    assert run(arguments(**wanted, executor="ray", address=address)) == 0
    local, far = (records(tmp_path / folder) for folder in ("local", "run"))
    assert far == local
    assert [s["details"]["processes"] for s in far.values() if "processes" in s["details"]] == [2]
    with Ray(Runtime(), address, processes=2) as executor:
        job = Act("meet", processes=2)
        executor.submit(job)
        said, end = executor.events()
        assert len({pid for pid, *_ in said.message}) == 2
        assert end == Ended(job)
        assert executor._needs_of(2) == {"CPU": 2, "GPU": 0, "memory": 0}


def test_what_cannot_be_is_one_sentence(address, arguments, tmp_path, capsys, monkeypatch):
    assert run(arguments(executor="ray", address=address, threads="64")) == 2
    assert "--memory: CPU 64" in capsys.readouterr().err
    assert run(arguments(executor="ray", address=address, memory="9TB")) == 2
    assert "--memory: CPU 1, memory 9,000,000,000,000" in capsys.readouterr().err
    together = {"methods": "small-model", "processes-per-track": "3"}
    assert run(arguments(executor="ray", address=address, **together)) == 2
    assert (
        "--processes-per-track, --threads, --device and --memory: CPU 3" in capsys.readouterr().err
    )
    assert run(arguments(executor="ray", address="localhost:1")) == 2
    assert "no Ray cluster answers at 'localhost:1'" in capsys.readouterr().err
    assert run(arguments(address="auto")) == 2
    assert "--executor ray" in capsys.readouterr().err
    with pytest.raises(InputError, match="Ray hands out the GPUs"):
        Ray(Runtime("cuda:1"), None)
    monkeypatch.setitem(sys.modules, "ray", None)
    assert run(arguments(executor="ray")) == 2
    assert "pip install '.[ray]'" in capsys.readouterr().err
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.slow
def test_a_node_that_dies_takes_nothing_with_it(arguments, unruly, tmp_path, environment):
    for name in ("PYTHONPATH", "UNRULY"):
        environment.setenv(name, unruly[name])
    nodes = cluster()
    both = [node(nodes, 1) for _ in range(2)]
    folder = tmp_path / "run"
    line = arguments(
        methods="unruly", rates="0.03,0.05,0.09,0.3", seeds="0,1", executor="ray",
        address=nodes.address,
    )  # fmt: skip
    try:
        process = start(line, env={**os.environ, **unruly})
        wait_until(
            lambda: process.poll() is not None or len(made(folder)) >= 4 + 4, "some points", 120
        )
        assert process.poll() is None, process.communicate()
        before = made(folder)
        nodes.remove_node(both[0], allow_graceful=False)
        (tmp_path / "go").touch()
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    finally:
        nodes.shutdown()
    assert before.items() <= made(folder).items(), "nothing is made twice"
    found = records(folder)
    assert {section["status"] for section in found.values()} == {"done"}
    assert len([1 for _, name in found if name == "profile.params"]) == 2 * (4 + 2)


def made(folder: Path) -> dict[Path, int]:
    """The sections on disk, with the time of their last change."""
    paths = [p for p in folder.glob("points/*/*.json") if p.name != "point.json"]
    return {path: path.stat().st_mtime_ns for path in paths}
