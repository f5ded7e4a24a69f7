"""Small encoders and trainings of a few updates, for tests of methods that train."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from core.spec import LayerSpec, MelFrontEnd, ModelSpec, Positions

#: Six layers of two heads, and two layers of four.
DEEP = ModelSpec(
    "melhubert", MelFrontEnd(bins=10, stack=2), 16, 2, 8, (LayerSpec.dense(2, 8, 16),) * 6,
    Positions(bias_reach=5), feature_norm=False,
)  # fmt: skip
SHALLOW = replace(DEEP, total_heads=4, head_dim=4, layers=(LayerSpec.dense(4, 4, 16),) * 2)

FAST: dict[str, Any] = {
    "steps": 6, "batch_seconds": 2.0, "crop_seconds": 0.5, "clusters": 8, "precision": "no",
    "learning_rate": 5e-3,
}  # fmt: skip
#: Of methods that prune in stages.
STAGED = FAST | {
    "steps": 3, "batch_seconds": 1.0, "augment": False, "stages": "0.25:0.75:0.25",
}  # fmt: skip
