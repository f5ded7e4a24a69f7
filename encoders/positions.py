"""How the Transformer knows the order of frames: convolution, learned bias, WavLM's gated bias."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from core.errors import InputError
from core.spec import ModelSpec
from encoders.exporting import exporting
from encoders.linear import Convolution


class ConvPositions(nn.Module):
    """A grouped convolution with weight norm (wav2vec 2.0, arXiv 2006.11477, sec. 2)."""

    def __init__(self, dim: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.surplus = 1 - kernel % 2  # an even kernel gives one frame too many
        convolution = Convolution(dim, dim, kernel, padding=kernel // 2, groups=groups)
        nn.init.normal_(convolution.weight, std=math.sqrt(4.0 / (kernel * dim)))
        nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
        self.convolution = weight_norm(convolution, dim=2)

    def forward(self, x: Tensor, padded: Tensor | None = None) -> Tensor:
        """What is to be added to x (batch, time, dim), which is 0 where padded (batch, time)."""
        y = self.convolution(x, gelu=True)
        return y[:, : y.shape[1] - self.surplus]


class StackedPositions(nn.Module):
    """Convolutions one behind the other, each with LayerNorm and GELU (data2vec, arXiv 2202.03555).

    Between them padding is 0 as it is in front, so that it changes no frame of an utterance.
    """

    def __init__(self, dim: int, kernel: int, groups: int, depth: int) -> None:
        super().__init__()
        shape = {"padding": kernel // 2, "groups": groups}
        self.convolutions = nn.ModuleList(
            Convolution(dim, dim, kernel, **shape) for _ in range(depth)
        )

    def forward(self, x: Tensor, padded: Tensor | None = None) -> Tensor:
        """What is to be added to x (batch, time, dim), which is 0 where padded (batch, time)."""
        time = x.shape[1]
        for convolution in self.convolutions:
            x = F.gelu(F.layer_norm(convolution(x)[:, :time], x.shape[2:]))
            if padded is not None:
                x = x.masked_fill(padded[..., None], 0.0)
        return x


class ClippedBias(nn.Module):
    """One learned attention bias per head and distance, distances clipped at `reach` frames.

    Each head starts with a preference for its own distance, from -6 to 10 frames: without it short
    trainings leave all heads alike.
    """

    SLOPES = (0.5, 0.5, 0.5, 0.15, 0.15, 0.05, 0.3, 0.05)
    PEAKS = (-3.0, 0.0, 3.0, -6.0, 6.0, 0.0, 0.0, 10.0)

    def __init__(self, heads: int, reach: int) -> None:
        super().__init__()
        self.reach = reach
        self.table = nn.Parameter(torch.empty(heads, 2 * reach + 1))
        if not self.table.is_meta:
            self._prefer()

    @torch.no_grad()
    def _prefer(self) -> None:
        distances = torch.arange(-self.reach, self.reach + 1.0)
        head = torch.arange(len(self.table))[:, None] % len(self.SLOPES)
        slopes, peaks = torch.tensor(self.SLOPES)[head], torch.tensor(self.PEAKS)[head]
        self.table.copy_(-slopes * (distances - peaks).abs())

    def forward(self, time: int) -> Tensor:
        """The bias (heads, time, time) of query i and key j."""
        distances = _distances(time, self.table.device)
        return _spread(self.table[:, distances.clamp(-self.reach, self.reach) + self.reach])


class BucketBias(nn.Module):
    """T5's bucketed relative bias as WavLM has it (Chen et al. 2022, arXiv 2110.13900, eq. 5).

    Half of the buckets are for keys after the query. Of each half, the first half is exact, the
    rest grows logarithmically up to `longest` frames.
    """

    def __init__(self, heads: int, buckets: int, longest: int) -> None:
        super().__init__()
        self.buckets, self.longest = buckets, longest
        self.table = nn.Embedding(buckets, heads)

    def forward(self, time: int) -> Tensor:
        """The bias (heads, time, time) of query i and key j, before any gate."""
        buckets = self.bucket(_distances(time, self.table.weight.device))
        return _spread(self.table(buckets).t())

    def bucket(self, distances: Tensor) -> Tensor:
        """The bucket of each distance (key minus query, in frames)."""
        half = self.buckets // 2
        exact = half // 2
        far = distances.abs().clamp(min=1).float() / exact
        far = exact + (far.log() / math.log(self.longest / exact) * (half - exact)).long()
        near = distances.abs()
        bucket = torch.where(near < exact, near, far.clamp(max=half - 1))
        return bucket + (distances > 0) * half


class Gate(nn.Module):
    """WavLM's gate of the relative bias by a frame's content (arXiv 2110.13900, eq. 6-7).

    Head h sees its own slice of the layer's input: it is found by the head's index in the
    uncompressed layer, however many are left.
    """

    def __init__(self, heads: tuple[int, ...], head_dim: int) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, head_dim
        self.linear = nn.Linear(head_dim, 8)
        self.scale = nn.Parameter(torch.ones(len(heads)))

    def forward(self, x: Tensor) -> Tensor:
        """A factor (batch, heads, time, 1) of the bias of each query in x (batch, time, dim)."""
        batch, time, _ = x.shape
        slices = x.view(batch, time, -1, self.head_dim).transpose(1, 2)
        slices = pick(slices, self.heads)
        sums = self.linear(slices).view(batch, len(self.heads), time, 2, 4).sum(-1)
        update, reset = sums.sigmoid().chunk(2, dim=-1)
        return update * (reset * self.scale[:, None, None] - 1.0) + 2.0


def build_convolutions(spec: ModelSpec) -> ConvPositions | StackedPositions | None:
    """The positional convolutions, None where the spec has none.

    Raises:
        InputError: their groups do not divide the width.
    """
    kernel, groups = spec.positions.conv_kernel, spec.positions.conv_groups
    if not kernel:
        return None
    if spec.dim % groups:
        raise InputError(
            f"{groups} groups of positional convolution do not divide the width {spec.dim}; "
            "give a divisor of the width"
        )
    if spec.positions.conv_stacked:
        return StackedPositions(spec.dim, kernel, groups, spec.positions.conv_stacked)
    return ConvPositions(spec.dim, kernel, groups)


def build_bias(spec: ModelSpec) -> ClippedBias | BucketBias | None:
    """The attention bias shared by the layers, None where the spec has none.

    Raises:
        InputError: the spec asks for both kinds, or for a gate whose slices do not fill the width.
    """
    positions = spec.positions
    if positions.bias_reach and positions.gated_buckets:
        raise InputError(
            f"positions have both bias_reach={positions.bias_reach} and "
            f"gated_buckets={positions.gated_buckets}; give one of them"
        )
    if positions.bias_reach:
        return ClippedBias(spec.total_heads, positions.bias_reach)
    if not positions.gated_buckets:
        return None
    if spec.dim != spec.total_heads * spec.head_dim:
        raise InputError(
            f"a gated bias needs dim = total_heads * head_dim, not {spec.dim} = "
            f"{spec.total_heads} * {spec.head_dim}"
        )
    return BucketBias(spec.total_heads, positions.gated_buckets, positions.gated_distance)


def pick(x: Tensor, heads: tuple[int, ...]) -> Tensor:
    """Those heads of x (batch, all heads, ...), x itself where they are all in their order."""
    if heads == tuple(range(x.shape[1])):
        return x
    return x[:, list(heads)]


def _distances(time: int, device: torch.device) -> Tensor:
    """Every key minus query distance in a sequence, from -(time - 1) up."""
    return torch.arange(1 - time, time, device=device)


def _spread(by_distance: Tensor) -> Tensor:
    """(heads, 2 time - 1) by distance -> (heads, time, time) by query and key."""
    time = (by_distance.shape[1] + 1) // 2
    if exporting():  # to an exporter the size of a window is a constant
        places = torch.arange(time, device=by_distance.device)
        return by_distance[:, places[None] - places[:, None] + time - 1]
    return by_distance.unfold(1, time, 1).flip(1)
