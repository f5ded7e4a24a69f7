"""Sets the weights of smallest magnitude to zero, over the whole model (Lin et al. 2022).

Lin et al., arXiv 2211.09949: one threshold for all weights and biases of q, k, v, out,
fc1 and fc2, without the training that the paper continues at each sparsity. Only the count of
non-zero weights falls; shapes, dense operations and wall-clock time stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from compressors._base import Compressor
from compressors._zeros import magnitudes, zero_lowest, zeroed
from encoders.model import Encoder


@dataclass
class WeightPruning(Compressor):
    acts_on: ClassVar[str] = "weights and biases of the Transformer's linear maps"
    reduces: ClassVar[str] = "params_nonzero"

    def prepare(self, encoder: Encoder, seed: int) -> Callable[[float], Encoder]:
        return partial(zero_lowest, encoder, magnitudes(encoder))

    def achieved(self, dense: Encoder, compressed: Encoder) -> float:
        return zeroed(dense, compressed)
