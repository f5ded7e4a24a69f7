"""Memory that did not suffice, of the machine or of a device, in whoever's words."""

from __future__ import annotations

import re

#: What torch, CUDA and its libraries say of it.
_SAID = re.compile(
    r"out of memory|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED"
    r"|(can't allocate|not enough) memory: you tried to allocate",
    re.IGNORECASE,
)


def ran_out(error: BaseException) -> bool:
    """Whether the error is that memory did not suffice."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and bool(_SAID.search(str(error)))
    )


def shortage(error: BaseException) -> str:
    """Which memory did not hold how much more, as far as the error tells."""
    said = str(error)
    asked = re.search(r"tried to allocate ([\d.]+ \w+)", said, re.IGNORECASE)
    device = re.search(r"GPU (\d+) has a total capacity of ([\d.]+ \w+)", said)
    where = "this machine" if "CUDA" not in said else "the GPU"
    if device:
        where = f"GPU {device[1]} ({device[2]})"
    return f"the memory of {where} did not hold {asked[1] if asked else 'it all'}"
