"""Light heads on frozen features, as SUPERB has them: a learned sum of the states, a linear map.

Yang et al. 2021 (arXiv 2105.01051), sec. 3: the states are summed with softmax weights that are
trained with the head. Features are standardised first, so that L-BFGS converges in tens of steps.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Strengths of weight decay (per weight, on a mean loss) of which the dev split chooses one.
DECAYS = (1e-4, 1e-3, 1e-2)

Loss = Callable[[Tensor], Tensor]
Net = TypeVar("Net", bound=nn.Module)
Batch = TypeVar("Batch")


def mixed(weights: Tensor, x: Tensor) -> Tensor:
    """The softmax-weighted sum (..., dim) of (states, ..., dim): one product over the flat rest."""
    return (weights.softmax(0) @ x.flatten(1)).view(x.shape[1:])


class Head(nn.Module):
    """Softmax-weighted sum of the states, then linear maps: one, or two with an embedding between.

    Nothing but linear maps follows the sum, so a mean over time may be taken before it.
    """

    def __init__(self, states: int, *sizes: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(states))
        maps = [nn.Linear(before, after) for before, after in pairwise(sizes)]
        for linear in maps:
            nn.init.normal_(linear.weight, std=0.01, generator=generator)
            nn.init.zeros_(linear.bias)
        self.maps = nn.ModuleList(maps)

    def embed(self, x: Tensor) -> Tensor:
        """What the last linear map sees, for (states, ..., dim)."""
        x = mixed(self.weights, x)
        for linear in self.maps[:-1]:
            x = linear(x)
        return x

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Every frame by itself, so that lengths make no difference."""
        return self.maps[-1](self.embed(x))


def fit(head: Head, features: Tensor, loss: Loss, decay: float, iterations: int = 60) -> Head:
    """Minimise loss(head(features)) plus weight decay by L-BFGS over the whole training split."""
    optimizer = torch.optim.LBFGS(
        head.parameters(), max_iter=iterations, history_size=10, line_search_fn="strong_wolfe"
    )

    matrices = [parameter for parameter in head.maps.parameters() if parameter.ndim == 2]

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(head(features))
        for matrix in matrices:
            value = value + decay * matrix.square().sum() / 2
        value.backward()
        return value

    optimizer.step(closure)
    return head


def fit_classifier(
    train: tuple[Tensor, Tensor],
    dev: tuple[Tensor, Tensor],
    sizes: Sequence[int],
    seed: int,
    slots: Sequence[int] | None = None,
) -> tuple[Head, dict[str, Any]]:
    """A classifier of pooled features, its weight decay chosen by the loss on dev.

    train, dev: features (states, items, dim) and targets (items, slots). sizes: of the linear maps
    after the sum. slots: classes per slot, whose logits stand side by side; one slot by default.
    Also returns what was chosen, for the record.
    """
    slots = slots or [sizes[-1]]
    best: tuple[float, Head, float] | None = None
    for decay in DECAYS:
        generator = torch.Generator().manual_seed(seed)
        head = Head(train[0].shape[0], train[0].shape[2], *sizes, generator=generator)
        fit(head, train[0], lambda logits: slot_loss(logits, train[1], slots), decay)
        with torch.no_grad():
            value = slot_loss(head(dev[0]), dev[1], slots).item()
        if best is None or value < best[0]:
            best = (value, head, decay)
    assert best is not None
    return best[1], {"weight_decay": best[2], "dev_loss": best[0], "layer_weights": layers(best[1])}


def descend(
    head: Net,
    loss: Callable[[Net, Batch], Tensor],
    batches: Sequence[Batch],
    dev: Sequence[Batch],
    epochs: int,
    rate: float,
    generator: torch.Generator,
    error: Callable[[Net], float] | None = None,
) -> tuple[Net, dict[str, Any]]:
    """Adam with a falling rate; the head of the epoch that does best on dev, and which that is.

    error: of a head on dev, the smaller the better; among equals, or without it, the loss decides.
    """
    optimizer = torch.optim.Adam(head.parameters(), rate, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=epochs * len(batches), pct_start=0.2
    )
    best: tuple[tuple[float, float], int, Net] | None = None
    for epoch in range(epochs):
        for index in torch.randperm(len(batches), generator=generator).tolist():
            optimizer.zero_grad()
            loss(head, batches[index]).backward()
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            value = sum(loss(head, batch).item() for batch in dev) / len(dev)
            errors = (error(head) if error else 0.0, value)
        if best is None or errors < best[0]:
            best = (errors, epoch, copy.deepcopy(head))
    assert best is not None
    return best[2], {"dev_loss": best[0][1], "epoch": best[1]}


def slot_loss(logits: Tensor, targets: Tensor, slots: Sequence[int]) -> Tensor:
    """The sum of the slots' cross-entropies (SUPERB's intent classification)."""
    parts = logits.split(list(slots), dim=-1)
    losses = [F.cross_entropy(part, targets[:, slot]) for slot, part in enumerate(parts)]
    return torch.stack(losses).sum()


@torch.no_grad()
def slot_accuracy(head: Head, features: Tensor, targets: Tensor, slots: Sequence[int]) -> float:
    """Percent of the items whose every slot is right."""
    parts = head(features).split(list(slots), dim=-1)
    right = torch.stack([part.argmax(-1) == targets[:, s] for s, part in enumerate(parts)])
    return 100 * right.all(0).float().mean().item()


def layers(head: nn.Module) -> list[float]:
    """The softmax weights of the states, for the record."""
    weights: Tensor = head.get_parameter("weights")
    return [round(weight, 4) for weight in weights.detach().softmax(0).tolist()]


def draw_training(count: int, seed: int, share: float = 0.9) -> Tensor:
    """Nine tenths of the training utterances, drawn by the seed.

    L-BFGS forgets its starting point, so it is the training set that a seed varies: the spread
    over seeds then tells how far a score depends on it.
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(count, generator=generator)[: max(1, round(share * count))].sort().values
