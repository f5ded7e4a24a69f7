"""One Transformer layer whose every width may differ from its neighbours'."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.spec import LayerSpec, ModelSpec
from encoders import kernels
from encoders.linear import Linear
from encoders.positions import Gate, pick
from encoders.quantized import Quantized

#: Added to the score of a padded key: exp() of it is 0 in every numeric type, and unlike -inf it
#: leaves an utterance without a single valid frame finite.
EXCLUDED = -1e4


class LowRank(nn.Module):
    """A linear map through a bottleneck: x -> up(down(x)), its weight the product U @ V."""

    def __init__(self, spec: LayerSpec, inputs: int, outputs: int, rank: int) -> None:
        super().__init__()
        self.down = _linear(spec, inputs, rank, bias=False)
        self.up = _linear(spec, rank, outputs)

    @property
    def weight(self) -> Tensor:
        """The full matrix (outputs, inputs)."""
        return self.up.weight @ self.down.weight

    @property
    def bias(self) -> Tensor:
        return self.up.bias

    @property
    def in_features(self) -> int:
        return self.down.in_features

    @property
    def out_features(self) -> int:
        return self.up.out_features

    def forward(self, x: Tensor, gelu: bool = False) -> Tensor:
        return self.up(self.down(x), gelu)


def linear_for(spec: LayerSpec, dim: int, role: str) -> Linear | Quantized | LowRank:
    """The linear map in that role, full or factored, of floats or integers, as the spec says."""
    outputs, inputs = spec.linear_shape(role, dim)
    rank = spec.rank(role)
    if rank is not None:
        return LowRank(spec, inputs, outputs, rank)
    return _linear(spec, inputs, outputs)


def _linear(spec: LayerSpec, inputs: int, outputs: int, bias: bool = True) -> Linear | Quantized:
    if spec.numeric != "float" and inputs > 1 and outputs:  # torchao has no blocks of one number
        return Quantized(inputs, outputs, spec.numeric, spec.group, bias)
    with warnings.catch_warnings():
        # A layer may keep no head or no unit; torch warns that it has nothing to initialise.
        warnings.filterwarnings("ignore", "Initializing zero-element tensors")
        return Linear(inputs, outputs, bias)


class Attention(nn.Module):
    """Self-attention over the kept heads; without any it contributes the bias of `out` alone.

    In inference on CPUs heads of unequal widths are padded to one width, which torch's fast kernels
    ask for: where that is cheap once, by weights of 0, else frame by frame.
    """

    def __init__(self, layer: LayerSpec, model: ModelSpec) -> None:
        super().__init__()
        self.heads, self.qk, self.vo = layer.heads, layer.qk, layer.vo
        self.scale = model.head_dim**-0.5
        self.q = linear_for(layer, model.dim, "q")
        self.k = linear_for(layer, model.dim, "k")
        self.v = linear_for(layer, model.dim, "v")
        self.out = linear_for(layer, model.dim, "out")
        gated = bool(model.positions.gated_buckets and layer.heads)
        self.gate = Gate(layer.heads, model.head_dim) if gated else None
        self.widest = max((1, *layer.qk, *layer.vo))
        padded = 3 * len(layer.heads) * self.widest - 2 * sum(layer.qk) - sum(layer.vo)
        self.surplus = padded * model.dim  # products per frame with weights of 0
        self.even = kernels.Derived()

    def forward(self, x: Tensor, bias: Tensor | None, padding: Tensor | None) -> Tensor:
        """x (batch, time, dim) -> the same shape.

        bias: (1, all heads, time, time) or None. padding: True at padded keys, (batch, 1, 1, time).
        """
        if not any(self.vo):
            return self.out(x.new_zeros(*x.shape[:2], 0))
        fast = kernels.apply(x, self.out.bias)
        light = fast and x.shape[1] * self.surplus <= kernels.SPARE * len(self.heads)
        if fast and kernels.attends(x.shape[1], light):
            widths, add = list(zip(self.qk, self.vo, strict=True)), self._adder(x, bias, padding)
            queries, keys, values = self.q(x) * self.scale, self.k(x), self.v(x)
            return self.out(kernels.attend(queries, keys, values, widths, add))
        mask = self._mask(x, bias, padding)
        if light and self.surplus and self._is_plain():
            return self._evenly(x, mask)
        width = self.widest if fast else 0
        queries, keys = (split_heads(own(x), self.qk, width) for own in (self.q, self.k))
        values = split_heads(self.v(x), self.vo, width)
        context = F.scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, scale=self.scale
        )
        return self.out(join_heads(context, self.vo))

    def _is_plain(self) -> bool:
        """Whether the maps are one matrix each, of floats, and nothing listens to them."""
        return all(
            isinstance(own, Linear) and not own._forward_hooks and not own._forward_pre_hooks
            for own in (self.q, self.k, self.v, self.out)
        )

    def _evenly(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """What `forward` makes of x, by weights that are padded to heads of one width."""
        sources = [part for own in (self.q, self.k, self.v, self.out) for part in own.parameters()]
        weight, bias, out = self.even.of(self._padded, *sources)
        heads = kernels.linear(x, weight, bias).view(*x.shape[:2], 3, len(self.heads), self.widest)
        queries, keys, values = heads.permute(2, 0, 3, 1, 4)
        context = F.scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, scale=self.scale
        )
        return kernels.linear(context.transpose(1, 2).flatten(2), out, self.out.bias)

    def _padded(self) -> tuple[Tensor, Tensor, Tensor]:
        """Weight and bias of q, k and v in one, and the weight of `out`."""
        maps = ((self.q, self.qk), (self.k, self.qk), (self.v, self.vo))
        rows = [pad_heads(own.weight.T, widths, self.widest) for own, widths in maps]
        biases = [pad_heads(own.bias, widths, self.widest) for own, widths in maps]
        out = pad_heads(self.out.weight, self.vo, self.widest)
        return torch.cat(rows, dim=-1).T.contiguous(), torch.cat(biases), out

    def maps(self, x: Tensor, bias: Tensor | None, padding: Tensor | None) -> Tensor:
        """How much of each key a query takes, (batch, heads, time, time); arguments as `forward`'s.

        The fused attention of `forward` does not tell.
        """
        queries, keys = split_heads(self.q(x), self.qk), split_heads(self.k(x), self.qk)
        scores = queries @ keys.transpose(-1, -2) * self.scale
        mask = self._mask(x, bias, padding)
        return (scores if mask is None else scores + mask).softmax(-1)

    def _mask(self, x: Tensor, bias: Tensor | None, padding: Tensor | None) -> Tensor | None:
        """What is added to the scores, broadcastable to (batch, heads, time, time)."""
        if bias is None:
            if padding is None:
                return None
            return torch.zeros_like(padding, dtype=x.dtype).masked_fill_(padding, EXCLUDED)
        bias = pick(bias, self.heads)
        if self.gate is not None:
            bias = self.gate(x) * bias
        return bias if padding is None else bias.masked_fill(padding, EXCLUDED)

    def _adder(
        self, x: Tensor, bias: Tensor | None, padding: Tensor | None
    ) -> Callable[[Tensor, int, int], None]:
        """What adds a head's part of `_mask` to its scores, without making the whole of it."""
        bias = None if bias is None else pick(bias, self.heads)
        gate = None if self.gate is None or bias is None else self.gate(x)

        def add(scores: Tensor, item: int, head: int) -> None:
            if bias is not None:
                own = bias[item % len(bias), head]
                scores.add_(own) if gate is None else scores.addcmul_(gate[item, head], own)
            if padding is not None:
                scores.masked_fill_(padding[item % len(padding), 0], EXCLUDED)

        return add


