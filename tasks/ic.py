"""Intent classification: what a command wants, where and of what (SUPERB's IC, accuracy).

One linear classifier per slot of the intent over the mean over time; a command counts as right if
all of its slots are (Yang et al. 2021, arXiv 2105.01051, sec. 2.3). Manifests give `intent`, its
slots parted by `;`.
"""

from __future__ import annotations

from core.metric import Metric
from tasks._classify import Classification


class Ic(Classification):
    name = "ic"
    groups = ("quick", "superb")
    metric = Metric("ic_acc", "%", "higher", "intent accuracy, all slots right")
    labels = ("intent",)
