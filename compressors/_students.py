"""Which student a rate means: one with fewer layers or heads, or a narrower one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import ClassVar, Literal

import torch

from compressors._base import Setting
from compressors._trained import Trained
from core.errors import Unsupported
from core.spec import ROLES, LayerSpec, ModelSpec
from encoders.model import Encoder, build


@dataclass
class Students(Trained):
    """A method whose result is a small model of its own; rates that mean the same share one."""

    acts_on: ClassVar[str] = "parameters of the Transformer layers"
    reduces: ClassVar[str] = "params_total"

    by: Literal["depth", "width", "heads", "dim"] = "depth"  # what there is less of

    def supports(self, spec: ModelSpec) -> str | None:
        if any(layer.numeric != "float" for layer in spec.layers):
            return "its weights are integers, which are not trained; quantize last"
        if spec.layers and size(family(spec, self.by)[0]) == size(spec):
            return f"the model has no smaller student by {self.by}"
        return super().supports(spec)

    def prepare(self, encoder: Encoder, setting: Setting) -> Callable[[float], Encoder]:
        school = self.school(encoder, setting)
        taught = cache(lambda spec: school(spec).eval())
        return lambda rate: taught(student(encoder.spec, rate, self.by))

    @abstractmethod
    def school(self, encoder: Encoder, setting: Setting) -> Callable[[ModelSpec], Encoder]:
        """What all students share is made once; the function returned trains one."""

    def achieved(self, dense: Encoder, compressed: Encoder) -> float:
        return 1 - size(compressed.spec) / size(dense.spec)


def student(spec: ModelSpec, rate: float, by: str) -> ModelSpec:
    """The shape whose layers have as many parameters as the rate leaves, or the nearest to that.

    Raises:
        Unsupported: nearest is the model itself, or the smallest shape is larger than that by more
            than the next is larger still.
    """
    shapes, left = family(spec, by), (1 - rate) * size(spec)
    # Of two that are equally near the smaller; rounded, as 0.7 * 5 is not quite 3.5.
    chosen = min(shapes, key=lambda shape: round(abs(size(shape) - left), 3))
    if chosen == shapes[-1] or size(shapes[0]) - left > size(shapes[1]) - size(shapes[0]):
        least, most = (1 - size(shape) / size(spec) for shape in (shapes[-2:][0], shapes[0]))
        raise Unsupported(
            f"by {by} from {least:.2g} to {most:.2g} of the layers' parameters can go, not {rate:g}"
        )
    return chosen


@cache
def family(spec: ModelSpec, by: str) -> list[ModelSpec]:
    """All students of a model, from the smallest to one of its own size; none has exits.

    depth: its first layers. heads: fewer heads in each layer. width: fewer heads and inner units,
    by the same share. dim: the hidden states are narrower too, by steps of a head.
    """
    spec = replace(spec, exits=None)
    if by == "depth":
        return [replace(spec, layers=spec.layers[:n]) for n in range(1, len(spec.layers) + 1)]
    heads, units = (max(map(count, spec.layers)) for count in (_heads, _units))
    if by == "heads":
        return [_scaled(spec, heads=n / heads) for n in range(1, heads + 1)] or [spec]
    if by == "width":
        shares = [n / units for n in range(1, units + 1)]
        return [_scaled(spec, heads=share, units=share) for share in shares] or [spec]
    counts = range(1, spec.total_heads if spec.project else 1)
    return [*filter(_has_groups, (_narrowed(spec, count) for count in counts)), spec]


def _narrowed(spec: ModelSpec, heads: int) -> ModelSpec:
    """All widths in proportion to that many heads, which are counted anew."""
    share = heads / spec.total_heads
    scaled = _scaled(spec, heads=share, units=share)
    layers = tuple(replace(own, heads=tuple(range(_heads(own)))) for own in scaled.layers)
    return replace(scaled, dim=round(spec.dim * share), total_heads=heads, layers=layers)


def _has_groups(spec: ModelSpec) -> bool:
    """Whether the groups of the convolution of positions are equally wide."""
    return not spec.positions.conv_kernel or spec.dim % spec.positions.conv_groups == 0


def _scaled(spec: ModelSpec, heads: float = 1.0, units: float = 1.0) -> ModelSpec:
    """Each layer with those shares of its heads and inner units."""
    return replace(spec, layers=tuple(_thinned(layer, heads, units) for layer in spec.layers))


@cache
def _thinned(layer: LayerSpec, heads: float, units: float) -> LayerSpec:
    """A layer with those shares of its heads, the first, and units; at least one of each."""
    kept = min(_heads(layer), max(1, round(heads * _heads(layer))))
    return replace(
        layer, heads=layer.heads[:kept], qk=layer.qk[:kept], vo=layer.vo[:kept],
        ffn=min(layer.ffn, max(1, round(units * layer.ffn))),
    )  # fmt: skip


def _heads(layer: LayerSpec) -> int:
    return len(layer.heads)


def _units(layer: LayerSpec) -> int:
    return layer.ffn


@cache
def size(spec: ModelSpec) -> int:
    """Parameters of the layers' linear maps and norms."""
    return sum(_layer_size(layer, spec.dim) for layer in spec.layers)


def _layer_size(layer: LayerSpec, dim: int) -> int:
    maps = sum(layer.linear_shape(role, dim)[0] + layer.weights(role, dim) for role in ROLES)
    return maps + 4 * dim


def begin(spec: ModelSpec, encoder: Encoder, seed: int, start: str = "random") -> Encoder:
    """A student of that shape with the encoder's front end, which is frozen, before any training.

    start: the other weights are random, or the leading part of the teacher's: its first layers,
    of their heads and units the first.
    """
    made, given = build(spec, seed), encoder.state_dict()
    with torch.no_grad():
        for name, tensor in made.state_dict().items():
            if start == "teacher" or name.startswith("front_end."):
                tensor.copy_(given[name][tuple(map(slice, tensor.shape))])
    return made
