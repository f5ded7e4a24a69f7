"""Sets weights chosen at random to zero: the control that every pruning method has to beat.

It acts on the same weights and biases as `weight-pruning`. With one seed, what is zero at a low
rate is zero at every higher rate too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch

from compressors._base import Compressor, Setting
from compressors._zeros import magnitudes, zero_lowest, zeroed
from encoders.model import Encoder


@dataclass
class RandomPruning(Compressor):
    acts_on: ClassVar[str] = "weights and biases of the Transformer's linear maps"
    reduces: ClassVar[str] = "params_nonzero"

    def prepare(self, encoder: Encoder, setting: Setting) -> Callable[[float], Encoder]:
        generator = torch.Generator().manual_seed(setting.seed)
        present = magnitudes(encoder) != 0
        scores = 1 - torch.rand(len(present), generator=generator)  # never 0
        return partial(zero_lowest, encoder, scores.to(present.device) * present)

    def achieved(self, dense: Encoder, compressed: Encoder) -> float:
        return zeroed(dense, compressed)
