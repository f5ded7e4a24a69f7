"""Linear discriminants and ridge regression of all hidden states at once, in closed form.

Everything that a solution needs is in the sums of products over the training examples, so no state
is looked at twice, whatever number of shrinkages is tried.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from core.errors import Unsupported

SHRINKAGES = (1e-4, 1e-2, 1e-1)  # added to variances, as a share of their mean

#: Features (states, n, dim) and what is to be read off them (n, k).
Block = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Moments:
    """Sums over n examples: all that a linear probe is made of.

    x: of the features (states, dim). xx, xy: of their products with each other (states, dim, dim)
    and with the targets (states, dim, k). y, yy: of the targets and of their squares (k,).
    """

    n: int
    x: Tensor
    xx: Tensor
    xy: Tensor
    y: Tensor
    yy: Tensor

    @classmethod
    def of(cls, blocks: Iterable[Block]) -> Moments:
        """Of at least one block, which may be empty."""
        n, sums = 0, [torch.zeros((), dtype=torch.float64)] * 5
        for x, y in blocks:
            parts = (x.sum(1), x.mT @ x, x.mT @ y, y.sum(0), y.square().sum(0))
            n, sums = n + len(y), [old + new for old, new in zip(sums, parts, strict=True)]
        return cls(n, *sums)

    def columns(self, first: int, last: int) -> Moments:
        """With those of the targets alone."""
        some = slice(first, last)
        return Moments(self.n, self.x, self.xx, self.xy[..., some], self.y[some], self.yy[some])


@dataclass(frozen=True)
class Maps:
    """Linear maps: weights (shrinkages, states, dim, k) and biases (shrinkages, states, k)."""

    weights: Tensor
    biases: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Of x (states, n, dim): (shrinkages, states, n, k)."""
        return x @ self.weights.float() + self.biases.float()[..., None, :]


def discriminants(moments: Moments) -> Maps:
    """Fisher's linear discriminants, where each target is 1 for one class and 0 for the others.

    Classes are taken to be Gaussians of one covariance, which is shrunk towards a sphere (Friedman
    1989, *Regularized discriminant analysis*). A class without examples is never guessed.
    """
    means = moments.xy / moments.y.clamp(min=1)
    within = (moments.xx - moments.xy @ means.mT) / moments.n
    weights = _solve(within, means)
    return Maps(weights, (moments.y / moments.n).log() - (means * weights).sum(-2) / 2)


def regressions(moments: Moments) -> Maps:
    """Ridge regression of the targets."""
    n, mean, level = moments.n, moments.x / moments.n, moments.y / moments.n
    covariance = moments.xx / n - mean[..., None] * mean[..., None, :]
    weights = _solve(covariance, moments.xy / n - mean[..., None] * level)
    return Maps(weights, level - (mean[..., None] * weights).sum(-2))


def _solve(matrices: Tensor, sides: Tensor) -> Tensor:
    """(shrinkages, states, dim, k): the solutions for symmetric matrices plus each shrinkage."""
    if not matrices.isfinite().all():
        raise Unsupported("the hidden states are not finite numbers: nothing can be read off them")
    size = matrices.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None] + 1e-12
    unit = torch.eye(matrices.shape[-1], dtype=matrices.dtype)
    factors = [torch.linalg.cholesky(matrices + share * size * unit) for share in SHRINKAGES]
    return torch.stack([torch.cholesky_solve(sides, factor) for factor in factors])


def r_squared(maps: Maps, moments: Moments) -> Tensor:
    """Percent of the variance of one target that is explained, (shrinkages, states).

    Follows from the sums, as a squared error is a quadratic form of them.
    """
    weights, bias = maps.weights, maps.biases[..., 0]
    of = partial(torch.sum, dim=(-2, -1))
    error = moments.yy + of(weights * (moments.xx @ weights)) - 2 * of(weights * moments.xy)
    error = error + 2 * bias * of(weights * moments.x[..., None]) - 2 * bias * moments.y
    error = error + moments.n * bias.square()
    return 100 * (1 - error / (moments.yy - moments.y.square() / moments.n))


def accuracies(maps: Sequence[Maps], blocks: Iterable[Block]) -> Tensor:
    """Percent of the examples whose class is guessed, (k, shrinkages, states).

    maps: one for each of the k targets of the blocks, which are indices of classes.
    """
    right, n = torch.zeros(()), 0
    for x, y in blocks:
        found = [own(x).argmax(-1) == y[:, place] for place, own in enumerate(maps)]
        right, n = right + torch.stack(found).sum(-1), n + len(y)
    return 100 * right / max(1, n)
