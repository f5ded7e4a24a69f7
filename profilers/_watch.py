"""Watches what else goes on while something is timed, so that a disturbed number can be told.

On CPUs: the share of the time that our threads really ran (below 1 others took the core, or a
hypervisor did) and how often they were put aside. On NVIDIA's GPUs: other processes on the device.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from core.runtime import Runtime
from profilers import _nvml


@contextmanager
def watched(runtime: Runtime) -> Iterator[dict[str, Any]]:
    """What was seen, in a dictionary that is filled in at the end."""
    seen: dict[str, Any] = {}
    others = _nvml.others(runtime.device) if runtime.cuda else None
    start, ran, aside = time.perf_counter(), time.thread_time(), _put_aside()
    yield seen
    wall = time.perf_counter() - start
    if runtime.cuda:
        counts = [n for n in (others, _nvml.others(runtime.device)) if n is not None]
        seen["foreign_processes"] = max(counts) if counts else None
        seen["disturbed"] = bool(counts) and max(counts) > 0
    else:
        seen["ran_share"] = round((time.thread_time() - ran) / wall, 4) if wall else 1.0
        seen["put_aside"] = _put_aside() - aside
        seen["disturbed"] = seen["ran_share"] < UNDISTURBED


#: Of a timing's seconds, the share that its thread must have run to count as undisturbed.
UNDISTURBED = 0.97


def _put_aside() -> int:
    """How often another thread was run in the place of one of ours that could have gone on."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
