"""Phone recognition with a linear CTC head (SUPERB's PR, phone error rate).

Yang et al. 2021 (arXiv 2105.01051), sec. 2.1: a frame-wise linear map trained with CTC, decoded
greedily. As in s3prl the map is two in a row: a single one, of fewer parameters but the same
functions, came to 20 % with Adam where two came to 12, and to other layers at each seed. The label
`phones` holds the phones parted by spaces; silence (`sil`) is not scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jiwer
import torch

from core.metric import Metric
from encoders.corpora.base import Item
from tasks._ctc import Batch, Recognition
from tasks._heads import Head

UPDATES, LEARNING_RATE = 576, 0.01  # 6 epochs of the built-in corpus, more of a small one
WIDTH = 256  # between the two maps


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
        self, parts: dict[str, list[Batch]], names: Sequence[str], generator: torch.Generator
    ) -> tuple[Head, dict[str, Any]]:
        states, _, _, dim = parts["train"][0].inputs().shape
        head = Head(states, dim, WIDTH, len(names), generator=generator)
        return self.train(head, parts, names, UPDATES, LEARNING_RATE, generator)

    def rate(self, said: list[list[str]], heard: list[list[str]]) -> dict[str, float]:
        return {self.metric.name: error_rate(said, heard)}


def error_rate(said: list[list[str]], heard: list[list[str]]) -> float:
    """Percent of phones wrong."""
    return 100 * jiwer.wer([" ".join(s) for s in said], [" ".join(h) for h in heard])
