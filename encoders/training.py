"""The one training loop: updates that resume bit by bit, on one core or many GPUs (Accelerate).

A batch and the random numbers that go with it are drawn by its number, so a run that was cut goes
on from its last checkpoint with the same numbers. Several processes, which `accelerate launch`,
`torchrun` or a sweep starts, draw batches of their own and average the gradients: N of them train,
but for rounding, as one does that takes N batches to an update where they take one.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, Dataset

from core.errors import Diverged, InputError
from encoders.tracking import UNTRACKED, Runs, Tracking
from encoders.training_log import Report, TrainingLog, silent

if TYPE_CHECKING:
    from accelerate import Accelerator

Precision = Literal["no", "bf16", "fp16"]


@dataclass(frozen=True)
class Settings:
    """How a training goes.

    steps: updates; each takes `accumulate` batches. warm_up: the share of them over which the
    learning rate rises, before it falls by `decay` to the share `floor`. clip: of the gradient's
    norm. workers: processes that read audio ahead. checkpoint_every, report_every: in updates.
    checkpoint_apart: a checkpoint also waits for so many times as long as the last took to write.
    """

    steps: int
    learning_rate: float
    warm_up: float = 0.07
    decay: Literal["linear", "cosine"] = "linear"
    floor: float = 0.0
    accumulate: int = 1
    clip: float = 1.0
    weight_decay: float = 0.01
    precision: Precision = "no"
    seed: int = 0
    workers: int = 0
    checkpoint_every: int = 500
    checkpoint_apart: float = 0.0
    report_every: int = 10

    def rate(self, step: int) -> float:
        """The learning rate of update `step` as a share of its peak."""
        progress = step / max(1, self.steps)
        if progress < self.warm_up:
            return max(progress, 1e-4) / self.warm_up
        left = (1 - progress) / max(1e-9, 1 - self.warm_up)
        if self.decay == "cosine":
            left = 0.5 * (1 - math.cos(math.pi * left))
        return max(self.floor, left)


class Learner(Protocol):
    """A module that is trained: a batch and random numbers to losses, of which `loss` is minimised.

    groups: its parameters as `torch.optim.AdamW` takes them, each group with its peak `lr`.
    """

    def __call__(self, batch: Any, generator: torch.Generator) -> dict[str, Tensor]: ...

    def groups(self, learning_rate: float) -> list[dict[str, Any]]: ...


class Batches(Protocol):
    """Training data, drawn by number: the same number is the same batch."""

    def __getitem__(self, index: int) -> Any: ...


def train(
    learner: nn.Module,
    batches: Batches,
    settings: Settings,
    name: str,
    folder: Path,
    report: Report = silent,
    after_step: Callable[[int], None] | None = None,
    stop: Callable[[dict[str, float]], bool] | None = None,
    tracking: Tracking = UNTRACKED,
) -> dict[str, float]:
    """Train in place and return the means of the last reported losses.

    name: of the training; its state lies in `folder/NAME.pt`, and a finished one is only read.
    after_step: called after each update with its number, to keep zeros zero, say. stop: told the
    means of each report, ends the training early. tracking: who is told what log.csv is.

    Raises:
        Diverged: a loss is no longer a finite number; the last good state stays on disk.
        InputError: another number of processes began the training.
    """
    run = _Run(learner, settings, name, folder, report)
    if not run.finished:
        with _deterministic(settings), run.tracked(tracking):
            run.go(batches, after_step, stop)
    return run.means


class _Run:
    """One training under way."""

    def __init__(
        self, learner: nn.Module, settings: Settings, name: str, folder: Path, report: Report
    ) -> None:
        self.settings, self.name, self.report = settings, name, report
        self.path = folder / f"{name.replace(' ', '-')}.pt"
        self.learner, self.home = learner, next(learner.parameters()).device
        self.means: dict[str, float] = {}
        self.window = _Window()
        self.kept, self.keeping = time.monotonic(), 0.0  # when the last one was, how long it took
        self.runs, self.ids = Runs(), dict[str, str]()
        self.accelerator = _accelerator(settings)
        self.optimizer = _optimizer(learner, settings)
        self.begin, self.finished = self._resume()
        self.accelerator.wait_for_everyone()  # then the first may replace what all have read
        self.log = TrainingLog(folder / "log.csv")

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes, of those that train together."""
        return self.accelerator.is_main_process

    @contextmanager
    def tracked(self, tracking: Tracking) -> Iterator[None]:
        """Trackers hear of the training meanwhile, from one of its processes."""
        heard = tracking if self.leads else UNTRACKED
        with heard.runs(self.name, asdict(self.settings), self.begin, self.ids) as self.runs:
            yield

    def go(
        self,
        batches: Batches,
        after_step: Callable[[int], None] | None,
        stop: Callable[[dict[str, float]], bool] | None,
    ) -> None:
        settings, start = self.settings, time.perf_counter()
        if self.leads:
            self.log.forget(self.name, self.begin)
        learner, optimizer = self.accelerator.prepare(self.learner, self.optimizer)
        learner.train()
        ahead = self._ahead(batches)
        for step in range(self.begin, settings.steps):
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * settings.rate(step)
            for part in range(settings.accumulate):
                with self.accelerator.accumulate(learner):
                    losses = learner(next(ahead), self._generator(step, part))
                    self.accelerator.backward(losses["loss"])
                    if self.accelerator.sync_gradients:
                        self.accelerator.clip_grad_norm_(learner.parameters(), settings.clip)
                    optimizer.step()
                    optimizer.zero_grad()
                self.window.add(losses)
            if after_step is not None:
                after_step(step)
            done, last = step + 1, step + 1 == settings.steps
            if done % settings.report_every == 0 or last:
                self.means = self._means()
                self._refuse_divergence(done)
                self._tell(done, time.perf_counter() - start)
                last = last or (stop is not None and stop(self.means))
            if last or self._due(done):
                self._keep(done, finished=last)
            if last:
                break
        self._align()
        self.learner.eval().to(self.home)

    def _means(self) -> dict[str, float]:
        """Of the losses since the last report, over all processes and the same in each of them."""
        every = _of_all(self.window.empty())
        return {key: fmean(own.get(key, 0.0) for own in every) for own in every for key in own}

    def _align(self) -> None:
        """Give every process the first one's buffers, which are each one's own while it trains."""
        if self.accelerator.num_processes > 1:
            for buffer in self.learner.buffers():
                torch.distributed.broadcast(buffer, src=0)
            self.accelerator.wait_for_everyone()

    def _due(self, done: int) -> bool:
        """Whether a checkpoint is; of several processes the one that writes it decides."""
        if done % self.settings.checkpoint_every:
            return False
        waited = time.monotonic() - self.kept
        return _of_first(waited >= self.settings.checkpoint_apart * self.keeping)

    def _ahead(self, batches: Batches) -> Iterator[Any]:
        """The batches of this process in order, read ahead by the workers."""
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        total = self.settings.steps * self.settings.accumulate
        numbers = range(self.begin * self.settings.accumulate * world + rank, total * world, world)
        return iter(
            DataLoader(
                _Numbered(batches), batch_size=None, sampler=numbers,
                num_workers=self.settings.workers, generator=torch.Generator(),
            )
        )  # fmt: skip

    def _generator(self, step: int, part: int) -> torch.Generator:
        """Of a batch: each has its own, whichever process draws it in whatever part."""
        batch = part * self.accelerator.num_processes + self.accelerator.process_index
        numbers = (self.settings.seed, step, batch, 0)  # the last one lets earlier results stand
        seed = 0
        for number in numbers:
            seed = (seed * 1_000_003 + number + 1) % 2**62
        return torch.Generator().manual_seed(seed)

    def _tell(self, done: int, seconds: float) -> None:
        if not self.leads:
            return
        values = {**self.means, "learning_rate": self.optimizer.param_groups[0]["lr"]}
        self.log.add(self.name, done, {**values, "seconds": seconds})
        self.runs.log({**values, "seconds": seconds}, done)
        self.report(self.name, done, self.settings.steps, self.means)

    def _refuse_divergence(self, done: int) -> None:
        bad = {key: value for key, value in self.means.items() if not math.isfinite(value)}
        if bad:
            key, value = next(iter(bad.items()))
            kept = f"the state of its last checkpoint is {self.path}" if self.path.exists() else (
                "it was not kept, as no checkpoint was due"
            )  # fmt: skip
            raise Diverged(
                f"training {self.name!r}: {key} became {value} by update {done} of "
                f"{self.settings.steps}; {kept}; a lower learning_rate than "
                f"{self.settings.learning_rate:g} may help"
            )

    def _keep(self, done: int, finished: bool) -> None:
        """Write the state; a finished training needs no optimizer any more."""
        windows = _of_all(self.window.state())
        if not self.leads:
            return
        begin = time.monotonic()
        state: dict[str, Any] = {
            "learner": _trained(self.learner), "step": done, "finished": finished,
            "means": self.means,
        }  # fmt: skip
        if not finished:
            state["optimizer"] = self.optimizer.state_dict()
            state["windows"] = windows
            state["tracker_runs"] = self.runs.ids
            if self.accelerator.scaler is not None:
                state["scaler"] = self.accelerator.scaler.state_dict()
        fresh = self.path.with_suffix(".new")
        torch.save(state, fresh)
        os.replace(fresh, self.path)
        self.kept = time.monotonic()
        self.keeping = self.kept - begin

    def _resume(self) -> tuple[int, bool]:
        """The update to go on with, and whether there is nothing left to do."""
        if not self.path.exists():
            return 0, self.settings.steps == 0
        state = torch.load(self.path, weights_only=True, map_location="cpu")
        own = self.learner.state_dict(keep_vars=True)
        with torch.no_grad():
            for key, value in state["learner"].items():
                own[key].copy_(value)
        self.means = state["means"]
        if state["finished"]:
            self.learner.eval()
            return state["step"], True
        if len(state["windows"]) != self.accelerator.num_processes:
            raise InputError(
                f"{self.path} was begun by {len(state['windows'])} processes, not by "
                f"{self.accelerator.num_processes}; go on with as many, or remove it"
            )
        self.optimizer.load_state_dict(state["optimizer"])
        own = state["windows"][self.accelerator.process_index]
        self.window.sums, self.window.count = own
        self.ids = state.get("tracker_runs", {})
        if "scaler" in state and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        return state["step"], False


