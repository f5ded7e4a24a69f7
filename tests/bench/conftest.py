"""A model and a corpus small enough for sweeps of a second, and plug-ins that misbehave."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from core import plugins
from core.spec import LayerSpec, MelFrontEnd, ModelSpec, Positions

PLUGIN = '''"""Misbehaves as its rate says; otherwise gives back what it got.

Raises at 0.4, dies at 0.6, and takes its time below 0.1: at 0.09 until there is a file `go`.
"""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from compressors._base import Compressor


@dataclass
class Unruly(Compressor):
    acts_on: ClassVar[str] = "patience"
    reduces: ClassVar[str] = "params_total"

    def prepare(self, encoder, setting):
        Path(os.environ["UNRULY"], str(os.getpid())).touch()

        def shrink(rate):
            if rate < 0.1:
                time.sleep(0.1)
            while rate == 0.09 and not Path(os.environ["UNRULY"]).with_name("go").exists():
                time.sleep(0.05)
            if rate == 0.4:
                raise ValueError("no luck\\nat 0.4")
            if rate == 0.6:
                os.kill(os.getpid(), signal.SIGKILL)
            return encoder

        return shrink

    def achieved(self, dense, compressed):
        return 0.0
'''


@pytest.fixture(scope="session")
def small_model(tmp_path_factory) -> Path:
    """Two layers of 32 units with random weights, saved to a folder."""
    from encoders import store
    from encoders.model import build

    folder = tmp_path_factory.mktemp("model") / "small"
    layer = LayerSpec.dense(heads=4, head_dim=8, ffn=48)
    spec = ModelSpec(
        "melhubert", MelFrontEnd(20, stack=2), 32, 4, 8, (layer,) * 2, Positions(bias_reach=10),
        feature_norm=False,
    )  # fmt: skip
    store.save(build(spec, seed=0), folder)
    return folder


@pytest.fixture(scope="session")
def small_data(tmp_path_factory) -> Path:
    """Four files of noise, a second each."""
    folder = tmp_path_factory.mktemp("data") / "noise"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for index in range(4):
        soundfile.write(folder / f"{index}.wav", draw.normal(0, 0.05, 16_000), 16_000)
    return folder


@pytest.fixture
def arguments(small_model, small_data, tmp_path) -> Callable[..., list[str]]:
    """The command line of a small sweep into `tmp_path / "run"`; options may be replaced."""

    def build(**changes: str) -> list[str]:
        options = {
            "model": str(small_model), "data": str(small_data), "methods": "first-layers",
            "rates": "0.5", "tasks": "none", "profilers": "params", "out": str(tmp_path / "run"),
            "workers": "2", "cache-limit": "0", **changes,
        }  # fmt: skip
        return ["sweep", *(part for k, v in options.items() for part in (f"--{k}", v))]

    return build


@pytest.fixture
def unruly(tmp_path) -> dict[str, str]:
    """An environment with one more compressor; its processes sign in the folder UNRULY."""
    package = tmp_path / "path" / "compressors"
    package.mkdir(parents=True)
    for file in plugins.folder("method").glob("*.py"):
        (package / file.name).symlink_to(file)
    (package / "unruly.py").write_text(PLUGIN)
    (tmp_path / "processes").mkdir()
    path = os.pathsep.join(filter(None, (str(package.parent), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, "UNRULY": str(tmp_path / "processes")}
