"""Processes of a machine that train together: which of them this is, and how they find each other.

Accelerate reads the variables that are set here, as it does those of its own launcher and torchrun.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.distributed import TCPStore

_HERE = "127.0.0.1"


def leads() -> bool:
    """Whether this process writes what processes that train together make, or is alone."""
    return os.environ.get("RANK", "0") == "0"


def meet() -> None:
    """Wait for the others, where there are any."""
    from torch import distributed

    if distributed.is_initialized():
        distributed.barrier()


def meeting_place() -> TCPStore:
    """Where processes find each other, as long as it is kept; `port` is what they must be told."""
    from torch.distributed import TCPStore

    return TCPStore(_HERE, 0, is_master=True, wait_for_workers=False)


@dataclass(frozen=True)
class Seat:
    """The part of a process among `count`: the one with index 0 leads. port: of `meeting_place`."""

    index: int
    count: int
    port: int

    def take(self, cuda: bool, threads: int) -> None:
        """Join the others; returns when all of them are there.

        Raises:
            torch.distributed.DistError: they are not, within torch's own limits.
        """
        import torch
        from torch import distributed

        index, count = str(self.index), str(self.count)
        os.environ |= {
            "RANK": index, "LOCAL_RANK": index, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count,
            "OMP_NUM_THREADS": str(threads),  # else Accelerate divides all cores
        }  # fmt: skip
        store = distributed.TCPStore(_HERE, self.port, is_master=False)
        device = torch.device("cuda", self.index) if cuda else None
        if device is not None:
            torch.cuda.set_device(device)
        distributed.init_process_group(
            "nccl" if cuda else "gloo", store=store, rank=self.index, world_size=self.count,
            device_id=device,
        )  # fmt: skip

    def leave(self) -> None:
        """Part from the others, when all have done what they came for."""
        from torch import distributed

        distributed.destroy_process_group()
