"""Methods as the command line writes them: one step, or a chain such as `low-rank+head-pruning`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from compressors._base import Compressor
from core import plugins
from core.errors import InputError, Unsupported
from core.method import Method, Step
from encoders.corpora import Corpus
from encoders.model import Encoder

#: The rate asked for, the encoder or why there is none, and the rate achieved (0 without one).
Outcome = tuple[float, Encoder | Unsupported, float]


def create(step: Step) -> Compressor:
    """The compressor of that step, its options set."""
    return plugins.load("method", step.name)(**dict(step.options))


def track_method(
    method: Method,
    encoder: Encoder,
    rates: Sequence[float],
    corpus: Corpus | None = None,
    seed: int = 0,
) -> Iterator[Outcome]:
    """Compress an encoder by a method to each of the rates.

    A chain of n steps shares a rate r evenly, so that the kept fractions multiply to what r leaves:
    each step removes 1 - (1 - r)^(1/n) of what it acts on in the encoder that it is given. What is
    achieved multiplies in the same way.

    Raises:
        InputError: a rate does not lie between 0 and 1.
    """
    for rate in rates:
        if not 0 < rate < 1:
            raise InputError(f"rate {rate:g} is out of range; expected above 0 and below 1")
    steps = [create(step) for step in method.steps]
    asked = {share(rate, len(steps)): rate for rate in rates}
    for part, made, achieved in _track(steps, encoder, list(asked), corpus, seed):
        yield asked[part], made, achieved


def share(rate: float, steps: int) -> float:
    """What each step of a chain has to remove for all of them to remove the rate."""
    return rate if steps == 1 else 1 - (1 - rate) ** (1 / steps)


def _track(
    steps: list[Compressor],
    encoder: Encoder,
    rates: list[float],
    corpus: Corpus | None,
    seed: int,
) -> Iterator[Outcome]:
    first, *rest = steps
    reason = first.supports(encoder.spec)
    if reason is not None:
        yield from ((rate, Unsupported(reason), 0.0) for rate in rates)
        return
    for rate, made in first.track(encoder, rates, corpus, seed):
        achieved = 0.0 if isinstance(made, Unsupported) else first.achieved(encoder, made)
        if isinstance(made, Unsupported) or not rest:
            yield rate, made, achieved
            continue
        for _, last, further in _track(rest, made, [rate], corpus, seed):
            failed = isinstance(last, Unsupported)
            yield rate, last, 0.0 if failed else 1 - (1 - achieved) * (1 - further)
