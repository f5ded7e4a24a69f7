"""A SLURM cluster of one node on this machine, from Debian's packages slurmctld and munge."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from running import wait_until

DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue")

#: No accounting, as small clusters have none; short waits after a job was put into the line again.
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
KillWait=5
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
MpiDefault=none
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """The environment in which sbatch finds the cluster; skips where there can be none."""
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
    missing = [name for name in DAEMONS if not shutil.which(name, path=path)]
    if missing:
        pytest.skip(
            f"no {', '.join(missing)} here: apt install slurmctld slurmd slurm-client munge"
        )
    if os.geteuid() != 0:
        pytest.skip("SLURM's daemons are started as root")
    environment = {**os.environ, "PATH": path, "SLURM_CONF": str(folder / "slurm.conf")}
    started: list[subprocess.Popen] = []
    try:
        _configure(folder)
        munge = folder / "munge"
        files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log",
                 "seed-file": "seed"}  # fmt: skip
        places = [f"--{option}={munge / name}" for option, name in files.items()]
        for command in (
            ["munged", "--foreground", "--force", *places], ["slurmctld", "-D"], ["slurmd", "-D"],
        ):  # fmt: skip
            log = (folder / f"{command[0]}.log").open("w")
            started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
            wait_until((munge / "socket").exists, "munge", 10)
        _await(environment)
        yield environment
    finally:
        if started:
            subprocess.run(["scancel", "--user=root"], env=environment, check=False)
        for process in reversed(started):
            process.terminate()
            process.wait()


def _configure(folder: Path) -> None:
    for name in ("munge", "state", "spool"):
        (folder / name).mkdir(mode=0o700)
    (folder / "munge" / "key").write_bytes(os.urandom(1024))
    (folder / "munge" / "key").chmod(0o400)
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        ports = one.getsockname()[1], other.getsockname()[1]
    host = socket.gethostname().partition(".")[0]
    text = CONFIGURATION.format(folder=folder, host=host, ports=ports)
    (folder / "slurm.conf").write_text(text)


def _await(environment: dict[str, str]) -> None:
    """Skips where the node does not come up: not every machine lets daemons do what they must."""

    def idle() -> bool:
        done = subprocess.run(
            ["sinfo", "--noheader", "--format=%T"], env=environment, capture_output=True, text=True
        )
        return done.stdout.strip() == "idle"

    try:
        wait_until(idle, "the node to be idle", 30)
    except AssertionError:
        pytest.skip("SLURM's daemons do not come up on this machine")
