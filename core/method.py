"""Method expressions: `head-pruning@paper[scope=model]`, chained with `+`.

In a chain each step may say what part of the work is its own: `share=0.5`, or `rate=0.25`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Any

from core import plugins
from core.errors import InputError, Unsupported, closest

_STEP = re.compile(r"^\s*([\w-]+)\s*(?:@([\w-]+))?\s*(?:\[([^\]]*)\])?\s*$")

#: The preset that the options' defaults stand for.
QUICK = "quick"

#: The preset of methods that train in which they do not.
UNTRAINED = "untrained"


@dataclass(frozen=True)
class Step:
    """One compressor: its preset, and the options that differ from the preset's.

    share: of what a chain removes, as `Method.split` counts it. rate: what the step removes in a
    chain whatever the chain's rate is.
    """

    name: str
    options: tuple[tuple[str, Any], ...] = ()
    preset: str = QUICK
    share: float | None = None
    rate: float | None = None

    def __str__(self) -> str:
        name = self.name if self.preset == QUICK else f"{self.name}@{self.preset}"
        own = (("share", self.share), ("rate", self.rate))
        given = [*self.options, *((key, value) for key, value in own if value is not None)]
        return f"{name}[{','.join(f'{k}={v}' for k, v in given)}]" if given else name

    @property
    def settings(self) -> dict[str, Any]:
        """The options that differ from the class's defaults."""
        return plugins.card("method", self.name).preset(self.preset) | dict(self.options)

    @property
    def chosen(self) -> dict[str, Any]:
        """Every option's value."""
        options = plugins.card("method", self.name).options
        return {option.name: option.default for option in options} | self.settings

    @property
    def updates(self) -> int:
        """Of one of its trainings, as its option `steps` says; 0 where it trains nothing."""
        chosen = self.chosen
        return 0 if chosen.get("schedule") == "one-shot" else chosen.get("steps", 0)

    @property
    def heard(self) -> float:
        """Seconds of audio that one of its trainings takes."""
        chosen = self.chosen
        return self.updates * chosen.get("accumulate", 1) * chosen.get("batch_seconds", 1.0)

    @property
    def uses_data(self) -> bool:
        """Whether its models depend on the corpus; a card may name options that decide it."""
        card = plugins.card("method", self.name)
        free = card.constants.get("uses_data", False)
        if isinstance(free, bool):
            return free
        return any(self.chosen[name] != value for name, value in free.items())


@dataclass(frozen=True)
class Method:
    """One step, or a chain of steps applied from left to right."""

    steps: tuple[Step, ...]

    def __str__(self) -> str:
        return "+".join(map(str, self.steps))

    @property
    def uses_data(self) -> bool:
        """Whether the models of any step depend on the corpus."""
        return any(step.uses_data for step in self.steps)

    @property
    def trains(self) -> bool:
        """Whether any step does."""
        return any(step.updates for step in self.steps)

    @classmethod
    def parse(cls, text: str, preset: str = QUICK) -> Method:
        """Read one expression; `preset` is that of the steps that name none and have it.

        Raises:
            InputError: the expression is malformed, or names an unknown method or option.
        """
        return cls(_checked(text, tuple(_step(part, preset) for part in _split(text, "+"))))

    def split(self, rate: float) -> tuple[float, ...]:
        """What each step has to remove so that the fractions kept multiply to 1 - rate.

        A step with a rate of its own removes that. What the others have to keep together is k, and
        each keeps k ** share; steps without a share divide what is left of 1 evenly.

        Raises:
            Unsupported: the steps with rates of their own remove as much by themselves.
        """
        if len(self.steps) == 1:
            return (rate,)
        fixed = math.prod(1 - step.rate for step in self.steps if step.rate is not None)
        keep = (1 - rate) / fixed
        if keep > 1 - 1e-9:
            raise Unsupported(
                f"at {rate:g} nothing is left to be shared: the rates within {str(self)!r} remove "
                f"{1 - fixed:.4g} by themselves; ask for a higher rate"
            )
        free = [step for step in self.steps if step.rate is None]
        rest = 1 - sum(step.share or 0 for step in free)
        even = rest / max(1, sum(step.share is None for step in free))
        return tuple(step.rate or 1 - keep ** (step.share or even) for step in self.steps)


