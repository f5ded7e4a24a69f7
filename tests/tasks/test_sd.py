"""Diarization: when people speak, and the error rate."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyannote.core import Segment, Timeline
from pyannote.metrics.diarization import DiarizationErrorRate
from toy_corpus import ToyCorpus

from core.errors import Unsupported
from core.spec import SAMPLE_RATE
from encoders.corpora.base import Corpus, Item, Part
from tasks.sd import (
    Batch,
    Diarizer,
    Sd,
    activity,
    annotation,
    heard_speech,
    loss,
    loud,
    part_speech,
    smoothed,
    together,
)

grids = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=4, max_size=30)


def spoken(grid) -> torch.Tensor:
    return torch.tensor(grid)


@given(grids)
def test_stretches_and_frames_say_the_same(grid):
    active = spoken(grid)
    stretches = heard_speech(active, 100 * len(active))
    assert torch.equal(activity(stretches, 100 * len(active), len(active)).bool(), active)


@settings(max_examples=25)
@given(grids, st.randoms(use_true_random=False))
def test_error_rate_is_the_frame_wise_one_over_the_better_order(grid, draw):
    truth = spoken(grid)
    if not truth.any():
        return
    guess = torch.tensor([[draw.random() < 0.5 for _ in pair] for pair in grid])
    samples = len(grid) * SAMPLE_RATE
    pair = [annotation(heard_speech(active, samples)) for active in (truth, guess)]
    expected = min(
        sum(
            max(t.sum(), g.sum()).item() - (t & g).sum().item()
            for t, g in zip(truth, guess[:, list(order)], strict=True)
        )
        for order in itertools.permutations(range(2))
    )
    found = DiarizationErrorRate()(*pair, uem=Timeline([Segment(0, len(grid))]))
    assert found == pytest.approx(expected / truth.sum().item())


def test_loss_does_not_care_who_is_first():
    head = Diarizer(1, 3, torch.Generator().manual_seed(0))
    features = torch.randn(1, 2, 8, 3, generator=torch.Generator().manual_seed(1))
    active = (torch.rand(2, 8, 2, generator=torch.Generator().manual_seed(2)) > 0.5).float()
    one = Batch(features, torch.tensor([8, 5]), active, [], [])
    turned = torch.stack([active[0].flip(-1), active[1]])
    other = Batch(features, torch.tensor([8, 5]), turned, [], [])
    torch.testing.assert_close(loss(head, one), loss(head, other))
    turned[1, 5:] = 1 - turned[1, 5:]  # padding says nothing
    torch.testing.assert_close(loss(head, one), loss(head, other))


def test_short_blips_are_smoothed_away():
    guess = torch.zeros(50, 2, dtype=torch.bool)
    guess[10:12, 0] = guess[20:40, 1] = True
    clean = smoothed(guess, seconds=1.0)
    assert not clean[:, 0].any()
    assert torch.equal(clean[:, 1], guess[:, 1])
    assert torch.equal(smoothed(guess[:2], seconds=1.0), guess[:2])


def test_pauses_between_words_are_no_silence():
    second = SAMPLE_RATE
    words = [(0, second), (second + 100, 2 * second), (3 * second, 4 * second)]
    assert together(words) == [(0, 2 * second), (3 * second, 4 * second)]


def test_speech_is_where_it_is_loud():
    wave = torch.zeros(2 * SAMPLE_RATE)
    wave[SAMPLE_RATE // 2 : SAMPLE_RATE] = torch.sin(torch.arange(SAMPLE_RATE // 2) / 3)
    ((first, last),) = together(loud(wave))
    assert first == pytest.approx(SAMPLE_RATE // 2, abs=400)
    assert last == pytest.approx(SAMPLE_RATE, abs=400)
    assert loud(wave[:100]) == [(0, 100)]


def test_a_part_speaks_where_its_phones_are():
    labels = {"phones": "sil a b sil", "phone_starts": "0 1000 2000 8000"}
    part = Part(Item("x", 1.0, labels), start=500, samples=5000)
    assert part_speech(Corpus("c", [part.item], "0"), part) == [(1500, 5500)]


def test_one_speaker_in_a_split_is_refused():
    corpus = ToyCorpus()
    corpus.items = [i for i in corpus.items if i.split != "dev" or i.labels["speaker"] == "s0"]
    with pytest.raises(Unsupported, match="two speakers or more in split 'dev'"):
        Sd().select(corpus)