class _Window:
    """Means of the losses since it was last emptied."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.count = 0

    def add(self, losses: dict[str, Tensor]) -> None:
        self.count += 1
        for key, value in losses.items():
            value = value.detach().float()
            self.sums[key] = self.sums[key].to(value.device) + value if key in self.sums else value

    def state(self) -> tuple[dict[str, Tensor], int]:
        """What is to be kept of it, on the CPU."""
        return {key: total.cpu() for key, total in self.sums.items()}, self.count

    def empty(self) -> dict[str, float]:
        """The means, of which none is kept."""
        means = {key: float(total) / self.count for key, total in self.sums.items()}
        self.sums, self.count = {}, 0
        return means


class _Numbered(Dataset):
    """`Batches` as the loader wants them."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def __getitem__(self, index: int) -> Any:
        return self.batches[index]

    def __len__(self) -> int:
        return len(self.batches) if isinstance(self.batches, Sized) else 2**62


def _accelerator(settings: Settings) -> Accelerator:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    # Accelerate would keep a process's first precision; here each training has its own.
    AcceleratorState._reset_state(reset_partial_state=False)
    return Accelerator(
        mixed_precision=settings.precision,
        gradient_accumulation_steps=settings.accumulate,
        cpu=not torch.cuda.is_available(),
    )


