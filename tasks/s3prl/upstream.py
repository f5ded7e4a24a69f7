"""Our encoder behind s3prl's upstream interface: `-u bench_local -k MODEL`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from encoders import store

#: The name after `-u`; s3prl calls those that take a checkpoint (`-k`) something_local.
NAME = "bench_local"


class UpstreamExpert(nn.Module):
    """An encoder by reference: a folder, `builtin` or `random:SHAPE[@SEED]`.

    Raises:
        InputError: nothing has that name, or its folder holds no sound model.
    """

    def __init__(self, ckpt: str | None = None, model_config: str | None = None, **_: Any) -> None:
        super().__init__()
        self.encoder = store.load(ckpt or "builtin")

    def get_downsample_rates(self, key: str | None = None) -> int:
        """Samples per frame."""
        return self.encoder.spec.hop

    def forward(self, wavs: list[Tensor]) -> dict[str, Any]:
        """All hidden states of 16 kHz waveforms, each (batch, time, dim) in float32.

        An utterance's frames are those that it has alone, whatever it is padded to. s3prl keeps
        round(samples / hop) of them, often one more than there are: behind its end an utterance's
        last frame is repeated, as s3prl's own `nn.upstream` does.
        """
        lengths = torch.tensor([len(wav) for wav in wavs], device=wavs[0].device)
        hidden = self.encoder(pad_sequence(wavs, batch_first=True), lengths)
        time = torch.arange(hidden.states[0].shape[1], device=lengths.device)
        places = torch.minimum(time, hidden.lengths.to(lengths.device)[:, None] - 1)[..., None]
        states = [s.float().gather(1, places.expand(-1, -1, s.shape[-1])) for s in hidden.states]
        named = {f"hidden_state_{index}": state for index, state in enumerate(states)}
        return {"hidden_states": states, "last_hidden_state": states[-1], **named}
