"""The same weights in torchaudio, transformers and s3prl, to be run beside ours.

Each counterpart holds a model of the library itself in evaluation mode, and gives all hidden states
in the fastest way that the library has: what its wrappers add (padding of lists, masks of batches
without padding) is left off. A library is imported when a model of it is made, not before.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from dataclasses import replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.errors import Unsupported
from core.spec import ConvFrontEnd, LayerSpec, ModelSpec
from encoders.model import DTYPES, Encoder, Hidden
from encoders.padding import full_lengths
from encoders.sources import _names

_TRANSFORMERS = {"hubert": "Hubert", "wav2vec2": "Wav2Vec2", "wavlm": "WavLM"}

_TORCHAUDIO_DROPOUTS = (
    "encoder_projection_dropout",
    "encoder_attention_dropout",
    "encoder_ff_interm_dropout",
    "encoder_dropout",
    "encoder_layer_drop",
)


class Counterpart(nn.Module):
    """A model of another library with an encoder's weights in float32, run as the encoder is.

    spec: what it computes, which is what the encoder does. install: how to get the library.

    Raises:
        ImportError: the library is not installed, or cannot be imported.
        Unsupported: it has no model of that shape.
    """

    install: ClassVar[str]

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.spec = replace(encoder.spec, dtype="float32")
        _require_plain(self.spec)
        self.weights = {name: value.float() for name, value in encoder.state_dict().items()}
        self.model: Any = self._make(self.spec).eval()
        wanted = self.model.state_dict()
        filled = {name: self._weight(name).view(like.shape) for name, like in wanted.items()}
        self.model.load_state_dict(filled, assign=True)
        del self.weights

    def cast(self, dtype: str) -> None:
        """Have its weights, and what it computes, in that numeric type."""
        self.spec = replace(self.spec, dtype=dtype)  # type: ignore[arg-type]  # one of DTYPES
        self.model.to(DTYPES[dtype])

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> Hidden:
        """Hidden states of 16 kHz waveforms (batch, samples), as the encoder's own.

        Raises:
            Unsupported: the batch is padded, which every library treats in its own way.
        """
        if lengths is not None:
            raise Unsupported("libraries differ in what padding does; give waveforms of one length")
        if self.spec.normalize_waveform:
            waveforms = F.layer_norm(waveforms, waveforms.shape[1:])
        states = self._states(waveforms.to(DTYPES[self.spec.dtype]))
        return Hidden(states, full_lengths(states[-1]), self.spec.hop)

    @abstractmethod
    def _make(self, spec: ModelSpec) -> nn.Module:
        """The library's model of that shape, with no weights yet."""

    @abstractmethod
    def _states(self, waveforms: Tensor) -> list[Tensor]:
        """As `Hidden.states`."""

    def our_name(self, name: str) -> str:
        """What a tensor of the library's model is called here."""
        return _names.TRANSFORMERS.ours(name)

    def _weight(self, name: str) -> Tensor:
        """Our tensor for that of the library's model."""
        ours = self.our_name(name)
        if ours not in self.weights:
            library = type(self).__name__.lower()
            raise Unsupported(f"{library} has a tensor {name}, and the model has none")
        return self.weights[ours]


class Torchaudio(Counterpart):
    """torchaudio's `Wav2Vec2Model.extract_features`, whose states begin at the first layer's."""

    install = "pip install torchaudio"

    def _make(self, spec: ModelSpec) -> nn.Module:
        from torchaudio.models import wav2vec2_model, wavlm_model

        shape = {
            "extractor_mode": f"{_front_end(spec).norm}_norm",
            "extractor_conv_layer_config": _convolutions(spec),
            "extractor_conv_bias": _front_end(spec).bias,
            "encoder_embed_dim": spec.dim,
            "encoder_pos_conv_kernel": spec.positions.conv_kernel,
            "encoder_pos_conv_groups": spec.positions.conv_groups,
            "encoder_num_layers": len(spec.layers),
            "encoder_num_heads": spec.total_heads,
            "encoder_ff_interm_features": spec.layers[0].ffn,
            "encoder_layer_norm_first": spec.norm_first,
            **dict.fromkeys(_TORCHAUDIO_DROPOUTS, 0.0),
            "aux_num_out": None,
        }
        gated = {
            "encoder_num_buckets": spec.positions.gated_buckets,
            "encoder_max_distance": spec.positions.gated_distance,
        }
        with torch.device("meta"):
            wavlm = spec.positions.gated_buckets > 0
            return wavlm_model(**shape, **gated) if wavlm else wav2vec2_model(**shape)

    def our_name(self, name: str) -> str:
        return super().our_name(_names.from_torchaudio(name))

    def _weight(self, name: str) -> Tensor:
        if "in_proj_" not in name:
            return super()._weight(name)
        parts = [name.replace("in_proj_", f"{role}_proj.") for role in "qkv"]
        return torch.cat([super(Torchaudio, self)._weight(part) for part in parts])

    def _states(self, waveforms: Tensor) -> list[Tensor]:
        states, _ = self.model.extract_features(waveforms)
        if self.spec.norm_first:  # it leaves the last state before the final LayerNorm
            states[-1] = self.model.encoder.transformer.layer_norm(states[-1])
        return states


