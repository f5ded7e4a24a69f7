"""Runs encoders as a `Runtime` says: device, numeric type, kernels, compilation, CUDA graphs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from core.errors import InputError, Unsupported
from core.runtime import Runtime
from core.spec import SAMPLE_RATE
from encoders.model import Encoder, Hidden, from_state
from profilers._base import evaluating, pinned
from profilers._session import Session, check_installed
from profilers._ways import depends_on_content

#: waveforms (batch, samples), lengths (batch,) or None -> hidden states.
Forward = Callable[..., Hidden]

KERNELS = {
    "math": SDPBackend.MATH,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}


@contextmanager
def running(models: Sequence[Encoder | Session], runtime: Runtime) -> Iterator[list[Forward]]:
    """A function per model that runs it without gradients; afterwards all is as it was.

    Raises:
        InputError: there is no such device here.
        Unsupported: an encoder does not exist in that way.
    """
    with running_as(runtime), ExitStack() as stack:
        yield [_forward(stack, model, runtime) for model in models]


def check(runtime: Runtime) -> None:
    """Refuse a device or an engine that is not here.

    Raises:
        InputError: there is none, or fewer devices.
    """
    if runtime.engine == "onnxruntime":
        check_installed()
    if not runtime.cuda:
        return
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (torch.device(runtime.device).index or 0) >= count:
        raise InputError(
            f"device {runtime.device!r}: torch sees {count or 'no'} GPU{'s' * (count != 1)} here; "
            "give --device cpu" + (f" or cuda:0 to cuda:{count - 1}" if count else "")
        )


def named(runtime: Runtime) -> str:
    """The device as its maker calls it; of a CPU the record's environment tells."""
    return torch.cuda.get_device_name(runtime.device) if runtime.cuda else runtime.device


def _forward(stack: ExitStack, model: Encoder | Session, runtime: Runtime) -> Forward:
    if isinstance(model, Session):
        return model
    ready = stack.enter_context(evaluating(cast(model, runtime.dtype), runtime.device))
    if runtime.compile:
        return torch.compile(ready, dynamic=True)
    return _Graphed(ready) if runtime.cuda_graphs else ready


def cast(encoder: Encoder, dtype: str | None) -> Encoder:
    """The encoder in that numeric type: itself where it is in it, otherwise a copy."""
    if dtype in (None, encoder.spec.dtype):
        return encoder
    spec = replace(encoder.spec, dtype=dtype)  # type: ignore[arg-type]  # Runtime has checked it
    with torch.inference_mode(False):  # of tensors made within it nothing folded is ever kept
        return from_state(spec, encoder.state_dict())


@contextmanager
def running_as(runtime: Runtime) -> Iterator[None]:
    """torch's process-wide settings as the runtime wants them, and no gradients, for a while.

    Raises:
        InputError: there is no such device here.
    """
    check(runtime)
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    kernel = KERNELS.get(runtime.attention)
    try:
        # Convolutions would take TF32 by default, products not: here it is both or neither.
        matmul.allow_tf32 = cudnn.allow_tf32 = runtime.tf32
        with (
            pinned(runtime.threads),
            sdpa_kernel([kernel]) if kernel else nullcontext(),
            torch.inference_mode(),
        ):
            yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


class _Graphed:
    """Captures a CUDA graph at the first waveforms of a shape, and replays it for the others.

    The hidden states are overwritten by the next call of the same shape.
    """

    def __init__(self, encoder: Encoder) -> None:
        if what := depends_on_content(encoder.spec):
            raise Unsupported(f"a CUDA graph is one path, and the {what} depend on what is said")
        self.encoder = encoder
        self.graphs: dict[torch.Size, tuple[torch.cuda.CUDAGraph, Tensor, Hidden]] = {}

    def __call__(self, waveforms: Tensor, lengths: Tensor | None = None) -> Hidden:
        if lengths is not None:
            raise Unsupported("a CUDA graph has one shape, and padded batches have many")
        if waveforms.shape not in self.graphs:
            self.graphs[waveforms.shape] = self._capture(waveforms.clone())
        graph, read, hidden = self.graphs[waveforms.shape]
        read.copy_(waveforms)
        graph.replay()
        return hidden

    def _capture(self, waveforms: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Hidden]:
        # Libraries choose their kernels in the first runs, which no graph may record.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.encoder(waveforms)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            hidden = self.encoder(waveforms)
        return graph, waveforms, hidden


@contextmanager
def told(samples: int) -> Iterator[None]:
    """Make a lack of memory while utterances of so many samples are encoded one clear sentence.

    Raises:
        InputError: there was not enough.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # on a GPU torch.OutOfMemoryError, a RuntimeError
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and not _LACK.search(
            str(error)
        ):
            raise
        first = str(error).strip().partition("\n")[0]
        raise InputError(
            f"an utterance of {samples / SAMPLE_RATE:.1f} s takes more memory than there is "
            f"({first}); take shorter ones, or a device with more"
        ) from error


#: What torch's allocator for CPUs says when the system gives it nothing.
_LACK = re.compile("can't allocate memory|not enough memory")
