"""What heads matter to the loss: how it changes with what each of them says (Lin et al. 2022)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from encoders.model import Encoder
from encoders.roles import head_slices, linear


def gradient_scores(
    encoder: Encoder, losses: Callable[[Encoder], Iterable[Tensor]]
) -> list[Tensor]:
    """Per layer the score of each head (heads,): mean over the batches, as a share of the layer's.

    Of each frame the absolute product of a head's context, its output in front of `out`, and the
    loss's gradient to it, both (width of the head,); summed over the frames, and divided by the L2
    norm of the layer's scores (Michel et al. 2019, arXiv 1905.10650, eq. 3; arXiv 2211.09949).
    losses: what the encoder's losses on some batches are, computed one by one.
    """
    layers = [i for i, layer in enumerate(encoder.spec.layers) if any(layer.vo)]
    sums = [torch.zeros(len(layer.heads)) for layer in encoder.spec.layers]
    batches = 0
    with _contexts(encoder, layers) as contexts:
        for loss in losses(encoder):
            gradients = torch.autograd.grad(loss, [contexts[i] for i in layers])
            for layer, gradient in zip(layers, gradients, strict=True):
                product = (contexts[layer].detach() * gradient).float().cpu()
                heads = [product[..., part].sum(-1) for _, part in head_slices(encoder, layer)]
                sums[layer] += torch.stack([head.abs().sum() for head in heads])
            batches += 1
    means = [total / max(1, batches) for total in sums]
    return [mean / mean.norm().clamp(min=1e-20) for mean in means]


@contextmanager
def _contexts(encoder: Encoder, layers: list[int]) -> Iterator[dict[int, Tensor]]:
    """What last went into `out` of these layers (batch, time, widths of all heads)."""
    contexts: dict[int, Tensor] = {}

    def keep(layer: int, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        contexts[layer] = inputs[0]

    with ExitStack() as stack:
        for layer in layers:
            out = linear(encoder, layer, "out")
            stack.callback(out.register_forward_pre_hook(partial(keep, layer)).remove)
        yield contexts
