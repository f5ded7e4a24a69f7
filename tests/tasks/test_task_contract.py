"""What every task must keep, whichever file it is: picked up from the folder by itself."""

from __future__ import annotations

import math

import pytest
import torch
from toy_corpus import ToyCorpus

from core import plugins
from core.errors import Unsupported
from encoders import zoo
from encoders.corpora.base import Corpus, Item
from encoders.model import build
from tasks import sd
from tasks._suite import score_tasks

TASKS = plugins.names("task")

#: What a linear head on log-mel features must reach on the toy speech, where it is easy.
EASY = {"ks": 95, "ic": 95, "sid": 95, "er": 95, "qbe": 60}


@pytest.fixture(scope="module", autouse=True)
def few_mixtures():
    """Toy speech needs no more, and a test no more time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sd, "MIXTURES", {"train": 60, "dev": 10, "test": 20})
        yield


@pytest.fixture(scope="module")
def corpus() -> ToyCorpus:
    return ToyCorpus()


@pytest.fixture(scope="module")
def outcomes(corpus):
    return dict(score_tasks(build(zoo.fbank()).eval(), TASKS, corpus, seed=0))


@pytest.mark.parametrize("name", TASKS)
def test_card_says_what_the_task_is_without_torch(name):
    card = plugins.card("task", name)
    assert card.summary.endswith(".") or ":" in card.summary
    assert card.metrics
    assert all(metric.better in ("lower", "higher") for metric in card.metrics)


@pytest.mark.parametrize("name", TASKS)
def test_outcome_holds_its_metric_or_a_reason(name, outcomes):
    outcome, metrics = outcomes[name], plugins.card("task", name).metrics
    if outcome.reason is None:
        assert list(outcome.values) == [metric.name for metric in metrics]
        assert all(map(math.isfinite, outcome.values.values()))
        assert isinstance(outcome.details["in_score"], bool)
    else:
        assert name in outcome.reason
        assert not outcome.values


@pytest.mark.parametrize(("name", "least"), EASY.items())
def test_easy_speech_is_learned(name, least, outcomes):
    (value,) = outcomes[name].values.values()
    assert value >= least


@pytest.mark.parametrize(("metric", "most"), [("pr_per", 25), ("asr_wer", 25), ("sf_cer", 50)])
def test_sequences_of_easy_speech_are_recognised(metric, most, outcomes):
    assert outcomes[metric.split("_")[0]].values[metric] < most


def test_slots_of_easy_speech_are_found(outcomes):
    assert outcomes["sf"].values["sf_f1"] > 50


def test_speakers_of_easy_mixtures_are_told_apart(outcomes):
    """Half of what is said would be wrong if the two were not."""
    assert outcomes["sd"].values["sd_der"] < 20


def test_speakers_of_easy_speech_are_verified(outcomes):
    assert outcomes["sv"].values["sv_eer"] < 5


def test_scores_are_the_same_twice(corpus, outcomes):
    again = dict(score_tasks(build(zoo.fbank()).eval(), TASKS, corpus, seed=0))
    assert {n: o.values for n, o in again.items()} == {n: o.values for n, o in outcomes.items()}


def test_shuffled_labels_cannot_be_learned(corpus):
    """A head that saw the test split, or a metric that ignores its input, would pass here."""

    class Shuffled(ToyCorpus):
        def __init__(self) -> None:
            super().__init__()
            order = torch.randperm(len(self.items), generator=torch.Generator().manual_seed(3))
            words = [self.items[i].labels["word"] for i in order.tolist()]
            self.items = [
                Item(i.key, i.seconds, {**i.labels, "word": word}, i.split)
                for i, word in zip(self.items, words, strict=True)
            ]

    ((_, outcome),) = score_tasks(build(zoo.fbank()).eval(), ["ks"], Shuffled(), seed=0)
    assert outcome.values["ks_acc"] < 60


@pytest.mark.parametrize("name", [n for n in TASKS if n != "pretext"])
def test_corpus_without_labels_is_refused_with_a_reason(name):
    bare = Corpus("bare", [Item("x", 1.0), Item("y", 1.0)], "0")
    with pytest.raises(Unsupported, match=name):
        plugins.load("task", name)().select(bare)


@pytest.mark.parametrize("name", ["ks", "ic", "sid"])
def test_label_unseen_in_training_is_refused_by_name(name, corpus):
    class Odd(ToyCorpus):
        def __init__(self) -> None:
            super().__init__(4)
            odd = self.items[-1]
            labels = odd.labels | {"word": "zzz", "intent": "zzz;s0", "speaker": "s1"}
            labels |= {"sid_split": "test"} if name != "sid" else {}
            self.items[-1] = Item(odd.key, odd.seconds, labels, "test")
            if name == "sid":
                self.items = [
                    Item(i.key, i.seconds, i.labels, "test" if i.labels["speaker"] == "s1" else
                         i.split) for i in self.items
                ]  # fmt: skip

    ((_, outcome),) = score_tasks(build(zoo.fbank()).eval(), [name], Odd(), seed=0)
    assert outcome.reason is not None
    assert "training" in outcome.reason or "train" in outcome.reason


def test_one_pass_of_the_encoder_serves_all_tasks(corpus, monkeypatch):
    encoder = build(zoo.fbank()).eval()
    seen = []
    forward = type(encoder).forward

    def count(self, waveforms, lengths=None):
        seen.append(len(waveforms))
        return forward(self, waveforms, lengths)

    monkeypatch.setattr(type(encoder), "forward", count)
    list(score_tasks(encoder, ["ks", "ic", "sid", "sv", "pr", "qbe"], corpus, seed=0))
    assert sum(seen) == len(corpus.items)


def test_task_that_lacks_its_labels_does_not_stop_the_others(corpus):
    class NoPhones(ToyCorpus):
        def __init__(self) -> None:
            super().__init__()
            for item in self.items:
                item.labels["spoken"] = item.labels.pop("phones")

        def read(self, item):
            return super().read(
                Item(item.key, item.seconds, {**item.labels, "phones": item.labels["spoken"]})
            )

    outcomes = dict(score_tasks(build(zoo.fbank()).eval(), ["pr", "ks"], NoPhones(), seed=0))
    assert "phones" in outcomes["pr"].reason
    assert outcomes["ks"].values["ks_acc"] > 90
