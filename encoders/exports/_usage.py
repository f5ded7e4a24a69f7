"""How an exported model is run: the code on its card, which is the code that checks it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Usage:
    """Python that runs a model in the folder where it lies.

    load: makes the model. call: makes numpy arrays `states` (layers + 1, batch, frames, dim) and
    `frames` (batch,) of `waveforms` (batch, samples), float32 at 16 kHz, and `lengths` (batch,),
    int64. install: what it needs. padded: whether utterances of a batch may differ in length.
    note: what else has to be known.
    """

    load: str
    call: str
    install: str
    padded: bool = True
    note: str = ""

    @property
    def code(self) -> str:
        return f"{self.load}\n{self.call}"
