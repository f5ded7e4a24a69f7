"""Imported once, in the server that workers are forked from: what it has, they begin with.

Our shared parts, what plug-ins and torch import late at the cost of a second (torch._dynamo: the
first use of the meta device), and what records say of the machine.
"""

from __future__ import annotations

from importlib import import_module

from bench import environment

for name in (
    "torch", "torch._dynamo", "safetensors.torch", "fvcore.nn", "sklearn.metrics",
    "bench.jobs", "compressors._chain", "encoders.workload", "profilers._base", "tasks._suite",
):  # fmt: skip
    import_module(name)
environment.describe()
