"""Joins every few frames in front of the Transformer to one (Meng et al. 2022, arXiv 2210.07189).

Their average, of any number of frames, or a convolution strided by a whole number, which begins as
the average. The states are spread over the frames again, so that frame-level tasks see as many as
before. Each rate is a training of its own, towards the states of the dense encoder; with `steps=0`
nothing is trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from compressors._base import Setting
from compressors._joining import Joining, joined
from core.errors import Unsupported
from core.spec import SAMPLE_RATE, Shortening
from encoders.model import Encoder

#: Seconds of speech that a token may stand for; Chen et al. 2022 go to 0.96.
LONGEST = 1.0


@dataclass
class Subsampling(Joining):
    steps: int = 40  # updates of the training of a rate; 0 trains nothing
    by: Literal["mean", "conv"] = "mean"  # average, or strided convolution

    def prepare(self, encoder: Encoder, setting: Setting) -> Callable[[float], Encoder]:
        def join(rate: float) -> Encoder:
            factor = self._factor(rate, encoder.spec.hop / SAMPLE_RATE)
            student = joined(encoder, Shortening(self.by, factor))
            objective = self.imitation(encoder, setting.seed)
            self.train(student, objective, setting, f"{self.by} of {factor:.6g}")
            return student

        return join

    def _factor(self, rate: float, period: float) -> float:
        """Frames of that many seconds per token.

        Raises:
            Unsupported: it would be one, or more than there are in LONGEST.
        """
        factor = 1 / (1 - rate)
        if factor * period > LONGEST:
            raise Unsupported(
                f"at rate {rate:g} a token stands for {factor * period:.3g} s of speech; ask for "
                f"{1 - period / LONGEST:.3g} or less, which makes it {LONGEST:g} s"
            )
        if self.by == "mean":
            return factor
        stride = math.floor(factor + 0.5 + 1e-9)
        if stride == 1:
            raise Unsupported(
                f"a convolution's stride is whole, and nearest to rate {rate:g} is 1, which joins "
                "nothing; ask for 0.34 or more, or for by=mean"
            )
        return stride
