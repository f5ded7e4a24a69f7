"""An encoder under gates: dimensions of heads, FFN units and whole sub-layers that can close.

A dimension of a head's q/k, one of its v/out and a unit of the FFN each own two vectors of weights
as wide as the model: sparsities are counted in these.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from compressors._gates import chance_open
from core.errors import Unsupported
from core.spec import ROLES, LayerSpec, ModelSpec
from encoders import roles
from encoders.cut import keep_dims, keep_heads, keep_units
from encoders.model import Encoder, Hidden

#: Log alphas before any training: the mean in each layer, the deviation by the L1 norms of what is
#: gated, and those of sub-layers, which should be the last to close.
START, SPREAD, START_LAYER = 1.5, 0.5, 4.0

#: The value of a gate that has closed and that a rate needs open all the same.
AJAR = 0.05


class Masks(NamedTuple):
    """What one layer is multiplied by, values in [0, 1].

    qk, vo: per dimension of all heads. units: (ffn,). attention, feed: () of the sub-layers.
    """

    qk: Tensor
    vo: Tensor
    units: Tensor
    attention: Tensor
    feed: Tensor


class LayerGates(nn.Module):
    """The gates of one layer. Unless `fine`, a head has one for all of its dimensions."""

    def __init__(self, layer: LayerSpec, norms: Masks, fine: bool) -> None:
        super().__init__()
        self.layer = layer
        if fine:
            starts = {"qk": _start(norms.qk), "vo": _start(norms.vo)}
        else:
            starts = {"head": _start(_sums(norms.qk, layer.qk) + _sums(norms.vo, layer.vo))}
        starts["int"] = _start(norms.units)
        starts |= {name: torch.tensor(START_LAYER) for name in ("mha", "ffn")}
        self.log_alphas = nn.ParameterDict(starts)

    def masks(self, value: Callable[[Tensor], Tensor]) -> Masks:
        """The values that a function gives the gates, each at all that its gate multiplies."""
        values = {name: value(alphas) for name, alphas in self.log_alphas.items()}
        if "head" in values:
            values["qk"] = _repeated(values["head"], self.layer.qk)
            values["vo"] = _repeated(values["head"], self.layer.vo)
        return Masks(*(values[name] for name in ("qk", "vo", "int", "mha", "ffn")))


class Gated(nn.Module):
    """A copy of an encoder that computes with its weights times `masks`, one set per layer."""

    def __init__(self, encoder: Encoder, fine: bool = True) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder).requires_grad_(True)
        self.gates = nn.ModuleList(
            LayerGates(layer, _norms(encoder, index), fine)
            for index, layer in enumerate(encoder.spec.layers)
        )
        self.masks: list[Masks] = self.values(torch.ones_like)

    @property
    def front_end(self) -> nn.Module:
        return self.encoder.front_end

    def features(self, waveforms: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        """As `Encoder.features`."""
        return self.encoder.features(waveforms, *rest)

    def encode(self, features: Tensor, *rest: Any) -> Hidden:
        """As `Encoder.encode`."""
        weights = {f"encoder.{name}": w for name, w in masked(self.encoder, self.masks).items()}
        return functional_call(self, weights, (features, *rest))

    def forward(self, features: Tensor, *rest: Any) -> Hidden:
        return self.encoder.encode(features, *rest)

    def values(self, value: Callable[[Tensor], Tensor]) -> list[Masks]:
        """Per layer the masks of those values of the gates."""
        return [gates.masks(value) for gates in self.gates]  # type: ignore[operator]

    def sparsity(self) -> Tensor:
        """The share of the layers' weights that is expected to be 0, in closed form.

        A weight stays with the product of the chances of all gates above it.
        """
        layers = self.values(chance_open)
        left = [m.attention * (m.qk.sum() + m.vo.sum()) + m.feed * m.units.sum() for m in layers]
        return 1 - torch.stack(left).sum() / sum(map(_width, layers))


def masked(encoder: Encoder, masks: Sequence[Masks]) -> dict[str, Tensor]:
    """Name -> tensor of those weights of the encoder that masks multiply.

    Those of q/k scale q, those of v/out and of units what these feed into, those of a sub-layer all
    that it adds to its input, the bias included.
    """
    weights: dict[str, Tensor] = {}
    for index, own in enumerate(masks):
        for role, of_weight, of_bias in (
            ("q", own.qk[:, None], own.qk),
            ("out", own.vo * own.attention, own.attention),
            ("fc2", own.units * own.feed, own.feed),
        ):
            name, linear = roles.path(index, role), roles.linear(encoder, index, role)
            weights[f"{name}.weight"] = linear.weight * of_weight
            weights[f"{name}.bias"] = linear.bias * of_bias
    return weights


def cut(encoder: Encoder, masks: Sequence[Masks]) -> Encoder:
    """The encoder that computes what the masked one does: zeros cut out, other values folded in.

    A head without v/out goes; one without q/k stays and attends by position alone.
    """
    folded = copy.deepcopy(encoder).cpu()
    with torch.no_grad():
        folded.load_state_dict(masked(folded, masks), strict=False)
    qk: list[list[list[int]]] = []
    vo: list[list[list[int]]] = []
    for layer, own in zip(encoder.spec.layers, masks, strict=True):
        vo.append([_open(part * own.attention) for part in own.vo.split(layer.vo)])
        parts = zip(own.qk.split(layer.qk), vo[-1], strict=True)
        qk.append([_open(part) if used else [] for part, used in parts])
    heads = [[head for head, used in enumerate(own) if used] for own in vo]
    units = [_open(own.units * own.feed) for own in masks]
    return keep_units(keep_heads(keep_dims(folded, qk, vo), heads), units).eval()


def weights(spec: ModelSpec) -> int:
    """Weights of the Transformer layers' linear maps, biases apart."""
    shapes = [own.linear_shape(role, spec.dim) for own in spec.layers for role in ROLES]
    return sum(map(math.prod, shapes))


