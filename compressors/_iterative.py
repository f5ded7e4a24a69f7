"""Pruning in stages: cut, train on, cut further, so that one run gives every rate.

The stages are the method's own, whatever rates are asked for. A rate that is none of them is a
branch: cut from the stage below it and trained like a stage, while the run goes on from the stage.
"""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from compressors._base import Compressor, Setting
from compressors._trained import Pretrained, copy_of
from core.errors import InputError, Unsupported
from core.spec import ModelSpec
from encoders.crops import Batch
from encoders.model import Encoder
from encoders.objectives import Objective


@dataclass
class Stage:
    """A model on the way, and what it is trained to do."""

    encoder: Encoder
    objective: Watched
    trained: bool = False


@dataclass
class Staged(Pretrained):
    """A method that goes from stage to stage, with the loss of pre-training in between."""

    steps: int = 40  # updates of a stage; 0 trains nothing
    stages: str = "0.1:0.9:0.1"  # rates on the way, as first:last:step or parted by spaces

    @abstractmethod
    def pruner(
        self, encoder: Encoder, dense: Encoder, setting: Setting, objective: Objective | None
    ) -> Callable[[float], Encoder]:
        """What cuts a copy of the encoder, by its weights as they are now, to a rate of `dense`.

        objective: the pre-training loss as it has been trained along, None where nothing has.
        """

    def dense_first(self) -> bool:
        """Whether the dense model is trained for a stage before anything is cut."""
        return False

    def held(self, encoder: Encoder) -> AbstractContextManager[None]:
        """What is done while an encoder is trained."""
        return nullcontext()

    def stop(self, objective: Watched) -> Callable[[dict[str, float]], bool] | None:
        """What ends a stage before all its updates are done."""
        return None

    def track(
        self, encoder: Encoder, rates: Sequence[float], setting: Setting | None = None
    ) -> Iterator[tuple[float, Encoder | Unsupported]]:
        setting = setting or Setting()
        objective = self.watched(encoder, setting)
        for rate, stage in self.cuts(encoder, objective, rates, setting):
            if isinstance(stage, Stage):
                self.finish(stage, rate, setting)
                yield rate, copy.deepcopy(stage.encoder)
            else:
                yield rate, stage

    def cuts(
        self, encoder: Encoder, objective: Watched, rates: Sequence[float], setting: Setting,
        name: str = "to",
    ) -> Iterator[tuple[float, Stage | Unsupported]]:  # fmt: skip
        """From the lowest rate up, what was cut to it and is not trained yet."""
        here, left = Stage(copy_of(encoder), objective), sorted(rates)
        if self.dense_first():
            self.finish(here, 0.0, setting, name)
            objective.level = float(objective.smoothed)
        for stage in (*self.rates_on_the_way(), math.inf):
            shrink = self.pruner(here.encoder, encoder, setting, here.objective)
            while left and left[0] < stage and _name(left[0]) != _name(stage):
                branch = left.pop(0)
                yield branch, _cut(shrink, branch, copy.deepcopy(here.objective))
            if not left:
                return
            made = _cut(shrink, stage, here.objective)
            if isinstance(made, Unsupported):
                yield from ((rate, made) for rate in left)
                return
            here = made
            if _name(left[0]) == _name(stage):
                yield left.pop(0), here
            if not left:
                return
            self.finish(here, stage, setting, name)

    def finish(self, stage: Stage, rate: float, setting: Setting, name: str = "to") -> None:
        """Train it, unless that is done. Every stage hears other speech."""
        if stage.trained:
            return
        setting = replace(setting, seed=setting.seed * 1_000_003 + round(1e6 * rate))
        stage.objective.begin(rate)
        with self.held(stage.encoder):
            self.train(
                stage.encoder, stage.objective, setting, f"{name} {_name(rate)}",
                stop=self.stop(stage.objective),
            )  # fmt: skip
        stage.trained = True

    def watched(self, encoder: Encoder, setting: Setting) -> Watched:
        """The pre-training loss of the dense encoder."""
        return Watched(self.objective(encoder, setting), self.steps)

    def rates_on_the_way(self) -> list[float]:
        """The rates of the stages, ascending."""
        return read_stages(self.stages)


