"""Emotion recognition: in which manner something is said (SUPERB's ER, accuracy).

Linear classifier of the mean over time (Yang et al. 2021, arXiv 2105.01051, sec. 2.4). Manifests
give `emotion`. eSpeak NG has no emotions: on the built-in corpus the label is one of four speaking
styles, slow or fast and flat or lively, after the pace and the pitch range of the prompt.
"""

from __future__ import annotations

from core.metric import Metric
from tasks._classify import Classification


class Er(Classification):
    name = "er"
    groups = ("superb",)
    metric = Metric("er_acc", "%", "higher", "accuracy of emotion, or of speaking style")
    labels = ("emotion",)
