"""What encoders are trained on: the losses against plain formulas."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from core.errors import Unsupported
from core.spec import LayerSpec, MelFrontEnd, ModelSpec, Positions
from encoders.corpora.base import Corpus, Item
from encoders.crops import Batch
from encoders.masked_prediction import MaskedPrediction, span_mask
from encoders.model import build
from encoders.objectives import Apc, MaskedClusters, VqApc, freeze
from encoders.store import load

SPEC = ModelSpec(
    "melhubert", MelFrontEnd(10, 2), 16, 2, 8, (LayerSpec.dense(2, 8, 32),) * 3,
    Positions(bias_reach=4), feature_norm=False,
)  # fmt: skip


class Noise(Corpus):
    def waveform(self, item):
        generator = torch.Generator().manual_seed(int(item.key))
        return torch.randn(item.samples, generator=generator)


CORPUS = Noise("noise", [Item(str(i), 1.5, split="train") for i in range(6)], "0")


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(dim=20, time=40):
    clean = torch.randn(3, time, dim, generator=rng(5))
    return Batch(clean + 0.1, clean, (), ())


@pytest.fixture(scope="module")
def encoder():
    return build(SPEC, seed=0)


def test_masked_clusters_is_the_cross_entropy_at_masked_frames_to_clean_clusters(encoder):
    objective = MaskedClusters.of(encoder, CORPUS, seed=0, clusters=7)
    speech = batch()
    losses = objective(encoder, speech, rng())
    task = objective._task[0]
    assert task.centroids.shape == (7, 16)
    mask = span_mask(3, 40, rng(), 0.7, 5)
    head = objective.head
    states = encoder.encode(speech.features, mask=mask, mask_embedding=head.mask_embedding).states
    clean = (encoder.encode(speech.clean).states[2] - task.mean) / task.std
    labels = ((clean[..., None, :] - task.centroids) ** 2).sum(-1).argmin(-1)
    expected = F.cross_entropy(head.linear(states[-1][mask]), labels[mask])
    assert losses["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert 0 <= losses["accuracy"] <= 1


def test_targets_of_another_model_do_not_move_while_it_trains(encoder):
    student = build(SPEC, seed=0)
    objective = MaskedClusters.of(student, CORPUS, seed=0, clusters=7)
    before = objective._task[0].labels(batch().clean)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.normal_(generator=rng(3))
    assert torch.equal(objective._task[0].labels(batch().clean), before)
    assert not any("teacher" in name for name, _ in objective.named_parameters())


def test_the_built_in_model_brings_its_own_task_and_head():
    builtin = load("builtin")
    task = MaskedPrediction.of(builtin, CORPUS, seed=0, clusters=7)
    assert torch.equal(task.centroids, MaskedPrediction.load().centroids)
    objective = MaskedClusters(task, builtin.spec.dim)
    assert torch.equal(objective.head.linear.weight, task.head.linear.weight)
    assert MaskedClusters(task, 48).head.linear.weight.shape == (200, 48)
    other = build(builtin.spec, seed=3)  # of the same shape, but its frames are not standardised
    assert MaskedPrediction.own(other) is None


def test_apc_predicts_frames_ahead(encoder):
    causal = build(replace(SPEC, causal=True), seed=0)
    objective, speech = Apc(causal, ahead=3), batch()
    states = causal.encode(speech.features).states[-1]
    expected = (objective.predict(states[:, :-3]) - speech.clean[:, 3:]).abs().mean()
    assert objective(causal, speech, rng())["loss"].item() == pytest.approx(expected.item())
    with pytest.raises(Unsupported, match="causal"):
        Apc(encoder)


def test_vq_apc_predicts_through_one_code_and_still_trains_the_encoder():
    causal = build(replace(SPEC, causal=True), seed=0)
    objective, speech = VqApc(causal, codes=5), batch()
    codes = objective.code(causal.encode(speech.features).states[-1], rng()).flatten(0, 1)
    book = objective.codebook.weight.t()
    assert torch.cdist(codes, book).amin(1).max() < 1e-2
    assert len(torch.cdist(codes, book).argmin(1).unique()) > 1
    objective(causal, speech, rng())["loss"].backward()
    assert all(p.grad.abs().sum() > 0 for p in causal.layers[0].fc1.parameters())


def test_a_causal_model_does_not_see_ahead():
    causal = build(replace(SPEC, causal=True), seed=0).eval()
    features = batch().features
    changed = features.clone()
    changed[:, 20:] = 0
    for one, other in zip(
        causal.encode(features).states, causal.encode(changed).states, strict=True
    ):
        assert torch.allclose(one[:, :20], other[:, :20], atol=1e-5)
    padded = causal.encode(features, torch.tensor([40, 30, 20])).states[-1]
    assert torch.allclose(padded[2, :20], causal.encode(features).states[-1][2, :20], atol=1e-5)


def test_a_frozen_copy_is_a_copy(encoder):
    frozen = freeze(encoder)
    assert not any(p.requires_grad for p in frozen.parameters())
    assert all(p.requires_grad for p in encoder.parameters())
