"""One Transformer encoder for wav2vec 2.0, HuBERT, WavLM, MelHuBERT and DistilHuBERT shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from core.errors import InputError
from core.spec import ModelSpec
from encoders.exits import Exit, depths_at, entropy, leave_early
from encoders.front_end import build_front_end
from encoders.layer import EXCLUDED, Layer
from encoders.padding import full_lengths, padding
from encoders.positions import BucketBias, build_bias, build_convolutions
from encoders.shortening import Tokens, build_shortening

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass
class Hidden:
    """All hidden states of a batch.

    states: L + 1 tensors (batch, time, dim); 0 is the input of layer 0, i the output of layer i,
    and of a pre-norm model the last one has passed the final LayerNorm, as in s3prl. lengths: valid
    frames (batch,). hop: samples per frame. depths: layers that each utterance was run through
    (batch,), None where all ran; states of those that did not run repeat the last that did.
    tokens: what the frames were joined to (batch,), None where they were not; a frame's states are
    those of its token. alpha: what integrate-and-fire made its weights of (batch, time).
    """

    states: list[Tensor]
    lengths: Tensor
    hop: int
    depths: Tensor | None = None
    tokens: Tensor | None = None
    alpha: Tensor | None = None


class Encoder(nn.Module):
    """A speech encoder. `spec` is always true of the weights it holds."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        if spec.dtype not in DTYPES:
            raise InputError(f"dtype {spec.dtype!r}; expected one of {', '.join(DTYPES)}")
        if spec.causal and spec.positions.conv_kernel:
            raise InputError("a causal model cannot have conv_kernel: the convolution sees ahead")
        self.spec = spec
        width = spec.front_end.dim
        bare = not spec.project and not spec.layers  # nothing but a front end, such as FBANK
        self.front_end = build_front_end(spec.front_end)
        self.feature_norm = nn.LayerNorm(width) if spec.feature_norm else nn.Identity()
        self.projection = nn.Linear(width, spec.dim) if spec.project else nn.Identity()
        self.shortening = build_shortening(spec)
        self.conv_positions = build_convolutions(spec)
        self.position_bias = build_bias(spec)
        self.norm = nn.Identity() if bare else nn.LayerNorm(spec.dim)
        self.layers = nn.ModuleList(Layer(layer, spec) for layer in spec.layers)
        classes = spec.exits and spec.exits.classes
        self.exits = nn.ModuleList(
            Exit(spec.dim, classes, spec.norm_first) for _ in spec.layers[1:] if classes
        )
        if DTYPES[spec.dtype] != torch.get_default_dtype():
            self.to(DTYPES[spec.dtype])

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> Hidden:
        """Hidden states of 16 kHz waveforms (batch, samples), zero after their lengths (batch,).

        Raises:
            InputError: the batch is not even one frame long.
        """
        features, frames = self.features(waveforms, lengths)
        return self.encode(features, frames if lengths is not None else None)

    def features(self, waveforms: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What the front end makes of waveforms: (batch, time, F), and valid frames (batch,).

        Raises:
            InputError: the batch is not even one frame long.
        """
        if waveforms.ndim != 2 or self.spec.frames(waveforms.shape[1]) < 1:
            raise InputError(
                f"waveforms of shape {tuple(waveforms.shape)} hold no frame; expected (batch, "
                f"samples) with more samples than one window of the front end"
            )
        if self.spec.normalize_waveform:
            waveforms = _normalize(waveforms, lengths)
        return self.front_end(waveforms, lengths)

    def encode(
        self,
        features: Tensor,
        lengths: Tensor | None = None,
        mask: Tensor | None = None,
        mask_embedding: Tensor | None = None,
        depth: int | None = None,
    ) -> Hidden:
        """The part after the front end: features (batch, time, F) with valid lengths (batch,).

        mask: True (batch, time) where a projected frame is replaced by mask_embedding (dim,), the
        input of masked prediction. With exits, an utterance is run through no more layers than it
        needs, but in training and under a tracer, which cannot follow it, through all. depth: the
        last state that is wanted; without exits, no later one is computed.
        """
        x = self._embed(features, lengths, mask, mask_embedding)
        tokens = self._join(x, lengths)
        if tokens is None:
            return self._transform(x, lengths, depth)
        frames = full_lengths(x) if lengths is None else lengths
        hidden = self._transform(tokens.values, tokens.counts, depth)
        return replace(
            hidden,
            states=[tokens.spread(state) for state in hidden.states],
            lengths=frames,
            tokens=tokens.counts,
            alpha=tokens.alpha,
        )

    def join(self, features: Tensor, lengths: Tensor | None = None) -> Tokens | None:
        """What features (batch, time, F) are joined to, None where frames stay frames."""
        return self._join(self._embed(features, lengths, None, None), lengths)

    def _join(self, x: Tensor, lengths: Tensor | None) -> Tokens | None:
        if self.shortening is None:
            return None
        return self.shortening(x, full_lengths(x) if lengths is None else lengths)

    def _transform(self, x: Tensor, lengths: Tensor | None, depth: int | None) -> Hidden:
        """Positions and layers over a sequence (batch, time, dim), 0 behind its lengths."""
        time = x.shape[1]
        padded = padding(lengths, time)
        if self.conv_positions is not None:
            x = x + self.conv_positions(x, padded)
        x = x if self.spec.norm_first else self.norm(x)
        keys = None if padded is None else padded[:, None, None]
        if self.spec.causal:
            future = torch.ones(time, time, dtype=torch.bool, device=x.device).triu(1)[None, None]
            keys = future if keys is None else keys | future
        bias = None
        if self.position_bias is not None and len(self.layers):
            bias = self.position_bias(time)[None]
            if keys is not None and not isinstance(self.position_bias, BucketBias):
                # Padding can join the bias once, unless a gate is to multiply it in every layer.
                bias, keys = bias.masked_fill(keys, EXCLUDED), None
        lengths = full_lengths(x) if lengths is None else lengths
        if len(self.exits) and not self.training and not torch.jit.is_tracing():
            return self._leave_early(x, lengths, bias, keys)
        states = [x]
        for layer in islice(self.layers, depth):
            states.append(layer(states[-1], bias, keys))
        depths = self._depths(states, lengths) if torch.jit.is_tracing() else None
        if self.spec.norm_first and len(states) > len(self.layers):
            states[-1] = self.norm(states[-1])
        return Hidden(states, lengths, self.spec.hop, depths)

    def _depths(self, states: list[Tensor], lengths: Tensor) -> Tensor | None:
        """How far each utterance would have been run, from the states of all layers."""
        if self.spec.exits is None or not len(self.exits):
            return None
        pairs = zip(self.exits, states[1:-1], strict=True)
        entropies = [entropy(head(state), lengths) for head, state in pairs]
        return depths_at(torch.stack(entropies, 1), self.spec.exits.threshold)

    def _leave_early(
        self, x: Tensor, lengths: Tensor, bias: Tensor | None, keys: Tensor | None
    ) -> Hidden:
        """Run layer by layer; who has left is computed no more."""
        assert self.spec.exits is not None

        def run(layer: nn.Module, x: Tensor, rows: Tensor) -> Tensor:
            own = bias[rows] if bias is not None and len(bias) > 1 else bias
            return layer(x, own, keys[rows] if keys is not None and len(keys) > 1 else keys)

        states, depths = leave_early(
            x,
            lengths,
            [partial(run, layer) for layer in self.layers],
            self.exits,
            self.spec.exits.threshold,
            self.norm if self.spec.norm_first else nn.Identity(),
        )
        return Hidden(states, lengths, self.spec.hop, depths)

    def _embed(
        self,
        features: Tensor,
        lengths: Tensor | None,
        mask: Tensor | None,
        mask_embedding: Tensor | None,
    ) -> Tensor:
        """Projected frames (batch, time, dim), 0 at padding."""
        x = self.projection(self.feature_norm(features.to(DTYPES[self.spec.dtype])))
        if mask is not None:
            if mask_embedding is None:
                raise InputError("a mask needs a mask_embedding (dim,) to put in its place")
            x = torch.where(mask[..., None], mask_embedding.to(x.dtype), x)
        padded = padding(lengths, x.shape[1])
        return x if padded is None else x.masked_fill(padded[..., None], 0.0)


def build(spec: ModelSpec, seed: int | None = None) -> Encoder:
    """The encoder of that shape, randomly initialised.

    With a seed the weights depend on it alone and torch's global generator is left as it was.
    Inside `torch.device("meta")` nothing is allocated.
    """
    if seed is None:
        return Encoder(spec)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return Encoder(spec)


def outline(spec: ModelSpec) -> Encoder:
    """The encoder of that shape on the meta device, for tensors to be put into it."""
    with torch.device("meta"), _Unwritten():
        return Encoder(spec)


class _Unwritten(TorchFunctionMode):
    """Leaves out the initialisation of weights, which took most of the time of an outline."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def from_state(spec: ModelSpec, state: Mapping[str, Tensor]) -> Encoder:
    """The encoder of that shape with those tensors as its weights (not copied, but cast).

    Raises:
        RuntimeError: the names or shapes are not those of the spec.
    """
    encoder = outline(spec)
    dtypes = {name: tensor.dtype for name, tensor in encoder.state_dict().items()}
    cast = {name: tensor.to(dtypes.get(name, tensor.dtype)) for name, tensor in state.items()}
    encoder.load_state_dict(cast, assign=True)
    return encoder


def _normalize(waveforms: Tensor, lengths: Tensor | None) -> Tensor:
    """Zero mean and unit variance of each utterance, over its valid samples."""
    padded = padding(lengths, waveforms.shape[1])
    if lengths is None or padded is None:
        return F.layer_norm(waveforms, waveforms.shape[1:])
    counts = lengths[:, None].clamp(min=1)
    centred = waveforms - waveforms.masked_fill(padded, 0.0).sum(1, keepdim=True) / counts
    centred = centred.masked_fill(padded, 0.0)
    variance = centred.square().sum(1, keepdim=True) / counts
    return centred * (variance + 1e-5).rsqrt()
