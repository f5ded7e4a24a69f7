"""Probe of phones: can a linear map tell, from one frame of one state, which phone is spoken?

Each hidden state by itself (tasks._probe); silence is not scored. The labels are `phones` with the
sample at which each starts, `phone_starts`. Beside the score.

The control task (Hewitt & Liang 2019, arXiv 1909.03368) gives every phone between its neighbours a
phone drawn at random: what the probe reaches there it has learned by heart. `selectivity` is by how
much the reported state is better than that.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch
from torch import Tensor

from core.errors import Unsupported
from core.metric import Metric
from encoders.corpora.base import Corpus, Item
from encoders.model import Encoder
from tasks._base import Outcome, classes, labelled, parted
from tasks._features import Features
from tasks._probe import Probe, classify, drawn, frames, limited

SILENCE = "sil"


class ProbePhone(Probe):
    name = "probe-phone"
    metric = Metric("probe_phone_acc", "%", "higher", "frames' phones told by the best state alone")
    needs = "frames"

    def select(self, corpus: Corpus) -> list[Item]:
        _, items = labelled(corpus, ("phone_starts",), self.name)
        return limited(items, self.name)

    def score(
        self, encoder: Encoder, corpus: Corpus, items: list[Item], features: Features, seed: int
    ) -> Outcome:
        parts = parted(items, self.name)
        spoken = {s: {p for i in part for p in phones(i)[0]} for s, part in parts.items()}
        heard = sorted(spoken["train"] - {SILENCE})
        others = (spoken["dev"] | spoken["test"]) - {SILENCE}
        known = classes(heard, sorted(others), self.name)
        random = control(items, known, seed)
        parts["train"] = drawn(parts["train"], seed)

        def label(item: Item, centres: Tensor) -> Tensor:
            own, starts = phones(item)
            pairs = [
                (known.get(p, -1), random.get(c, -1)) for p, c in zip(own, around(own), strict=True)
            ]
            return torch.tensor(pairs)[torch.searchsorted(starts, centres, right=True) - 1]

        chosen, heart = classify(
            lambda split: frames(parts[split], features, encoder.spec, label), [len(known)] * 2
        )
        outcome = self.outcome(chosen, parts, phones=len(known), control_by_state=heart.by_state)
        (value,) = outcome.values.values()
        outcome.details["selectivity"] = round(value - heart.by_state[chosen.state], 3)
        return outcome


def phones(item: Item) -> tuple[list[str], Tensor]:
    """The phones of an utterance and the samples at which they start.

    Raises:
        Unsupported: there are not as many of the one as of the other.
    """
    own = item.labels.get("phones", "").split()
    starts = torch.tensor(list(map(int, item.labels["phone_starts"].split())))
    if len(own) != len(starts):
        raise Unsupported(
            f"task probe-phone needs a start for every phone; {item.key!r} has {len(own)} phones "
            f"and {len(starts)} phone_starts"
        )
    return own, starts


def around(own: list[str]) -> list[tuple[str, ...]]:
    """Every phone between its neighbours."""
    return list(zip(["", *own], own, [*own[1:], ""], strict=False))


def control(items: list[Item], known: dict[str, int], seed: int) -> dict[tuple[str, ...], int]:
    """A phone's index for every phone between its neighbours, as often as phones are."""
    contexts = Counter(context for item in items for context in around(phones(item)[0]))
    counts = np.zeros(len(known))
    for context, count in contexts.items():
        if context[1] in known:
            counts[known[context[1]]] += count
    types = sorted(context for context in contexts if context[1] in known)
    labels = np.random.default_rng(seed).choice(len(known), len(types), p=counts / counts.sum())
    return dict(zip(types, labels.tolist(), strict=True))
