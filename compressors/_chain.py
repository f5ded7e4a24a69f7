"""Methods as the command line writes them: one step, or a chain such as `low-rank+head-pruning`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from compressors._base import Compressor, Setting
from core import plugins
from core.errors import InputError, Unsupported
from core.method import Method, Step
from encoders.model import Encoder

#: The rate asked for, the encoder or why there is none, and the rate achieved (0 without one).
Outcome = tuple[float, Encoder | Unsupported, float]

#: What each step of a chain has to remove.
Parts = tuple[float, ...]


def create(step: Step) -> Compressor:
    """The compressor of that step, its options set."""
    return plugins.load("method", step.name)(**step.settings)


def track_method(
    method: Method,
    encoder: Encoder,
    rates: Sequence[float],
    setting: Setting | None = None,
) -> Iterator[Outcome]:
    """Compress an encoder by a method to each of the rates.

    A chain splits a rate (`Method.split`) such that the fractions that its steps keep, each of the
    encoder that it is given, multiply to what the rate leaves: evenly, unless the method says
    otherwise. What is achieved multiplies in the same way. A step runs once for all rates that ask
    the same of it and of those before it.

    Raises:
        InputError: a rate does not lie between 0 and 1.
    """
    for rate in rates:
        if not 0 < rate < 1:
            raise InputError(f"rate {rate:g} is out of range; expected above 0 and below 1")
    parts: dict[float, Parts | Unsupported] = {rate: _parts(method, rate) for rate in rates}
    plan = {rate: own for rate, own in parts.items() if not isinstance(own, Unsupported)}
    steps = [create(step) for step in method.steps]
    made = _track(steps, encoder, plan, setting or Setting())
    for rate, own in parts.items():
        yield (rate, own, 0.0) if isinstance(own, Unsupported) else next(made)


def _parts(method: Method, rate: float) -> Parts | Unsupported:
    try:
        return method.split(rate)
    except Unsupported as reason:
        return reason


def _track(
    steps: list[Compressor], encoder: Encoder, plan: dict[float, Parts], setting: Setting
) -> Iterator[Outcome]:
    """The outcomes of the plan, which says for each rate what each of the steps removes, in order.

    Parts are equal for all rates or for none, so what is tracked together lies together.
    """
    first, *rest = steps
    reason = first.supports(encoder.spec)
    if reason is not None:
        yield from ((rate, Unsupported(reason), 0.0) for rate in plan)
        return
    own = list(dict.fromkeys(parts[0] for parts in plan.values()))
    for part, made in first.track(encoder, own, setting):
        left = {rate: parts[1:] for rate, parts in plan.items() if parts[0] == part}
        achieved = 0.0 if isinstance(made, Unsupported) else first.achieved(encoder, made)
        if isinstance(made, Unsupported) or not rest:
            yield from ((rate, made, achieved) for rate in left)
            continue
        inner = replace(
            setting, folder=setting.folder and setting.folder / f"{part:g}",
            tracking=setting.tracking.inside(f"after {part:g}"),
        )  # fmt: skip
        for rate, last, further in _track(rest, made, left, inner):
            failed = isinstance(last, Unsupported)
            yield rate, last, 0.0 if failed else 1 - (1 - achieved) * (1 - further)
