"""Hands a sweep to SLURM through submitit: an array of tracks, then one job for all timings.

    RUN/slurm/jobs.json     which job makes which piece
    RUN/slurm/ID_*          what submitit keeps: the batch script, logs, the pickled piece

The command that submits ends at once. A job that runs out of time, or is taken off for another, is
put into the line again and goes on with what its piece lacks: records and checkpoints of trainings
lie in the run's folder, which all nodes must see.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.heartbeat import exists
from core.errors import InputError
from core.runtime import Runtime
from results.quantity import read_quantity
from results.store import write_whole

if TYPE_CHECKING:
    from bench.pieces import Piece

#: A job may run out of time so often; each time it has gone on by what its limit allows.
TIMEOUTS = 1000

#: Jobs of an array: what SLURM allows where nobody has set MaxArraySize.
ARRAY = 1000

#: What SLURM says of jobs that will not run again.
OVER = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY",
    "REVOKED", "TIMEOUT",
}  # fmt: skip

#: What we say of jobs where there is no squeue.
UNKNOWN = "UNKNOWN"

#: Asks for lines of JOB STATE, a job of an array by itself; what comes behind are ids.
SQUEUE = ("squeue", "--noheader", "--array", "--states=all", "--format=%i %T", "--jobs")

_TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")


@dataclass(frozen=True)
class Resources:
    """What each job asks for. time: as SLURM writes it. extra: more of sbatch's options."""

    partition: str | None = None
    gpus: int = 0
    cpus: int = 1
    memory: str | None = None
    time: str = "4:00:00"
    parallel: int = 256
    extra: tuple[str, ...] = ()

    def workers(self, runtime: Runtime, processes: int = 1) -> int | None:
        """Processes side by side in a job, so many at least; None for one per GPU."""
        return None if runtime.cuda else max(processes, self.cpus // runtime.threads)

    def parameters(self, threads: int) -> dict[str, Any]:
        """As submitit takes them, for workers of so many threads together at least.

        Raises:
            InputError: a time, a size or a KEY=VALUE is none.
        """
        pairs = [text.partition("=") for text in self.extra]
        for text, (key, equals, value) in zip(self.extra, pairs, strict=True):
            if not (key and equals and value):
                raise InputError(f"--slurm {text!r}: expected KEY=VALUE, such as account=speech")
        memory = read_quantity(self.memory, "B", "memory") if self.memory else None
        return {
            "timeout_min": minutes(self.time), "cpus_per_task": max(self.cpus, threads),
            "gpus_per_node": self.gpus or None, "mem_gb": memory and memory / 1e9,
            "slurm_partition": self.partition, "slurm_array_parallelism": self.parallel,
            "slurm_additional_parameters": {
                "requeue": True, **{key.lstrip("-"): value for key, _, value in pairs}
            },
        }  # fmt: skip


def minutes(text: str) -> int:
    """Of a time limit as SLURM writes it: M, M:S, H:M:S, D-H, D-H:M or D-H:M:S.

    Raises:
        InputError: it is none.
    """
    found = _TIME.fullmatch(text.strip())
    if not found:
        raise InputError(f"time {text!r}: expected minutes, H:MM:SS or D-HH, such as 12:00:00")
    days, *parts = (None if part is None else int(part) for part in found.groups())
    first, second, third = parts
    if days is None and third is None:
        total = (first or 0) + (second or 0) / 60
    else:
        total = ((days or 0) * 24 + (first or 0)) * 60 + (second or 0) + (third or 0) / 60
    if total < 1:
        raise InputError(f"time {text!r}: expected a minute at least")
    return int(total)


@dataclass(frozen=True)
class Task:
    """A piece as submitit calls it; called again, it goes on."""

    piece: Piece

    def __call__(self) -> None:
        self.piece.run()

    def checkpoint(self) -> Any:
        """What is to be run when the job comes out of the line again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def check(
    runtime: Runtime, resources: Resources, processes: int = 1, workers: int | None = None
) -> None:
    """Refuse what cannot be submitted.

    Args:
        processes: that train a track together.
        workers: side by side in a job, where so many were asked for.

    Raises:
        InputError: submitit or SLURM is missing; the resources are none, or not for the device.
    """
    resources.parameters(runtime.threads)
    if runtime.cuda != bool(resources.gpus):
        raise InputError(
            f"--gpus {resources.gpus} with --device {runtime.device}: a job that computes on CUDA "
            "needs a GPU, and no other does"
        )
    _check_room("--gpus", resources.gpus if runtime.cuda else None, processes)
    _check_room("--workers", workers, processes)
    try:
        import submitit  # noqa: F401
    except ImportError:
        raise InputError(
            "--executor slurm needs submitit, which is not installed; pip install '.[slurm]'"
        ) from None
    if shutil.which("sbatch") is None:
        raise InputError(
            "--executor slurm needs SLURM, and there is no sbatch here; run it where jobs are "
            "submitted, or leave --executor out"
        )


def _check_room(option: str, number: int | None, processes: int) -> None:
    """Refuse a job that has less than its processes need; None for as much as that."""
    if number is not None and number < processes:
        raise InputError(
            f"{option} {number} is too few for --processes-per-track {processes}; give "
            f"{option} {processes}"
        )


def refuse_submitted(run: Path) -> None:
    """Refuse a run that submitted jobs are still to write into.

    Raises:
        InputError: there are such jobs.
    """
    waiting = [job for job, state in states(run).items() if waits(state)]
    if waiting:
        ids = ", ".join(dict.fromkeys(job.partition("_")[0] for job in waiting))
        raise InputError(
            f"{run} waits for submitted jobs ({ids}); see `bench status {run}`, or end them with "
            f"`scancel {ids.replace(',', '')}`"
        )


def submit(
    pieces: Sequence[Piece], run: Path, resources: Resources, cluster: str = "slurm"
) -> list[str]:
    """Submit the pieces, the timings behind all others.

    Args:
        cluster: "local" makes them processes of this machine instead, all at once, and waits for
            the others before the timings.

    Returns:
        The ids of the jobs and arrays.

    Raises:
        InputError: SLURM takes none of it, for the reason that it gives.
    """
    shared = iter([piece for piece in pieces if not piece.exclusive])
    timed = [piece for piece in pieces if piece.exclusive]
    request = pieces[0].request
    asked = resources.parameters(request.runtime.threads * request.processes)
    made: dict[str, str] = {}
    jobs: list[Any] = []
    while array := list(islice(shared, ARRAY)):
        jobs += _submit(array, run, asked, cluster)
        made |= dict(zip((job.job_id for job in jobs), (p.name for p in pieces), strict=False))
        _keep(run, made, cluster)
    if timed:
        parameters = asked | {"slurm_exclusive": True}
        if cluster == "local":
            for job in jobs:
                job.wait()
        elif jobs:
            behind = ":".join(dict.fromkeys(str(job.job_id).partition("_")[0] for job in jobs))
            parameters["slurm_dependency"] = f"afterany:{behind}"
        made |= {job.job_id: timed[0].name for job in _submit(timed, run, parameters, cluster)}
        _keep(run, made, cluster)
    return list(dict.fromkeys(job.partition("_")[0] for job in made))


def _submit(pieces: Iterable[Piece], run: Path, parameters: dict[str, Any], cluster: str) -> list:
    """The jobs of submitit, an array where there are several pieces."""
    import submitit

    executor = submitit.AutoExecutor(
        run.resolve() / "slurm", cluster=cluster, slurm_max_num_timeout=TIMEOUTS
    )
    executor.update_parameters(name="bench", **parameters)
    try:
        with executor.batch():
            jobs = [executor.submit(Task(piece)) for piece in pieces]
    except submitit.core.utils.FailedJobError as error:
        said = [line for line in str(error).splitlines() if line.startswith("sbatch: error")]
        raise InputError(f"SLURM refused the jobs: {'; '.join(said) or error}") from error
    return jobs


def _keep(run: Path, made: dict[str, str], cluster: str) -> None:
    content = {"cluster": cluster, "host": socket.gethostname(), "jobs": made}
    write_whole(run / "slurm" / "jobs.json", f"{json.dumps(content, indent=1)}\n".encode())


def waits(state: str) -> bool:
    """Whether a job in that state runs, or will."""
    return state not in {*OVER, UNKNOWN}


def jobs(run: Path) -> dict[str, Any]:
    """What `submit` kept, empty where nothing was submitted."""
    with suppress(FileNotFoundError, ValueError):
        return json.loads((run / "slurm" / "jobs.json").read_text(encoding="utf-8"))
    return {}


def states(run: Path) -> dict[str, str]:
    """The state of each submitted job as SLURM calls it; COMPLETED where it is forgotten.

    Needs no accounting; UNKNOWN where there is no squeue, as on a machine outside of the cluster.
    """
    submitted = jobs(run)
    ids = list(submitted.get("jobs", {}))
    if not ids:
        return {}
    if submitted["cluster"] == "local":
        return {job: _process_state(run, job, submitted["host"]) for job in ids}
    if shutil.which("squeue") is None:
        return dict.fromkeys(ids, UNKNOWN)
    arrays = ",".join(dict.fromkeys(job.partition("_")[0] for job in ids))
    done = subprocess.run([*SQUEUE, arrays], capture_output=True, text=True, timeout=60)
    if done.returncode and "Invalid job id" not in done.stderr:
        raise InputError(f"squeue does not answer ({done.stderr.strip()}); try again later")
    found = dict(line.split() for line in done.stdout.splitlines())
    return {job: found.get(job, "COMPLETED") for job in ids}


def _process_state(run: Path, pid: str, host: str) -> str:
    """Of a job that is a process of this machine."""
    if (run / "slurm" / f"{pid}_0_result.pkl").exists():
        return "COMPLETED"
    if host != socket.gethostname():
        return UNKNOWN
    return "RUNNING" if exists(int(pid)) else "FAILED"
