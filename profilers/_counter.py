"""Counts the multiply-accumulates (MACs) of one forward pass, operation by operation.

fvcore traces the model and asks a handler per operation; its "flops" are MACs. Its own handlers
stand for matrix products, convolutions and norms (5 per element: the convention behind SUPERB's
published column). Added here is what our encoders run and fvcore does not know: attention and the
Fourier transform. An operation that has neither a handler nor a place on the list of free ones is
an error: a cost that silently reads 0 is worse than none.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import torch
from fvcore.nn import FlopCountAnalysis
from fvcore.nn.jit_handles import get_shape
from torch import Tensor, nn

from core.errors import InputError
from encoders.model import Encoder
from profilers._base import home_of

#: Free beside what fvcore itself ignores: at most a few steps per element, where the operations
#: with handlers take hundreds. In order: arithmetic, activations, comparisons, reductions, movement
#: and views, bits, tables.
FREE = (
    "abs", "add", "add_", "div", "exp", "log", "log1p", "mul", "mul_", "neg", "pow", "reciprocal",
    "rsqrt", "rsub", "sqrt", "square", "sub", "sub_",
    "gelu", "log_softmax", "sigmoid", "silu", "softmax", "tanh",
    "all", "any", "clamp_max", "clamp_min", "le", "logical_and", "logical_not", "logical_or", "lt",
    "masked_fill_", "maximum", "minimum", "ne", "round", "sign", "where",
    "cumprod", "cumsum", "mean", "norm", "std", "sum", "var", "_weight_norm",
    "as_strided", "clone", "diff", "embedding", "flip", "imag", "index_select", "lift_fresh", "mT",
    "movedim", "new_ones", "numel", "ones_like", "pad", "real", "repeat", "unflatten", "unfold",
    "view_as",
    "__and__", "__rshift__", "__xor__",
    "hann_window", "linspace",
)  # fmt: skip


def count(encoder: Encoder, samples: int) -> dict[str, Counter[str]]:
    """MACs of encoding one waveform of that many samples: module path -> operation -> MACs.

    An operation counts for the innermost module whose call ran it and for no other, so the sum over
    modules is the total. The encoder's own path is "".

    Raises:
        InputError: the encoder runs an operation that cannot be counted.
    """
    waveform = torch.zeros(1, samples, device=home_of(encoder))
    analysis = FlopCountAnalysis(_States(encoder), waveform).set_op_handle(**HANDLERS)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    nested = analysis.by_module_and_operator()
    _refuse_unknown(analysis)
    return _own(
        {
            path.removeprefix("encoder").removeprefix("."): counts
            for path, counts in nested.items()
            if path
        }
    )


class _States(nn.Module):
    """The encoder with a plain tuple of tensors as output, all that a trace can return."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, waveforms: Tensor) -> tuple[Tensor, ...]:
        hidden = self.encoder(waveforms)
        return (*hidden.states, *(() if hidden.depths is None else (hidden.depths,)))


def _refuse_unknown(analysis: FlopCountAnalysis) -> None:
    unknown = analysis.unsupported_ops()
    if not unknown:
        return
    operation = min(unknown)
    paths = [path for path in analysis.by_module() if analysis.unsupported_ops(path)[operation]]
    raise InputError(
        f"MACs of operation {operation!r} in module {max(paths, key=len)!r} cannot be counted; "
        "give it a handler, or a place among the free operations, in profilers/_counter.py"
    )


def _own(nested: dict[str, Counter[str]]) -> dict[str, Counter[str]]:
    """Counts without those of the modules inside."""
    own = {path: counts.copy() for path, counts in nested.items()}
    for path, counts in nested.items():
        if path:
            own[path.rpartition(".")[0]].subtract(counts)
    return {path: +counts for path, counts in own.items()}


def _attention(inputs: list[Any], outputs: list[Any]) -> int:
    """QK^T and the weighted sum of the values: T_q T_k (d_qk + d_v) for each head.

    The shapes are those that were run: heads that share a call are as wide as the widest.
    """
    (*batch, queries, width), key, value = (get_shape(tensor) for tensor in inputs[:3])
    return math.prod(batch) * queries * key[-2] * (width + value[-1])


def _index_add(inputs: list[Any], outputs: list[Any]) -> int:
    """One per element that is added: the sums of integrate-and-fire weigh each of their terms."""
    return math.prod(get_shape(inputs[3]))


def _fourier(inputs: list[Any], outputs: list[Any]) -> int:
    """Fast Fourier transforms of n real points: 5/4 n log2 n each, rounded up.

    A radix-2 transform takes 5 n log2 n floating-point operations (Cooley and Tukey 1965); two of
    them make one MAC, and real input halves the work.
    """
    points, dim = inputs[1].toIValue(), inputs[2].toIValue()
    points = get_shape(inputs[0])[dim] if points is None else points
    spectrum = get_shape(outputs[0])
    return math.prod(spectrum) // spectrum[dim] * math.ceil(1.25 * points * math.log2(points))


def _refuse(inputs: list[Any], outputs: list[Any]) -> int:
    raise InputError(
        "MACs cannot be counted through scripted control flow (prim::If, prim::Loop); "
        "profile the encoder before torch.jit.script"
    )


HANDLERS: dict[str, Any] = {
    "aten::scaled_dot_product_attention": _attention,
    "aten::fft_rfft": _fourier,
    "aten::index_add": _index_add,
    "prim::If": _refuse,
    "prim::Loop": _refuse,
    **{f"aten::{name}": None for name in FREE},
}
