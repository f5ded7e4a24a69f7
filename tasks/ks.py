"""Keyword spotting: which word is spoken (SUPERB's KS, accuracy).

Linear classifier of the mean over time (Yang et al. 2021, arXiv 2105.01051, sec. 2.2). The
built-in corpus has 80 words under babble and noise; manifests give `word` or `label`.
"""

from __future__ import annotations

from core.metric import Metric
from tasks._classify import Classification


class Ks(Classification):
    name = "ks"
    groups = ("quick", "superb")
    metric = Metric("ks_acc", "%", "higher", "keyword accuracy")
    labels = ("word", "label")
