"""Stores the weights of the linear maps as integers of fewer bits (torchao 0.18, arXiv 2507.16099).

8 bits keep a scale per row, 4 bits one per `group` neighbours in a row; round to nearest, symmetric
about 0, no data and no training. A rate asks for a width, 1 - rate of the bits of the model's own
type: of float32, 0.75 is 8 bits and 0.875 is 4. The nearest width is taken where it removes what is
asked to within 0.1; which it is stands in the spec as `numeric`. What is achieved counts the scales
as well. Rows whose length is no multiple of the group are stored with zeros up to the next one.

`activations=int8` also turns each frame that enters a map into int8, by a scale of its own. At 8
bits the product is then one of integers, which is what makes it fast; 4-bit weights are unpacked to
floats either way, so that they save memory and no time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from compressors._base import Compressor, Setting
from core.errors import Unsupported
from core.spec import INTEGERS, ROLES, ModelSpec
from encoders.cut import quantize
from encoders.model import DTYPES, Encoder
from encoders.roles import linear

#: How far what a width removes may be from the rate that is asked for.
TOLERANCE = 0.1


@dataclass
class Quantization(Compressor):
    acts_on: ClassVar[str] = "bits of the linear maps' weights"
    reduces: ClassVar[str] = "bytes_stored"

    activations: Literal["float", "int8"] = "float"  # what the maps' inputs are turned into
    group: int = 128  # int4 weights that share a scale, an even number; 0: the whole row

    def supports(self, spec: ModelSpec) -> str | None:
        if spec.layers and not any(
            0 not in layer.linear_shape(role, spec.dim) for layer in spec.layers for role in ROLES
        ):
            return "the maps to be quantized are empty"
        return super().supports(spec)

    def prepare(self, encoder: Encoder, setting: Setting) -> Callable[[float], Encoder]:
        stored = torch.finfo(DTYPES[encoder.spec.dtype]).bits

        def shrink(rate: float) -> Encoder:
            bits = nearest_width(rate, stored)
            numeric = f"int{bits}" + ("-dynamic" if self.activations == "int8" else "")
            return quantize(encoder, numeric, self.group if bits == 4 else 0)

        return shrink

    def achieved(self, dense: Encoder, compressed: Encoder) -> float:
        return 1 - _bits(compressed) / _bits(dense)


def nearest_width(rate: float, stored: int) -> int:
    """Bits per weight whose removal comes nearest to the rate, of weights of `stored` bits.

    Raises:
        Unsupported: no width comes near.
    """
    widths = sorted({bits for bits, _ in INTEGERS.values() if bits < stored})
    best = min(widths, key=lambda bits: abs(1 - bits / stored - rate))
    off = abs(1 - best / stored - rate)
    if off > TOLERANCE + 1e-9:
        offered = " and ".join(f"{1 - bits / stored:g} ({bits} bits)" for bits in reversed(widths))
        raise Unsupported(
            f"quantization at {rate:g} asks for {stored * (1 - rate):.3g} bits per weight, a width "
            f"that does not exist: there are {offered}, and the nearest is {off:.3g} off, more "
            f"than {TOLERANCE:g}"
        )
    return best


def _bits(encoder: Encoder) -> int:
    """Bits of all linear maps' weights as stored: floats, or integers with their scales."""
    maps = (linear(encoder, i, role) for i in range(len(encoder.layers)) for role in ROLES)
    tensors: list[Tensor] = [
        tensor
        for each in maps
        for name, tensor in each.state_dict().items()
        if not name.endswith("bias")
    ]
    return 8 * sum(tensor.numel() * tensor.element_size() for tensor in tensors)
