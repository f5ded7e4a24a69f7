"""Trains the given weights again under the mask of a trained and pruned model (arXiv 1803.03635).

Frankle and Carbin 2019; as in Chen et al. 2020 (arXiv 2007.12223) and PARP (arXiv 2106.05933) the
weights that are wound back to are those of the pre-trained model. The mask comes from iterative
magnitude pruning: train, cut, train on, cut further, with the loss of pre-training; one such run
gives the masks of all rates. Then each rate's ticket is trained from the start, zeros held.

`rewind=random` is the control: the mask on weights of these maps that are drawn anew.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from compressors._base import Setting
from compressors._iterative import Stage, Staged
from compressors._trained import copy_of
from compressors._zeros import ByMagnitude, masked_like, weights
from core.errors import Unsupported
from encoders.model import Encoder, build


@dataclass
class LotteryTicket(ByMagnitude, Staged):
    steps: int = 12  # updates of a stage and of a ticket; 0 trains nothing
    rewind: Literal["start", "random"] = "start"  # to the given weights, or to others at random

    def track(
        self, encoder: Encoder, rates: Sequence[float], setting: Setting | None = None
    ) -> Iterator[tuple[float, Encoder | Unsupported]]:
        setting = setting or Setting()
        objective = self.watched(encoder, setting)
        start = Stage(self._start(encoder, setting.seed), copy.deepcopy(objective))
        for rate, found in self.cuts(encoder, objective, rates, setting, "mask"):
            if isinstance(found, Unsupported):
                yield rate, found
                continue
            masked = masked_like(start.encoder, found.encoder)
            ticket = Stage(masked, copy.deepcopy(start.objective))
            self.finish(ticket, rate, setting, "ticket")
            yield rate, ticket.encoder

    def dense_first(self) -> bool:
        return True

    def _start(self, encoder: Encoder, seed: int) -> Encoder:
        """What a ticket is trained from, before it is masked."""
        start = copy_of(encoder)
        if self.rewind == "random":
            pairs = zip(weights(start), weights(build(encoder.spec, seed)), strict=True)
            with torch.no_grad():
                for (module, name), (drawn, _) in pairs:
                    getattr(module, name).copy_(getattr(drawn, name))
        return start
