"""Trains on without removing anything: the control of all that prunes and trains (Lin et al. 2022).

Lin et al., arXiv 2211.09949, find pruned models better than the dense one, because training went
on. At a rate stands the dense model after as many updates as an iterative method has done when it
reaches that rate, by the same stages and on the same speech.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from compressors._base import Setting
from compressors._iterative import Staged
from encoders.model import Encoder
from encoders.objectives import Objective


@dataclass
class ContinueTraining(Staged):
    acts_on: ClassVar[str] = "nothing"
    reduces: ClassVar[str] = "nothing"

    def pruner(
        self, encoder: Encoder, dense: Encoder, setting: Setting, objective: Objective | None
    ) -> Callable[[float], Encoder]:
        return lambda rate: copy.deepcopy(encoder)

    def achieved(self, dense: Encoder, compressed: Encoder) -> float:
        return 0.0
