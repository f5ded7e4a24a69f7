"""What methods that train share: their options, and the one loop behind them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from compressors._base import Compressor, Setting
from core.errors import InputError
from core.spec import ModelSpec
from encoders.corpora import Corpus
from encoders.crops import Batch, Crop, Crops
from encoders.model import Encoder
from encoders.objectives import PREDICTS, Apc, MaskedClusters, Objective, VqApc
from encoders.training import Settings, train


@dataclass
class Trained(Compressor):
    """A method that trains. The front end is frozen: students hear what their teacher hears."""

    #: The values of options with which models do not depend on the corpus.
    uses_data: ClassVar[bool | dict[str, Any]] = {"steps": 0}
    presets: ClassVar[dict[str, dict[str, Any]]] = {"untrained": {"steps": 0}}

    steps: int = 200  # updates of a training; 0 trains nothing
    learning_rate: float = 5e-4  # peak, after which it falls linearly
    warm_up: float = 0.07  # share of the updates over which the learning rate rises
    batch_seconds: float = 24.0  # audio of a batch
    crop_seconds: float = 2.0  # length of the crops that a batch consists of
    accumulate: int = 1  # batches of an update
    precision: Literal["bf16", "no", "fp16"] = "bf16"  # of the activations while training
    augment: bool = True  # random equaliser and noise on what the student hears
    workers: int = 0  # processes that read audio ahead

    def supports(self, spec: ModelSpec) -> str | None:
        if self.steps and spec.dtype != "float32":
            return f"it trains in float32, and the model is {spec.dtype}; save it as float32 first"
        return super().supports(spec)

    def train(
        self,
        encoder: nn.Module,
        objective: Objective,
        setting: Setting,
        name: str,
        *,
        steps: int | None = None,
        after_step: Callable[[int], None] | None = None,
        stop: Callable[[dict[str, float]], bool] | None = None,
    ) -> dict[str, float]:
        """Train the encoder and the objective's own parameters in place; the last losses.

        encoder: has `features`, `encode` and `front_end` as `Encoder` has. name: of this training
        within the track; one that `setting.folder` holds already is read instead.

        Raises:
            Diverged: the loss is no longer a finite number.
            InputError: there is no corpus to train on.
        """
        settings = self._settings(self.steps if steps is None else steps, setting.seed)
        if not settings.steps:
            encoder.eval()
            return {}
        crops = self._crops(setting)
        with ExitStack() as stack:
            folder = setting.folder or Path(stack.enter_context(TemporaryDirectory()))
            folder.mkdir(parents=True, exist_ok=True)
            learner = _Learner(encoder, objective)
            return train(
                learner, crops, settings, name, folder, setting.report, after_step, stop,
                setting.tracking,
            )  # fmt: skip

    def losses(
        self, encoder: Encoder, objective: Objective, setting: Setting, share: float
    ) -> Iterator[Tensor]:
        """The loss of each batch of a share of the training speech, for its gradient."""
        crops, learner = self._crops(setting), _Learner(encoder, objective)
        for index in range(max(1, round(share * crops.corpus.seconds / self.batch_seconds))):
            yield learner(crops[index], torch.Generator().manual_seed(index))["loss"]

    def _crops(self, setting: Setting) -> Crops:
        return Crops(
            corpus_of(setting), self.batch_seconds, self.crop_seconds, self.augment, setting.seed
        )

    def _settings(self, steps: int, seed: int) -> Settings:
        return Settings(
            steps, self.learning_rate, self.warm_up, accumulate=self.accumulate,
            precision=self.precision, seed=seed, workers=self.workers, checkpoint_apart=100,
            report_every=max(1, min(100, steps // 20)),
        )  # fmt: skip


@dataclass
class Pretrained(Trained):
    """A method that goes on with the loss of pre-training."""

    loss: Literal["masked-clusters", "apc", "vq-apc"] = "masked-clusters"  # of pre-training
    clusters: int = 500  # targets of a model that brings no pre-training head

    def supports(self, spec: ModelSpec) -> str | None:
        if self.steps and self.loss != "masked-clusters" and not spec.causal:
            return f"{self.loss} {PREDICTS}"
        return super().supports(spec)

    def objective(self, encoder: Encoder, setting: Setting, dim: int | None = None) -> Objective:
        """The pre-training loss of the dense encoder; dim: the width of a narrower student.

        Raises:
            Unsupported: the loss does not exist for such a model.
        """
        if not self.steps:
            return Objective()  # nothing will be asked of it
        if self.loss == "masked-clusters":
            corpus = corpus_of(setting)
            return MaskedClusters.of(encoder, corpus, setting.seed, self.clusters, dim)
        return (Apc if self.loss == "apc" else VqApc)(encoder, seed=setting.seed)


def corpus_of(setting: Setting) -> Corpus:
    """The corpus to train on.

    Raises:
        InputError: there is none.
    """
    if setting.corpus is None:
        raise InputError("this method trains, which takes speech; name some with --data")
    return setting.corpus


def copy_of(encoder: Encoder) -> Encoder:
    """A copy that may be trained, all of it but the front end."""
    return copy.deepcopy(encoder).requires_grad_(True)


class _Learner(nn.Module):
    """An encoder and an objective, fed with crops."""

    def __init__(self, encoder: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.encoder, self.objective = encoder, objective
        encoder.front_end.requires_grad_(False)  # type: ignore[union-attr, operator]

    def forward(self, crop: Crop, generator: torch.Generator) -> dict[str, Tensor]:
        crop = crop.to(next(self.parameters()).device)
        with torch.no_grad():
            features = self._features(crop.noisy)
            clean = features if crop.clean is crop.noisy else self._features(crop.clean)
        batch = Batch(features, clean, crop.items, crop.offsets)
        return self.objective(self.encoder, batch, generator)

    def _features(self, waveforms: Tensor) -> Tensor:
        return self.encoder.features(waveforms)[0]  # type: ignore[union-attr, operator]

    def groups(self, learning_rate: float) -> list[dict[str, Any]]:
        return self.objective.groups(self.encoder, learning_rate)
