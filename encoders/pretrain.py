"""Pre-trains the built-in model: masked prediction of cluster targets in two rounds.

HuBERT's recipe (Hsu et al. 2021, arXiv 2106.07447) at the size of a laptop: round one predicts
k-means clusters of clean log-mel frames, round two clusters of a layer of round one's encoder. The
input is augmented with a random equaliser and coloured noise, the targets always come from clean
speech. Speech is synthetic alone, so anyone can repeat it: `bench pretrain --out DIR`.

Every step draws its batch from a generator seeded by the step's number, so a run that was cut
goes on from its last checkpoint with the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.spec import SAMPLE_RATE
from encoders import zoo
from encoders.clusters import cluster
from encoders.corpora.builtin import open_pretraining
from encoders.corpora.distortion import EQ_KNOTS, EQ_RANGE_DB
from encoders.masked_prediction import MaskedPrediction, half, span_mask
from encoders.model import Encoder, build
from encoders.pretext import ClusterHead
from encoders.store import save
from encoders.tracking import Tracking
from encoders.training import Settings, train
from encoders.training_log import Report

_BINS, _STACK = 40, 2
REPORT_EVERY = 100
_SILENT = 1e-6  # keeps the logarithm of an empty band finite; far below speech of unit variance


@dataclass(frozen=True)
class Recipe:
    """What a run depends on. Lengths in frames of 20 ms."""

    utterances: int = 8000
    clusters: tuple[int, int] = (128, 200)
    steps: tuple[int, int] = (6000, 24000)
    target_layer: int = 4
    batch_frames: int = 1200
    crops: tuple[int, ...] = (50, 75, 100, 125)
    learning_rate: float = 1.5e-3
    warm_up: float = 0.08
    mask_share: float = 0.7
    mask_span: int = 5
    seed: int = 0
    checkpoint_every: int = 500

    def settings(self, round_: int) -> Settings:
        """How that round (0 or 1) is trained."""
        return Settings(
            self.steps[round_], self.learning_rate, self.warm_up, decay="cosine", floor=0.02,
            precision="bf16", seed=self.seed, checkpoint_every=self.checkpoint_every,
            report_every=REPORT_EVERY,
        )  # fmt: skip


def pretrain(out: Path, recipe: Recipe, report: Report, trackers: Sequence[str] = ()) -> Encoder:
    """Train both rounds and write the encoder and its pretext model to `out`.

    Checkpoints lie beside it in `out.with_suffix(".partial")` and are deleted at the end. `report`
    is told the round, the step, the number of steps and the loss and accuracy since last time;
    so are the trackers, whose files lie in `OUT.trackers`.
    """
    partial = out.with_suffix(".partial")
    tracking = Tracking.beside(out, trackers, f"pretrain, seed {recipe.seed}")
    partial.mkdir(parents=True, exist_ok=True)
    speech = Speech.load(recipe.utterances)
    frames = speech.standardised()
    targets = cluster(frames, recipe.clusters[0], recipe.seed)
    teacher, _ = _train("round 1", speech, targets.labels, recipe, 0, partial, report, tracking)
    hidden = _states(teacher, speech, recipe.target_layer)
    targets = cluster(hidden, recipe.clusters[1], recipe.seed)
    encoder, head = _train("round 2", speech, targets.labels, recipe, 1, partial, report, tracking)
    save(half(encoder), out)
    MaskedPrediction(
        teacher, recipe.target_layer, targets.mean, targets.std, targets.centroids, head
    ).save(out / "pretext")
    for leftover in partial.iterdir():
        leftover.unlink()
    partial.rmdir()
    return encoder


@dataclass
class Speech:
    """Log-mel frames of all utterances joined (frames, bins * stack), and each one's length."""

    frames: Tensor
    lengths: list[int]
    mean: Tensor
    std: Tensor

    @classmethod
    def load(cls, utterances: int) -> Speech:
        corpus = open_pretraining(utterances)
        front_end = build(zoo.tiny()).front_end
        parts = []
        for item in corpus.split("train"):
            wave = corpus.waveform(item)[None]
            parts.append(front_end(F.layer_norm(wave, wave.shape[1:]))[0][0].half())
        frames = torch.cat(parts)
        sample = frames[::7].float()
        return cls(frames, [len(part) for part in parts], sample.mean(0), sample.std(0))

    def standardised(self) -> Tensor:
        return ((self.frames.float() - self.mean) / self.std).half()

    @property
    def starts(self) -> Tensor:
        return torch.tensor([0, *self.lengths]).cumsum(0)[:-1]


def _train(
    name: str,
    speech: Speech,
    labels: Tensor,
    recipe: Recipe,
    round_: int,
    folder: Path,
    report: Report,
    tracking: Tracking,
) -> tuple[Encoder, ClusterHead]:
    """One round from scratch, or from its checkpoint."""
    encoder = build(zoo.tiny(), seed=recipe.seed)
    encoder.front_end.load_state_dict({"mean": speech.mean, "std": speech.std})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        head = ClusterHead(encoder.spec.dim, recipe.clusters[round_])
    learner = _Learner(encoder, head)
    batches = _Round(Batches(speech, labels, recipe), round_)
    train(learner, batches, recipe.settings(round_), name, folder, report, tracking=tracking)
    return encoder, head


