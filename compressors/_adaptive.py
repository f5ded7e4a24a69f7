"""Learns lambda of a once-for-all encoder with a task's head (Chen et al. 2022, arXiv 2211.02332).

Lambda is twice a sigmoid, so it stays in range, and moves by SGD with momentum 0.9 while the
encoder is frozen, as SUPERB has it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from core.errors import Diverged, Unsupported
from core.spec import Shortening
from encoders.model import Encoder, Hidden, from_state
from encoders.shortening import Fire

Labels = TypeVar("Labels")

#: The greatest lambda below 2 in single precision.
UTMOST = 2 - 2**-23


def adapt(
    encoder: Encoder,
    head: nn.Module,
    batches: Iterable[tuple[Tensor, Labels]],
    loss: Callable[[Hidden, Labels], Tensor],
    learning_rate: float,
    strength_rate: float,
    start: float = 1.0,
) -> Encoder:
    """The encoder at the lambda that serves a task best; the head is trained in place.

    batches: waveforms of one length (batch, samples) and their labels, each an update of both.
    loss: of the head on the encoder's states. learning_rate: of the head, strength_rate: of lambda,
    which begins at `start`, between 0 and 2.

    Raises:
        Unsupported: the encoder has no lambda.
        Diverged: the loss is no longer a finite number.
    """
    frozen = copy.deepcopy(encoder).eval().requires_grad_(False)
    fire = frozen.shortening
    if not isinstance(fire, Fire):
        raise Unsupported("only an encoder of ofa-sequence has a lambda to be learned")
    raw = nn.Parameter(torch.tensor(start / 2).logit())
    groups: list[dict[str, Any]] = [
        {"params": [raw], "lr": strength_rate},
        {"params": head.parameters()},
    ]
    optimizer = torch.optim.SGD(groups, learning_rate, momentum=0.9)
    for waveforms, labels in batches:
        fire.strength = (2 * raw.sigmoid()).clamp(max=UTMOST)
        optimizer.zero_grad()
        error = loss(frozen(waveforms), labels)
        if not error.isfinite():
            raise Diverged(f"learning lambda: the loss became {error.item()}; lower the rates")
        error.backward()
        optimizer.step()
    strength = fire.strength = min(2 * raw.sigmoid().item(), UTMOST)
    with torch.no_grad():
        hidden = frozen(waveforms)
    assert hidden.tokens is not None
    factor = int(hidden.lengths.sum()) / int(hidden.tokens.sum())
    spec = replace(encoder.spec, shortening=Shortening("cif", factor, strength))
    state = {name: tensor.detach().clone() for name, tensor in encoder.state_dict().items()}
    return from_state(spec, state).eval()