def refusal(spec: ModelSpec, rate: float) -> Unsupported | None:
    """Why that share of the layers' weights cannot be cut, or None."""
    units = weights(spec) / (2 * spec.dim)
    if (1 - rate) * units >= 1:
        return None
    return Unsupported(
        f"a sparsity of {rate:g} leaves none of the layers' {units:.0f} dimensions and units; "
        "ask for a lower rate"
    )


@torch.no_grad()
def masks_at(gated: Gated, rate: float, value: Callable[[Tensor], Tensor]) -> list[Masks]:
    """Masks of those values, but closing the share `rate` of the layers' weights, or next to it.

    Sub-layers go whose gates are closed, so far as the rate has room for it, and then the
    dimensions and units of lowest log alpha.
    """
    alphas = gated.values(lambda alpha: alpha.float().cpu())
    values = gated.values(lambda alpha: value(alpha.float().cpu()))
    wanted = round((1 - rate) * sum(map(_width, alphas)))
    ranks = [
        _ranks(layer, own, live)
        for layer, own, live in zip(
            gated.encoder.spec.layers, alphas, _live(alphas, values, wanted), strict=True
        )
    ]
    threshold = _threshold(torch.cat([torch.cat(parts[:3]) for parts in ranks]), wanted)
    return [
        Masks(*(v.clamp(min=AJAR) * (r >= threshold) for v, r in zip(own, parts, strict=True)))
        for own, parts in zip(values, ranks, strict=True)
    ]


def _live(alphas: list[Masks], values: list[Masks], wanted: int) -> list[tuple[bool, bool]]:
    """Per layer whether attention and FFN stay; closed ones go, lowest first, if enough is left."""
    closed = sorted(
        (float(alpha), index, place)
        for index, (own, value) in enumerate(zip(alphas, values, strict=True))
        for place, alpha in enumerate(own[3:])
        if value[3 + place] == 0
    )
    sizes = [[len(own.qk) + len(own.vo), len(own.units)] for own in alphas]
    left, gone = sum(map(sum, sizes)), set()
    for _, index, place in closed:
        if left - sizes[index][place] >= wanted:
            left -= sizes[index][place]
            gone.add((index, place))
    return [((i, 0) not in gone, (i, 1) not in gone) for i in range(len(alphas))]


def _ranks(layer: LayerSpec, alphas: Masks, live: tuple[bool, bool]) -> Masks:
    """By what thresholds are compared with: the log alpha, -inf where the sub-layer has gone.

    A dimension of q/k goes no later than the last of v/out of its head.
    """
    attention, feed = (torch.tensor(math.inf if stays else -math.inf) for stays in live)
    vo = alphas.vo.minimum(attention)
    best = [part.max() if len(part) else -attention.abs() for part in vo.split(layer.vo)]
    last = _repeated(torch.stack(best), layer.qk) if best else alphas.qk
    return Masks(alphas.qk.minimum(last), vo, alphas.units.minimum(feed), attention, feed)


def _threshold(ranks: Tensor, wanted: int) -> float:
    """The lowest rank to keep, such that the number kept is as near as can be to the one wanted."""
    ordered = ranks[ranks > -math.inf].sort(descending=True).values
    last = ordered[min(wanted, len(ordered)) - 1]
    above, below = ordered[ordered > last], int((ordered >= last).sum())
    fewer = len(above) and wanted - len(above) < below - wanted
    return float(above[-1] if fewer else last)


def _norms(encoder: Encoder, layer: int) -> Masks:
    """The L1 norms of what each gate multiplies and of what leads there; 0 for the sub-layers."""

    def sizes(role: str) -> Tensor:
        return roles.linear(encoder, layer, role).weight.detach().float().abs()

    return Masks(
        sizes("q").sum(1) + sizes("k").sum(1),
        sizes("v").sum(1) + sizes("out").sum(0),
        sizes("fc1").sum(1) + sizes("fc2").sum(0),
        torch.tensor(0.0),
        torch.tensor(0.0),
    )


def _start(norms: Tensor) -> Tensor:
    deviation = norms.std() if len(norms) > 1 else norms.new_ones(())
    return START + SPREAD * (norms - norms.mean()) / deviation.clamp(min=1e-9)


def _sums(x: Tensor, widths: Sequence[int]) -> Tensor:
    """(sum of widths,) -> (heads,)."""
    return torch.stack([part.sum() for part in x.split(list(widths))]) if widths else x


def _repeated(x: Tensor, widths: Sequence[int]) -> Tensor:
    """(heads,) -> (sum of widths,)."""
    return x.repeat_interleave(torch.tensor(widths, dtype=torch.long, device=x.device))


def _width(masks: Masks) -> int:
    return len(masks.qk) + len(masks.vo) + len(masks.units)


def _open(values: Tensor) -> list[int]:
    return values.nonzero()[:, 0].tolist()
