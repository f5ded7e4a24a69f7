"""What the methods that join frames share: a model without such, its teacher at the full rate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressors._imitation import MultiLayer, Teacher
from compressors._trained import Trained
from core.spec import ModelSpec, Shortening
from encoders.crops import Batch
from encoders.model import Encoder, from_state
from encoders.objectives import Objective
from encoders.shortening import build_shortening


@dataclass
class Joining(Trained):
    """The rate is the fraction of frames that are gone; the dense encoder teaches at full rate."""

    acts_on: ClassVar[str] = "frames of the Transformer's input"
    reduces: ClassVar[str] = "macs_dense"
    #: Distillation as DistilHuBERT is made (arXiv 2110.01900), which both papers start from.
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "untrained": {"steps": 0},
        "paper": {
            "targets": "multi-layer", "steps": 200_000, "learning_rate": 2e-4,
            "crop_seconds": 15.0, "batch_seconds": 360.0, "augment": False,
        },
    }  # fmt: skip

    targets: Literal["states", "multi-layer"] = "states"  # all states, or DistilHuBERT's three

    def supports(self, spec: ModelSpec) -> str | None:
        if spec.shortening is not None:
            return "the frames of the model are joined already; start from one at its full rate"
        if spec.causal:
            return "the model is causal, and a frame would hear the later ones of its token"
        if spec.exits is not None:
            return "the model's exits were made for its full rate; join frames first"
        return super().supports(spec)

    def imitation(self, encoder: Encoder, seed: int) -> Objective:
        """The loss of a student that hears the same as the dense encoder, by fewer tokens."""
        teacher = Teacher(encoder)
        if self.targets == "states":
            return States(teacher)
        return MultiLayer(teacher, encoder.spec.dim, seed)

    def achieved(self, dense: Encoder, compressed: Encoder) -> float:
        joined = compressed.spec.shortening
        return 0.0 if joined is None else 1 - 1 / joined.factor


class States(Objective):
    """Mean squared error of every state from the teacher's, as a share of that state's variance.

    Frame by frame: a frame of the student has its token's state, which is then best at the mean of
    the teacher's over the token.
    """

    def __init__(self, teacher: Teacher) -> None:
        super().__init__()
        self.teacher = teacher

    def forward(
        self, encoder: nn.Module, batch: Batch, generator: torch.Generator
    ) -> dict[str, Tensor]:
        wanted = self.teacher.states(batch.clean)
        own = encoder.encode(batch.features).states  # type: ignore[operator]
        errors = [
            F.mse_loss(state.float(), target) / target.var(dim=(0, 1)).mean().clamp(min=1e-6)
            for state, target in zip(own, wanted, strict=True)
        ]
        return {"loss": torch.stack(errors).mean(), "last": errors[-1].detach()}


def joined(encoder: Encoder, shortening: Shortening, seed: int = 0) -> Encoder:
    """A copy of the encoder with that shortening, to be trained; its own weights are new."""
    spec = replace(encoder.spec, shortening=shortening)
    state = {name: tensor.detach().clone() for name, tensor in encoder.state_dict().items()}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        module = build_shortening(spec)
    assert module is not None
    state |= {f"shortening.{name}": tensor for name, tensor in module.state_dict().items()}
    return from_state(spec, state).requires_grad_(True).eval()
