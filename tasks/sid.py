"""Speaker identification among known speakers (SUPERB's SID, accuracy).

Linear classifier of the mean over time (Yang et al. 2021, arXiv 2105.01051, sec. 2.3). Shown beside
the score: on synthetic voices log-mel frames alone are nearly as good, so it has no margin.
"""

from __future__ import annotations

from core.metric import Metric
from tasks._classify import Classification


class Sid(Classification):
    name = "sid"
    groups = ("quick", "superb")
    metric = Metric("sid_acc", "%", "higher", "speaker accuracy")
    in_score = False
    labels = ("speaker",)
