"""Probe of speakers: can a linear map tell, from one state's mean over time, who speaks?

Each hidden state by itself (tasks._probe), with the utterances and the splits of speaker
identification (`sid`), which learns a sum of all states. Manifests give
`speaker`. Beside the score.
"""

from __future__ import annotations

from core.metric import Metric
from tasks._probe import PooledProbe


class ProbeSpeaker(PooledProbe):
    name = "probe-speaker"
    metric = Metric("probe_speaker_acc", "%", "higher", "speakers told by the best state alone")
    labels = ("speaker",)
    like = "sid"
