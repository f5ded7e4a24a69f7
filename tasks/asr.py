"""Speech recognition: characters by a BiLSTM and CTC (SUPERB's ASR, word error rate).

Yang et al. 2021 (arXiv 2105.01051), sec. 2.1, without a language model. The label `text` holds the
words; case makes no difference. The built-in corpus has commands of 40 words and sentences of
random words; the latter stay beyond a head that hears a quarter of an hour.
"""

from __future__ import annotations

import jiwer

from core.metric import Metric
from encoders.corpora.base import Item
from tasks._spelling import Spelling


class Asr(Spelling):
    name = "asr"
    groups = ("superb",)
    metric = Metric("asr_wer", "%", "lower", "word error rate, no language model")
    label = "text"
    limits = (510, 110, 390)

    def spell(self, item: Item) -> list[str]:
        """The characters, words parted by single spaces."""
        return list(" ".join(item.labels["text"].upper().split()))

    def rate(self, said: list[list[str]], heard: list[list[str]]) -> dict[str, float]:
        return {self.metric.name: 100 * jiwer.wer(list(map(words, said)), list(map(words, heard)))}


def words(characters: list[str]) -> str:
    """As text, with no more spaces than there are between words."""
    return " ".join("".join(characters).split())
