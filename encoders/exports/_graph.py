"""An encoder as one graph of tensor operations, for exporters that follow it once.

They know the sizes of what passes, as symbols, but no numbers: what depends on what is said cannot
be left out of the graph.
"""

from __future__ import annotations

from dataclasses import replace
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from core.errors import Unsupported
from core.spec import ModelSpec
from encoders.exporting import export
from encoders.exports._integers import multiply
from encoders.model import Encoder, from_state
from encoders.quantized import Quantized

#: What is followed: a batch, as one utterance alone would make the batch a constant, of an odd
#: number of samples, whose divisors nothing can rely on.
SAMPLES = 16411

JOINED = (
    "how many tokens an utterance is joined to depends on what is said: the layers of this graph "
    "run on as many places as there are frames, which gives the same states and saves nothing"
)


class Graph(nn.Module):
    """waveforms (batch, samples), lengths (batch,) -> states (L + 1, batch, T, dim), frames."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.encoder(waveforms, lengths)
        return torch.stack(hidden.states), hidden.lengths


def prepare(encoder: Encoder) -> Graph:
    """A copy in float32: weights without their parametrisation, integers by plain operations.

    Raises:
        Unsupported: an utterance may leave early.
    """
    spec = encoder.spec
    if spec.exits is not None and spec.exits.threshold > 0:
        raise Unsupported(
            f"with a threshold of {spec.exits.threshold:g} an utterance leaves where the model is "
            "sure, and a graph has one way; export it to huggingface or s3prl"
        )
    plain = replace(spec, dtype="float32", exits=None)
    state = {
        name: tensor.clone()
        for name, tensor in encoder.state_dict().items()
        if not name.startswith("exits.")
    }
    copy = from_state(plain, state).eval().requires_grad_(False)
    for module in list(copy.modules()):
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")
        if isinstance(module, Quantized):
            module._product = MethodType(multiply, module)  # type: ignore[method-assign]
    return Graph(copy)


def example() -> tuple[Tensor, Tensor]:
    """What the graph is followed with."""
    noise = torch.randn(2, SAMPLES, generator=torch.Generator().manual_seed(0))
    return 0.1 * noise, torch.tensor([SAMPLES, SAMPLES * 3 // 4])


def follow(graph: Graph) -> Any:
    """The `torch.export.ExportedProgram` of a graph, for every batch and length."""
    each = torch.export.Dim.DYNAMIC
    sizes = ({0: each, 1: each}, {0: each})
    with torch.no_grad(), export():
        return torch.export.export(graph, example(), dynamic_shapes=sizes, strict=False)


def note(spec: ModelSpec) -> str:
    """What has to be known of a graph of that spec."""
    return JOINED if spec.shortening is not None and spec.shortening.kind == "cif" else ""
