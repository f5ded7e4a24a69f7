"""Where heads look: reach by hand, and maps that are those of the encoder's own attention."""

from __future__ import annotations

from base64 import b64decode
from dataclasses import replace

import numpy as np
import pytest
import torch

from core.spec import SAMPLE_RATE
from encoders import zoo
from encoders.attention_maps import attention_maps, diagonality_scores
from encoders.cut import keep_heads
from encoders.model import build
from encoders.workload import Workload
from profilers._base import Setting
from profilers.attention import SAMPLES, SIDE, UTTERANCES, Attention


def look(encoder, workload="seconds:1"):
    return Attention().measure(encoder, Setting(Workload.parse(workload)))


def test_reach_is_minus_the_diagonality_of_every_head():
    encoder = build(zoo.tiny(), 0).eval()
    found = look(encoder)
    speech = Workload.parse("seconds:1").waveform(0)[None]
    expected = [(-own).tolist() for own in diagonality_scores(encoder, [speech])]
    assert found.details["reach"] == [pytest.approx(own) for own in expected]
    assert found.values["attention_reach"] == pytest.approx(np.mean(expected))
    assert 0 < found.values["attention_reach"] < 1


def test_maps_are_the_attention_in_small():
    encoder = build(zoo.tiny(), 0).eval()
    found = look(encoder)
    whole = attention_maps(encoder, Workload.parse("seconds:1").waveform(0)[None])
    for layer, maps in zip(found.details["maps"], whole, strict=True):
        assert len(layer) == len(maps)
        for text, own in zip(layer, maps, strict=True):
            pixels = np.frombuffer(b64decode(text), np.uint8).reshape(SIDE, SIDE)
            small = torch.nn.functional.adaptive_avg_pool2d(own[None], SIDE)[0]
            assert pixels.max() == 255
            assert pixels / 255 == pytest.approx((small / small.max()).numpy(), abs=0.003)


def test_a_model_that_lost_heads_has_no_maps_but_reaches():
    encoder = build(zoo.tiny(), 0).eval()
    kept = [[1]] + [list(layer.heads) for layer in encoder.spec.layers[1:]]
    found = look(keep_heads(encoder, kept))
    assert found.details["maps"] == []
    assert [len(own) for own in found.details["reach"]] == [len(own) for own in kept]


def test_utterances_are_spread_and_cut():
    heard = []

    def waveform(index):
        heard.append(index)
        return torch.randn(20 * SAMPLE_RATE) * 0.01

    workload = Workload("corpus", (20 * SAMPLE_RATE,) * 64, waveform, {})
    small = replace(zoo.tiny(), layers=zoo.tiny().layers[:1])
    found = Attention().measure(build(small, 0), Setting(workload))
    assert heard == [4 * at for at in range(UTTERANCES)]
    assert found.details["map_seconds"] == SAMPLES / SAMPLE_RATE


def test_without_layers_there_is_nothing_to_see():
    found = look(build(zoo.fbank(), 0))
    assert found.values == {}
    assert found.details["unavailable"] == {"attention_reach": "no heads"}
