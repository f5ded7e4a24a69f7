"""Query by example: which utterances hold the spoken query (SUPERB's QbE, MTWV).

No head: frames are compared by cosine, a query is aligned anywhere in a document by subsequence
dynamic time warping (Yang et al. 2021, arXiv 2105.01051, sec. 2.2), scores are standardised per
query, and the layer with the best value on dev is reported on test. MTWV is the maximum over
thresholds of 1 - Pmiss - beta Pfa with QUESST 2014's costs (Cfa 1, Cmiss 100, prior 0.0008).

Of every word's utterances in a split the first half are queries, the rest are documents.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import groupby

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from core.errors import Unsupported
from core.metric import Metric
from encoders.corpora.base import Corpus, Item
from encoders.model import Encoder
from tasks._base import Outcome, Task, labelled, parted, thin
from tasks._features import Features

BETA = (1 - 0.0008) / 0.0008 / 100
LIMITS = {"dev": 80, "test": 320}  # queries and documents of a split at most
TOGETHER = 16  # queries that are aligned in one go; their distances to all documents lie in memory
FAR = 1e4


class Qbe(Task):
    groups = ("quick", "superb")
    metric = Metric("qbe_mtwv", "%", "higher", "maximum term-weighted value")
    needs = "frames"

    def select(self, corpus: Corpus) -> list[Item]:
        return [item for split in LIMITS for part in trials(corpus, split) for item in part]

    def score(
        self, encoder: Encoder, corpus: Corpus, items: list[Item], features: Features, seed: int
    ) -> Outcome:
        states = len(features.mean)
        dev = [mtwv(*trials(corpus, "dev"), features, state) for state in range(states)]
        best = int(np.argmax(dev))
        queries, documents = trials(corpus, "test")
        value = mtwv(queries, documents, features, best)
        details = {"layer": best, "dev": dev[best], "queries": len(queries),
                   "documents": len(documents)}  # fmt: skip
        return Outcome({self.metric.name: value}, details)


def trials(corpus: Corpus, split: str) -> tuple[list[Item], list[Item]]:
    """Queries and documents of a split; every query's word is in some document, not in all.

    Raises:
        Unsupported: the corpus has no such utterances.
    """
    _, spoken = labelled(corpus, ("word",), "qbe")
    by_word: dict[str, list[Item]] = defaultdict(list)
    for item in parted(spoken, "qbe", ("dev", "test"))[split]:
        by_word[item.labels["word"]].append(item)
    queries, documents = [], []
    for items in by_word.values():
        queries += items[: len(items) // 2]
        documents += items[len(items) // 2 :]
    documents = thin(documents, LIMITS[split])
    held = {item.labels["word"] for item in documents}
    queries = thin([item for item in queries if item.labels["word"] in held], LIMITS[split])
    if not queries or len(held) < 2:
        raise Unsupported(
            f"task qbe needs two words or more spoken twice or more in split {split!r}; "
            f"corpus {corpus.name!r} has {len(held)}"
        )
    return queries, documents


@torch.inference_mode()
def mtwv(
    queries: Sequence[Item], documents: Sequence[Item], features: Features, state: int
) -> float:
    """Percent, over all pairs of a query and a document, on one layer's states."""

    def unit(items: Sequence[Item]) -> tuple[Tensor, ...]:
        frames = F.normalize(features.joined(items, state), dim=-1)
        return frames.split(features.lengths(items))

    padded = pad_sequence(list(unit(documents)), batch_first=True)
    lengths = torch.tensor(features.lengths(documents))
    # A distance is 1 - cosine, and FAR beyond a document's end, where its frames are 0.
    offsets = torch.where(torch.arange(padded.shape[1]) < lengths[:, None], 1.0, FAR).flatten()
    queries = sorted(queries, key=lambda item: (item.samples, item.key))
    scores = []
    for _, equal in groupby(queries, key=lambda item: features.lengths([item])[0]):
        for some in torch.stack(unit(list(equal)), dim=1).split(TOGETHER, dim=1):
            distances = F.linear(-some.flatten(0, 1), padded.flatten(0, 1), offsets)
            scores.append(-align(distances.view(*some.shape[:2], *padded.shape[:2])))
    joined = torch.cat(scores)
    joined = (joined - joined.mean(1, keepdim=True)) / (joined.std(1, keepdim=True) + 1e-9)
    said = np.array([item.labels["word"] for item in documents])
    truth = np.array([item.labels["word"] for item in queries])[:, None] == said
    return 100 * max_term_weighted_value(joined.numpy(), truth)


def align(distances: Tensor) -> Tensor:
    """The mean distance (batch, n) along the best path of whole queries through documents' parts.

    distances: (query frames, batch, n, document frames), FAR beyond a document's end. A path moves
    one query frame and one document frame at a time, or two of either, so that a row needs but the
    two before it; all documents advance together.
    """
    count, batch, n, time = distances.shape
    # Two columns before the first frame stand for paths that would begin outside the document.
    above, row, free = (distances.new_full((batch, n, 2 + time), FAR) for _ in range(3))
    row[..., 2:] = distances[0]
    for index in range(1, count):
        best = torch.minimum(row[..., 1:-1], row[..., :-2])
        if index > 1:
            best = torch.minimum(best, above[..., 1:-1] + distances[index - 1])
        torch.add(best, distances[index], out=free[..., 2:])
        above, row, free = row, free, above
    return row.amin(-1) / count


def max_term_weighted_value(scores: np.ndarray, truth: np.ndarray) -> float:
    """max over thresholds of the mean over queries of 1 - Pmiss - BETA Pfa; never below 0.

    scores, truth: (queries, documents).
    """
    hits = 1 / truth.sum(1, keepdims=True)
    alarms = -BETA / (~truth).sum(1, keepdims=True)
    order = np.argsort(-scores, axis=None, kind="stable")
    gains = np.cumsum(np.where(truth, hits, alarms).ravel()[order]) / len(scores)
    return float(max(0.0, gains.max()))
