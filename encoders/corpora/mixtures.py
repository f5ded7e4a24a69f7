"""Two people at once: mixtures of a corpus' utterances, made when they are read.

As LibriMix (Cosentino et al. 2020, arXiv 2005.11262) mixes LibriSpeech, at the levels that the
utterances have, but with a delay of its own for each, so that there is overlap and turn-taking.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from core.spec import SAMPLE_RATE
from encoders.corpora.base import Item, Part

#: Of an utterance at most so much is heard.
LONGEST = 8.0

#: The second speaker begins within this share of the first one's time.
DELAYS = (0.1, 1.0)


def mix(items: Sequence[Item], count: int, split: str) -> list[Item]:
    """So many mixtures of two utterances each, by different speakers: none where there is but one.

    Every utterance comes first equally often, give or take one. Who else speaks, and when, is drawn
    from its key, so that the same utterances give the same mixtures.
    """
    if len({item.labels["speaker"] for item in items}) < 2:
        return []
    return [_pair(items[place % len(items)], items, place // len(items), split)
            for place in range(count)]  # fmt: skip


def _pair(first: Item, items: Sequence[Item], turn: int, split: str) -> Item:
    draw = np.random.default_rng([turn, *first.key.encode()])
    others = [item for item in items if item.labels["speaker"] != first.labels["speaker"]]
    second = others[draw.integers(len(others))]
    samples = [min(item.samples, round(LONGEST * SAMPLE_RATE)) for item in (first, second)]
    start = round(draw.uniform(*DELAYS) * samples[0])
    parts = (Part(first, 0, samples[0]), Part(second, start, samples[1]))
    seconds = max(samples[0], start + samples[1]) / SAMPLE_RATE
    return Item(f"{first.key}+{second.key}@{start}", seconds, {}, split, parts=parts)
