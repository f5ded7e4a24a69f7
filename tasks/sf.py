"""Slot filling: the words of a command and what they stand for (SUPERB's SF, F1 and CER).

Yang et al. 2021 (arXiv 2105.01051), sec. 2.3, as s3prl 0.4.18 has it (metric/slot_filling.py): the
head of speech recognition spells slots as symbols of their own, `B-city rome E-city`. The F1 of an
utterance is that of its set of slot types; the CER is over the values of the slots that were said,
each held against the nearest value heard for its type. Manifests give `text`, and `slots` with one
of `B-TYPE`, `I-TYPE` and `O` for every word.
"""

from __future__ import annotations

import re
from collections import defaultdict

import jiwer

from core.errors import Unsupported
from core.metric import Metric
from encoders.corpora.base import Corpus, Item
from tasks._base import parted
from tasks._spelling import Spelling

_SLOT = re.compile(r"B-(\S+) (.+?) E-\1")


class Sf(Spelling):
    name = "sf"
    groups = ("superb",)
    metric = Metric("sf_f1", "%", "higher", "F1 of slot types")
    also = (Metric("sf_cer", "%", "lower", "character error rate of slot values"),)
    label = "slots"
    limits = (400, 80, 280)

    def select(self, corpus: Corpus) -> list[Item]:
        items = super().select(corpus)
        for split, part in parted(items, "sf").items():
            if not any("B-" in item.labels["slots"] for item in part):
                raise Unsupported(f"task sf finds no slots in split {split!r}: every word is O")
        return items

    def spell(self, item: Item) -> list[str]:
        """The characters, with a symbol before and after the words of each slot.

        Raises:
            Unsupported: slots and words differ in number, or a slot is none of those.
        """
        words, slots = item.labels.get("text", "").upper().split(), item.labels["slots"].split()
        _check(item, words, slots)
        symbols: list[str] = []
        for place, (word, slot) in enumerate(zip(words, slots, strict=True)):
            follows = slots[place + 1] if place + 1 < len(slots) else "O"
            symbols += [f"B-{slot[2:]} "] if slot.startswith("B-") else []
            symbols += word
            symbols += [f" E-{slot[2:]}"] if slot != "O" and not follows.startswith("I-") else []
            symbols += [" "]
        return symbols[:-1]

    def rate(self, said: list[list[str]], heard: list[list[str]]) -> dict[str, float]:
        pairs = [(slots(text(s)), slots(text(h))) for s, h in zip(said, heard, strict=True)]
        return {"sf_f1": type_f1(pairs), "sf_cer": value_cer(pairs)}


def _check(item: Item, words: list[str], slots: list[str]) -> None:
    if len(words) != len(slots):
        raise Unsupported(
            f"task sf: {item.key!r} has {len(words)} words but {len(slots)} slots; give one of "
            "B-TYPE, I-TYPE and O for every word"
        )
    before = "O"
    for slot in slots:
        inside = slot[:2] == "I-" and before[2:] == slot[2:] != ""
        if slot != "O" and not (slot[:2] == "B-" and slot[2:]) and not inside:
            raise Unsupported(
                f"task sf: {item.key!r} has the slot {slot!r} after {before!r}; expected O, "
                "B-TYPE, or I-TYPE after one of its own type"
            )
        before = slot


Slots = dict[str, list[str]]


def text(symbols: list[str]) -> str:
    return re.sub(" +", " ", "".join(symbols))


def slots(text: str) -> Slots:
    """The values of each slot type; marks that have no counterpart are no slots."""
    found: Slots = defaultdict(list)
    for name, value in _SLOT.findall(text):
        found[name].append(re.sub(r" E-\S+", "", re.sub(r"B-\S+ ", "", value)))
    return found


def type_f1(pairs: list[tuple[Slots, Slots]]) -> float:
    """Percent, the mean over utterances (said, heard) of the F1 of their sets of slot types."""
    shared = [(2 * len(s.keys() & h.keys()), len(s) + len(h)) for s, h in pairs]
    return 100 * sum(both / all_ if all_ else 1.0 for both, all_ in shared) / len(pairs)


def value_cer(pairs: list[tuple[Slots, Slots]]) -> float:
    """Percent of the characters of all values said that were heard wrongly."""
    said, heard = [], []
    for own, found in pairs:
        for name, values in own.items():
            for value in values:
                said.append(value)
                heard.append(min(found.get(name, [""]), key=lambda guess: jiwer.cer(value, guess)))
    return 100 * jiwer.cer(said, heard)
