"""Products with integer weights in operations that every exporter and every torch knows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from encoders.quantized import Quantized

_LEAST = torch.finfo(torch.float32).eps


def multiply(self: Quantized, x: Tensor) -> Tensor:
    """What torchao's kernels make of x (..., inputs): (..., outputs).

    The weights stay integers in what is exported. int8-dynamic multiplies integers where the device
    is a CPU.
    """
    if self.bits == 4:
        x = _rounded(x) if self.dynamic else x
        return F.linear(x, _weight(self).to(x.dtype), self.bias)
    y = _dynamic(self, x) if self.dynamic else F.linear(x, self.values.to(x.dtype))
    y = y * self.scales[:, 0].to(y.dtype)
    return (y if self.bias is None else y + self.bias).to(x.dtype)


def _dynamic(self: Quantized, x: Tensor) -> Tensor:
    """Frames as int8 by a scale each, symmetric about 0, times the integers of the weight."""
    frames = x.flatten(0, -2).float()
    scales = (frames.abs().amax(-1, keepdim=True) / 127.5).clamp(min=_LEAST)
    integers = (frames * (1.0 / scales)).round().clamp(-128, 127)
    if x.device.type == "cpu":
        sums = torch._int_mm(integers.to(torch.int8), self.values.t()).float()
    else:
        sums = F.linear(integers, self.values.float())
    return (sums * scales).unflatten(0, x.shape[:-1])


def _rounded(x: Tensor) -> Tensor:
    """Frames rounded to int8 by a scale and a zero each, as floats."""
    low, high = (x.amin(-1, keepdim=True).clamp(max=0), x.amax(-1, keepdim=True).clamp(min=0))
    scales = ((high - low) / 255).clamp(min=torch.finfo(x.dtype).eps)
    zeros = (-128 - (low / scales).round()).clamp(-128, 127)
    integers = ((x * (1.0 / scales)).round() + zeros).clamp(-128, 127)
    return (integers - zeros) * scales


def _weight(self: Quantized) -> Tensor:
    """The matrix (outputs, inputs) of int4, two in each byte."""
    pairs = self.values.float()  # onnxruntime shifts no bits of what exporters make of them
    high = (pairs / 16).floor()
    halves = torch.stack((pairs - 16 * high, high), dim=-1).flatten(1)
    signed = torch.where(halves < 8, halves, halves - 16)
    grouped = signed.unflatten(1, (-1, self.group)) * self.scales[..., None]
    return grouped.flatten(1)[:, : self.in_features]
