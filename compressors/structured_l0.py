"""Learns which dimensions, units and sub-layers to cut (Wang et al. 2023, arXiv 2306.01385).

Task-agnostic structured pruning: hard concrete gates at five granularities, one per dimension of
each head's q/k and v/out (FAHP, fine-grained attention head pruning), per FFN unit and per
sub-layer, with a straight-through gradient. A Lagrangian holds the expected sparsity at a target
while the student is distilled from the dense model. Then what is closed is cut out and the values
of the other gates are folded into the weights. Where gates and rate disagree on how much stays, the
highest log alphas do.

With `trajectory` the target rises from the warm-up to the end of one training, and each rate is cut
when it is passed; the paper trains once per rate, the target rising during the warm-up. Untrained,
gates rank by the L1 norms of what they gate. The learning rates of gates and multipliers in the
preset `paper` are ours, as is the initial log alpha.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import torch

from compressors._base import Setting
from compressors._gated import Gated, cut, masks_at, refusal, weights
from compressors._gates import settled
from compressors._layer_pairs import LayerPairs
from compressors._sparsified import Rise, Sparsified
from compressors._trained import Trained
from core.errors import Unsupported
from core.spec import ModelSpec
from encoders.model import Encoder
from encoders.store import load, save
from encoders.together import leads


@dataclass
class StructuredL0(Trained):
    acts_on: ClassVar[str] = "weights of the Transformer's linear maps"
    reduces: ClassVar[str] = "params_total"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "untrained": {"steps": 0},
        "paper": {
            "steps": 200_000, "learning_rate": 2e-4, "trajectory": False, "gate_rate": 0.02,
            "multiplier_rate": 0.02, "augment": False,
        },
    }  # fmt: skip

    steps: int = 400  # updates of a training; 0 trains nothing
    fahp: bool = True  # gates per dimension of a head; off: one gate per head
    ste: bool = True  # gradients also for gates that are cut off at 0 or 1
    trajectory: bool = True  # all rates from one training; off: one each
    sparsest: float = 0.9  # where a trajectory ends
    gate_rate: float = 0.1  # learning rate of the gates
    multiplier_rate: float = 0.05  # learning rate of the Lagrange multipliers
    teacher_layers: int = 4  # how many layers are distilled, evenly spaced up to the last
    settle: int = 0  # updates of distillation alone after a cut

    def supports(self, spec: ModelSpec) -> str | None:
        if any(layer.ranks for layer in spec.layers):
            return "its linear maps are factored, and what a gate closes is a row of a full matrix"
        return super().supports(spec)

    def track(
        self, encoder: Encoder, rates: Sequence[float], setting: Setting | None = None
    ) -> Iterator[tuple[float, Encoder | Unsupported]]:
        setting = setting or Setting()
        with ExitStack() as stack:
            if setting.folder is None:
                folder = Path(stack.enter_context(TemporaryDirectory()))
                setting = replace(setting, folder=folder)
            reasons = {rate: self._reason(encoder.spec, rate) for rate in rates}
            if self.trajectory and self.steps:
                self._walk(encoder, [rate for rate in rates if reasons[rate] is None], setting)
            for rate in rates:
                yield rate, reasons[rate] or self._made(encoder, rate, setting)

    def achieved(self, dense: Encoder, compressed: Encoder) -> float:
        return 1 - weights(compressed.spec) / weights(dense.spec)

    def _reason(self, spec: ModelSpec, rate: float) -> Unsupported | None:
        """Why there is no model at that rate, or None."""
        if self.trajectory and self.steps and rate > self.sparsest + 1e-9:
            return Unsupported(
                f"the training ends at a sparsity of {self.sparsest:g}, which {rate:g} is above; "
                "set sparsest to it"
            )
        return refusal(spec, rate)

    def _walk(self, encoder: Encoder, rates: Sequence[float], setting: Setting) -> None:
        """Leave the cut of each rate in the folder, by one training."""
        rise = Rise(self.sparsest, self.warm_up, 1.0)
        # A training that ended before some of the rates were asked for has to be gone through anew.
        for name in ("gates", f"gates for {' '.join(f'{rate:g}' for rate in rates)}"):
            missing = [rate for rate in rates if not _place(setting, rate).exists()]
            if missing:
                self._train(encoder, missing, setting, name, rise)

    def _made(self, encoder: Encoder, rate: float, setting: Setting) -> Encoder:
        if not self.steps:
            return cut(encoder, masks_at(Gated(encoder, self.fahp), rate, torch.ones_like))
        if not self.trajectory:
            rise = Rise(rate, 0.0, self.warm_up)
            self._train(encoder, [rate], setting, f"rate {rate:g}", rise)
        small = load(_place(setting, rate))
        if self.settle:
            objective = LayerPairs(encoder, self.teacher_layers)
            self.train(small, objective, setting, f"settle {rate:g}", steps=self.settle)
        return small.eval()

    def _train(
        self,
        encoder: Encoder,
        rates: Sequence[float],
        setting: Setting,
        name: str,
        rise: Rise,
    ) -> None:
        """Train gates under a rising target and leave a cut in the folder when it passes a rate."""
        gated = Gated(encoder, self.fahp)
        objective = Sparsified(
            encoder, self.teacher_layers, rise, self.steps, ste=self.ste,
            gate_rate=self.gate_rate, multiplier_rate=self.multiplier_rate,
        )  # fmt: skip

        def after_step(step: int) -> None:
            objective.done.fill_(step + 1)
            for rate in rates if leads() else ():
                if rise.reaches(rate, self.steps) == step + 1:
                    save(cut(gated.encoder, masks_at(gated, rate, settled)), _place(setting, rate))

        self.train(gated, objective, setting, name, after_step=after_step)


def _place(setting: Setting, rate: float) -> Path:
    """Where the cut of that rate lies."""
    assert setting.folder is not None, "track makes one where there is none"
    return setting.folder / f"cut-{rate:g}"
