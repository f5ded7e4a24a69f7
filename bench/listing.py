"""`bench list`: what there is to choose from, and what is known of one choice. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from core import plugins
from core.errors import InputError, closest
from core.plugins import Card, Option
from core.spec import ModelSpec
from encoders import sources, store, zoo

KINDS = {"methods": "method", "models": "model", "tasks": "task", "profilers": "profiler"}

#: What a card's constants say, in words.
_FACTS = {
    "acts_on": "the rate is the fraction removed of its {}",
    "reduces": "claims to lower {}",
    "groups": "in the groups: {}",
    "in_score": "enters superb_s: {}",
    "needs": "reads {} of the hidden states",
    "exclusive": "needs the machine to itself: {}",
}


#: What a plug-in is that does not say so.
_DEFAULTS: dict[str, dict[str, Any]] = {"task": {"in_score": True, "needs": "means"}}


def names(kind: str) -> list[str]:
    """What `--model`, `--methods`, `--tasks` or `--profilers` may name."""
    if kind == "model":
        checkpoints = [f"{name}:" for name in sources.names()]
        return ["builtin", *(f"random:{name}" for name in zoo.SPECS), *checkpoints]
    return plugins.names(kind)


def groups(kind: str) -> dict[str, list[str]]:
    """What else such an option may name, with what it stands for."""
    return {} if kind == "model" else plugins.groups(kind)


def overview(kinds: str) -> str:
    """One line for each choice of a kind, and for each group that some of them are in.

    Raises:
        InputError: there is no such kind.
    """
    kind = _kind(kinds)
    if kind == "model":
        rows = [("builtin", _first(zoo.SPECS["tiny"]))]
        rows += [(f"random:{name}", _first(spec)) for name, spec in zoo.SPECS.items()]
        rows += [sources.usage(name) for name in sources.names()]
        rows += [("FOLDER", "A model that `bench compress` or a sweep has written.")]
    else:
        rows = [(name, plugins.card(kind, name).summary) for name in plugins.names(kind)]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {about}" for name, about in rows]
    named = [f"{name}: {', '.join(some)}" for name, some in groups(kind).items() if name != "all"]
    return "\n".join([*lines, *(["", *named] if named else [])])


def details(kinds: str, name: str) -> str:
    """Everything that is known of one choice without running it.

    Raises:
        InputError: there is no such kind, or nothing of that name.
    """
    kind = _kind(kinds)
    if kind == "model":
        return _model(name)
    return "\n".join(_card(plugins.card(kind, name)))


def _kind(kinds: str) -> str:
    if kinds not in KINDS:
        raise InputError(
            f"cannot list {kinds!r}{closest(kinds, KINDS)}; expected {', '.join(KINDS)}"
        )
    return KINDS[kinds]


def _first(spec: Callable[[], ModelSpec]) -> str:
    return (spec.__doc__ or "").split("\n", 1)[0]


def _card(card: Card) -> Iterator[str]:
    yield f"{card.name} ({card.kind})"
    yield ""
    yield card.about
    constants = {**_DEFAULTS.get(card.kind, {}), **card.constants}
    facts = [(key, constants[key]) for key in _FACTS if constants.get(key) not in (None, ())]
    if facts:
        yield ""
    for key, value in facts:
        yield f"- {_FACTS[key].format(_said(value))}"
    if card.options:
        yield "\noptions:"
        yield from map(_option, card.options)
    if card.presets:
        yield "\npresets (quick is the defaults above; choose with --preset or NAME@PRESET):"
    for name, values in card.presets.items():
        yield f"  {name}: {', '.join(f'{key}={value}' for key, value in values.items())}"
    if card.metrics:
        yield "\nmetrics:"
    for metric in card.metrics:
        unit = f" [{metric.unit}]" if metric.unit else ""
        yield f"  {metric.name}{unit}, {metric.better} is better: {metric.about}".rstrip(": ")
    yield f"\nsource: {plugins.folder(card.kind).name}/{card.name.replace('-', '_')}.py"


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def _option(option: Option) -> str:
    kind = "|".join(option.choices) or option.kind
    about = f"  {option.about}" if option.about else ""
    return f"  {option.name}={option.default} ({kind}){about}"


def _model(name: str) -> str:
    shape = "tiny" if name == "builtin" else name.removeprefix("random:").partition("@")[0]
    if shape in zoo.SPECS:
        spec, about = zoo.SPECS[shape](), " ".join((zoo.SPECS[shape].__doc__ or "").split())
    else:
        spec = store.read_spec(name)
        about = f"A {spec.family} encoder."
    lines = [
        name, "", about, "",
        f"front end: {spec.front_end.kind}, {spec.hop / 16:g} ms per frame",
        f"width: {spec.dim}",
        f"layers: {len(spec.layers)}, {'pre' if spec.norm_first else 'post'}-norm",
    ]  # fmt: skip
    if spec.layers:
        heads = f"{spec.total_heads} of {spec.head_dim}"
        least, most = (edge(layer.ffn for layer in spec.layers) for edge in (min, max))
        units = str(most) if least == most else f"{least} to {most}"
        lines.append(f"heads: {heads}; FFN units: {units}")
    if name != "builtin" and shape in zoo.SPECS:
        lines.append("weights: random, by a seed (random:SHAPE@SEED); scores would mean nothing")
    return "\n".join(lines)
