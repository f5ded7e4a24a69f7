"""What inference on CPUs runs in the place of torch's own kernels: oneDNN's, where they are faster.

torch gives float32 products to MKL, which takes its AVX-512 kernels on Intel's CPUs alone, and
convolutions to oneDNN in a layout that both sides must be copied to. Called directly, oneDNN takes
such kernels wherever they are, reads and writes frames one after the other (batch, time, channels),
and applies bias and GELU while a block of the result is still in the cache. The sums
differ by the order of their terms alone (below 1e-5). Training, tracers, compilers, autocast and
GPUs keep torch's kernels: `apply` says which of the two it is, and each module knows its plain way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from weakref import ref

import torch
from torch import Tensor

Made = TypeVar("Made")

_HERE = torch.backends.mkldnn.is_available()
#: The operations that torch's own compiler calls; there are no public names for them.
_LINEAR = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if _HERE else None
_CONVOLUTION = getattr(torch.ops.mkldnn, "_convolution_pointwise", None) if _HERE else None
_DTYPES = {torch.float32} | (
    {torch.bfloat16} if _HERE and torch.ops.mkldnn._is_mkldnn_bf16_supported() else set()
)

#: Frames from which `attend` beats torch's fused attention, which shorter scores suit better.
LONG = 384

#: Multiply-accumulates that take about as long as the steps of `attend` for one head.
SPARE = 3 << 20


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


def attends(time: int, light: bool) -> bool:
    """Whether `attend` is the faster attention: one thread, many frames, no kernel asked for.

    light: whether padding heads to one width, as torch's attention needs them, costs next to
    nothing.
    """
    cuda = torch.backends.cuda  # these switches are those of every device
    return (
        (time >= LONG or not light)
        and torch.get_num_threads() == 1
        and cuda.math_sdp_enabled()
        and cuda.flash_sdp_enabled()
    )


def attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    widths: Sequence[tuple[int, int]],
    add: Callable[[Tensor, int, int], Any],
) -> Tensor:
    """Attention, the scores of one head (time, time) at a time, in float32.

    queries, keys, values: (batch, time, sum of the heads' widths), the queries scaled. widths: of
    each head's queries and of its values. add: what adds the bias to the scores, in place, given
    the places of item and head.
    """
    qk, vo = zip(*widths, strict=True)
    out = torch.empty_like(values)
    q, k, v = queries.float(), keys.float(), values.float().mT.contiguous()
    for item in range(len(out)):
        heads = zip(q[item].split(qk, -1), k[item].split(qk, -1), v[item].split(vo), strict=True)
        parts = out[item].split(vo, -1)
        for head, (own_q, own_k, own_v) in enumerate(heads):
            if vo[head]:
                scores = _scores(own_q, own_k)
                add(scores, item, head)
                torch.softmax(scores, -1, out=scores)
                parts[head].copy_(linear(scores, own_v))
    return out


def _scores(queries: Tensor, keys: Tensor) -> Tensor:
    """Products (time, time) of queries and keys (time, width), which may have no width at all."""
    if not queries.shape[1]:
        return queries.new_zeros(len(queries), len(keys))
    return linear(queries.contiguous(), keys.contiguous())


class Derived:
    """What is made of weights and kept for as long as they are the same tensors, unchanged.

    A copy of it, as of the module that holds it, begins with nothing.
    """

    def __init__(self) -> None:
        self._sources: list[tuple[ref[Tensor], int, int, torch.dtype]] = []
        self._value: Any = None

    def __reduce__(self) -> tuple[type[Derived], tuple[()]]:
        return Derived, ()

    def of(self, make: Callable[[], Made], *sources: Tensor) -> Made:
        """What `make` makes, which must depend on `sources` alone."""
        if any(source.is_inference() for source in sources):  # changes of these leave no trace
            return make()
        if self._value is None or not self._fresh(sources):
            self._value = make()
            self._sources = [(ref(source), *_state(source)) for source in sources]
        made: Made = self._value
        return made

    def _fresh(self, sources: tuple[Tensor, ...]) -> bool:
        pairs = zip(self._sources, sources, strict=True)
        return all(mark[0]() is now and mark[1:] == _state(now) for mark, now in pairs)


def _state(tensor: Tensor) -> tuple[int, int, torch.dtype]:
    return tensor.data_ptr(), tensor._version, tensor.dtype


def _after(gelu: bool) -> tuple[str, list[Any], str]:
    """oneDNN's words for what follows a product."""
    return ("gelu", [], "none") if gelu else ("none", [], "")
