"""What every profiler is: declared metrics, and one `measure` that leaves the encoder as it was."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from core.metric import Metric
from core.runtime import Runtime
from encoders.model import Encoder
from encoders.store import save
from encoders.workload import Workload

if TYPE_CHECKING:
    from profilers._session import Session

#: Why a speed-up is missing.
NO_REFERENCE = "no reference was timed in the same run"


@dataclass
class Setting:
    """Under which conditions a cost is measured.

    workload: the audio that is encoded. reference: the dense encoder that speed-ups are relative
    to. folder: where the encoder lies on disk, if it does. runtime: how the encoder is run.
    exported: a folder for the graph that another engine than torch runs. repeats, min_seconds: a
    timing takes at least that many passes and at least that long.
    """

    workload: Workload
    reference: Encoder | None = None
    folder: Path | None = None
    runtime: Runtime = field(default_factory=Runtime)
    exported: Path | None = None
    repeats: int = 5
    min_seconds: float = 0.5

    def models(self, encoder: Encoder) -> list[Encoder | Session]:
        """What is timed in turns: the subject, and the reference where there is one, in torch."""
        subject = self.subject(encoder)
        return [subject] if self.reference is None else [subject, self.reference]

    def subject(self, encoder: Encoder) -> Encoder | Session:
        """What is run: the encoder, or the session that the runtime asks for.

        Raises:
            Unsupported: the encoder does not exist in that engine.
        """
        if self.runtime.engine == "torch":
            return encoder
        from profilers._session import open_session

        assert self.exported is not None
        return open_session(encoder, self.exported, self.runtime.threads)


class Unavailable(Exception):
    """A counter cannot be read, for the reason given."""


@dataclass
class Measurement:
    """The numbers by metric name, and in details whatever explains them.

    A declared metric that could not be measured is absent from values, never 0, and
    `details["unavailable"]` maps its name to the reason.
    """

    values: dict[str, float]
    details: dict[str, Any] = field(default_factory=dict)


class Profiler(ABC):
    """One cost of running or keeping an encoder.

    exclusive: nothing else of a sweep may run on the device meanwhile.
    """

    metrics: ClassVar[tuple[Metric, ...]]
    exclusive: ClassVar[bool] = False

    @abstractmethod
    def measure(self, encoder: Encoder, setting: Setting) -> Measurement:
        """Measure the cost of that encoder; the encoder itself is not changed."""


@contextmanager
def evaluating(encoder: Encoder, device: str | None = None) -> Iterator[Encoder]:
    """The encoder on that device, in evaluation mode and without gradients.

    Afterwards it is where and as it was.
    """
    modes = [(module, module.training) for module in encoder.modules()]
    home = home_of(encoder)
    try:
        with torch.no_grad():
            yield encoder.to(device or home).eval()
    finally:
        encoder.to(home)
        for module, training in modes:
            module.training = training


def home_of(encoder: Encoder) -> torch.device:
    """Where the encoder's tensors are; FBANK has buffers only."""
    return next(chain(encoder.parameters(), encoder.buffers())).device


def weights_bytes(encoder: Encoder) -> int:
    """The size of all parameters and buffers."""
    tensors = chain(encoder.parameters(), encoder.buffers())
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """torch on that many threads, and on as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def stored(encoder: Encoder, folder: Path | None) -> Iterator[Path]:
    """The folder the encoder lies in, a temporary one where it lies in none."""
    if folder is not None:
        yield folder
        return
    with TemporaryDirectory() as temporary:
        saved = Path(temporary) / "model"
        save(encoder, saved)
        yield saved
