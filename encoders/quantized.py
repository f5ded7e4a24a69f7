"""Linear maps with integer weights, stored as plain tensors and multiplied by torchao.

torchao is imported where such a map is made or run, not before: it takes seconds.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.spec import INTEGERS

INT4 = torch.int4  # type: ignore[attr-defined]


class Quantized(nn.Module):
    """A linear map whose weight is integers times a scale per row and group of its inputs.

    values: int8 (outputs, inputs) or, of int4, uint8 with two in each byte (outputs, width / 2),
    the first in its lower half. scales: (outputs, width / group), of int8 one per row. The width is
    the inputs rounded up to whole groups. Neither is a parameter: no gradient reaches an integer.
    """

    values: Tensor
    scales: Tensor
    bias: Tensor

    def __init__(
        self, inputs: int, outputs: int, numeric: str, group: int = 0, bias: bool = True
    ) -> None:
        super().__init__()
        self.in_features, self.out_features, self.numeric = inputs, outputs, numeric
        self.bits, self.dynamic = INTEGERS[numeric]
        self.group = inputs
        if self.bits == 4:
            self.group = min(group or inputs, inputs)
            self.group += self.group % 2  # a byte holds two
        groups = -(-inputs // self.group)
        self.width = groups * self.group
        integers = torch.zeros(outputs, self.width, dtype=torch.int8)
        self.register_buffer("values", integers if self.bits == 8 else _pack(integers))
        self.register_buffer("scales", torch.ones(outputs, groups))
        self.register_parameter("bias", nn.Parameter(torch.zeros(outputs)) if bias else None)

    @torch.no_grad()
    def fill(self, weight: Tensor) -> None:
        """Take the integers and scales nearest to a weight (outputs, inputs).

        Symmetric about 0: a scale is its group's largest magnitude over that of the integers.
        """
        from torchao.quantization import Int8Tensor, IntxUnpackedToInt8Tensor, PerRow

        padded = F.pad(weight.float(), (0, self.width - self.in_features))
        if self.bits == 8:
            rows = Int8Tensor.from_hp(padded, PerRow())
            self.values.copy_(rows.qdata)
            self.scales.copy_(rows.scale)
        else:
            groups = IntxUnpackedToInt8Tensor.from_hp(padded, (1, self.group), INT4)
            self.values.copy_(_pack(groups.qdata))
            self.scales.copy_(groups.scale)

    @property
    def weight(self) -> Tensor:
        """What is multiplied, as floats (outputs, inputs)."""
        grouped = self._integers().unflatten(1, (-1, self.group)) * self.scales[..., None]
        return grouped.flatten(1)[:, : self.in_features]

    def forward(self, x: Tensor, gelu: bool = False) -> Tensor:
        """x (..., inputs) -> (..., outputs), with `gelu` of the result."""
        y = self._product(x)
        return F.gelu(y) if gelu else y

    def _product(self, x: Tensor) -> Tensor:
        if torch.jit.is_tracing():  # no tracer can enter torchao's kernels: this is their product
            return F.linear(x, self.weight, self.bias)
        if self.width > self.in_features:
            x = F.pad(x, (0, self.width - self.in_features))
        return F.linear(x, self._kernel(x.dtype), self.bias)

    def _kernel(self, dtype: torch.dtype) -> Tensor:
        """The weight as the torchao tensor that multiplies inputs of that type."""
        from torchao.quantization import Int8Tensor, IntxUnpackedToInt8Tensor, PerRow
        from torchao.quantization.quantize_.workflows import QuantizeTensorToInt8Kwargs

        block = [1, self.group]
        if self.bits == 8:
            frames = QuantizeTensorToInt8Kwargs(PerRow()) if self.dynamic else None
            return Int8Tensor(self.values, self.scales, block, dtype, act_quant_kwargs=frames)
        zeros = torch.zeros_like(self.scales, dtype=torch.int8)
        per_frame = "int8_asym_per_token" if self.dynamic else None
        return IntxUnpackedToInt8Tensor(
            self._integers(), self.scales, zeros, INT4, block, dtype, per_frame
        )

    def _integers(self) -> Tensor:
        """int8 (outputs, width)."""
        return self.values if self.bits == 8 else _unpack(self.values)


def weights(encoder: nn.Module) -> Iterator[Tensor]:
    """Every weight of a model once, as numbers: its parameters, and what its integers stand for."""
    yield from encoder.parameters()
    for module in encoder.modules():
        if isinstance(module, Quantized):
            yield module.weight


def _pack(integers: Tensor) -> Tensor:
    """int4 in int8 (rows, 2n) -> two per byte (rows, n)."""
    low, high = (integers.to(torch.uint8) & 15).unflatten(1, (-1, 2)).unbind(-1)
    return low | high << 4


def _unpack(values: Tensor) -> Tensor:
    """The inverse of `_pack`; flipping the sign bit and taking its 8 away brings the sign along."""
    halves = torch.stack((values & 15, values >> 4), dim=-1).flatten(1)
    return (halves.to(torch.int8) ^ 8) - 8
