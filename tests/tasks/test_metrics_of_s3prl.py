"""The metrics are those that s3prl computes, on random answers."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from pyannote.metrics.diarization import DiarizationErrorRate

from encoders.corpora.base import Item
from tasks.asr import Asr
from tasks.pr import error_rate
from tasks.sd import annotation, heard_speech
from tasks.sf import Sf, slots, text, type_f1, value_cer
from tasks.sv import equal_error_rate

metric = pytest.importorskip("s3prl.metric")


def answers(draw: random.Random, alphabet: list[str], count: int = 60):
    """Random sequences, and what was heard of them: symbols dropped and exchanged."""
    for _ in range(count):
        said = [draw.choice(alphabet) for _ in range(draw.randint(1, 12))]
        yield (
            said,
            [draw.choice([s, s, draw.choice(alphabet)]) for s in said if draw.random() > 0.2],
        )


def test_phone_error_rate():
    said, heard = zip(*answers(random.Random(0), ["a", "bb", "c"]), strict=True)
    lines = [[" ".join(s) for s in side] for side in (heard, said)]
    assert error_rate(list(said), list(heard)) == pytest.approx(100 * metric.per(*lines))


def test_word_error_rate():
    said, heard = zip(*answers(random.Random(1), ["A", "BC", "D"]), strict=True)
    lines = [[" ".join(s) for s in side] for side in (heard, said)]
    rate = Asr().rate([list(line) for line in lines[1]], [list(f" {line}") for line in lines[0]])
    assert rate == {"asr_wer": pytest.approx(100 * metric.wer(*lines))}


def heard_badly(draw: random.Random, symbols: list[str]) -> list[str]:
    """Symbols dropped, added, exchanged; marks without a counterpart and marks within marks."""
    others = ["B-city ", " E-city", "B-time ", " E-time", " ", "A", "B"]
    made = []
    for symbol in symbols:
        fate = draw.random()
        made += [] if fate < 0.15 else [draw.choice(others)] if fate < 0.3 else [symbol]
        made += [draw.choice(others)] if draw.random() < 0.1 else []
    return made


def test_slot_filling():
    draw, said, heard = random.Random(2), [], []
    for _ in range(300):
        length = draw.randint(1, 6)
        marks = [draw.choice(["O", "O", "B-city", "B-time"]) for _ in range(length)]
        words = ["".join(draw.choices("ABC", k=draw.randint(1, 4))) for _ in range(length)]
        labels = {"text": " ".join(words), "slots": " ".join(marks)}
        symbols = Sf().spell(Item("x", 1.0, labels))
        said.append(text(symbols))
        heard.append(text(heard_badly(draw, symbols)))
    pairs = [(slots(s), slots(h)) for s, h in zip(said, heard, strict=True)]
    assert type_f1(pairs) == pytest.approx(100 * metric.slot_type_f1(heard, said))
    assert value_cer(pairs) == pytest.approx(100 * metric.slot_value_cer(heard, said))


def test_equal_error_rate():
    draw = np.random.default_rng(3)
    same = draw.random(400) < 0.3
    scores = draw.standard_normal(400) + same
    expected, _ = metric.compute_eer(same.astype(int), scores)
    assert equal_error_rate(same, scores) == pytest.approx(100 * expected)


def test_diarization_error_rate():
    """s3prl's is over frames and the order of speakers that is given: here the better one."""
    generator = torch.Generator().manual_seed(4)
    truth = torch.rand(5, 60, 2, generator=generator) < 0.6
    guess = truth ^ (torch.rand(5, 60, 2, generator=generator) < 0.2)
    *_, scored, missed, invented, wrong = metric.calc_diarization_error(
        guess.float(), truth.float(), torch.full((5,), 60)
    )
    total = DiarizationErrorRate()
    for t, g in zip(truth, guess, strict=True):
        total(annotation(heard_speech(t, 60_000)), annotation(heard_speech(g.flip(-1), 60_000)))
    assert abs(total) == pytest.approx((missed + invented + wrong) / scored)
