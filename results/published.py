"""Published models as rows of a table: their size, their MACs and their official scores.

They are of the paper or leaderboard that `published/superb.csv` names for each; nothing of them was
measured here.
"""

from __future__ import annotations

from typing import Any

from core.metric import Metric
from results.superb import METRICS, OFFICIAL, PUBLISHED, official_metric, read_published, superb_s

#: What stands for the method of a published model, and for the run that it is in.
METHOD = "published"

#: Costs in the file: the column that they are here, and in which unit they are given.
COSTS = {"params_millions": ("params_total", 1e6), "macs_giga": ("macs_superb32", 1e9)}

#: Those of the public leaderboard, where nobody asks for others.
ANCHORS = "leaderboard"

#: FBANK is what a score of 0 means; it has no model whose size could be held against others.
ANCHOR = "FBANK"


def rows(anchors: str) -> list[dict[str, Any]]:
    """One row per published model, with superb_s by that convention.

    Raises:
        InputError: there is no such convention.
    """
    models = read_published(PUBLISHED)
    return [_row(name, values, anchors) for name, values in models.items() if name != ANCHOR]


def _row(name: str, values: dict[str, float], anchors: str) -> dict[str, Any]:
    score = superb_s(values, anchors)
    costs = {column: unit * values[c] for c, (column, unit) in COSTS.items() if c in values}
    return {
        "run": METHOD, "model": name, "method": METHOD, "rate": 0.0, "seed": 0, "status": "done",
        "reason": "", "superb_s": score.value, "superb_tasks": " ".join(sorted(score.terms)),
        "anchors": score.anchors, "random_weights": False, "device": "", "key": name,
        **{f"score.{task}": term for task, term in score.terms.items()},
        **{column: values[m] for m, column in _columns().items() if m in values},
        **costs,
    }  # fmt: skip


def sections() -> dict[str, str]:
    """The section that each column of `rows` comes from."""
    return {column: f"{OFFICIAL}{m.partition('_')[0]}" for m, column in _columns().items()} | {
        "params_total": "profile.params", "macs_superb32": "profile.macs",
    }  # fmt: skip


def metrics() -> dict[str, Metric]:
    """What the columns mean."""
    official = {column: official_metric(m) for m, column in _columns().items()}
    costs = Metric("params_total", "", "lower"), Metric("macs_superb32", "MAC", "lower")
    return official | {cost.name: cost for cost in costs}


def _columns() -> dict[str, str]:
    """The official columns by what SUPERB calls them."""
    return {metric: official_metric(metric).name for metric in METRICS}
