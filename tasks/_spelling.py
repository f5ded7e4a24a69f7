"""SUPERB's head of speech recognition and slot filling: projection, BiLSTM, CTC over characters.

Yang et al. 2021 (arXiv 2105.01051), sec. 3: a two-layer BiLSTM of width 1024, 42 M parameters. Here
one layer of width 64, which a core trains in seconds on the built-in corpus, on frames of 40 ms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoders.corpora.base import Item
from tasks._ctc import Batch, Recognition
from tasks._features import Features
from tasks._heads import mixed

WIDTH = 64
UPDATES, LEARNING_RATE = 300, 0.01
FRAME_SECONDS = 0.04  # shorter frames are joined: a BiLSTM costs time by the step


class Spelling(Recognition):
    """Characters out of speech."""

    batch = 10
    symbols = "characters"

    def joined(self, items: Sequence[Item], features: Features) -> int:
        seconds = sum(item.seconds for item in items) / sum(features.lengths(items))
        return max(1, round(FRAME_SECONDS / seconds))

    def learn(
        self, parts: dict[str, list[Batch]], names: Sequence[str], generator: torch.Generator
    ) -> tuple[Speller, dict[str, Any]]:
        states, _, _, dim = parts["train"][0].inputs().shape
        head = Speller(states, dim, len(names), generator)
        flat_start(head, parts["train"], generator)
        return self.train(head, parts, names, UPDATES, LEARNING_RATE, generator)


class Speller(nn.Module):
    """Weighted sum of the states, projection, one layer of LSTMs in both directions, linear map.

    forward: features (states, batch, time, dim) and lengths (batch,) -> (batch, time, symbols).
    """

    def __init__(self, states: int, dim: int, symbols: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(states))
        self.projection = nn.Linear(dim, WIDTH)
        self.forwards, self.backwards = nn.LSTM(WIDTH, WIDTH), nn.LSTM(WIDTH, WIDTH)
        self.output = nn.Linear(2 * WIDTH, symbols)
        for module in (self.projection, self.forwards, self.backwards, self.output):
            for parameter in module.parameters():
                bound = parameter.shape[-1] ** -0.5
                nn.init.uniform_(parameter, -bound, bound, generator=generator)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        x = self.projection(mixed(self.weights, x)).transpose(0, 1)
        # Each direction by itself, as packed sequences are four times as slow; padding comes last
        # for both, so that no utterance knows of its neighbours.
        order = (lengths - 1 - torch.arange(len(x))[:, None]) % len(x)
        order = order[..., None].expand(-1, -1, WIDTH)
        ahead, behind = self.forwards(x)[0], self.backwards(x.gather(0, order))[0].gather(0, order)
        return self.output(torch.cat([ahead, behind], dim=-1)).transpose(0, 1)


def flat_start(head: Speller, batches: list[Batch], generator: torch.Generator) -> None:
    """One epoch as if each utterance's characters were equally long."""
    optimizer = torch.optim.Adam(head.parameters(), LEARNING_RATE / 3, fused=True)
    for index in torch.randperm(len(batches), generator=generator).tolist():
        rows, places, symbols = evenly(batches[index])
        optimizer.zero_grad()
        scores = head(batches[index].inputs(), batches[index].frames)
        F.cross_entropy(scores[rows, places], symbols).backward()
        optimizer.step()


def evenly(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Utterance, frame and symbol of every frame, as if symbols were equally long.

    From random weights CTC first learns to say nothing but blanks, and how long LSTMs stay there is
    a matter of luck: weak features would be judged by that. So they begin with this.
    """
    rows, places, symbols = [], [], []
    targets = batch.targets.split(batch.counts.tolist())
    for row, (length, own) in enumerate(zip(batch.frames.tolist(), targets, strict=True)):
        place = torch.arange(length)
        rows.append(torch.full_like(place, row))
        places.append(place)
        symbols.append(own[place * len(own) // length])
    return torch.cat(rows), torch.cat(places), torch.cat(symbols)
