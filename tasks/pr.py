"""Phone recognition with a linear CTC head (SUPERB's PR, phone error rate).

Yang et al. 2021 (arXiv 2105.01051), sec. 2.1: a frame-wise linear map trained with CTC, decoded
greedily. The label `phones` holds the phones parted by spaces; silence (`sil`) is not scored.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jiwer
import torch
import torch.nn.functional as F

from core.metric import Metric
from encoders.corpora.base import Item
from tasks._ctc import Batch, Recognition, evenly, train
from tasks._heads import Head, fit

UPDATES, LEARNING_RATE = 576, 0.12  # 6 epochs of the built-in corpus, more of a small one
FLAT_ITERATIONS, FLAT_DECAY = 12, 1e-4
FLAT_STRIDE = 4  # of the frames that a flat start sees; neighbours say the same


class Pr(Recognition):
    name = "pr"
    groups = ("quick", "superb")
    metric = Metric("pr_per", "%", "lower", "phone error rate")
    label = "phones"
    limits = (320, 80, 240)
    batch = 3
    symbols = "phones"

    def spell(self, item: Item) -> list[str]:
        """The phones of an utterance without its silences."""
        return [phone for phone in item.labels["phones"].split() if phone != "sil"]

    def learn(
        self, parts: dict[str, list[Batch]], symbols: int, generator: torch.Generator
    ) -> tuple[Head, dict[str, Any]]:
        states, _, _, dim = parts["train"][0].inputs().shape
        head = Head(states, dim, symbols, generator=generator)
        flat_start(head, parts["train"])
        epochs = math.ceil(UPDATES / len(parts["train"]))
        return train(head, parts["train"], parts["dev"], epochs, LEARNING_RATE, generator)

    def rate(self, said: list[list[str]], heard: list[list[str]]) -> dict[str, float]:
        return {self.metric.name: error_rate(said, heard)}


def flat_start(head: Head, batches: list[Batch]) -> None:
    """Begin as if each utterance's phones were equally long."""
    seen, labels = [], []
    for batch in batches:
        rows, places, symbols = evenly(batch, FLAT_STRIDE)
        seen.append(batch.inputs()[:, rows, places])
        labels.append(symbols)
    loss = partial(F.cross_entropy, target=torch.cat(labels))
    fit(head, torch.cat(seen, dim=1), loss, FLAT_DECAY, FLAT_ITERATIONS)


def error_rate(said: list[list[str]], heard: list[list[str]]) -> float:
    """Percent of phones wrong."""
    return 100 * jiwer.wer([" ".join(s) for s in said], [" ".join(h) for h in heard])
