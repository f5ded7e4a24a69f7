"""Probe of words: can a linear map tell, from one state's mean over time, which word is spoken?

Each hidden state by itself (tasks._probe), with the utterances of keyword spotting (`ks`), which
learns a sum of all states. Manifests give `word` or `label`. Beside the score.
"""

from __future__ import annotations

from core.metric import Metric
from tasks._probe import PooledProbe


class ProbeWord(PooledProbe):
    name = "probe-word"
    metric = Metric("probe_word_acc", "%", "higher", "words told by the best state alone")
    labels = ("word", "label")
    like = "ks"
