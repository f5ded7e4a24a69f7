"""Looks where attention looks: how far from the diagonal each head's attention is, and its map.

Over up to 16 utterances spread over the workload, of 6 s at most each. A head's reach is the mean
distance from a query to what it attends to, as a share of the utterance: minus the diagonality of
Yang et al. 2020 (arXiv 2006.03265), by which Lin et al. 2022 (arXiv 2211.09949) explain what
pruning removes. Maps are of the utterance of median length, of models that have all their heads.
"""

from __future__ import annotations

from base64 import b64encode
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from core.metric import Metric
from core.spec import SAMPLE_RATE
from encoders.attention_maps import attention_maps, diagonality_scores
from encoders.model import Encoder
from encoders.workload import Workload
from profilers._base import Measurement, Profiler, Setting, evaluating, home_of, pinned

#: Utterances that are looked at, and the samples of each.
UTTERANCES, SAMPLES = 16, 6 * SAMPLE_RATE

#: Pixels on a side of the maps that are kept.
SIDE = 32


class Attention(Profiler):
    """Where the attention heads look."""

    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("attention_reach", "", "lower", "distance to what heads attend to, mean over heads"),
    )

    def measure(self, encoder: Encoder, setting: Setting) -> Measurement:
        speech = _speech(setting.workload)
        with pinned(setting.runtime.threads), evaluating(encoder):
            speech = [waveform.to(home_of(encoder)) for waveform in speech]
            reach = [(-own).tolist() for own in diagonality_scores(encoder, speech)]
            median = sorted(speech, key=lambda waveform: waveform.shape[1])[len(speech) // 2]
            maps = _maps(encoder, median) if _whole(encoder) else []
        heads = [value for layer in reach for value in layer]
        details = {
            "utterances": len(speech),
            "reach": reach,
            "maps": maps,
            "map_side": SIDE,
            "map_seconds": median.shape[1] / SAMPLE_RATE,
        }
        if not heads:
            return Measurement({}, {**details, "unavailable": {"attention_reach": "no heads"}})
        return Measurement({"attention_reach": sum(heads) / len(heads)}, details)


def _speech(workload: Workload) -> list[Tensor]:
    """Utterances (1, samples), evenly spread over the workload."""
    count = len(workload.lengths)
    places = dict.fromkeys(at * count // UTTERANCES for at in range(UTTERANCES))
    return [workload.waveform(place)[None, :SAMPLES] for place in places]


def _whole(encoder: Encoder) -> bool:
    return all(len(layer.heads) == encoder.spec.total_heads for layer in encoder.spec.layers)


def _maps(encoder: Encoder, waveform: Tensor) -> list[list[str]]:
    """By layer and head, SIDE rows of SIDE bytes in base64: 255 is where a head attends most."""
    return [
        [_bytes(own) for own in adaptive_avg_pool2d(maps, SIDE)] if len(maps) else []
        for maps in attention_maps(encoder, waveform)
    ]


def _bytes(pixels: Tensor) -> str:
    levels = (255 * pixels / pixels.max().clamp_min(1e-12)).round().byte()
    return b64encode(levels.cpu().numpy().tobytes()).decode()
