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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from core.spec import SAMPLE_RATE
from encoders import zoo
from encoders.corpora.builtin import open_pretraining
from encoders.corpora.distortion import EQ_KNOTS, EQ_RANGE_DB
from encoders.masked_prediction import MaskedPrediction, half, nearest, span_mask
from encoders.model import Encoder, build
from encoders.pretext import ClusterHead
from encoders.store import save

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


Report = Callable[[str, int, int, dict[str, float]], None]


def pretrain(out: Path, recipe: Recipe, report: Report) -> Encoder:
    """Train both rounds and write the encoder and its pretext model to `out`.

    Checkpoints lie beside it in `out.with_suffix(".partial")` and are deleted at the end. `report`
    is told the round, the step, the number of steps and the loss and accuracy since last time.
    """
    partial = out.with_suffix(".partial")
    partial.mkdir(parents=True, exist_ok=True)
    speech = Speech.load(recipe.utterances)
    frames = speech.standardised()
    targets = cluster(frames, recipe.clusters[0], recipe.seed)
    teacher, _ = _train("round 1", speech, targets.labels, recipe, 0, partial, report)
    hidden = _states(teacher, speech, recipe.target_layer)
    targets = cluster(hidden, recipe.clusters[1], recipe.seed)
    encoder, head = _train("round 2", speech, targets.labels, recipe, 1, partial, report)
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


@dataclass
class Clusters:
    """k-means of standardised frames: centroids (clusters, dim), labels (frames,)."""

    centroids: Tensor
    mean: Tensor
    std: Tensor
    labels: Tensor


def cluster(frames: Tensor, clusters: int, seed: int) -> Clusters:
    """Cluster frames (n, dim), fitted on at most 60,000 of them."""
    generator = torch.Generator().manual_seed(seed)
    chosen = frames[torch.randperm(len(frames), generator=generator)[:60_000]].float()
    mean, std = chosen.mean(0), chosen.std(0) + 1e-4
    means = MiniBatchKMeans(clusters, batch_size=4096, n_init=3, random_state=seed)
    means.fit(((chosen - mean) / std).numpy())
    centroids = torch.from_numpy(means.cluster_centers_).float()
    labels = [nearest((f.float() - mean) / std, centroids) for f in frames.split(50_000)]
    return Clusters(centroids, mean, std, torch.cat(labels))


def _train(
    name: str,
    speech: Speech,
    labels: Tensor,
    recipe: Recipe,
    round_: int,
    folder: Path,
    report: Report,
) -> tuple[Encoder, ClusterHead]:
    """One round from scratch, or from its checkpoint."""
    encoder = build(zoo.tiny(), seed=recipe.seed)
    encoder.front_end.load_state_dict({"mean": speech.mean, "std": speech.std})
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        head = ClusterHead(encoder.spec.dim, recipe.clusters[round_])
    learner = torch.nn.ModuleDict({"encoder": encoder, "head": head})
    optimizer = torch.optim.AdamW(
        learner.parameters(), recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    checkpoint, steps = folder / f"round{round_ + 1}.pt", recipe.steps[round_]
    begin = _resume(checkpoint, learner, optimizer)
    batches = Batches(speech, labels, recipe)
    totals = torch.zeros(2)
    learner.train()
    for step in range(begin, steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _schedule(step / steps, recipe.warm_up)
        loss, accuracy = _loss(encoder, head, *batches.draw(round_, step))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        optimizer.step()
        totals += torch.tensor([loss.item(), accuracy])
        if (step + 1) % REPORT_EVERY == 0:
            mean = (totals / REPORT_EVERY).tolist()
            report(name, step + 1, steps, {"loss": mean[0], "accuracy": mean[1]})
            totals.zero_()
        if (step + 1) % recipe.checkpoint_every == 0 or step + 1 == steps:
            _checkpoint(checkpoint, learner, optimizer, step + 1)
    learner.eval()
    return encoder, head


def _loss(
    encoder: Encoder, head: ClusterHead, features: Tensor, labels: Tensor, mask: Tensor
) -> tuple[Tensor, float]:
    """Cross-entropy over the masked frames, and the share of them that is right."""
    # The fused backward pass of SDPA in bfloat16 on CPUs takes a third of the step; plain math not.
    with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
        hidden = encoder.encode(features, mask=mask, mask_embedding=head.mask_embedding)
    logits = head(hidden.states[-1].float()[mask])
    loss = F.cross_entropy(logits, labels[mask])
    return loss, (logits.argmax(-1) == labels[mask]).float().mean().item()


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


def _schedule(progress: float, warm_up: float) -> float:
    """Linear warm-up, then a cosine to 2 %."""
    if progress < warm_up:
        return max(progress, 1e-4) / warm_up
    return max(0.02, 0.5 * (1 + math.cos(math.pi * (progress - warm_up) / (1 - warm_up))))


def _checkpoint(
    path: Path, learner: torch.nn.Module, optimizer: torch.optim.Optimizer, step: int
) -> None:
    fresh = path.with_suffix(".new")
    torch.save({"learner": learner.state_dict(), "optimizer": optimizer.state_dict(),
                "step": step}, fresh)  # fmt: skip
    fresh.replace(path)


def _resume(path: Path, learner: torch.nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """The step to go on from, the learner and the optimizer as they were."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    learner.load_state_dict(state["learner"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"]
