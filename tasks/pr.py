"""Phone recognition with a linear CTC head (SUPERB's PR, phone error rate).

Yang et al. 2021 (arXiv 2105.01051), sec. 2.1: a frame-wise linear map trained with CTC, decoded
greedily. The label `phones` holds the phones parted by spaces; silence (`sil`) is not scored.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import chain

import jiwer
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from core.metric import Metric
from encoders.corpora.base import Corpus, Item
from encoders.model import Encoder
from tasks._base import Outcome, Task, classes, labelled, parted, thin
from tasks._features import Features
from tasks._heads import Head, draw_training, fit, layers

BLANK = 0
LIMITS = {"train": 320, "dev": 80, "test": 240}  # utterances of a split at most
EPOCHS, BATCH, LEARNING_RATE = 6, 3, 0.12
FLAT_ITERATIONS, FLAT_DECAY = 12, 1e-4
FLAT_STRIDE = 4  # of the frames that a flat start sees; neighbours say the same


class Pr(Task):
    metric = Metric("pr_per", "%", "lower", "phone error rate")
    needs = "frames"

    def select(self, corpus: Corpus) -> list[Item]:
        _, items = labelled(corpus, ("phones",), "pr")
        parts = parted(items, "pr")
        return [item for split, limit in LIMITS.items() for item in thin(parts[split], limit)]

    def score(
        self, encoder: Encoder, corpus: Corpus, items: list[Item], features: Features, seed: int
    ) -> Outcome:
        parts = parted(items, "pr")
        spoken = {split: [phones(item) for item in part] for split, part in parts.items()}
        flat = {split: list(chain(*lists)) for split, lists in spoken.items()}
        known = classes(flat["train"], flat["dev"] + flat["test"], "pr")
        chosen = draw_training(len(parts["train"]), seed).tolist()
        train = _batches([parts["train"][i] for i in chosen], features, known, BATCH)
        dev = _batches(parts["dev"], features, known, BATCH)
        head, details = _train(train, dev, len(known) + 1, seed)
        symbols = ["", *known]
        rates = {
            split: error_rate(head, _batches(parts[split], features, known, BATCH), symbols)
            for split in ("dev", "test")
        }
        details |= {"dev": rates["dev"], "layer_weights": layers(head), "phones": len(known)}
        details["items"] = {split: len(part) for split, part in parts.items()}
        return Outcome({self.metric.name: rates["test"]}, details)


@dataclass
class Batch:
    """Utterances of similar length: features (states, batch, time, dim), padded; phone indices."""

    features: Tensor
    frames: Tensor
    targets: Tensor
    counts: Tensor
    phones: list[list[str]]


def phones(item: Item) -> list[str]:
    """The phones of an utterance without its silences."""
    return [phone for phone in item.labels["phones"].split() if phone != "sil"]


def _batches(
    items: list[Item], features: Features, known: dict[str, int], size: int
) -> list[Batch]:
    items = sorted(items, key=lambda item: (item.samples, item.key))
    batches = []
    for start in range(0, len(items), size):
        some = items[start : start + size]
        frames = [features.joined([item]).transpose(0, 1) for item in some]
        spoken = [phones(item) for item in some]
        batches.append(
            Batch(
                pad_sequence(frames, batch_first=True).permute(2, 0, 1, 3).contiguous(),
                torch.tensor([len(frame) for frame in frames]),
                torch.tensor([known[phone] + 1 for phone in chain(*spoken)]),
                torch.tensor([len(sequence) for sequence in spoken]),
                spoken,
            )
        )
    return batches


def ctc(head: Head, batch: Batch) -> Tensor:
    """Mean CTC loss per phone; utterances with more phones than frames count as 0."""
    scores = head(batch.features).log_softmax(-1).transpose(0, 1)
    return F.ctc_loss(scores, batch.targets, batch.frames, batch.counts, BLANK, zero_infinity=True)


def flat_start(head: Head, batches: list[Batch]) -> Head:
    """Begin as if each utterance's phones were equally long.

    From random weights CTC first learns to say nothing but blanks, and how long it stays there is a
    matter of luck: weak features would be judged by that.
    """
    frames, labels = [], []
    for batch in batches:
        targets = batch.targets.split(batch.counts.tolist())
        for index, (length, phones_) in enumerate(zip(batch.frames.tolist(), targets, strict=True)):
            chosen = torch.arange(0, length, FLAT_STRIDE)
            frames.append(batch.features[:, index, chosen])
            labels.append(phones_[chosen * len(phones_) // length])
    truth = torch.cat(labels)
    loss = partial(F.cross_entropy, target=truth)
    return fit(head, torch.cat(frames, dim=1), loss, FLAT_DECAY, FLAT_ITERATIONS)


def _train(
    train: list[Batch], dev: list[Batch], classes_: int, seed: int
) -> tuple[Head, dict[str, object]]:
    """Adam with a falling rate; the weights of the epoch with the lowest dev loss are kept."""
    generator = torch.Generator().manual_seed(seed)
    states, dim = train[0].features.shape[0], train[0].features.shape[3]
    head = flat_start(Head(states, dim, classes_, generator=generator), train)
    optimizer = torch.optim.Adam(head.parameters(), LEARNING_RATE, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=EPOCHS * len(train), pct_start=0.2
    )
    best: tuple[float, int, dict[str, Tensor]] | None = None
    for epoch in range(EPOCHS):
        for index in torch.randperm(len(train), generator=generator).tolist():
            optimizer.zero_grad()
            ctc(head, train[index]).backward()
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            loss = sum(ctc(head, batch).item() for batch in dev) / len(dev)
        if best is None or loss < best[0]:
            state = {name: value.clone() for name, value in head.state_dict().items()}
            best = (loss, epoch, state)
    assert best is not None
    head.load_state_dict(best[2])
    return head, {"dev_loss": best[0], "epoch": best[1]}


@torch.no_grad()
def error_rate(head: Head, batches: list[Batch], symbols: list[str]) -> float:
    """Percent of phones wrong after greedy decoding: repeats joined, blanks dropped."""
    truth, guesses = [], []
    for batch in batches:
        best = head(batch.features).argmax(-1)
        for row, frames, spoken in zip(best, batch.frames.tolist(), batch.phones, strict=True):
            path = row[:frames].unique_consecutive().tolist()
            guesses.append(" ".join(symbols[index] for index in path if index != BLANK))
            truth.append(" ".join(spoken))
    return 100 * jiwer.wer(truth, guesses)
