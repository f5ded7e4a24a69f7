"""Linear maps of frames and of windows: torch's own, and on CPUs oneDNN's in inference.

On one core of an AMD EPYC (Zen 5) an FFN of 128-512-128 over 800 frames fell from 3.8 to 1.1 ms,
one of 768-3072-768 over 500 frames from 49 to 22 ms.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from encoders import kernels


class Linear(nn.Linear):
    """y = x W^T + b."""

    def forward(self, x: Tensor, gelu: bool = False) -> Tensor:
        """x (..., inputs) -> (..., outputs), with `gelu` of the result in the same pass."""
        if kernels.apply(x, self.weight):
            return kernels.linear(x, self.weight, self.bias, gelu)
        y = F.linear(x, self.weight, self.bias)
        return F.gelu(y) if gelu else y


class Convolution(nn.Conv1d):
    """A convolution over time, of frames as all other modules have them."""

    def __init__(self, *shape: Any, **options: Any) -> None:
        super().__init__(*shape, **options)
        self.folded = kernels.Derived()

    def forward(self, x: Tensor, gelu: bool = False) -> Tensor:
        """x (batch, time, inputs) -> (batch, time, outputs), with `gelu` of the result."""
        if not kernels.apply(x, next(self.parameters())):
            y = super().forward(x.transpose(1, 2))
            return (F.gelu(y) if gelu else y).transpose(1, 2)
        stride, padding = self.stride[0], int(self.padding[0])
        if self.in_channels == 1 and not padding:
            windows = x[..., 0].unfold(1, self.kernel_size[0], stride)
            return kernels.linear(windows, self.weight[:, 0], self.bias, gelu)
        return kernels.convolve(x, self._whole(), self.bias, stride, padding, self.groups, gelu)

    def _whole(self) -> Tensor:
        """The weight; where it is made of direction and length, once for as long as these stay."""
        if not parametrize.is_parametrized(self, "weight"):
            return self.weight
        parts = self.get_submodule("parametrizations.weight").parameters()
        return self.folded.of(lambda: kernels.channels_last(self.weight), *parts)
