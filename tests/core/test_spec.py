"""Specs as JSON: what earlier versions wrote stays as it was, and nothing absurd is read."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from core.errors import InputError
from core.spec import MOST, ConvFrontEnd, LayerSpec, MelFrontEnd, ModelSpec, Positions

PLAIN = ModelSpec("x", ConvFrontEnd(), 8, 2, 4, (LayerSpec.dense(2, 4, 16),), Positions(8, 2))


def test_a_plain_spec_says_what_it_always_said() -> None:
    data = PLAIN.to_json()
    assert set(data["front_end"]) == {"channels", "kernels", "strides", "norm", "bias", "kind"}
    assert set(data["positions"]) == {
        "conv_kernel", "conv_groups", "bias_reach", "gated_buckets", "gated_distance",
    }  # fmt: skip
    mel = replace(PLAIN, front_end=MelFrontEnd()).to_json()
    assert set(mel["front_end"]) == {"bins", "stack", "deltas", "kind"}


@pytest.mark.parametrize(
    "spec",
    [
        replace(PLAIN, front_end=ConvFrontEnd(scaled=True)),
        replace(PLAIN, front_end=MelFrontEnd(window="hamming", gain=32768.0, keep_last=True)),
        replace(PLAIN, positions=Positions(19, 2, conv_stacked=5)),
    ],
)
def test_what_later_versions_say_comes_back(spec: ModelSpec) -> None:
    assert ModelSpec.from_json(json.loads(spec.canonical())) == spec
    assert spec.canonical() != PLAIN.canonical()


def test_the_frames_that_fill_no_stack() -> None:
    dropped, kept = MelFrontEnd(stack=2), MelFrontEnd(stack=2, keep_last=True)
    samples = [399, 400, 560, 720, 880]  # 0, 1, 2, 3 and 4 frames of 10 ms
    assert [dropped.frames(n) for n in samples] == [0, 0, 1, 1, 2]
    assert [kept.frames(n) for n in samples] == [0, 1, 1, 2, 2]


@pytest.mark.parametrize("value", [MOST + 1, -MOST - 1, float("nan"), float("inf"), 10**99])
def test_a_size_beyond_all_sizes_is_named(value: float) -> None:
    data = PLAIN.to_json()
    data["layers"][0]["ffn"] = value
    with pytest.raises(InputError, match=r"spec\.layers\.0\.ffn is no number up to 131072"):
        ModelSpec.from_json(data)
