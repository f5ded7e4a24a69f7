"""The shape of an encoder as data: together with its weights, a spec rebuilds the model exactly.

A spec is frozen, hashable and goes to JSON and back without loss. Widths are in units (not bytes),
lengths in samples at 16 kHz.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from typing import Any, Literal

from core.errors import InputError

SAMPLE_RATE = 16_000

#: Of spec.json, major and minor. A newer minor one adds fields that may be passed over; what makes
#: another model of the same weights is a new major one, which older readers refuse.
SCHEMA = (1, 0)

#: No size in a spec is larger and no model deeper: what a file asks for beyond is refused before
#: anything is made of it.
MOST, MOST_LAYERS = 1 << 17, 512

#: What specs of earlier versions did not say. It is left out at its default: they stay what they
#: were, and so do the records of their models.
_LATER = {"front_end": ("scaled", "window", "gain", "keep_last"), "positions": ("conv_stacked",)}

#: How near to a half a sum of weights counts as one: far above its rounding, far below a weight.
TIE = 1e-6

#: The linear maps of a Transformer layer, by role, in the order of the forward pass.
ROLES = ("q", "k", "v", "out", "fc1", "fc2")

#: Integer weights by name: bits per weight, and whether the inputs become int8 too, by a scale per
#: frame that is found as they come (dynamic).
INTEGERS = {
    "int8": (8, False),
    "int8-dynamic": (8, True),
    "int4": (4, False),
    "int4-dynamic": (4, True),
}


@dataclass(frozen=True)
class ConvFrontEnd:
    """The waveform encoder of wav2vec 2.0: strided convolutions, 20 ms per frame in all.

    scaled: each channel of the features is multiplied by a number, as soft masks leave it behind
    (DPHuBERT, Peng et al. 2023, arXiv 2305.17651).
    """

    channels: tuple[int, ...] = (512,) * 7
    kernels: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    strides: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    norm: Literal["group", "layer"] = "group"
    bias: bool = False
    scaled: bool = False
    kind: Literal["conv"] = "conv"

    @property
    def dim(self) -> int:
        return self.channels[-1]

    @property
    def hop(self) -> int:
        """Samples per frame."""
        hop = 1
        for stride in self.strides:
            hop *= stride
        return hop

    def frame_counts(self, samples: int) -> list[int]:
        """Output length of each convolution for that many samples, never below 0."""
        counts = []
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            samples = max(0, (samples - kernel) // stride + 1)
            counts.append(samples)
        return counts

    def frames(self, samples: int) -> int:
        return self.frame_counts(samples)[-1]


@dataclass(frozen=True)
class MelFrontEnd:
    """Log-mel frames of 25 ms every 10 ms, `stack` neighbours joined, `deltas` orders appended.

    MelHuBERT (Lin et al. 2022) uses 40 bins, stacked by 2 for its 20 ms model; SUPERB's FBANK
    baseline uses 80 bins with two orders of deltas. gain: the waveform is multiplied by it first.
    keep_last: frames that do not fill a stack are kept, filled up with 0, not dropped.
    """

    bins: int = 40
    stack: int = 2
    deltas: int = 0
    window: Literal["povey", "hamming"] = "povey"
    gain: float = 1.0
    keep_last: bool = False
    kind: Literal["mel"] = "mel"

    def __post_init__(self) -> None:
        if self.window not in ("povey", "hamming"):
            raise InputError(f"window {self.window!r}; expected povey or hamming")

    @property
    def dim(self) -> int:
        return self.bins * self.stack * (1 + self.deltas)

    @property
    def hop(self) -> int:
        return 160 * self.stack

    def frames(self, samples: int) -> int:
        short = max(0, (samples - 400) // 160 + 1)
        return (short + self.stack - 1 if self.keep_last else short) // self.stack


@dataclass(frozen=True)
class Positions:
    """How the Transformer knows the order of frames; kinds combine (WavLM has `conv` and `gated`).

    conv: grouped convolution with weight norm, added to the input (wav2vec 2.0, HuBERT, MelHuBERT).
    stacked: so many plain convolutions in its place, LayerNorm without weights behind each
    (data2vec, Baevski et al. 2022, arXiv 2202.03555).
    bias: one learned bias per head and distance, clipped at `reach` frames, shared by the layers.
    gated: WavLM's bucketed relative bias, gated per layer by the frame's content.
    """

    conv_kernel: int = 0
    conv_groups: int = 16
    bias_reach: int = 0
    gated_buckets: int = 0
    gated_distance: int = 800
    conv_stacked: int = 0


@dataclass(frozen=True)
class LayerSpec:
    """One Transformer layer. Heads are named by their index in the uncompressed layer.

    qk, vo: width of the query/key and of the value/output part of each kept head.
    ranks: role -> rank of a factored linear map; a role that is absent is a full matrix.
    numeric: of the weights of the linear maps, a key of INTEGERS or "float". group: so many
    neighbouring int4 weights of a row share a scale; 0 stands for the whole row.
    """

    heads: tuple[int, ...]
    qk: tuple[int, ...]
    vo: tuple[int, ...]
    ffn: int
    ranks: tuple[tuple[str, int], ...] = ()
    numeric: str = "float"
    group: int = 0

    def __post_init__(self) -> None:
        if not len(self.heads) == len(self.qk) == len(self.vo):
            raise InputError(
                f"a layer lists {len(self.heads)} heads but {len(self.qk)} q/k and {len(self.vo)} "
                "v/o widths; give one width per kept head"
            )
        if len(set(self.heads)) != len(self.heads) or any(h < 0 for h in self.heads):
            raise InputError(f"heads {self.heads} must be distinct indices from 0 up")
        if self.ffn < 0 or any(w < 0 for w in (*self.qk, *self.vo)):
            raise InputError("a layer's widths must be 0 or more")
        for role, rank in self.ranks:
            if role not in ROLES or rank < 1:
                raise InputError(f"rank {rank} of {role!r}: expected one of {ROLES} and 1 or more")
        if self.numeric != "float" and self.numeric not in INTEGERS:
            raise InputError(f"numeric {self.numeric!r}: expected float, {', '.join(INTEGERS)}")
        if self.group < 0 or self.group % 2:
            raise InputError(f"group {self.group}: expected an even number of weights, 0 for rows")

    @classmethod
    def dense(cls, heads: int, head_dim: int, ffn: int) -> LayerSpec:
        widths = (head_dim,) * heads
        return cls(tuple(range(heads)), widths, widths, ffn)

    def rank(self, role: str) -> int | None:
        return dict(self.ranks).get(role)

    def linear_shape(self, role: str, dim: int) -> tuple[int, int]:
        """(outputs, inputs) of the linear map in that role, before any factoring."""
        return {
            "q": (sum(self.qk), dim),
            "k": (sum(self.qk), dim),
            "v": (sum(self.vo), dim),
            "out": (dim, sum(self.vo)),
            "fc1": (self.ffn, dim),
            "fc2": (dim, self.ffn),
        }[role]

    def weights(self, role: str, dim: int) -> int:
        """Numbers in the matrix of that linear map, or in its two factors; biases do not count."""
        (outputs, inputs), rank = self.linear_shape(role, dim), self.rank(role)
        return outputs * inputs if rank is None else rank * (outputs + inputs)


@dataclass(frozen=True)
class Exits:
    """Heads of `classes` behind every layer but the last, and when an utterance leaves at one.

    It leaves where the entropy of the head's posteriors, in nats and as the mean over its frames,
    is below `threshold`: at 0 nowhere, above ln(classes) behind the first layer. mean_depth: the
    layers that were run on average over the speech that the threshold was chosen on.
    """

    classes: int
    threshold: float = 0.0
    mean_depth: float | None = None

    def __post_init__(self) -> None:
        if self.classes < 2:
            raise InputError(f"exits tell {self.classes} classes apart; expected 2 or more")
        if not 0 <= self.threshold < math.inf:
            raise InputError(
                f"an exit's threshold is {self.threshold}; expected an entropy of 0 nats or more"
            )


@dataclass(frozen=True)
class Shortening:
    """How frames are joined to tokens in front of the Transformer, whose layers then run on tokens.

    mean: the average of `factor` frames, 1 or more, which need not be whole. conv: a convolution
    with kernel and stride `factor`, whole. cif: continuous integrate-and-fire by weights that a
    module reads off the frames, lowered by `strength`, the lambda of Chen et al. 2022 (arXiv
    2211.02332): from 0, where each frame is a token, up to below 2, where an utterance is one;
    `factor` then says how many frames a token was made of on average when the strength was chosen.
    """

    kind: Literal["mean", "conv", "cif"]
    factor: float = 1.0
    strength: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in ("mean", "conv", "cif"):
            raise InputError(f"shortening {self.kind!r}; expected mean, conv or cif")
        if not 1 <= self.factor < math.inf:
            raise InputError(f"a token of {self.factor} frames; expected a factor of 1 or more")
        if self.kind == "conv" and self.factor != int(self.factor):
            raise InputError(f"a stride of {self.factor} frames; expected a whole number")
        if not 0 <= self.strength < 2:
            raise InputError(f"strength {self.strength} of cif; expected from 0 up to below 2")

    def tokens(self, frames: int) -> int | None:
        """Tokens of that many frames, halves upwards; None where they depend on the content."""
        return None if self.kind == "cif" else max(1, math.floor(frames / self.factor + 0.5 + TIE))


@dataclass(frozen=True)
class ModelSpec:
    """An encoder: front end, projection to `dim`, positions, Transformer layers.

    causal: frames attend to the past alone, as APC needs it.
    total_heads and head_dim describe the uncompressed attention: they set the score scale
    head_dim ** -0.5 and the size of per-head position tables, whatever heads are left.
    """

    family: str
    front_end: ConvFrontEnd | MelFrontEnd
    dim: int
    total_heads: int
    head_dim: int
    layers: tuple[LayerSpec, ...]
    positions: Positions = field(default_factory=Positions)
    norm_first: bool = False
    feature_norm: bool = True
    project: bool = True
    normalize_waveform: bool = False
    causal: bool = False
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    exits: Exits | None = None
    shortening: Shortening | None = None

    def __post_init__(self) -> None:
        for index, layer in enumerate(self.layers):
            if any(head >= self.total_heads for head in layer.heads):
                raise InputError(
                    f"layer {index} keeps heads {layer.heads} of only {self.total_heads}"
                )
        if not self.project and self.dim != self.front_end.dim:
            raise InputError(
                f"without a projection dim must equal the front end's {self.front_end.dim}, "
                f"not {self.dim}"
            )

    @property
    def hop(self) -> int:
        """Samples at 16 kHz per frame of the hidden states."""
        return self.front_end.hop

    def frames(self, samples: int) -> int:
        """Frames of the hidden states for that many samples."""
        return self.front_end.frames(samples)

    def with_layer(self, index: int, **changes: Any) -> ModelSpec:
        layers = list(self.layers)
        layers[index] = replace(layers[index], **changes)
        return replace(self, layers=tuple(layers))

    def to_json(self) -> dict[str, Any]:
        data = {name: value for name, value in asdict(self).items() if value is not None}
        for part, later in _LATER.items():
            for known in fields(getattr(self, part)):
                if known.name in later and data[part][known.name] == known.default:
                    del data[part][known.name]
        for layer in data["layers"]:
            layer["ranks"] = dict(layer["ranks"])
            if layer["numeric"] == "float":
                del layer["numeric"], layer["group"]
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ModelSpec:
        """The spec that `to_json` wrote.

        Raises:
            InputError: a field is unknown, missing, of the wrong kind or of an absurd size, or the
                file is of a later version.
        """
        try:
            _check_sizes(data)
            data = dict(data)
            make = partial(_build, newer=_is_newer(data.pop("schema", "1.0")))
            front = dict(data.pop("front_end"))
            front_ends: dict[str, type] = {"conv": ConvFrontEnd, "mel": MelFrontEnd}
            front_end = make(front_ends[front.get("kind", "")], front)
            layers = tuple(
                make(LayerSpec, {**layer, "ranks": tuple(layer.get("ranks", {}).items())})
                for layer in data.pop("layers")
            )
            positions = make(Positions, data.pop("positions"))
            if data.get("exits") is not None:
                data["exits"] = make(Exits, data["exits"])
            if data.get("shortening") is not None:
                data["shortening"] = make(Shortening, data["shortening"])
            return make(
                cls, {**data, "front_end": front_end, "layers": layers, "positions": positions}
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"this is not a model spec ({error!r}); expected spec.json") from error

    def canonical(self) -> str:
        """The spec as one line of JSON that is equal for equal specs."""
        return json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))


def _check_sizes(data: Any, place: str = "spec") -> None:
    """Refuse numbers that no model has, before they size anything.

    Raises:
        InputError: a number is no number or too large, or there are too many layers.
    """
    if isinstance(data, dict | list | tuple):
        most = MOST_LAYERS if place == "spec.layers" else MOST
        if len(data) > most:
            raise InputError(f"{place} has {len(data)} entries; at most {most} are read")
        pairs = data.items() if isinstance(data, dict) else enumerate(data)
        for name, value in pairs:
            _check_sizes(value, f"{place}.{name}")
    elif isinstance(data, int | float) and not abs(data) <= MOST:
        raise InputError(f"{place} is no number up to {MOST}, as every size is")


def _is_newer(schema: Any) -> bool:
    """Whether a file's schema, such as "1.0", has fields that this version may not know.

    Raises:
        InputError: it is of a later major version, or none.
    """
    found = re.fullmatch(r"(\d{1,6})\.(\d{1,6})", schema) if isinstance(schema, str) else None
    if found is None:
        raise InputError(f"schema {schema!r}; expected a version such as '{SCHEMA[0]}.{SCHEMA[1]}'")
    version = int(found[1]), int(found[2])
    if version[0] > SCHEMA[0]:
        raise InputError(
            f"schema {schema} is of a later version of this package, which reads up to "
            f"{SCHEMA[0]}.*; update it"
        )
    return version > SCHEMA


def _build(cls: type, data: dict[str, Any], newer: bool) -> Any:
    """A spec dataclass from JSON values, lists as tuples; unknown fields are passed over if newer.

    Raises:
        TypeError: a field is unknown, and the file is not newer.
    """
    names = {known.name for known in fields(cls)}
    unknown = set(data) - names
    if unknown and not newer:
        raise TypeError(f"unknown fields {sorted(unknown)} of {cls.__name__}")
    known = {name: value for name, value in data.items() if name in names}
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in known.items()})
