"""Speech that any feature can tell apart: sequences of tones by 'speakers' of a timbre."""

from __future__ import annotations

import torch
from torch import Tensor

from core.spec import SAMPLE_RATE
from encoders.corpora.base import Corpus, Item

PITCHES = {"a": 300.0, "b": 700.0, "c": 1500.0, "d": 3000.0}
OVERTONES = {"s0": 0.0, "s1": 1.0}
TONE_SECONDS = 0.15


class ToyCorpus(Corpus):
    """Four words of two tones each, three intents' slots, two speakers; 12 utterances per pair."""

    def __init__(self, repeats: int = 12) -> None:
        items = [
            _item(word, speaker, repeat)
            for word in ("a b", "b a", "c d", "d c")
            for speaker in OVERTONES
            for repeat in range(repeats)
        ]
        super().__init__("toy", items, "toy-1")

    def read(self, item: Item) -> Tensor:
        generator = torch.Generator().manual_seed(int(item.labels["seed"]))
        time = torch.arange(int(TONE_SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
        tones = [
            torch.sin(2 * torch.pi * PITCHES[phone] * time)
            + OVERTONES[item.labels["speaker"]] * torch.sin(4 * torch.pi * PITCHES[phone] * time)
            for phone in item.labels["phones"].split()
        ]
        wave = torch.cat(tones)
        return 0.1 * wave + 0.003 * torch.randn(len(wave), generator=generator)


def _item(word: str, speaker: str, repeat: int) -> Item:
    labels = {
        "word": word.replace(" ", ""),
        "phones": f"{word} {word}",
        "speaker": speaker,
        "intent": f"{word[0]};{speaker}",
        "text": f"{word} {word}".replace(" ", ""),
        "slots": "B-" + word[0],
        "emotion": word[0],
        "seed": str(hash_of(word, speaker, repeat)),
    }
    split = ("train", "train", "dev", "test")[repeat % 4]
    return Item(f"{labels['word']}-{speaker}-{repeat}", 4 * TONE_SECONDS, labels, split)


def hash_of(word: str, speaker: str, repeat: int) -> int:
    return sum(ord(c) * 31**i for i, c in enumerate(word + speaker)) % 9973 * 100 + repeat
