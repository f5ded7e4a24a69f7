"""Smaller encoders from larger ones: fewer or thinner heads, fewer units or layers, factored maps.

Every function returns a new encoder with a new spec, in which the tensors really are smaller, and
shares no memory with its input, which it leaves untouched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor

from core.errors import InputError, Unsupported
from core.spec import ROLES, ModelSpec
from encoders import roles
from encoders.model import Encoder, from_state, outline
from encoders.quantized import Quantized

State = dict[str, Tensor]
Kept = TypeVar("Kept")


def keep_heads(encoder: Encoder, kept: Sequence[Sequence[int]]) -> Encoder:
    """Keep, per layer, the heads at those positions among the layer's present heads.

    Raises:
        InputError: not one list per layer, or a position that is repeated or out of range.
    """
    spec, state = encoder.spec, encoder.state_dict()
    for index, positions in enumerate(_per_layer(encoder, kept)):
        layer, slices = spec.layers[index], roles.head_slices(encoder, index)
        chosen = _chosen(positions, len(slices), f"head of layer {index}")
        qk = _indices([slices[head][0] for head in chosen])
        vo = _indices([slices[head][1] for head in chosen])
        _take_rows(state, roles.path(index, "q"), qk)
        _take_rows(state, roles.path(index, "k"), qk)
        _take_rows(state, roles.path(index, "v"), vo)
        _take_columns(state, roles.path(index, "out"), vo)
        _take_gates(state, f"layers.{index}.attention.gate.", chosen)
        spec = spec.with_layer(
            index,
            heads=tuple(layer.heads[head] for head in chosen),
            qk=tuple(layer.qk[head] for head in chosen),
            vo=tuple(layer.vo[head] for head in chosen),
        )
    return _rebuilt(encoder, spec, state)


def keep_dims(
    encoder: Encoder,
    qk: Sequence[Sequence[Sequence[int] | Tensor]],
    vo: Sequence[Sequence[Sequence[int] | Tensor]],
) -> Encoder:
    """Keep, per layer and present head, those dimensions of its q and k and of its v and out.

    A head may be left without any; `keep_heads` removes it.

    Raises:
        InputError: not one list per layer and head, or a dimension repeated or out of range.
    """
    spec, state = encoder.spec, encoder.state_dict()
    pairs = zip(_per_layer(encoder, qk), _per_layer(encoder, vo), strict=True)
    for index, (own_qk, own_vo) in enumerate(pairs):
        slices = roles.head_slices(encoder, index)
        matched = _within(own_qk, [rows for rows, _ in slices], index)
        passed = _within(own_vo, [columns for _, columns in slices], index)
        _take_rows(state, roles.path(index, "q"), [*chain(*matched)])
        _take_rows(state, roles.path(index, "k"), [*chain(*matched)])
        _take_rows(state, roles.path(index, "v"), [*chain(*passed)])
        _take_columns(state, roles.path(index, "out"), [*chain(*passed)])
        spec = spec.with_layer(index, qk=tuple(map(len, matched)), vo=tuple(map(len, passed)))
    return _rebuilt(encoder, spec, state)


def keep_units(encoder: Encoder, kept: Sequence[Sequence[int] | Tensor]) -> Encoder:
    """Keep, per layer, those inner units of the feed-forward network.

    Raises:
        InputError: not one list per layer, or a unit that is repeated or out of range.
    """
    spec, state = encoder.spec, encoder.state_dict()
    for index, units in enumerate(_per_layer(encoder, kept)):
        chosen = _chosen(units, spec.layers[index].ffn, f"unit of layer {index}")
        _take_rows(state, roles.path(index, "fc1"), chosen)
        _take_columns(state, roles.path(index, "fc2"), chosen)
        spec = spec.with_layer(index, ffn=len(chosen))
    return _rebuilt(encoder, spec, state)


def keep_layers(encoder: Encoder, kept: Sequence[int]) -> Encoder:
    """Keep those layers, in their order.

    Raises:
        InputError: a layer that is repeated or out of range.
        Unsupported: nothing but a front end would be left.
    """
    chosen = _chosen(kept, len(encoder.layers), "layer")
    if not chosen and not encoder.spec.project:
        raise Unsupported("without a projection an encoder must keep at least one layer")
    numbered = {"layers": chosen, "exits": chosen[:-1]}  # behind the last layer there is no exit
    state: State = {}
    for name, tensor in encoder.state_dict().items():
        module, index, rest = [*name.split(".", 2), ""][:3]
        if module not in numbered:
            state[name] = tensor
        elif int(index) in numbered[module]:
            state[f"{module}.{chosen.index(int(index))}.{rest}"] = tensor
    spec = replace(encoder.spec, layers=tuple(encoder.spec.layers[index] for index in chosen))
    return _rebuilt(encoder, spec, state)


def factorise(
    encoder: Encoder, factors: Mapping[tuple[int, str], tuple[Tensor, Tensor]]
) -> Encoder:
    """Put U (outputs, rank) @ V (rank, inputs) in the place of (layer, role)'s weight.

    The bias stays. A map that is factored already gets the new factors.

    Raises:
        InputError: there is no such layer or role, or the factors do not have its shape.
    """
    spec, state = encoder.spec, encoder.state_dict()
    for (index, role), (u, v) in factors.items():
        before = roles.linear(encoder, index, role)
        rank, shape = v.shape[0], (before.out_features, before.in_features)
        if (u.shape[0], v.shape[1]) != shape or u.shape[1] != rank:
            raise InputError(
                f"factors {tuple(u.shape)} and {tuple(v.shape)} of {role} in layer {index} do not "
                f"multiply to {shape}"
            )
        name = roles.path(index, role)
        _refuse_integers(state, name)
        bias = before.bias
        for key in [key for key in state if key.startswith(f"{name}.")]:
            del state[key]
        state |= {f"{name}.up.weight": u, f"{name}.up.bias": bias, f"{name}.down.weight": v}
        ranks = dict(spec.layers[index].ranks) | {role: rank}
        spec = spec.with_layer(index, ranks=tuple((r, ranks[r]) for r in ROLES if r in ranks))
    return _rebuilt(encoder, spec, state)


def quantize(encoder: Encoder, numeric: str, group: int = 0) -> Encoder:
    """Put integers in the place of the weights of all layers' linear maps; biases stay.

    numeric, group: as a LayerSpec names them.

    Raises:
        Unsupported: they are integers already.
        InputError: there is no such type or group.
    """
    layers = [replace(layer, numeric=numeric, group=group) for layer in encoder.spec.layers]
    spec, state = replace(encoder.spec, layers=tuple(layers)), encoder.state_dict()
    _refuse_integers(state, "layers")
    for name, module in outline(spec).named_modules():
        if isinstance(module, Quantized):
            weight = state.pop(f"{name}.weight")
            module.to_empty(device=weight.device).fill(weight)
            state |= {f"{name}.values": module.values, f"{name}.scales": module.scales}
    return _rebuilt(encoder, spec, state)


def _rebuilt(encoder: Encoder, spec: ModelSpec, state: Mapping[str, Tensor]) -> Encoder:
    copies = {
        name: tensor.detach().clone(memory_format=torch.contiguous_format)
        for name, tensor in state.items()
    }
    return from_state(spec, copies).train(encoder.training)


def _refuse_integers(state: State, name: str) -> None:
    """Raise Unsupported where a map of that name, or under it, is quantized."""
    if any(key.startswith(f"{name}.") and key.endswith(".values") for key in state):
        raise Unsupported(f"{name} holds integers, which are not cut further; quantize last")


def _take_rows(state: State, name: str, rows: list[int]) -> None:
    """Keep some outputs of the linear map of that name, full or factored."""
    _refuse_integers(state, name)
    for key in (f"{name}.weight", f"{name}.bias", f"{name}.up.weight", f"{name}.up.bias"):
        if key in state:
            state[key] = state[key][rows]


def _take_columns(state: State, name: str, columns: list[int]) -> None:
    """Keep some inputs of the linear map of that name, full or factored."""
    _refuse_integers(state, name)
    for key in (f"{name}.weight", f"{name}.down.weight"):
        if key in state:
            state[key] = state[key][:, columns]


def _take_gates(state: State, prefix: str, heads: list[int]) -> None:
    """Keep some heads' gates of WavLM's bias; a layer without heads has no gate."""
    for key in [key for key in state if key.startswith(prefix)]:
        if not heads:
            del state[key]
        elif key.endswith(".scale"):
            state[key] = state[key][heads]


def _indices(slices: list[slice]) -> list[int]:
    return [index for part in slices for index in range(part.start, part.stop)]


def _within(
    kept: Sequence[Sequence[int] | Tensor], heads: list[slice], layer: int
) -> list[list[int]]:
    """Positions within each head -> positions within the layer."""
    if len(kept) != len(heads):
        raise InputError(
            f"{len(kept)} lists for {len(heads)} heads of layer {layer}; give one per head"
        )
    return [
        [
            own.start + dim
            for dim in _chosen(dims, own.stop - own.start, f"dimension of a head of layer {layer}")
        ]
        for dims, own in zip(kept, heads, strict=True)
    ]


def _per_layer(encoder: Encoder, kept: Sequence[Kept]) -> Sequence[Kept]:
    if len(kept) != len(encoder.layers):
        raise InputError(f"{len(kept)} lists for {len(encoder.layers)} layers; give one per layer")
    return kept


def _chosen(kept: Sequence[int] | Tensor, count: int, what: str) -> list[int]:
    """Sorted distinct indices below count."""
    indices = sorted(kept.tolist() if isinstance(kept, Tensor) else map(int, kept))
    if len(set(indices)) != len(indices):
        raise InputError(f"a {what} is kept twice in {indices}")
    for index in indices:
        if not 0 <= index < count:
            raise InputError(f"there is no {what} at {index}; there are {count}, from 0")
    return indices