def split_heads(x: Tensor, widths: Sequence[int], width: int = 0) -> Tensor:
    """(batch, time, sum of widths) -> (batch, heads, time, width), padded by 0.

    width: at least that of the widest head, which it is by default.
    """
    width = width or max((1, *widths))
    padded = pad_heads(x, widths, width)
    return padded.view(*x.shape[:2], len(widths), width).transpose(1, 2)


def pad_heads(x: Tensor, widths: Sequence[int], width: int) -> Tensor:
    """(..., sum of widths) -> (..., heads * width), x itself where nothing is to be padded."""
    if all(own == width for own in widths):
        return x
    parts = x.split(list(widths), dim=-1)
    return torch.cat([F.pad(part, (0, width - part.shape[-1])) for part in parts], dim=-1)


def join_heads(x: Tensor, widths: Sequence[int]) -> Tensor:
    """The inverse of `split_heads`."""
    widest = x.shape[-1]
    x = x.transpose(1, 2)
    if all(width == widest for width in widths):
        return x.flatten(2)
    return torch.cat([x[:, :, head, :width] for head, width in enumerate(widths)], dim=-1)


class Layer(nn.Module):
    """Attention and feed-forward network, each with its residual path and LayerNorm."""

    def __init__(self, layer: LayerSpec, model: ModelSpec) -> None:
        super().__init__()
        self.norm_first = model.norm_first
        self.attention = Attention(layer, model)
        self.attention_norm = nn.LayerNorm(model.dim)
        self.fc1 = linear_for(layer, model.dim, "fc1")
        self.fc2 = linear_for(layer, model.dim, "fc2")
        self.ffn_norm = nn.LayerNorm(model.dim)

    def forward(self, x: Tensor, bias: Tensor | None, padding: Tensor | None) -> Tensor:
        """x (batch, time, dim) -> the same shape; bias and padding as `Attention` takes them."""
        if self.norm_first:
            x = x + self.attention(self.attention_norm(x), bias, padding)
            return x + self.fc2(self.fc1(self.ffn_norm(x), gelu=True))
        x = self.attention_norm(x + self.attention(x, bias, padding))
        return self.ffn_norm(x + self.fc2(self.fc1(x, gelu=True)))
