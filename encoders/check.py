"""A few numbers of a model's hidden states, kept beside it: by them a copy proves to be the same.

They are those of one second of seeded noise, of every state its level (the root mean square) and
some of its values. A wrong weight anywhere changes the values of all states behind it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from core.errors import InputError
from core.spec import SAMPLE_RATE, ModelSpec
from encoders.model import Encoder, Hidden

#: How far values may differ between machines and libraries, as a fraction of a state's level.
#: Integers of inputs are found by rounding, and what lies between two falls now here, now there.
TOLERANCES = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 1e-1}
DYNAMIC = 1e-1

#: So many values of each state are kept.
VALUES = 16

#: A level below counts as this one: a state of nothing but 0 has none.
_LEAST = 1e-12


def tolerance(spec: ModelSpec) -> float:
    """How far two computations of a state may differ, as a fraction of its level."""
    dynamic = any(layer.numeric.endswith("-dynamic") for layer in spec.layers)
    return max(TOLERANCES[spec.dtype], DYNAMIC if dynamic else 0.0)


def take(encoder: Encoder) -> dict[str, Any]:
    """The numbers of an encoder in evaluation mode, as JSON; see `differences`."""
    states = [_read(state) for state in _states(encoder)]
    return {"states": states}


def differences(encoder: Callable[[Tensor], Hidden], kept: Any) -> list[float]:
    """How far each state is from the numbers kept: root mean square of the difference over level.

    Raises:
        InputError: they are not those of a model with so many states.
    """
    states = _states(encoder)
    try:
        pairs = list(zip(states, kept["states"], strict=True))
        return [_difference(_read(state), other) for state, other in pairs]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(
            f"the numbers kept are not those of {len(states)} hidden states; save the model again"
        ) from error


def _states(encoder: Callable[[Tensor], Hidden]) -> list[Tensor]:
    noise = torch.randn(1, SAMPLE_RATE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        hidden = encoder(0.1 * noise)
    return [state.double().flatten() for state in hidden.states]


def _read(state: Tensor) -> dict[str, Any]:
    places = torch.linspace(0, len(state) - 1, VALUES).long()
    level = float(state.square().mean().sqrt())
    return {"level": _short(level), "values": [_short(value) for value in state[places].tolist()]}


def _difference(found: dict[str, Any], kept: dict[str, Any]) -> float:
    pairs = zip(found["values"], kept["values"], strict=True)
    values = math.sqrt(sum((a - b) ** 2 for a, b in pairs) / VALUES)
    return max(values, abs(found["level"] - kept["level"])) / max(kept["level"], _LEAST)


def _short(value: float) -> float:
    return float(f"{value:.8g}")
