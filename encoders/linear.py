"""The linear map of our layers: torch's own, and on CPUs oneDNN's where no gradient is needed.

torch gives float32 products to MKL, which takes its AVX-512 kernels on Intel's CPUs alone. oneDNN
takes them wherever they are, and applies the GELU while a block of the result is still in the
cache. On one core of an AMD EPYC (Zen 5) an FFN of 128-512-128 over 800 frames fell from 3.8 to
1.1 ms, one of 768-3072-768 over 500 frames from 49 to 22 ms; the sums differ by the order of their
terms alone (below 1e-5).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: The operation that torch's own compiler calls; there is no public name for it.
_POINTWISE = (
    getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    if torch.backends.mkldnn.is_available()
    else None
)


class Linear(nn.Linear):
    """y = x W^T + b."""

    def forward(self, x: Tensor, gelu: bool = False) -> Tensor:
        """x (..., inputs) -> (..., outputs), with `gelu` of the result in the same pass."""
        if self._plain(x):
            name, kind = ("gelu", "none") if gelu else ("none", "")
            product: Tensor = _POINTWISE(  # type: ignore[misc]
                x, self.weight, self.bias, name, [], kind
            )
            return product
        y = F.linear(x, self.weight, self.bias)
        return F.gelu(y) if gelu else y

    def _plain(self, x: Tensor) -> bool:
        """Whether this is inference in float32 on a CPU, of something."""
        return (
            _POINTWISE is not None
            and not torch.is_grad_enabled()
            and x.device.type == "cpu"
            and x.dtype == self.weight.dtype == torch.float32
            and x.numel() > 0 < self.weight.numel()
            and not torch.is_autocast_enabled("cpu")
            and not torch.jit.is_tracing()
            and not torch.compiler.is_compiling()
        )
