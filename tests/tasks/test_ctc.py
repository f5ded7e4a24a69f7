"""Recognition: symbols, batches, decoding, and what cannot be recognised."""

from __future__ import annotations

import pytest
import torch
from toy_corpus import ToyCorpus

from core.errors import Unsupported
from encoders import zoo
from encoders.corpora.base import Item
from encoders.model import build
from tasks import _ctc, pr
from tasks._ctc import Batch, batches, decode, loss, seen, train
from tasks._features import extract
from tasks._heads import Head
from tasks._spelling import Speller, evenly
from tasks._suite import score_tasks
from tasks.asr import Asr
from tasks.pr import Pr, error_rate
from tasks.sf import Sf


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def flat(head: torch.nn.Module) -> float:
    """An error that no epoch changes, so that the loss decides."""
    return 0.0


def batch(features: torch.Tensor, *said: list[int]) -> Batch:
    """One batch; symbols are their indices."""
    counts = torch.tensor([len(own) for own in said])
    frames = torch.full((len(said),), features.shape[2])
    targets = torch.tensor([index for own in said for index in own])
    return Batch(lambda: features, frames, targets, counts, [list(map(str, own)) for own in said])


def test_decoding_joins_repeats_and_drops_blanks():
    """The path - a a - a b b stands for `a a b`."""
    head = Head(1, 3, 3, generator=generator())
    with torch.no_grad():
        head.maps[0].weight.copy_(torch.eye(3))
    path = torch.tensor([0, 1, 1, 0, 1, 2, 2])
    features = torch.nn.functional.one_hot(path, 3).float()[None, None]
    _, heard = decode(head, [batch(features, [1, 1, 2])], ["", "a", "b"])
    assert heard == [["a", "a", "b"]]
    assert error_rate([["a", "a", "b"]], heard) == 0
    assert error_rate([["a", "b"]], heard) == pytest.approx(50)


def test_symbols_are_spread_evenly():
    rows, places, symbols = evenly(batch(torch.zeros(1, 2, 6, 1), [1, 2], [3, 3, 4]))
    assert rows.tolist() == [0] * 6 + [1] * 6
    assert places.tolist() == [0, 1, 2, 3, 4, 5] * 2
    assert symbols.tolist() == [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 4, 4]


def test_a_few_unknown_symbols_count_as_errors_and_many_are_refused():
    assert seen(list("abab"), list("ab" * 60 + "z"), "asr") == {"a": 0, "b": 1}
    with pytest.raises(Unsupported, match="2 of 4 symbols of dev and test, such as 'z'"):
        seen(list("ab"), list("abzz"), "asr")
    with pytest.raises(Unsupported, match="two labels"):
        seen(list("aa"), [], "asr")


