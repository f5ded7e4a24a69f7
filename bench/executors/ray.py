"""Runs jobs on the nodes of a Ray cluster, which all see the run's folder under the same path.

A job is a Ray task that holds its resources while a process beside it does the work, as on one
machine: so a job that dies is told from a node that dies, and both leave the rest alone. What the
job says streams back to the driver, which sleeps meanwhile.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.executors._base import Ended, Job, Said
from bench.executors.local import Local
from core.errors import InputError
from core.runtime import Runtime

#: Variables that begin so go to the workers on all nodes. No keys are among them: Ray shows these.
HANDED_ON = ("BENCH_", "HF_HOME", "HF_HUB_", "MKL_", "OMP_", "PYTHONPATH", "TORCH_")

#: What a task tells of its job: ("said", message), ("ended", (reason, overtime)), or ("refused",
#: sentence) where going on makes no sense.
Message = tuple[str, Any]


class Ray:
    """Runs submitted jobs where there is room for them, each exclusive one on a node of its own.

    A process of a job holds a GPU where the runtime's device is one, and as many CPUs as the
    runtime has threads. address: as `ray.init` takes it; by default RAY_ADDRESS, else this machine.
    workers: jobs at a time at most; None for what fits. memory: bytes that each job holds.
    processes: of the largest job, all of which are on one node.

    Raises:
        InputError: the package is not there, or the device is none that Ray can choose.
    """

    def __init__(
        self,
        runtime: Runtime,
        address: str | None,
        workers: int | None = None,
        memory: int = 0,
        processes: int = 1,
    ) -> None:
        if runtime.cuda and runtime.device != "cuda":
            raise InputError(f"device {runtime.device!r}: Ray hands out the GPUs; give cuda")
        self._ray = _package()
        # Ray's own default is the last cluster that was seen here, be it alive or not.
        self._address = address or os.environ.get("RAY_ADDRESS") or "local"
        self._most = workers
        self._runtime, self._largest = runtime, processes
        self._needs = {"CPU": runtime.threads, "GPU": int(runtime.cuda), "memory": memory}
        self._line: deque[Job] = deque()
        self._running: dict[Any, Job] = {}  # by the stream of a task's messages

    def __enter__(self) -> Ray:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported home
        handed = {k: v for k, v in os.environ.items() if k.startswith(HANDED_ON)}
        try:
            _call(self._address)
            self._ray.init(
                self._address, runtime_env={"env_vars": handed}, include_dashboard=False,
                log_to_driver=False, logging_level="ERROR",
            )  # fmt: skip
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(
                f"no Ray cluster answers at {self._address!r}; start one with "
                "`ray start --head`, or give no --address for this machine alone"
            ) from error
        needs = self._needs_of(self._largest)
        if not any(_room(node, needs) for node in self._nodes()):
            self.stop()
            options = f"{'--processes-per-track, ' * (self._largest > 1)}--threads, --device"
            raise InputError(
                f"no node of the Ray cluster has what each job needs by {options} and "
                f"--memory: {', '.join(f'{name} {n:,}' for name, n in needs.items() if n)}"
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def workers(self) -> int:
        """How many jobs the nodes have room for, as things stand."""
        room = sum(_room(node, self._needs) for node in self._nodes())
        return min(room, self._most or room)

    def submit(self, job: Job) -> None:
        """Put a job into the line; it starts while `events` is being read."""
        self._line.append(job)

    def events(self) -> Iterator[Said | Ended]:
        """What happens, as it happens, until no job is left. Jobs may be submitted meanwhile.

        Raises:
            InputError: a job could not write what it found, or the nodes cannot run jobs.
        """
        self._start_some()
        while self._running:
            for stream in self._ray.wait(list(self._running), num_returns=1)[0]:
                yield self._receive(stream)
            self._start_some()

    def stop(self) -> None:
        """End all tasks and leave the cluster."""
        for stream in self._running:
            with suppress(self._ray.exceptions.RayError):
                self._ray.cancel(stream, force=True)
        self._running.clear()
        self._line.clear()
        self._ray.shutdown()

    def _start_some(self) -> None:
        """Hand over what there is room for and as much again, so that no node waits for us."""
        if not self._line:
            return
        most = self._most or 2 * max(1, self.workers)
        while self._line and len(self._running) < most:
            job = self._line.popleft()
            self._running[self._start(job)] = job

    def _start(self, job: Job) -> Any:
        """The stream of what the job's task will tell."""
        needs = self._whole_node() if job.exclusive else _options(self._needs_of(job.processes))
        task = self._ray.remote(_perform).options(num_returns="streaming", max_retries=0, **needs)
        return task.remote(job, self._runtime, os.getcwd())

    def _needs_of(self, processes: int) -> dict[str, int]:
        """What a job of so many processes holds."""
        return {k: n if k == "memory" else n * processes for k, n in self._needs.items()}

    def _whole_node(self) -> dict[str, Any]:
        """All of a node. If it dies, one of the same kind takes its place where there is one."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        able = [node for node in self._nodes() if _room(node, self._needs)]
        if not able:
            return _options(self._needs)  # the task waits until there is a node again
        node = max(able, key=lambda node: (_kind(node), node["NodeID"]))
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        return {**_options(node["Resources"]), "scheduling_strategy": there}

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in self._ray.nodes() if node["Alive"]]

    def _receive(self, stream: Any) -> Said | Ended:
        job, errors = self._running[stream], self._ray.exceptions
        try:
            kind, message = self._ray.get(next(stream))
        except errors.RayTaskError as error:
            raise InputError(
                f"a node of the Ray cluster cannot run jobs ({_last_line(error)}); all need this "
                "package and the run's folder"
            ) from error
        except (errors.RayError, StopIteration) as error:
            kind, message = "lost", f"its machine went away ({type(error).__name__})"
        if kind == "said":
            return Said(job, message)
        del self._running[stream]
        if kind == "refused":
            raise InputError(message)
        if kind == "lost":
            return Ended(job, message, lost=True)
        reason, overtime = message
        return Ended(job, reason, overtime=overtime)


def _call(address: str) -> None:
    """Ray itself would try for minutes.

    Raises:
        OSError, ValueError: nobody listens there, or it is no HOST:PORT.
    """
    if address not in ("auto", "local"):
        host, _, port = address.rpartition("://")[2].rpartition(":")
        socket.create_connection((host, int(port)), timeout=5).close()


def _package() -> Any:
    try:
        import ray
    except ImportError as error:
        raise InputError(
            "--executor ray needs ray, which is not installed; pip install '.[ray]'"
        ) from error
    return ray


def _options(resources: Mapping[str, float]) -> dict[str, Any]:
    """A task's options, for resources as nodes name them."""
    names = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}
    return {option: resources.get(name, 0) for name, option in names.items()}


def _room(node: dict[str, Any], needs: Mapping[str, int]) -> int:
    """How many jobs fit on the node."""
    has = node["Resources"]
    return min(int(has.get(name, 0) // need) for name, need in needs.items() if need)


def _kind(node: dict[str, Any]) -> tuple[float, float, list[str]]:
    """Nodes that are alike come out equal: GPUs, CPUs, and the names of accelerators."""
    has = node["Resources"]
    return has.get("GPU", 0), has["CPU"], sorted(n for n in has if n.startswith("accelerator"))


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()


def _perform(job: Job, runtime: Runtime, folder: str) -> Iterator[Message]:
    """The life of a task: processes beside it do the work, this one holds the resources.

    folder: where the driver was started, which relative paths count from.
    """
    if not Path(folder).is_dir():
        yield "refused", f"node {socket.gethostname()} has no {folder}; all nodes must see it"
        return
    os.chdir(folder)
    with Local.of(runtime, job.processes, job.processes) as local:
        local.submit(job)
        try:
            for event in local.events():
                if isinstance(event, Said):
                    yield "said", event.message
                else:
                    yield "ended", (event.reason, event.overtime)
        except InputError as error:
            yield "refused", str(error)
