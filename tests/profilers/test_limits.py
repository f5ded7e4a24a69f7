"""The least time of a model, from products that another counter counts the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from core.runtime import Runtime
from encoders import cut, zoo
from encoders.model import build
from encoders.workload import Workload
from profilers import _limits
from profilers._base import Unavailable
from profilers._counter import count
from profilers._limits import limit, products
from profilers._ways import plan

SECOND = Workload.parse("seconds:1")


@pytest.mark.parametrize("name", ["tiny", "distilhubert"])
def test_products_are_those_that_are_counted(name: str) -> None:
    encoder = build(zoo.SPECS[name](), 0)
    counted = sum(
        macs
        for own in count(encoder, 8000).values()
        for operation, macs in own.items()
        if "norm" not in operation and "fft" not in operation
    )
    # The mel filters are a product too, and a matter of the front end's own.
    frames = (8000 - 400) // 160 + 1
    mel = frames * 256 * 40 if name == "tiny" else 0
    spec = encoder.spec
    odd = 1 if spec.positions.conv_kernel and spec.positions.conv_kernel % 2 == 0 else 0
    surplus = odd * spec.positions.conv_kernel * spec.dim**2 // spec.positions.conv_groups
    assert products(spec, plan(spec, 8000)) == counted - mel - surplus


def test_the_limit_follows_from_the_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = build(zoo.tiny(), 0)
    macs = products(encoder.spec, plan(encoder.spec, 16_000))
    size = sum(t.numel() * 4 for t in (*encoder.parameters(), *encoder.buffers()))
    for rate, bandwidth, least in ((1e9, 1e15, macs / 1e9), (1e15, 1e6, size / 1e6)):
        monkeypatch.setattr(_limits, "_product_rate", lambda *_, rate=rate: rate)
        monkeypatch.setattr(_limits, "_bandwidth", lambda *_, band=bandwidth: band)
        assert limit(encoder, SECOND, Runtime()).seconds == pytest.approx(least)
    assert limit(encoder, SECOND, Runtime(dtype="bfloat16")).bytes == pytest.approx(size / 2)


def test_the_probes_measure_something() -> None:
    found = limit(build(zoo.tiny(), 0), SECOND, Runtime())
    assert 1e8 < found.macs_per_s < 1e15
    assert 1e8 < found.bytes_per_s < 1e14
    assert found.bytes > 4e6


def test_fewer_heads_need_fewer_products() -> None:
    encoder = build(zoo.tiny(), 0)
    heads = [list(layer.heads[:2]) for layer in encoder.spec.layers]
    small = cut.keep_heads(encoder, heads)
    way = plan(encoder.spec, 16_000)
    assert products(small.spec, way) < products(encoder.spec, way)
    shallow = replace(way, depth=1)
    assert products(encoder.spec, shallow) < products(encoder.spec, way)


def test_integers_are_not_held_against_floats() -> None:
    spec = zoo.tiny()
    layers = tuple(replace(layer, numeric="int8") for layer in spec.layers)
    with torch.device("meta"):
        encoder = build(replace(spec, layers=layers))
    with pytest.raises(Unavailable, match="integer products"):
        limit(encoder, SECOND, Runtime())
