"""NVIDIA's management library: who is on a GPU, and how much energy it has taken.

The device is found by its UUID, as CUDA and the driver may number them differently.
"""

from __future__ import annotations

from typing import Any

import torch

from profilers._base import Unavailable


def handle(device: str) -> Any:
    """NVML's name for a device such as `cuda:0`.

    Raises:
        Unavailable: the library, its driver or the device is not there.
    """
    try:
        import pynvml

        pynvml.nvmlInit()
        uuid = torch.cuda.get_device_properties(device).uuid
        return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    except Exception as error:
        raise Unavailable(f"NVML cannot be read: {error}") from error


def others(device: str) -> int | None:
    """How many other processes compute on the device, None where NVML does not tell.

    In a container the numbers of processes are not those that we know, so ours is counted off and
    not looked for.
    """
    torch.cuda.init()  # from here on we are one of them
    try:
        import pynvml

        found = pynvml.nvmlDeviceGetComputeRunningProcesses(handle(device))
    except Exception:
        return None
    return len(found) - 1 if found else None


def joules(device: str) -> float:
    """Energy that the device has taken since the driver was loaded.

    Raises:
        Unavailable: the device has no such counter (it came with Volta).
    """
    import pynvml

    where = handle(device)
    try:
        return pynvml.nvmlDeviceGetTotalEnergyConsumption(where) / 1000.0
    except pynvml.NVMLError as error:
        raise Unavailable(f"the GPU has no counter of energy ({error})") from error
