"""Speech that is only listened to: a little of a corpus, and what the linear maps hear of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor, nn

from core.errors import InputError
from encoders.corpora import Corpus
from encoders.model import Encoder
from encoders.roles import linear

#: A linear map: its layer and its role.
Place = tuple[int, str]


def calibration(
    encoder: Encoder, corpus: Corpus | None, seconds: float, seed: int = 0
) -> list[Tensor]:
    """Utterances (1, samples) of the training speech, drawn at random until they fill the seconds.

    All of them where there are no more. Those without a single frame are left out.

    Raises:
        InputError: there is no corpus, or nothing in it is long enough.
    """
    if corpus is None:
        raise InputError("calibration takes speech; name some with --data")
    speech = corpus.training()
    drawn = speech.draw(encoder.spec, seconds, seed)
    return [speech.waveform(item)[None] for item in drawn]


def second_moments(
    encoder: Encoder, waveforms: Iterable[Tensor], places: Sequence[Place]
) -> dict[Place, Tensor]:
    """E[x x^T] (inputs, inputs) of what enters those maps, over all frames of the waveforms.

    Each waveform (batch, samples) is encoded as it is, without padding.
    """
    sums: dict[Place, Tensor] = {}
    frames = dict.fromkeys(places, 0)

    def listen(place: Place, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].flatten(0, -2).float()
        sums[place] = sums.get(place, 0) + x.T @ x
        frames[place] += len(x)

    with ExitStack() as stack, torch.no_grad():
        for place in places:
            hook = linear(encoder, *place).register_forward_pre_hook(partial(listen, place))
            stack.callback(hook.remove)
        for waveform in waveforms:
            encoder(waveform)
    return {place: total / frames[place] for place, total in sums.items()}