def parse_methods(text: str, preset: str = QUICK) -> list[Method]:
    """Read a comma list of expressions; `all` stands for every method with its preset alone."""
    _check_preset(preset)
    if text.strip() == "all":
        return [Method.parse(name, preset) for name in plugins.names("method")]
    methods = [Method.parse(part, preset) for part in _split(text, ",") if part.strip()]
    if not methods:
        raise InputError(f"methods {text!r} name none; give names, a comma list or 'all'")
    return list(dict.fromkeys(methods))


def _check_preset(preset: str) -> None:
    cards = (plugins.card("method", name) for name in plugins.names("method"))
    known = sorted({QUICK, *(name for card in cards for name in card.presets)})
    if preset not in known:
        raise InputError(
            f"no method has a preset {preset!r}{closest(preset, known)}; known: {', '.join(known)}"
        )


def _step(text: str, preset: str) -> Step:
    match = _STEP.match(text)
    if not match:
        raise InputError(
            f"method {text!r} cannot be read; write name, name@preset, name[option=value,...] or "
            "name+name"
        )
    name, own, inside = match.group(1), match.group(2), match.group(3) or ""
    pairs: dict[str, str] = {}
    for pair in filter(None, (p.strip() for p in inside.split(","))):
        key, equals, value = pair.partition("=")
        if not equals:
            raise InputError(f"option {pair!r} of {name!r} has no value; write option=value")
        pairs[key.strip()] = value.strip()
    share, rate = (_fraction(name, key, pairs.pop(key, None)) for key in ("share", "rate"))
    plugins.check("method", name)
    card = plugins.card("method", name)
    if own is not None and own not in (QUICK, *card.presets):
        known = ", ".join((QUICK, *card.presets))
        raise InputError(f"method {name!r} has no preset {own!r}; its presets: {known}")
    made = _with(name, pairs, QUICK)
    # What trains nothing as it is needs no preset to tell it so.
    idle = preset == UNTRAINED and not made.uses_data
    wanted = own or (preset if preset in card.presets and not idle else QUICK)
    return replace(_with(name, pairs, wanted), share=share, rate=rate)


def _with(name: str, pairs: dict[str, str], preset: str) -> Step:
    card = plugins.card("method", name)
    options = card.read_options(pairs, card.preset(preset))
    return Step(name, tuple(sorted(options.items())), preset)


def _fraction(name: str, key: str, text: str | None) -> float | None:
    """The share or the rate that a step is given in a chain."""
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < 1:
        raise InputError(f"{key}={text} of {name!r}: expected a fraction between 0 and 1")
    return value


def _checked(text: str, steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """The steps, if their shares and rates can be met by any rate of the chain."""
    given = [step.share for step in steps if step.share is not None]
    if len(steps) == 1 and (given or steps[0].rate is not None):
        raise InputError(f"method {text!r} is no chain, and share and rate divide a chain's rate")
    for step in steps:
        if step.share is not None and step.rate is not None:
            raise InputError(f"step {str(step)!r} has both a share and a rate; give one of them")
    free = [step for step in steps if step.rate is None]
    if not free:
        raise InputError(f"every step of {text!r} has a rate, so the chain can have none; drop one")
    total = sum(given)
    if total > 1 + 1e-9 or (len(given) == len(free) and total < 1 - 1e-9):
        raise InputError(f"the shares in {text!r} sum to {total:g}; expected 1")
    if len(given) < len(free) and total > 1 - 1e-9:
        raise InputError(f"the shares in {text!r} leave nothing for the steps without one")
    return steps


def _split(text: str, separator: str) -> list[str]:
    """Split at a separator that stands outside brackets."""
    return re.split(rf"\{separator}(?![^\[]*\])", text)
