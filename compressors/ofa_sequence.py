"""Joins frames by what is said, one training for all rates (Chen et al. 2022, arXiv 2211.02332).

Continuous integrate-and-fire: a module reads off each frame how much of a token it makes, and
lambda lowers these weights, from 0, where each frame is a token, up to below 2, where an utterance
is one. The training draws lambda anew at each step and imitates the dense encoder. Guidance asks
that the weights of each phone make one token: phones by the corpus' labels where it has them, else
segments between the peaks of the change of the teacher's states.

A rate is then reached without training: by the lambda that removes this fraction of the frames of a
minute of training speech. What is removed of other speech is up to what is said.
`compressors._adaptive` learns lambda with a task's head.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from compressors._base import Setting
from compressors._calibration import calibration
from compressors._imitation import Teacher
from compressors._joining import Joining, joined
from compressors._segments import by_change, by_labels, one_token_each
from core.errors import InputError, Unsupported
from core.spec import ModelSpec, Shortening
from encoders.crops import Batch
from encoders.model import Encoder, Hidden, from_state
from encoders.objectives import Objective
from encoders.shortening import count_tokens, weaken

#: Speech that lambda is chosen on.
CALIBRATION_SECONDS = 60.0
#: The greatest number below 2.
UTMOST = math.nextafter(2, 0)


@dataclass
class OfaSequence(Joining):
    uses_data: ClassVar[bool] = True

    steps: int = 350  # updates of the one training; 0 trains nothing
    lambda_max: float = 2.0  # lambda is drawn between 0 and this
    guidance: float = 0.1  # weight of the loss that asks for a token per phone
    boundaries: Literal["auto", "change"] = "auto"  # labelled phones where there are, or change

    def supports(self, spec: ModelSpec) -> str | None:
        if not 0 < self.lambda_max <= 2:
            raise InputError(f"lambda_max {self.lambda_max:g}; expected above 0 and up to 2")
        return super().supports(spec)

    def prepare(self, encoder: Encoder, setting: Setting) -> Callable[[float], Encoder]:
        student = joined(encoder, Shortening("cif"), setting.seed)
        objective = OnceForAll(self, encoder, setting.seed)
        self.train(student, objective, setting, "once for all")
        weights = listen(student, setting)
        highest = min(self.lambda_max, UTMOST)
        return lambda rate: at_strength(student, weights, strength_for(weights, rate, highest))


class OnceForAll(Objective):
    """An imitation of the dense encoder at a lambda drawn anew each time, and the guidance."""

    def __init__(self, method: OfaSequence, encoder: Encoder, seed: int) -> None:
        super().__init__()
        self.method = method
        self.imitation = method.imitation(encoder, seed)
        self.teacher = Teacher(encoder)

    def forward(
        self, encoder: nn.Module, batch: Batch, generator: torch.Generator
    ) -> dict[str, Tensor]:
        strength = self.method.lambda_max * torch.rand((), generator=generator)
        student = _Overheard(encoder)
        encoder.shortening.strength = strength.item()  # type: ignore[union-attr]
        losses = self.imitation(student, batch, generator)
        alpha = student.hidden.alpha
        assert alpha is not None
        guidance = one_token_each(alpha, self._segments(batch).to(alpha.device))
        loss = losses["loss"] + self.method.guidance * guidance
        return {**losses, "loss": loss, "guidance": guidance, "tokens": alpha.sum(1).mean()}

    def _segments(self, batch: Batch) -> Tensor:
        """Segments (batch, time); by change those of the states at two thirds of the depth."""
        time, hop = batch.clean.shape[1], self.teacher.encoder.spec.hop
        if self.method.boundaries == "auto":
            labelled = by_labels(batch.items, batch.offsets, time, hop)
            if labelled is not None:
                return labelled
        return by_change(self.teacher.states(batch.clean)[-(-2 * self.teacher.depth // 3)])


class _Overheard(nn.Module):
    """An encoder that remembers what it said last."""

    hidden: Hidden

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self._encode = encoder.encode

    def encode(self, *inputs: Any, **options: Any) -> Hidden:
        self.hidden = self._encode(*inputs, **options)  # type: ignore[operator]
        return self.hidden


@torch.no_grad()
def listen(student: Encoder, setting: Setting) -> list[Tensor]:
    """Alpha (1, time) of each utterance of the calibration speech."""
    found = []
    for waveform in calibration(student, setting.corpus, CALIBRATION_SECONDS, setting.seed):
        tokens = student.join(student.features(waveform)[0])
        assert tokens is not None
        assert tokens.alpha is not None
        found.append(tokens.alpha)
    return found


def removed(alphas: list[Tensor], strength: float) -> float:
    """The fraction of frames that a strength removes from utterances of those alphas."""
    tokens = sum(int(count_tokens(weaken(alpha, strength).sum(1))) for alpha in alphas)
    return 1 - tokens / sum(alpha.shape[1] for alpha in alphas)


def strength_for(alphas: list[Tensor], rate: float, highest: float) -> float:
    """The strength up to `highest` that removes nearest to that fraction of frames, by bisection.

    Raises:
        Unsupported: the highest removes less.
    """
    low, high = 0.0, highest
    most = removed(alphas, high)
    if rate > most:
        raise Unsupported(
            f"a rate of {rate:g} is out of reach: lambda up to {highest:.3g} removes {most:.3g} of "
            "the frames of the speech it was tried on"
        )
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if removed(alphas, middle) < rate else (low, middle)
    return min(low, high, key=lambda strength: abs(removed(alphas, strength) - rate))


def at_strength(student: Encoder, alphas: list[Tensor], strength: float) -> Encoder:
    """A copy of the once-trained encoder that runs at that strength."""
    factor = 1 / (1 - removed(alphas, strength))
    spec = replace(student.spec, shortening=Shortening("cif", factor, strength))
    state = {name: tensor.detach().clone() for name, tensor in student.state_dict().items()}
    return from_state(spec, state).eval()
