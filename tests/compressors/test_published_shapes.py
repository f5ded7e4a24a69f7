"""Sizes and costs of Lin et al.'s pruned and distilled MelHuBERTs (arXiv 2211.09949, figure).

The published numbers are read off a figure, hence the tolerances.
"""

from __future__ import annotations

import pytest
import torch

from compressors._base import Compressor
from compressors.first_layers import FirstLayers
from compressors.head_pruning import HeadPruning
from compressors.row_pruning import RowPruning
from encoders.model import Encoder, build
from encoders.workload import Workload
from encoders.zoo import melhubert_20ms
from profilers.macs import Cost

#: What the prediction head adds to the encoder: 512 clusters from 768 dimensions, a bias.
PREDICTION_HEAD = 768 * 512 + 512
SUPERB32 = Workload.parse("superb32")

#: How it is made, millions of parameters, G MACs per second of audio.
PUBLISHED = {
    "9 heads": (HeadPruning(), 3 / 12, 83.1, 4.49),
    "4 heads": (HeadPruning(), 8 / 12, 71.5, 3.70),
    "4 heads, of the whole model": (HeadPruning(scope="model"), 8 / 12, 71.5, 3.70),
    "FFN of 2048": (RowPruning(), 1 / 3, 71.4, 3.96),
    "6 layers": (FirstLayers(), 1 / 2, 47.7, 2.58),
}


@pytest.fixture(scope="module")
def dense() -> Encoder:
    """Of zeros, which take no time to draw: shapes do not depend on them."""
    with torch.device("meta"):
        encoder = build(melhubert_20ms())
    encoder = encoder.to_empty(device="cpu")
    encoder.load_state_dict({k: torch.zeros_like(v) for k, v in encoder.state_dict().items()})
    return encoder


def agree(encoder: Encoder, parameters: float, macs: float) -> None:
    own = sum(p.numel() for p in encoder.parameters()) + PREDICTION_HEAD
    assert own / 1e6 == pytest.approx(parameters, abs=0.3)
    total = sum(Cost.of(encoder).over(SUPERB32.lengths).values())
    assert total / SUPERB32.seconds / 1e9 == pytest.approx(macs, abs=0.05)


def test_the_dense_model_is_as_published(dense: Encoder) -> None:
    agree(dense, 90.2, 4.94)


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_left_is_as_published(dense: Encoder, name: str) -> None:
    method, rate, parameters, macs = PUBLISHED[name]
    assert isinstance(method, Compressor)
    made = dict(method.track(dense, [rate]))[rate]
    assert isinstance(made, Encoder)
    agree(made, parameters, macs)
