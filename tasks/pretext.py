"""Masked prediction on held-out speech: the loss of pre-training, as an accuracy without a head.

The built-in model's own task (encoders.masked_prediction): half of the frames are masked and the
clusters of clean frames are predicted with the head of pre-training. Nothing is trained, so it is
the one smooth signal of what pruning did to the model itself; outside superb_s.
"""

from __future__ import annotations

import torch

from core.errors import Unsupported
from core.metric import Metric
from encoders.corpora.base import Corpus, Item
from encoders.masked_prediction import MaskedPrediction, span_mask
from encoders.model import Encoder
from tasks._base import Outcome, Task
from tasks._features import Features, batches


class Pretext(Task):
    groups = ("quick",)
    metric = Metric("pretext_acc", "%", "higher", "masked-prediction accuracy")
    in_score = False
    needs = "nothing"

    def select(self, corpus: Corpus) -> list[Item]:
        marked = [item for item in corpus.items if item.labels.get("pretext")]
        return marked or corpus.split("test")

    @torch.inference_mode()
    def score(
        self, encoder: Encoder, corpus: Corpus, items: list[Item], features: Features, seed: int
    ) -> Outcome:
        task = MaskedPrediction.load()
        ours, its = encoder.spec, task.teacher.spec
        if (ours.front_end, ours.dim) != (its.front_end, its.dim):
            raise Unsupported(
                "task pretext scores the built-in model and what is made of it; this encoder has "
                f"another front end or width ({ours.dim}, not {its.dim})"
            )
        generator = torch.Generator().manual_seed(seed)
        right = frames = 0
        for batch in batches(items, ours, equal_only=True):
            waves = torch.stack([corpus.waveform(item) for item in batch])
            targets = task.targets(waves)
            mask = span_mask(len(targets), targets.shape[1], generator)
            inputs, _ = encoder.features(waves)
            hidden = encoder.encode(inputs, None, mask, task.head.mask_embedding)
            guesses = task.head(hidden.states[-1][mask]).argmax(-1)
            right += int((guesses == targets[mask]).sum())
            frames += int(mask.sum())
        return Outcome({self.metric.name: 100 * right / frames}, {"masked_frames": frames})
