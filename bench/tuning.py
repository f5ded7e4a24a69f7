"""Fine-tunes an encoder on a task, and says what that is worth beside training the head alone.

Kumar et al. 2022 (arXiv 2202.10054): the head is trained on the frozen encoder first, as the task
does it. Then both ways go on from there for as many updates on the same utterances: with the head
alone (every utterance is encoded once), and with all of the encoder but its front end. Weights that
pruning has set to zero stay zero.
"""

from __future__ import annotations

import copy
import math
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from bench.goals import Goal, goal
from compressors._zeros import zeros_held
from core.errors import InputError, Unsupported
from encoders.corpora import Corpus, Item
from encoders.model import Encoder
from encoders.tracking import UNTRACKED, Tracking
from encoders.training import Precision, Settings, train
from encoders.training_log import Report
from tasks._features import Features, extract, place

#: From how many batches' worth of utterances next to each other in length a batch is drawn.
NEIGHBOURS = 4


@dataclass(frozen=True)
class Recipe:
    """How both ways are trained. *_rate: peak learning rates. batch_seconds: audio of a batch."""

    steps: int
    head_rate: float
    encoder_rate: float
    batch_seconds: float
    precision: Precision

    @classmethod
    def of(
        cls, steps: int, head_rate: float, encoder_rate: float, seconds: float, precision: str
    ) -> Recipe:
        """The recipe with what a user has typed.

        Raises:
            InputError: a rate or the seconds are not positive, or there is no such precision.
        """
        for name, value in (
            ("head-lr", head_rate),
            ("lr", encoder_rate),
            ("batch-seconds", seconds),
        ):
            if not 0 < value < math.inf:
                raise InputError(f"--{name} {value:g}: expected a positive number")
        if precision not in get_args(Precision):
            known = ", ".join(get_args(Precision))
            raise InputError(f"precision {precision!r}: expected one of {known}")
        return cls(steps, head_rate, encoder_rate, seconds, cast(Precision, precision))

    def settings(self, seed: int) -> Settings:
        return Settings(
            self.steps, self.head_rate, precision=self.precision, seed=seed,
            report_every=max(1, min(50, self.steps // 10)), checkpoint_every=50,
        )  # fmt: skip


@dataclass
class Batch:
    """inputs: waveforms (batch, samples), or states (states, batch, time, dim) of a frozen encoder.

    lengths: valid samples or frames (batch,).
    """

    inputs: Tensor
    lengths: Tensor
    targets: tuple[Tensor, ...]


class Draws:
    """Batches of training utterances, drawn by number; those of a batch are about equally long.

    features: those of a frozen encoder, None for waveforms.
    """

    def __init__(
        self, goal: Goal, corpus: Corpus, features: Features | None, seconds: float, seed: int
    ) -> None:
        self.goal, self.corpus, self.features = goal, corpus, features
        self.seconds, self.seed = seconds, seed
        self.items = sorted(goal.parts["train"], key=place)

    def __getitem__(self, index: int) -> Batch:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        middle = int(torch.randint(len(self.items), (), generator=generator))
        count = max(1, round(self.seconds / self.items[middle].seconds))
        near = NEIGHBOURS * count
        first = max(0, min(middle - near // 2, len(self.items) - near))
        some = self.items[first : first + near]
        order = torch.randperm(len(some), generator=generator)[:count].tolist()
        items = [some[place] for place in order]
        return Batch(*self._inputs(items), self.goal.targets(items))

    def _inputs(self, items: list[Item]) -> tuple[Tensor, Tensor]:
        if self.features is None:
            waves = [self.corpus.waveform(item) for item in items]
            return pad_sequence(waves, batch_first=True), torch.tensor(list(map(len, waves)))
        if not self.goal.framed:  # the mean over time is as good as a single frame
            return self.features.pooled(items)[:, :, None], torch.ones(len(items), dtype=torch.long)
        frames = [self.features.joined([item]).transpose(0, 1) for item in items]
        padded = pad_sequence(frames, batch_first=True).permute(2, 0, 1, 3)
        return padded, torch.tensor(self.features.lengths(items))


class Learner(nn.Module):
    """A head, and the encoder where that learns too.

    mean, std: (states, dim) by which states are standardised, those of the encoder as it came.
    """

    def __init__(
        self, goal: Goal, head: nn.Module, encoder: Encoder | None, features: Features, rate: float
    ) -> None:
        super().__init__()
        self.goal, self.head, self.encoder, self.encoder_rate = goal, head, encoder, rate
        self.register_buffer("mean", features.mean[:, None, None])
        self.register_buffer("std", features.std[:, None, None])
        self.mean: Tensor
        self.std: Tensor
        if encoder is not None:
            encoder.requires_grad_(True)
            encoder.front_end.requires_grad_(False)

    def train(self, mode: bool = True) -> Learner:
        """The encoder runs as it does in use, such as leaving early where it is sure."""
        super().train(mode)
        if self.encoder is not None:
            self.encoder.eval()
        return self

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        home = self.mean.device
        inputs, lengths = batch.inputs.to(home), batch.lengths.to(home)
        if self.encoder is not None:
            with torch.no_grad():
                inputs, lengths = self.encoder.features(inputs, lengths)
            states = self.encoder.encode(inputs, lengths).states
            inputs = (torch.stack(states).float() - self.mean) / self.std
        targets = [target.to(home) for target in batch.targets]
        return {"loss": self.goal.loss(self.head, inputs, lengths, *targets)}

    def groups(self, learning_rate: float) -> list[dict[str, Any]]:
        groups: list[dict[str, Any]] = [{"params": list(self.head.parameters())}]
        if self.encoder is not None:
            learning = [p for p in self.encoder.parameters() if p.requires_grad]
            groups.append({"params": learning, "lr": self.encoder_rate})
        return groups


def tune(
    encoder: Encoder,
    task: str,
    corpus: Corpus,
    seed: int,
    recipe: Recipe,
    folder: Path,
    report: Report,
    tracking: Tracking = UNTRACKED,
) -> dict[str, dict[str, float]]:
    """The task's metric on dev and test of the head as it begins, `frozen` and `tuned`.

    folder: of the log and of checkpoints, from which a run that was cut goes on.

    Raises:
        Diverged: a loss is no longer a finite number.
        Unsupported: there is no such head or model, or the corpus lacks the labels.
    """
    if any(layer.numeric != "float" for layer in encoder.spec.layers):
        raise Unsupported("the weights of the model are integers, which no gradient moves")
    if encoder.spec.dtype != "float32":
        raise Unsupported(f"it is trained in float32, and the model is {encoder.spec.dtype}")
    learned = goal(task, corpus, seed)
    features = _features(encoder, corpus, learned)
    head = learned.head(features, seed)
    folder.mkdir(parents=True, exist_ok=True)
    scores = {"head": _scores(learned, head, features)}
    for way in ("frozen", "tuned"):
        own = copy.deepcopy(encoder) if way == "tuned" else None
        learner = Learner(learned, copy.deepcopy(head), own, features, recipe.encoder_rate)
        seen = None if own else features
        draws = Draws(learned, corpus, seen, recipe.batch_seconds, seed)
        with zeros_held(own) if own else nullcontext():
            name = f"{task} {way}"
            train(learner, draws, recipe.settings(seed), name, folder, report, tracking=tracking)
        found = _features(own, corpus, learned, features) if own else features
        scores[way] = _scores(learned, learner.head, found)
    return scores


def _features(
    encoder: Encoder, corpus: Corpus, learned: Goal, like: Features | None = None
) -> Features:
    """Of all utterances; like: by whose mean and std they are standardised."""
    items = list(chain(*learned.parts.values()))
    pooled, framed = ([], items) if learned.framed else (items, [])
    features = extract(encoder, corpus, pooled, framed)
    if like is not None:
        features.mean, features.std = like.mean, like.std
    return features


def _scores(learned: Goal, head: nn.Module, features: Features) -> dict[str, float]:
    return {split: learned.score(head, features, split) for split in ("dev", "test")}