@pytest.mark.parametrize("joined", [1, 3])
def test_batches_hold_standardised_frames_in_the_order_of_items(joined, monkeypatch):
    corpus = ToyCorpus(2)
    items = corpus.items[:5]
    features = extract(build(zoo.fbank()).eval(), corpus, [], items)
    known = {symbol: index for index, symbol in enumerate("ABCD")}
    made = batches(items, features, Asr().spell, known, 2, joined)
    monkeypatch.setattr(_ctc, "HELD", 0)
    again = batches(items, features, Asr().spell, known, 2, joined)
    assert [len(b.frames) for b in made] == [2, 2, 1]
    ordered = sorted(items, key=lambda item: (item.samples, item.key))
    for index, item in enumerate(ordered):
        one, row = made[index // 2], index % 2
        own = features.joined([item])
        count = own.shape[1] // joined
        assert one.frames[row] == count
        expected = own[:, : count * joined].reshape(own.shape[0], count, -1)
        torch.testing.assert_close(one.inputs()[:, row, :count], expected)
        assert one.said[row] == list(item.labels["text"].upper())
        torch.testing.assert_close(again[index // 2].inputs(), one.inputs())


def test_a_speller_does_not_see_its_neighbours():
    x, lengths = torch.randn(2, 3, 9, 4, generator=generator(1)), torch.tensor([9, 5, 2])
    head = Speller(2, 4, 6, generator())
    with torch.no_grad():
        together = head(x, lengths)
        for row, length in enumerate(lengths.tolist()):
            alone = head(x[:, row : row + 1, :length], lengths[row : row + 1])
            torch.testing.assert_close(together[row, :length], alone[0])
        backwards = head(x.flip(2)[:, :1], lengths[:1])
    assert not torch.allclose(backwards.flip(1), together[:1])


def test_a_small_corpus_is_read_until_heads_have_learnt(monkeypatch):
    """Phones of few utterances get as many updates as those of many."""
    asked = []
    monkeypatch.setattr(_ctc, "train", lambda *given: asked.append(given[3]))
    for utterances in (1, 96):
        said = [batch(torch.ones(1, 1, 4, 3), [1]) for _ in range(utterances)]
        Pr().learn({"train": said, "dev": said}, ["", "1"], generator())
    assert asked == [pr.UPDATES, pr.UPDATES // 96]


@pytest.mark.parametrize(("errors", "epoch"), [([3, 1, 2], 1), ([2, 1, 1], 2), ([3, 3, 3], 2)])
def test_the_epoch_with_the_smallest_error_is_taken_and_of_equals_that_of_the_smallest_loss(
    errors: list[int], epoch: int
) -> None:
    said, told = batch(torch.randn(1, 1, 5, 2, generator=generator(3)), [1, 2]), iter(errors)
    head = Head(1, 2, 3, generator=generator())
    heads: list[dict[str, torch.Tensor]] = []

    def error(head: torch.nn.Module) -> float:
        heads.append({name: value.clone() for name, value in head.state_dict().items()})
        return next(told)

    head, details = train(head, [said], [said], 3, 0.01, error, generator())
    assert details["epoch"] == epoch
    torch.testing.assert_close(head.state_dict(), heads[epoch])


@pytest.mark.parametrize(("task", "sign"), [(Pr, 1), (Sf, -1)])
def test_heads_are_chosen_by_the_metric_of_their_task(monkeypatch, task, sign):
    """F1 is the better the higher, the phone error rate the lower."""
    asked = []

    def heard(head, train, dev, epochs, rate, error, generator):
        asked.append(error(head))
        return head, {}

    monkeypatch.setattr(_ctc, "train", heard)
    monkeypatch.setattr(task, "rate", lambda *_: {task.metric.name: 40.0})
    assert outcome(task.name, ToyCorpus()).details["dev"] == 40
    assert asked == [sign * 40]


def test_utterances_with_more_symbols_than_frames_teach_nothing():
    head = Head(1, 2, 3, generator=generator())
    short = batch(torch.randn(1, 1, 2, 2, generator=generator(2)), [1, 2, 1])
    assert loss(head, short).item() == 0
    with pytest.raises(Unsupported, match="more symbols than this model has frames"):
        train(head, [short], [short], 1, 0.1, flat, generator())
    fine = batch(torch.randn(1, 1, 5, 2, generator=generator(3)), [1, 2])
    _, details = train(head, [short, fine], [fine], 1, 0.1, flat, generator())
    assert details["crowded"] == 1


def relabelled(change) -> ToyCorpus:
    corpus = ToyCorpus()
    corpus.items = [Item(i.key, i.seconds, change(i), i.split) for i in corpus.items]
    return corpus


def outcome(task: str, corpus: ToyCorpus):
    ((_, made),) = score_tasks(build(zoo.fbank()).eval(), [task], corpus, seed=0)
    return made


def test_silent_transcripts_are_passed_over():
    """Phones of nothing but silence, and text of nothing but spaces."""
    corpus = relabelled(lambda i: i.labels | {"phones": "sil sil", "text": "  "})
    assert "split 'train'" in outcome("pr", corpus).reason
    assert "split 'train'" in outcome("asr", corpus).reason


@pytest.mark.parametrize(
    ("slots", "reason"),
    [
        ("B-a O", "has 1 words but 2 slots"),
        ("I-a", "slot 'I-a' after 'O'"),
        ("object", "slot 'object'"),
        ("B-", "slot 'B-'"),
        ("O", "no slots"),
    ],
)
def test_bad_slots_are_named(slots, reason):
    assert reason in outcome("sf", relabelled(lambda i: i.labels | {"slots": slots})).reason
