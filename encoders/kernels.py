"""What inference on CPUs runs in the place of torch's own kernels: oneDNN's, where they are faster.

torch gives float32 products to MKL, which takes its AVX-512 kernels on Intel's CPUs alone, and
convolutions to oneDNN in a layout that both sides must be copied to. Called directly, oneDNN takes
such kernels wherever they are, reads and writes frames one after the other (batch, time, channels),
and applies bias and GELU while a block of the result is still in the cache. The sums
differ by the order of their terms alone (below 1e-5). Training, tracers, compilers, autocast and
GPUs keep torch's kernels: `apply` says which of the two it is, and each module knows its plain way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import ref

import torch
from torch import Tensor

_HERE = torch.backends.mkldnn.is_available()
#: The operations that torch's own compiler calls; there are no public names for them.
_LINEAR = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if _HERE else None
_CONVOLUTION = getattr(torch.ops.mkldnn, "_convolution_pointwise", None) if _HERE else None
_DTYPES = {torch.float32} | (
    {torch.bfloat16} if _HERE and torch.ops.mkldnn._is_mkldnn_bf16_supported() else set()
)

#: Frames from which `attend` beats torch's fused attention, which shorter scores suit better.
LONG = 384


def apply(x: Tensor, weight: Tensor) -> bool:
    """Whether this is inference on a CPU, of something, in numbers that oneDNN multiplies."""
    return (
        not torch.compiler.is_compiling()  # first, as compilers follow nothing of the rest
        and not torch.jit.is_tracing()
        and _LINEAR is not None
        and _CONVOLUTION is not None
        and not torch.is_grad_enabled()
        and x.device.type == "cpu"
        and x.dtype == weight.dtype
        and x.dtype in _DTYPES
        and x.numel() > 0 < weight.numel()
        and not torch.is_autocast_enabled("cpu")
    )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, gelu: bool = False) -> Tensor:
    """x (..., inputs) @ weight (outputs, inputs)^T + bias, its GELU if asked."""
    product: Tensor = _LINEAR(x, weight, bias, *_after(gelu))  # type: ignore[misc]
    return product


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int,
    padding: int,
    groups: int,
    gelu: bool = False,
) -> Tensor:
    """x (batch, time, inputs) convolved over time: (batch, time, outputs), its GELU if asked.

    weight: (outputs, inputs / groups, kernel). oneDNN's own layout of it depends on the time, so
    it is made at every call; one of groups is brought there fastest from `channels_last`.
    """
    image = x.contiguous()[:, None].permute(0, 3, 1, 2)  # channels last, of height 1
    kernel, steps = weight[:, :, None], ([0, padding], [1, stride], [1, 1], groups)
    if groups == 1:  # left to torch, this takes four times as long
        kernel = torch.ops.mkldnn._reorder_convolution_weight(kernel, *steps, list(image.shape))
    y: Tensor = _CONVOLUTION(image, kernel, bias, *steps, *_after(gelu))  # type: ignore[misc]
    return y[:, :, 0].transpose(1, 2)


def channels_last(weight: Tensor) -> Tensor:
    """A weight (outputs, inputs, kernel) whose inputs lie next to each other in memory."""
    return weight[:, :, None].contiguous(memory_format=torch.channels_last)[:, :, 0]


def attends(queries: Tensor, keys: Tensor) -> bool:
    """Whether `attend` is the faster attention: one thread, many frames, no kernel asked for."""
    cuda = torch.backends.cuda  # these switches are those of every device
    return (
        queries.shape[-2] >= LONG
        and apply(queries, keys)
        and torch.get_num_threads() == 1
        and cuda.math_sdp_enabled()
        and cuda.flash_sdp_enabled()
    )


def attend(
    queries: Tensor, keys: Tensor, values: Tensor, add: Callable[[Tensor, int, int], Any]
) -> Tensor:
    """Attention, the scores of one head (time, time) at a time, in float32.

    queries, keys, values: (batch, heads, time, width), the queries scaled. add: what adds the bias
    to the scores, in place, given the places of item and head.
    """
    batch, heads, time, width = values.shape
    out = values.new_empty(batch, time, heads, width).transpose(1, 2)
    q, k = queries.float().contiguous(), keys.float().contiguous()
    v = values.float().transpose(2, 3).contiguous()
    for item in range(batch):
        for head in range(heads):
            scores = linear(q[item, head], k[item, head])
            add(scores, item, head)
            torch.softmax(scores, -1, out=scores)
            out[item, head] = linear(scores, v[item, head])
    return out


class Derived:
    """What is made of weights and kept for as long as they are the same tensors, unchanged.

    A copy of it, as of the module that holds it, begins with nothing.
    """

    def __init__(self) -> None:
        self._sources: list[tuple[ref[Tensor], int, int, torch.dtype]] = []
        self._value: Tensor | None = None

    def __reduce__(self) -> tuple[type[Derived], tuple[()]]:
        return Derived, ()

    def of(self, make: Callable[[], Tensor], *sources: Tensor) -> Tensor:
        """What `make` makes, which must depend on `sources` alone."""
        if any(source.is_inference() for source in sources):  # changes of these leave no trace
            return make()
        if self._value is None or not self._fresh(sources):
            self._value = make()
            self._sources = [(ref(source), *_state(source)) for source in sources]
        return self._value

    def _fresh(self, sources: tuple[Tensor, ...]) -> bool:
        pairs = zip(self._sources, sources, strict=True)
        return all(mark[0]() is now and mark[1:] == _state(now) for mark, now in pairs)


def _state(tensor: Tensor) -> tuple[int, int, torch.dtype]:
    return tensor.data_ptr(), tensor._version, tensor.dtype


def _after(gelu: bool) -> tuple[str, list[Any], str]:
    """oneDNN's words for what follows a product."""
    return ("gelu", [], "none") if gelu else ("none", [], "")
