"""The encoder as a model of transformers; its source goes into the folders that are exported."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from core.spec import ModelSpec
from encoders.model import Encoder


class CompressedConfig(PreTrainedConfig):
    """spec: the encoder's shape, as its spec.json has it."""

    model_type = "compressed-speech-encoder"

    def __init__(self, spec: dict[str, Any] | None = None, **options: Any) -> None:
        self.spec = spec
        self.hidden_size = spec["dim"] if spec else 0
        self.num_hidden_layers = len(spec["layers"]) if spec else 0
        super().__init__(**options)


class CompressedModel(PreTrainedModel):
    """Hidden states of 16 kHz waveforms, of which each has its own length."""

    config_class = CompressedConfig
    base_model_prefix = "encoder"
    main_input_name = "input_values"

    def __init__(self, config: CompressedConfig) -> None:
        super().__init__(config)
        self.encoder = Encoder(ModelSpec.from_json(config.spec or {}))
        self.post_init()

    def _init_weights(self, module: Any) -> None:
        """Nothing: all tensors are in the checkpoint."""

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **_: Any,
    ) -> BaseModelOutput | tuple[Any, ...]:
        """input_values: waveforms (batch, samples). attention_mask: 1 at samples, 0 behind them."""
        lengths = None if attention_mask is None else attention_mask.sum(-1)
        hidden = self.encoder(input_values, lengths)
        wanted = self.config.output_hidden_states
        states = tuple(hidden.states)
        output = BaseModelOutput(
            last_hidden_state=states[-1],
            hidden_states=states
            if (wanted if output_hidden_states is None else output_hidden_states)
            else None,
        )
        return output if return_dict is not False else output.to_tuple()

    def frames(self, samples: Tensor) -> Tensor:
        """Valid frames of waveforms of that many samples (batch,)."""
        spec = self.encoder.spec
        return torch.tensor([spec.frames(int(count)) for count in samples])
