"""Speaker verification of unseen speakers (SUPERB's SV, equal error rate).

A speaker embedding, linear in the mean over time, is trained to tell the training speakers apart;
two test utterances are compared by the cosine of theirs, every pair once. Shown beside the score.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_curve

from core.errors import Unsupported
from core.metric import Metric
from encoders.corpora.base import Corpus, Item
from encoders.model import Encoder
from tasks._base import Outcome, Task, classes, labelled, parted
from tasks._features import Features
from tasks._heads import Head, draw_training, fit, layers, slot_loss

EMBEDDING = 64
DECAY = 1e-3


class Sv(Task):
    groups = ("quick", "superb")
    metric = Metric("sv_eer", "%", "lower", "equal error rate of speaker verification")
    in_score = False

    def select(self, corpus: Corpus) -> list[Item]:
        _, items = labelled(corpus, ("speaker",), "sv")
        parted(items, "sv", ("train", "test"))
        return items

    def score(
        self, encoder: Encoder, corpus: Corpus, items: list[Item], features: Features, seed: int
    ) -> Outcome:
        parts = parted(items, "sv", ("train", "test"))
        speakers = [item.labels["speaker"] for item in parts["train"]]
        known = classes(speakers, (), "sv")
        targets = torch.tensor([[known[speaker]] for speaker in speakers])
        train = features.pooled(parts["train"])
        chosen = draw_training(len(speakers), seed)
        generator = torch.Generator().manual_seed(seed)
        sizes = (train.shape[0], train.shape[2], EMBEDDING, len(known))
        head = fit(
            Head(*sizes, generator=generator),
            train[:, chosen],
            lambda logits: slot_loss(logits, targets[chosen], [len(known)]),
            DECAY,
        )
        eer, trials = verify(head, features, parts["test"])
        details = {"trials": trials, "layer_weights": layers(head), "weight_decay": DECAY}
        return Outcome({self.metric.name: eer}, details)


@torch.no_grad()
def verify(head: Head, features: Features, items: list[Item]) -> tuple[float, dict[str, int]]:
    """The equal error rate over all pairs of utterances, and how many pairs there were."""
    embedded = F.normalize(head.embed(features.pooled(items)), dim=-1)
    speakers = np.array([item.labels["speaker"] for item in items])
    first, second = np.triu_indices(len(items), 1)
    same = speakers[first] == speakers[second]
    if same.all() or not same.any():
        raise Unsupported("task sv needs test pairs of the same and of different speakers")
    scores = (embedded @ embedded.T).numpy()[first, second]
    return equal_error_rate(same, scores), {
        "same": int(same.sum()),
        "different": int((~same).sum()),
    }


def equal_error_rate(same: np.ndarray, scores: np.ndarray) -> float:
    """Percent at which as many targets are missed as impostors accepted (between ROC points)."""
    accepted, found, _ = roc_curve(same, scores)
    missed = 1 - found
    place = int(np.argmax(accepted >= missed))  # never the first, where all are missed
    before, after = accepted[place - 1] - missed[place - 1], accepted[place] - missed[place]
    share = -before / (after - before)
    return 100 * float(accepted[place - 1] + share * (accepted[place] - accepted[place - 1]))
