"""Sets the weights of smallest magnitude to zero, over the whole model (Lin et al. 2022).

Lin et al., arXiv 2211.09949: one threshold for all weights and biases of q, k, v, out, fc1 and fc2.
Iterative, the model is trained on with the loss of pre-training while the zeros stay zero, and the
next weights are chosen by the magnitudes that come out. Only the count of non-zero weights falls;
shapes, dense operations and wall-clock time stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from compressors._iterative import Pruning
from compressors._zeros import ByMagnitude


@dataclass
class WeightPruning(ByMagnitude, Pruning):
    #: The 38 sparsities and the training of the paper's code, which takes 4 utterances at a time.
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {
            "stages": "0.2:0.5:0.1 0.55:0.65:0.05 0.675 0.7:0.91:0.01 0.915:0.95:0.005",
            "schedule": "iterative", "until": "recovered", "tolerance": 1e-3, "steps": 25_000,
            "learning_rate": 1e-5, "clusters": 512, "batch_seconds": 48.0, "crop_seconds": 12.0,
            "precision": "no", "augment": False,
        }
    }  # fmt: skip

    learning_rate: float = 1.5e-3  # peak, after which it falls linearly
