"""Probe of loudness: how much of each frame's level does a linear map read off one state?

The level is that of the frame's 25 ms, in dB relative to the whole utterance: what a model that
normalises its waveforms can know. Reported is the share of its variance that is explained. Any
utterances will do, they need no labels; beside the score.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from core.metric import Metric
from tasks._probe import FrameRegression

WINDOW = 400
FLOOR = 1e-6  # of the utterance's power (-60 dB): digital silence has no logarithm


class ProbeEnergy(FrameRegression):
    name = "probe-energy"
    metric = Metric("probe_energy_r2", "%", "higher", "variance of the level that is explained")

    def values(self, wave: Tensor, centres: Tensor) -> Tensor:
        reach = WINDOW // 2
        windows = F.pad(wave, (reach, reach)).unfold(0, WINDOW, 1)[centres]
        relative = windows.square().mean(1) / wave.square().mean().clamp(min=1e-12)
        return 10 * relative.clamp(min=FLOOR).log10()
