"""Query by example: alignment and value against plain definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy_corpus import ToyCorpus

from tasks.qbe import BETA, FAR, align, max_term_weighted_value, trials


def plain_alignment(distances: np.ndarray) -> float:
    """The recursion cell by cell: distances (query, document)."""
    count, time = distances.shape
    best = np.full((count, time), np.inf)
    best[0] = distances[0]
    for i in range(1, count):
        for j in range(time):
            options = []
            if j >= 1:
                options.append(best[i - 1, j - 1])
            if j >= 2:
                options.append(best[i - 1, j - 2])
            if i >= 2 and j >= 1:
                options.append(best[i - 2, j - 1] + distances[i - 1, j])
            if options:
                best[i, j] = distances[i, j] + min(options)
    return best[-1].min() / count


@given(st.integers(1, 6), st.integers(6, 14), st.integers(0, 99))
def test_alignment_is_the_recursion(count, time, seed):
    distances = torch.rand(count, 2, 3, time, generator=torch.Generator().manual_seed(seed))
    lengths = torch.tensor([time, time - 1, max(count, time - 4)])
    beyond = torch.arange(time) >= lengths[:, None]
    found = align(distances.masked_fill(beyond, FAR))
    for batch in range(2):
        for n, length in enumerate(lengths.tolist()):
            expected = plain_alignment(distances[:, batch, n, :length].double().numpy())
            if expected < 1e3:
                assert found[batch, n].item() == pytest.approx(expected, rel=1e-5)


def test_query_inside_a_document_costs_nothing():
    document = torch.nn.functional.normalize(torch.randn(20, 8), dim=-1)
    query = document[5:12]
    distances = (1 - query @ document.T)[:, None, None]
    assert align(distances).item() == pytest.approx(0, abs=1e-6)


@given(st.integers(0, 200))
def test_value_is_the_best_over_all_thresholds(seed):
    draw = np.random.default_rng(seed)
    truth = draw.random((4, 9)) < 0.3
    truth[:, 0], truth[:, 1] = True, False
    scores = draw.standard_normal((4, 9)) + 2 * truth

    def value(threshold: float) -> float:
        found = scores >= threshold
        missed = 1 - (found & truth).sum(1) / truth.sum(1)
        false = (found & ~truth).sum(1) / (~truth).sum(1)
        return float((1 - missed - BETA * false).mean())

    best = max(0.0, *(value(threshold) for threshold in scores.ravel()))
    assert max_term_weighted_value(scores, truth) == pytest.approx(best)


def test_perfect_scores_are_worth_one_and_useless_ones_nothing():
    truth = np.eye(5, dtype=bool)
    assert max_term_weighted_value(truth.astype(float), truth) == pytest.approx(1)
    assert max_term_weighted_value(-truth.astype(float), truth) == 0


def test_no_utterance_is_both_query_and_document():
    queries, documents = trials(ToyCorpus(), "test")
    assert not {item.key for item in queries} & {item.key for item in documents}
    assert {item.labels["word"] for item in queries} <= {item.labels["word"] for item in documents}
    assert all(item.split == "test" for item in [*queries, *documents])
