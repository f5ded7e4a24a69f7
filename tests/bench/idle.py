"""Plug-ins that take no time: a method, two costs and a task, for sweeps that are all harness."""

from __future__ import annotations

import os
from pathlib import Path

from core import plugins

METHOD = '''"""Gives every point weights of its own, and takes no time over it."""

import copy
from dataclasses import dataclass
from typing import ClassVar

import torch

from compressors._base import Compressor


@dataclass
class Idle(Compressor):
    acts_on: ClassVar[str] = "patience"
    reduces: ClassVar[str] = "params_total"

    number: int = 0  # makes methods of one

    def prepare(self, encoder, setting):
        @torch.no_grad()
        def shrink(rate):
            made = copy.deepcopy(encoder)
            next(made.parameters()).view(-1)[0] = self.number + rate
            return made

        return shrink

    def achieved(self, dense, compressed):
        return next(compressed.parameters()).flatten()[0].item() % 1
'''

PROFILER = '''"""Claims to have counted."""

from typing import ClassVar

from core.metric import Metric
from profilers._base import Measurement, Profiler


class Idle(Profiler):
    metrics: ClassVar = (Metric("params_total", "", "lower", "made up"),)

    def measure(self, encoder, setting):
        first = next(encoder.parameters(), None)
        return Measurement({"params_total": 1.0 if first is None else first.flatten()[0].item()})
'''

TIMER = '''"""Claims to have timed while nothing else ran."""

from typing import ClassVar

from core.metric import Metric
from profilers._base import Measurement, Profiler


class IdleTimer(Profiler):
    metrics: ClassVar = (Metric("latency_s_p50", "s", "lower", "made up"),)
    exclusive: ClassVar[bool] = True

    def measure(self, encoder, setting):
        return Measurement({"latency_s_p50": 0.5})
'''

TASK = '''"""Claims to have scored."""

from typing import ClassVar

from core.metric import Metric
from tasks._base import Outcome, Task


class Idle(Task):
    metric: ClassVar[Metric] = Metric("idle_acc", "%", "higher", "made up")
    groups: ClassVar = ("quick",)
    needs: ClassVar = "nothing"

    def select(self, corpus):
        return []

    def score(self, encoder, corpus, items, features, seed):
        first = next(encoder.parameters(), None)
        score = 10.0 if first is None else 90 + first.flatten()[0].item()
        return Outcome({self.metric.name: score})
'''

FILES = {
    "method": {"idle": METHOD},
    "profiler": {"idle": PROFILER, "idle_timer": TIMER},
    "task": {"idle": TASK},
}


def install(folder: Path, files: dict[str, dict[str, str]] | None = None) -> dict[str, str]:
    """Put packages that have these plug-ins too into a folder; an environment that finds them."""
    for kind, named in (files or FILES).items():
        package = folder / plugins.KINDS[kind]
        package.mkdir(parents=True)
        for file in plugins.folder(kind).glob("[!_]*"):
            (package / file.name).symlink_to(file)
        for file in plugins.folder(kind).glob("_[!_]*"):
            (package / file.name).symlink_to(file)
        (package / "__init__.py").touch()
        for name, source in named.items():
            (package / f"{name}.py").write_text(source)
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path}