def _of_all(value: Any) -> list[Any]:
    """What each of the processes gives, in their order."""
    from accelerate.utils import gather_object

    return gather_object([value])


def _of_first(value: Any) -> Any:
    """What the first of the processes gives."""
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([value])[0]


def _optimizer(learner: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    groups = learner.groups(settings.learning_rate)  # type: ignore[operator]
    for group in groups:
        group["peak"] = group.setdefault("lr", settings.learning_rate)
    return torch.optim.AdamW(
        groups, settings.learning_rate, betas=(0.9, 0.98), weight_decay=settings.weight_decay,
        fused=True,
    )  # fmt: skip


def _trained(learner: nn.Module) -> dict[str, Tensor]:
    """What training changes: the parameters that it may, and all buffers; a teacher is neither."""
    frozen = {name for name, p in learner.named_parameters() if not p.requires_grad}
    return {name: value for name, value in learner.state_dict().items() if name not in frozen}


@contextmanager
def _deterministic(settings: Settings) -> Iterator[None]:
    """Leave torch's random numbers alone; on CPUs in bfloat16 attend without the fused kernel.

    Its backward pass took a third of an update there, plain products do not.
    """
    math_only = settings.precision == "bf16" and not torch.cuda.is_available()
    backends = [SDPBackend.MATH] if math_only else list(_BACKENDS)
    with torch.random.fork_rng(devices=[]), sdpa_kernel(backends):
        yield


_BACKENDS = (
    SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION,
    SDPBackend.MATH,
)  # fmt: skip