@dataclass
class Pruning(Staged):
    """A pruning method that cuts at once or in stages."""

    #: Cut at once, models depend on the weights alone.
    uses_data: ClassVar[dict[str, Any]] = {"schedule": "one-shot"}

    schedule: Literal["one-shot", "retrain", "iterative"] = "one-shot"  # cut; and train; in stages
    until: Literal["steps", "recovered"] = "steps"  # what ends a stage; `steps` does at the latest
    tolerance: float = 1e-3  # how near to the dense model's a loss that has recovered is

    def supports(self, spec: ModelSpec) -> str | None:
        if self.schedule == "one-shot":
            return Compressor.supports(self, spec)
        return super().supports(spec)

    def track(
        self, encoder: Encoder, rates: Sequence[float], setting: Setting | None = None
    ) -> Iterator[tuple[float, Encoder | Unsupported]]:
        one_shot = self.schedule == "one-shot"
        return (Compressor.track if one_shot else Staged.track)(self, encoder, rates, setting)

    def prepare(self, encoder: Encoder, setting: Setting) -> Callable[[float], Encoder]:
        return self.pruner(encoder, encoder, setting, None)

    def rates_on_the_way(self) -> list[float]:
        return super().rates_on_the_way() if self.schedule == "iterative" else []

    def dense_first(self) -> bool:
        return self.until == "recovered"

    def stop(self, objective: Watched) -> Callable[[dict[str, float]], bool] | None:
        if self.until == "steps":
            return None
        return lambda means: means["smoothed"] <= objective.level + self.tolerance


class Watched(Objective):
    """An objective that also tells the sparsity, and its loss as a moving average.

    The average is part of the checkpoints. It forgets within a fifth of a stage: of 25,000 updates
    with the factor 0.9998, as Lin et al.'s code does.
    """

    smoothed: Tensor

    def __init__(self, inner: Objective, steps: int) -> None:
        super().__init__()
        self.inner, self.factor = inner, max(0.0, 1 - 5 / max(1, steps))
        self.sparsity, self.level = 0.0, -math.inf
        self.register_buffer("smoothed", torch.tensor(math.nan))

    def begin(self, sparsity: float) -> None:
        """Start a stage."""
        self.sparsity = sparsity
        self.smoothed.fill_(math.nan)

    def forward(
        self, encoder: nn.Module, batch: Batch, generator: torch.Generator
    ) -> dict[str, Tensor]:
        losses = self.inner(encoder, batch, generator)
        loss = losses["loss"].detach().float()
        before = torch.where(self.smoothed.isnan(), loss, self.smoothed)
        self.smoothed.copy_(loss.lerp(before, self.factor))
        sparsity = loss.new_tensor(self.sparsity)
        return {**losses, "smoothed": self.smoothed.clone(), "sparsity": sparsity}

    def groups(self, encoder: nn.Module, learning_rate: float) -> list[dict[str, Any]]:
        return self.inner.groups(encoder, learning_rate)


def read_stages(text: str) -> list[float]:
    """Ascending rates of a text such as `0.1:0.9:0.1`, `1/12:11/12:1/12` or `.2 .5 .7:.9:.05`.

    Raises:
        InputError: it cannot be read, or holds something else than rates.
    """
    try:
        rates = sorted({rate for part in text.split() for rate in _span(part)})
    except (ValueError, ZeroDivisionError):
        rates = [Fraction(0)]
    if not all(0 < rate < 1 for rate in rates):
        raise InputError(
            f"stages {text!r}; expected rates above 0 and below 1, parted by spaces, or "
            "first:last:step"
        )
    return list(map(float, rates))


def _span(text: str) -> list[Fraction]:
    numbers = [Fraction(number) for number in text.split(":")]
    if len(numbers) == 1:
        return numbers
    first, last, step = numbers
    count = (last - first) / step
    if count < 0 or step < 0:
        raise ValueError
    return [first + step * index for index in range(math.floor(count) + 1)]


def _name(rate: float) -> str:
    return f"{rate:g}"


def _cut(
    shrink: Callable[[float], Encoder], rate: float, objective: Watched
) -> Stage | Unsupported:
    try:
        return Stage(shrink(rate), objective)
    except Unsupported as reason:
        return reason
