"""Layer-to-layer distillation, the pairs left open (CoFi, Xia et al. 2022, arXiv 2204.00408)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressors._imitation import Teacher
from encoders.crops import Batch
from encoders.model import Encoder
from encoders.objectives import Objective


class LayerPairs(Objective):
    """Some layers of the teacher, each predicted from the student's layer that does it best.

    A linear map per teacher layer leads there from the student's states. The pairs are found anew
    for each batch, later layers of the teacher from no earlier ones of the student. The squared
    error is relative to the variance of the teacher's states, so that layers count alike.
    """

    def __init__(self, teacher: Encoder, layers: int) -> None:
        super().__init__()
        self.teacher = Teacher(teacher)
        depth, dim = len(teacher.layers), teacher.spec.dim
        self.targets = sorted({-(-depth * place // layers) for place in range(1, layers + 1)})
        self.maps = nn.ModuleList(_identity(dim) for _ in self.targets)

    def forward(
        self, encoder: nn.Module, batch: Batch, generator: torch.Generator
    ) -> dict[str, Tensor]:
        return {"loss": self.distance(encoder, batch)}

    def distance(self, encoder: nn.Module, batch: Batch) -> Tensor:
        """The mean over the pairs of their relative squared errors."""
        known = self.teacher.states(batch.clean)
        wanted = [known[layer] for layer in self.targets]
        states = encoder.encode(batch.features).states[1:]  # type: ignore[operator]
        with torch.no_grad():
            errors = [
                torch.stack([_error(own(state), target) for state in states])
                for own, target in zip(self.maps, wanted, strict=True)
            ]
        pairs = zip(self.maps, wanted, matched(torch.stack(errors)), strict=True)
        return torch.stack([_error(own(states[at]), target) for own, target, at in pairs]).mean()


def matched(errors: Tensor) -> list[int]:
    """Per row of (rows, columns) a column, never falling from row to row, of least total error."""
    total, before = errors[0], []
    for row in errors[1:]:
        least, at = total.cummin(0)
        before.append(at)
        total = least + row
    columns = [int(total.argmin())]
    for at in reversed(before):
        columns.append(int(at[columns[-1]]))
    return columns[::-1]


def _identity(dim: int) -> nn.Linear:
    """The map that changes nothing, made without drawing random numbers."""
    linear: nn.Linear = nn.utils.skip_init(nn.Linear, dim, dim)
    nn.init.eye_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def _error(guess: Tensor, target: Tensor) -> Tensor:
    return F.mse_loss(guess.float(), target) / target.var().clamp(min=1e-9)