class Transformers(Counterpart):
    """transformers' HubertModel, Wav2Vec2Model or WavLMModel.

    Its own choice of attention is `sdpa`, the fused one; of WavLM it has none but its own.
    """

    install = "pip install '.[importers]'"

    def _make(self, spec: ModelSpec) -> nn.Module:
        import transformers

        family = _TRANSFORMERS[spec.family]
        front_end, positions = _front_end(spec), spec.positions
        config = getattr(transformers, f"{family}Config")(
            conv_dim=front_end.channels,
            conv_kernel=front_end.kernels,
            conv_stride=front_end.strides,
            num_feat_extract_layers=len(front_end.channels),
            conv_bias=front_end.bias,
            feat_extract_norm=front_end.norm,
            feat_proj_layer_norm=spec.feature_norm,
            hidden_size=spec.dim,
            num_attention_heads=spec.total_heads,
            num_hidden_layers=len(spec.layers),
            intermediate_size=spec.layers[0].ffn,
            num_conv_pos_embeddings=positions.conv_kernel,
            num_conv_pos_embedding_groups=positions.conv_groups,
            num_buckets=positions.gated_buckets,
            max_bucket_distance=positions.gated_distance,
            do_stable_layer_norm=spec.norm_first,
            mask_time_prob=0.0,  # or the model has an embedding for what is masked
            mask_feature_prob=0.0,
        )
        with torch.device("meta"):
            return getattr(transformers, f"{family}Model")(config)

    def _states(self, waveforms: Tensor) -> list[Tensor]:
        output = self.model(waveforms, output_hidden_states=True)
        # transformers 5 leaves the last of hidden_states before the final LayerNorm.
        return [*output.hidden_states[:-1], output.last_hidden_state]


class S3prl(Counterpart):
    """s3prl's copies of fairseq's HuBERT and Microsoft's WavLM; states are taken as its experts do.

    As far as hidden states go, fairseq's wav2vec 2.0 is its HuBERT.
    """

    install = "pip install --no-deps s3prl==0.4.18"

    def _make(self, spec: ModelSpec) -> nn.Module:
        if _front_end(spec).dim == spec.dim:
            raise Unsupported(f"s3prl projects no features that are {spec.dim} wide already")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # it uses the older weight norm
            model = self._wavlm(spec) if spec.positions.gated_buckets else self._hubert(spec)
        model.mask_emb = None  # stands for what is masked, which nothing is
        self._inputs: list[Tensor] = []
        for layer in model.encoder.layers:
            layer.register_forward_pre_hook(lambda _, read: self._inputs.append(read[0]))
        return model

    def _hubert(self, spec: ModelSpec) -> Any:
        from s3prl.upstream.hubert import hubert_model as hubert

        config = hubert.HubertConfig(label_rate=50.0, **self._config(spec))
        model = hubert.HubertModel(config, hubert.HubertPretrainingConfig(), [None])
        model.remove_pretraining_modules()
        return model

    def _wavlm(self, spec: ModelSpec) -> Any:
        from s3prl.upstream.wavlm.WavLM import WavLM, WavLMConfig

        gated = {
            "relative_position_embedding": True,
            "gru_rel_pos": True,
            "num_buckets": spec.positions.gated_buckets,
            "max_distance": spec.positions.gated_distance,
        }
        return WavLM(WavLMConfig({**self._config(spec), **gated}))

    def _config(self, spec: ModelSpec) -> dict[str, Any]:
        """What both have in their configurations."""
        return {
            "extractor_mode": {"group": "default", "layer": "layer_norm"}[_front_end(spec).norm],
            "conv_feature_layers": str(_convolutions(spec)),
            "conv_bias": _front_end(spec).bias,
            "encoder_layers": len(spec.layers),
            "encoder_embed_dim": spec.dim,
            "encoder_ffn_embed_dim": spec.layers[0].ffn,
            "encoder_attention_heads": spec.total_heads,
            "layer_norm_first": spec.norm_first,
            "conv_pos": spec.positions.conv_kernel,
            "conv_pos_groups": spec.positions.conv_groups,
            "feature_grad_mult": 0.0,
        }

    def our_name(self, name: str) -> str:
        return _names.FAIRSEQ.ours(name)

    def _states(self, waveforms: Tensor) -> list[Tensor]:
        self._inputs.clear()
        last, _ = self.model.extract_features(waveforms, mask=False)
        # Layers take (time, batch, dim), HuBERT's padded to an even number of frames.
        inputs = [read[: last.shape[1]].transpose(0, 1) for read in self._inputs]
        self._inputs.clear()
        return [*inputs, last]


#: By the name of the package.
LIBRARIES: dict[str, type[Counterpart]] = {
    "torchaudio": Torchaudio,
    "transformers": Transformers,
    "s3prl": S3prl,
}


def _require_plain(spec: ModelSpec) -> None:
    """Refuse what only encoders here can be.

    Raises:
        Unsupported: the model is of another kind, or compressed.
    """
    if spec.family not in _TRANSFORMERS or not isinstance(spec.front_end, ConvFrontEnd):
        raise Unsupported(f"the libraries have no {spec.family} model")
    ffn = spec.layers[0].ffn if spec.layers else 0
    dense = LayerSpec.dense(spec.total_heads, spec.dim // spec.total_heads, ffn)
    plain = replace(
        spec,
        head_dim=spec.dim // spec.total_heads,
        layers=(dense,) * max(1, len(spec.layers)),
        positions=replace(spec.positions, bias_reach=0),
        project=True,
        causal=False,
        shortening=None,
        exits=None,
    )
    if plain != spec:
        raise Unsupported("the libraries have dense models alone, and this one is changed")


def _front_end(spec: ModelSpec) -> ConvFrontEnd:
    assert isinstance(spec.front_end, ConvFrontEnd)
    return spec.front_end


def _convolutions(spec: ModelSpec) -> list[tuple[int, int, int]]:
    """(channels, kernel, stride) of each."""
    front_end = _front_end(spec)
    return list(zip(front_end.channels, front_end.kernels, front_end.strides, strict=True))
