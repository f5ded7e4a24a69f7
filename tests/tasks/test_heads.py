"""Heads: what the protocol promises about them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from tasks._heads import Head, draw_training, fit, mixed, slot_accuracy, slot_loss


def head(states=3, dim=5, classes=4, seed=0):
    return Head(states, dim, classes, generator=torch.Generator().manual_seed(seed))


def test_pooling_before_or_after_the_head_is_the_same():
    """Everything is linear, so per-state means over time replace the frames (facts: 1.3e-7)."""
    x = torch.randn(3, 2, 50, 5, generator=torch.Generator().manual_seed(1))
    model = head()
    with torch.no_grad():
        model.weights.copy_(torch.tensor([0.3, -1.0, 2.0]))
        model.maps[0].weight.normal_()
        after = model(x).mean(1)
        before = model(x.mean(2))
    torch.testing.assert_close(before, after, atol=2e-6, rtol=0)


def test_states_are_summed_with_softmax_weights():
    weights = torch.tensor([1.0, 3.0]).log()
    assert mixed(weights, torch.tensor([[[4.0]], [[8.0]]])).item() == pytest.approx(
        0.25 * 4 + 0.75 * 8
    )


def test_fit_reaches_the_optimum_of_logistic_regression():
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(1, 200, 6, generator=generator)
    y = (x[0] @ torch.randn(6, 3, generator=generator)).argmax(-1)[:, None]
    decay = 1e-2
    model = fit(head(1, 6, 3), x, lambda logits: slot_loss(logits, y, [3]), decay, 200)
    reference = LogisticRegression(C=1 / (decay * 200), tol=1e-8, max_iter=2000)
    reference.fit(x[0].numpy(), y[:, 0].numpy())
    ours = model(x).log_softmax(-1).detach().numpy()
    np.testing.assert_allclose(ours, reference.predict_log_proba(x[0].numpy()), atol=0.02)


def test_slots_count_as_right_only_together():
    model = head(1, 4, 4)
    with torch.no_grad():
        model.maps[0].weight.copy_(torch.eye(4))
    x = torch.tensor([[[1.0, 0, 1, 0], [1, 0, 0, 1]]])
    assert slot_accuracy(model, x, torch.tensor([[0, 0], [0, 0]]), [2, 2]) == 50


def test_seeds_draw_different_nine_tenths():
    first, second = draw_training(100, 0), draw_training(100, 1)
    assert len(first) == 90
    assert len(first.unique()) == 90
    assert not torch.equal(first, second)
    assert torch.equal(first, draw_training(100, 0))