class _Learner(nn.Module):
    """An encoder and its head, trained by the cross-entropy over the masked frames."""

    def __init__(self, encoder: Encoder, head: ClusterHead) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(
        self, batch: tuple[Tensor, Tensor, Tensor], generator: torch.Generator
    ) -> dict[str, Tensor]:
        """The loss, and the share of the masked frames that is right."""
        device = next(self.parameters()).device
        features, labels, mask = (tensor.to(device) for tensor in batch)
        embedding = self.head.mask_embedding
        hidden = self.encoder.encode(features, mask=mask, mask_embedding=embedding)
        return self.head.losses(hidden.states[-1][mask], labels[mask])

    def groups(self, learning_rate: float) -> list[dict[str, Any]]:
        return [{"params": list(self.parameters()), "lr": learning_rate}]


@dataclass(frozen=True)
class _Round:
    """The batches of one round by number."""

    batches: Batches
    round_: int

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        return self.batches.draw(self.round_, index)


class Batches:
    """Random crops of equal length, augmented; the step's number decides everything."""

    def __init__(self, speech: Speech, labels: Tensor, recipe: Recipe) -> None:
        self.speech, self.labels, self.recipe = speech, labels, recipe
        self.starts = speech.starts
        self.lengths = torch.tensor(speech.lengths)
        self.noises = coloured_noises(recipe.seed)
        self.equaliser = _equaliser()

    def draw(self, round_: int, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Standardised noisy features (B, T, F), clean labels (B, T) and the mask (B, T)."""
        recipe = self.recipe
        seed = (recipe.seed * 2 + round_) * 1_000_003 + step
        generator = torch.Generator().manual_seed(seed)
        time = recipe.crops[int(torch.randint(len(recipe.crops), (1,), generator=generator))]
        long_enough = (self.lengths >= time).nonzero()[:, 0]
        count = recipe.batch_frames // time
        chosen = long_enough[torch.randint(len(long_enough), (count,), generator=generator)]
        room = self.lengths[chosen] - time + 1
        offset = (torch.rand(count, generator=generator) * room).long()
        index = (self.starts[chosen] + offset)[:, None] + torch.arange(time)
        clean = self.speech.frames[index].float()
        noisy = self._augment(clean, generator)
        features = (noisy - self.speech.mean) / self.speech.std
        mask = span_mask(count, time, generator, recipe.mask_share, recipe.mask_span)
        return features, self.labels[index], mask

    def _augment(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        """Equaliser (85 %) and stationary coloured noise at 5 to 25 dB (80 %), level kept."""

        def uniform(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator)

        batch, time, _ = clean.shape
        power = clean.exp().view(batch, time, _STACK, _BINS)
        loud = power.mean((1, 2, 3), keepdim=True)
        decibels = (2 * uniform(batch, len(EQ_KNOTS)) - 1) * EQ_RANGE_DB
        decibels *= uniform(batch, 1) < 0.85
        power = power * (10 ** (decibels @ self.equaliser / 10))[:, None, None]
        power = power * (loud / power.mean((1, 2, 3), keepdim=True))
        kinds = torch.randint(len(self.noises), (batch,), generator=generator)
        begin = (uniform(batch) * (self.noises.shape[1] - time)).long()
        noise = self.noises[kinds[:, None], begin[:, None] + torch.arange(time)]
        noise = noise.view(batch, time, _STACK, _BINS)
        ratio = 10 ** (-(5 + 20 * uniform(batch, 1, 1, 1)) / 10)
        ratio = ratio * (uniform(batch, 1, 1, 1) < 0.8)
        mixed = (power + noise * loud * ratio) / (1 + ratio)
        return (mixed + _SILENT).log().view(batch, time, -1)


def coloured_noises(seed: int, kinds: int = 8, seconds: int = 20) -> Tensor:
    """Mel power (kinds, frames, bins * stack), mean 1, of noises with a spectrum of f ** -u."""
    front_end = build(zoo.tiny()).front_end
    generator = torch.Generator().manual_seed(seed)
    samples = seconds * SAMPLE_RATE
    frequencies = torch.fft.rfftfreq(samples, 1 / SAMPLE_RATE).clamp(min=50)
    powers = []
    for kind in range(kinds):
        white = torch.fft.rfft(torch.randn(samples, generator=generator))
        wave = torch.fft.irfft(white / frequencies ** (0.7 * kind / max(1, kinds - 1)), samples)
        power = front_end(F.layer_norm(wave, wave.shape)[None])[0][0].exp()
        powers.append(power / power.mean())
    return torch.stack(powers)


def _equaliser() -> Tensor:
    """(knots, bins): how much of each knot's gain each mel bin gets."""
    low, high = (2595 * math.log10(1 + f / 700) for f in (20, 8000))
    centres = 700 * (10 ** (torch.linspace(low, high, _BINS + 2)[1:-1] / 2595) - 1)
    knots = torch.tensor(EQ_KNOTS).log()
    place = centres.log().clamp(knots[0], knots[-1])
    step = (knots[1] - knots[0]).float()
    return (1 - (place[None] - knots[:, None]).abs() / step).clamp(min=0).float()


@torch.inference_mode()
def _states(encoder: Encoder, speech: Speech, layer: int) -> Tensor:
    """That layer's states (frames, dim) of all utterances, each encoded alone and whole."""
    parts = []
    for part in speech.standardised().split(speech.lengths):
        parts.append(encoder.encode(part.float()[None]).states[layer][0].half())
    return torch.cat(parts)
