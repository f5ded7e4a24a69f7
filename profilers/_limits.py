"""What a device could do at best: the rate of matrix products and the bandwidth of its memory.

Both are measured, on the device, threads and numeric type that a model is timed with, so that
beside a latency stands the time that its matrix products and its weights would take alone (the
roofline of Williams et al. 2009): a model cannot be faster, and how near it comes tells what is
left to be gained.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from core.runtime import Runtime
from core.spec import ROLES, ConvFrontEnd, LayerSpec, ModelSpec
from encoders.linear import Linear
from encoders.model import DTYPES, Encoder
from encoders.workload import Workload
from profilers._base import Unavailable, weights_bytes
from profilers._running import cast, running_as
from profilers._ways import Way, ways_of

#: Rows, inputs and outputs of products that stand for all others; the fastest is the limit.
PRODUCTS = {"cpu": ((512, 768, 3072), (1024, 1024, 1024)), "cuda": ((8192, 8192, 8192),)}

#: Rounds of a probe, of which the fastest counts, and how long one lasts.
ROUNDS, ROUND_SECONDS = 7, 0.01


@dataclass(frozen=True)
class Limit:
    """The least time for some utterances at batch 1, and what it follows from.

    macs: of all products. bytes: of the weights, read once for every utterance. macs_per_s and
    bytes_per_s: what was measured.
    """

    seconds: float
    macs: int
    bytes: int
    macs_per_s: float
    bytes_per_s: float


def limit(encoder: Encoder, workload: Workload, runtime: Runtime) -> Limit:
    """What encoding the workload, utterance by utterance, takes at best.

    Weights that fit into a cache are read at the cache's speed: the bandwidth is that of a block of
    their size.

    Raises:
        Unavailable: the weights are integers, whose products have a rate of their own, or another
            engine than torch has its own products.
    """
    if runtime.engine != "torch":
        raise Unavailable(f"the rate of products is probed in torch, not in {runtime.engine}")
    if any(layer.numeric != "float" for layer in encoder.spec.layers):
        raise Unavailable("integer products have a rate of their own, which is not probed")
    size = weights_bytes(cast(encoder, runtime.dtype))
    macs = [products(encoder.spec, way) for way in ways_of(encoder, workload)]
    rate = _product_rate(runtime, runtime.dtype or encoder.spec.dtype)
    bandwidth = _bandwidth(runtime, 1 << (size.bit_length() - 1))  # few sizes: few are probed
    seconds = sum(max(own / rate, size / bandwidth) for own in macs)
    return Limit(seconds, sum(macs), size * len(macs), rate, bandwidth)


def products(spec: ModelSpec, way: Way) -> int:
    """MACs of the convolutions and matrix products alone that an utterance needs."""
    frames, tokens, front_end = spec.frames(way.samples), way.tokens, spec.front_end
    macs = frames * front_end.dim * spec.dim if spec.project else 0
    if isinstance(front_end, ConvFrontEnd):
        widths = (1, *front_end.channels)
        shapes = zip(widths, widths[1:], front_end.kernels, strict=False)
        counts = front_end.frame_counts(way.samples)
        macs += sum(n * a * b * k for n, (a, b, k) in zip(counts, shapes, strict=True))
    if spec.positions.conv_kernel:
        each = tokens * spec.positions.conv_kernel * spec.dim**2 // spec.positions.conv_groups
        macs += each * max(1, spec.positions.conv_stacked)
    return macs + sum(_layer(spec, layer, tokens) for layer in spec.layers[: way.depth])


def _layer(spec: ModelSpec, layer: LayerSpec, tokens: int) -> int:
    scores = tokens**2 * (sum(layer.qk) + sum(layer.vo))
    return scores + tokens * sum(layer.weights(role, spec.dim) for role in ROLES)


@cache
def _product_rate(runtime: Runtime, dtype: str) -> float:
    """Multiply-accumulates per second of the fastest product."""
    seconds = []
    for rows, inputs, outputs in PRODUCTS["cuda" if runtime.cuda else "cpu"]:
        with torch.random.fork_rng(devices=[]):
            ours = Linear(inputs, outputs, bias=False).to(runtime.device, DTYPES[dtype])
            x = torch.randn(rows, inputs).to(runtime.device, DTYPES[dtype])
        ways = (partial(ours, x), partial(F.linear, x, ours.weight))
        best = min(_fastest(way, runtime) for way in ways)
        seconds.append(best / (rows * inputs * outputs))
    return 1 / min(seconds)


@cache
def _bandwidth(runtime: Runtime, size: int) -> float:
    """Bytes per second of reading, or copying, a block as large as the weights."""
    count = max(size, 1 << 20) // 4
    block = torch.ones(count, device=runtime.device)
    target = torch.empty_like(block)
    read = 4 * count / _fastest(block.sum, runtime)
    return max(read, 8 * count / _fastest(lambda: target.copy_(block), runtime))


def _fastest(work: Callable[[], Tensor], runtime: Runtime) -> float:
    """Seconds of one call, in the fastest of a few rounds of many."""
    with running_as(runtime):
        calls = max(1, int(ROUND_SECONDS / _round(work, 3, runtime)))
        return min(_round(work, calls, runtime) for _ in range(ROUNDS))


def _round(work: Callable[[], Tensor], calls: int, runtime: Runtime) -> float:
    _wait(runtime)
    start = time.perf_counter()
    for _ in range(calls):
        work()
    _wait(runtime)
    return (time.perf_counter() - start) / calls


def _wait(runtime: Runtime) -> None:
    if runtime.cuda:
        torch.cuda.synchronize(runtime.device)
