"""The Pareto front: the points that no other point beats on cost and score at once."""

from __future__ import annotations

import math
from collections.abc import Sequence


def front(costs: Sequence[float], scores: Sequence[float]) -> list[int]:
    """Indices of the points on the front, from the cheapest to the dearest.

    Costs are to be low, scores high. A point is beaten by one that is no worse on both and better
    on one, so points that agree on both are on the front together. Points with a NaN are not.
    """
    known = [
        i
        for i, pair in enumerate(zip(costs, scores, strict=True))
        if not any(map(math.isnan, pair))
    ]
    kept: list[int] = []
    for i in sorted(known, key=lambda i: (costs[i], -scores[i], i)):
        best = kept[-1] if kept else None
        if (
            best is None
            or scores[i] > scores[best]
            or (costs[i], scores[i]) == (costs[best], scores[best])
        ):
            kept.append(i)
    return kept
