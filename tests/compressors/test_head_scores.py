"""What heads are weighed by: the loss's gradient, where they look, or nothing at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy_corpus import ToyCorpus

from compressors._base import Setting
from compressors._gradient_scores import gradient_scores
from compressors.head_pruning import HeadPruning
from core.errors import InputError
from core.spec import LayerSpec, MelFrontEnd, ModelSpec, Positions
from encoders.attention_maps import attention_maps, diagonality, diagonality_scores
from encoders.cut import keep_dims, keep_heads
from encoders.layer import join_heads, split_heads
from encoders.model import Encoder, build
from encoders.roles import head_slices, linear

_BASE = ModelSpec(
    "melhubert", MelFrontEnd(bins=10, stack=2), 16, 4, 4, (LayerSpec.dense(4, 4, 16),) * 2,
    Positions(bias_reach=5), feature_norm=False,
)  # fmt: skip
SHAPES = {
    "bias": _BASE,
    "plain": replace(_BASE, positions=Positions()),
    "gated": replace(_BASE, positions=Positions(gated_buckets=8, gated_distance=20)),
    "causal": replace(_BASE, causal=True),
    "half": replace(_BASE, dtype="bfloat16"),
}
FAST: dict[str, Any] = {"batch_seconds": 2.0, "crop_seconds": 0.5, "clusters": 8, "score_share": 1}


@pytest.fixture(params=[*SHAPES, "subset", "uneven"])
def encoder(request: pytest.FixtureRequest) -> Encoder:
    """Sharpened, so that heads do not all look everywhere."""
    encoder = build(SHAPES.get(request.param, SHAPES["gated"]), seed=1).eval()
    with torch.no_grad():
        for layer in range(2):
            linear(encoder, layer, "q").weight.mul_(8)
    if request.param == "subset":
        return keep_heads(encoder, [[1, 3], [0, 2, 3]])
    if request.param == "uneven":
        every = range(4)
        dims = [[every, every[:2], every, every[1:]]] * 2
        return keep_dims(encoder, dims, [[every[:1], every, every[:3], []]] * 2)
    return encoder


def speech(samples: int = 6_000) -> Tensor:
    return torch.randn(1, samples, generator=torch.Generator().manual_seed(3))


def contexts(encoder: Encoder, waveform: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """What enters each layer's v and each layer's out."""
    values: list[Tensor] = []
    outs: list[Tensor] = []
    hooks = []
    for layer in range(len(encoder.layers)):
        hooks += [
            linear(encoder, layer, "v").register_forward_hook(lambda *a: values.append(a[2])),
            linear(encoder, layer, "out").register_forward_pre_hook(
                lambda *a: outs.append(a[1][0])
            ),
        ]
    with torch.no_grad():
        encoder(waveform)
    for hook in hooks:
        hook.remove()
    return values, outs


def test_the_maps_are_those_of_the_encoders_own_attention(encoder: Encoder) -> None:
    """With them the values give the context that goes into `out`."""
    maps = attention_maps(encoder, speech())
    values, outs = contexts(encoder, speech())
    close = 0.03 if encoder.spec.dtype == "bfloat16" else 1e-5
    for layer, own in enumerate(encoder.spec.layers):
        assert maps[layer].shape[0] == len(own.heads)
        torch.testing.assert_close(maps[layer].sum(-1), torch.ones(maps[layer].shape[:2]),
                                   atol=close, rtol=0)  # fmt: skip
        context = maps[layer] @ split_heads(values[layer], own.vo).float()
        torch.testing.assert_close(join_heads(context, own.vo), outs[layer].float(),
                                   atol=close, rtol=close)  # fmt: skip


def test_a_layer_without_heads_has_no_maps() -> None:
    encoder = keep_heads(build(_BASE, seed=1).eval(), [[], [0, 1, 2, 3]])
    assert [len(maps) for maps in attention_maps(encoder, speech())] == [0, 4]
    assert [len(scores) for scores in diagonality_scores(encoder, [speech()])] == [0, 4]


def test_diagonality_by_hand() -> None:
    """A diagonal scores 0, an even map of T frames -(T^2 - 1) / 3T^2, a corner -(T - 1) / 2T."""
    time = 5
    corner = torch.zeros(time, time)
    corner[:, 0] = 1
    even = torch.full((time, time), 1 / time)
    off = torch.roll(torch.eye(time), 1, 1)
    maps = torch.stack([torch.eye(time), even, corner, off])
    expected = torch.tensor([0.0, -8 / 25, -2 / 5, -8 / 25])
    torch.testing.assert_close(diagonality(maps), expected)


def test_scores_are_the_mean_over_utterances() -> None:
    encoder = build(_BASE, seed=1).eval()
    speeches = [speech(4_000), speech(9_000)]
    alone = [diagonality_scores(encoder, [each]) for each in speeches]
    for layer, both in enumerate(diagonality_scores(encoder, speeches)):
        torch.testing.assert_close(both, (alone[0][layer] + alone[1][layer]) / 2)


def test_gradient_scores_are_what_gating_a_head_would_change(encoder: Encoder) -> None:
    """|context . gradient| of a frame is the loss's derivative by a gate on the head there."""
    if encoder.spec.dtype != "float32":
        pytest.skip("derivatives are compared in float32")
    towards = torch.randn(16, generator=torch.Generator().manual_seed(4))

    def loss(of: Encoder) -> Tensor:
        return (of(speech()).states[-1] @ towards).square().mean()

    scores = gradient_scores(encoder, lambda of: [loss(of)])
    for layer, own in enumerate(scores):
        parts = [part for _, part in head_slices(encoder, layer)]
        expected = torch.stack([_by_gates(encoder, layer, part, loss) for part in parts])
        assert len(own) == len(encoder.spec.layers[layer].heads)
        torch.testing.assert_close(own, expected / expected.norm(), atol=1e-5, rtol=1e-4)


def _by_gates(
    encoder: Encoder, layer: int, part: slice, loss: Callable[[Encoder], Tensor]
) -> Tensor:
    """The sum over frames of the loss's absolute derivatives by gates on these columns of `out`."""
    gates = torch.ones(encoder.spec.frames(speech().shape[1]), 1, requires_grad=True)

    def gate(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        mask = torch.zeros(inputs[0].shape[-1])
        mask[part] = 1
        return (inputs[0] * (1 - mask + mask * gates),)

    hook = linear(encoder, layer, "out").register_forward_pre_hook(gate)
    (derivatives,) = torch.autograd.grad(loss(encoder), gates)
    hook.remove()
    return derivatives.abs().sum()


def test_a_head_that_says_nothing_scores_nothing(corpus: ToyCorpus) -> None:
    encoder = build(_BASE, seed=1).eval()
    with torch.no_grad():
        linear(encoder, 0, "v").weight[4:8] = 0
        linear(encoder, 0, "v").bias[4:8] = 0  # type: ignore[index]
    state = {k: (v.clone(), v.requires_grad) for k, v in encoder.state_dict(keep_vars=True).items()}
    made = dict(HeadPruning(**FAST, score="gradient").track(encoder, [0.25], Setting(corpus)))[0.25]
    assert isinstance(made, Encoder)
    assert made.spec.layers[0].heads == (0, 2, 3)
    for key, value in encoder.state_dict(keep_vars=True).items():
        assert torch.equal(value, state[key][0])
        assert value.requires_grad == state[key][1]
        assert value.grad is None


def test_layers_weigh_alike_by_gradient(corpus: ToyCorpus) -> None:
    encoder = build(_BASE, seed=1).eval()
    method = HeadPruning(**FAST, score="gradient")
    for scores in method._scores(encoder, Setting(corpus), None):
        assert float(scores.norm()) == pytest.approx(1)
        assert (scores > 0).all()


def test_diagonal_heads_are_kept_or_dropped(corpus: ToyCorpus) -> None:
    encoder = build(_BASE, seed=1).eval()
    kept, dropped = (
        dict(HeadPruning(**FAST, score="diagonality", diagonal=which).track(
            encoder, [0.5], Setting(corpus)))[0.5]
        for which in ("keep", "drop")
    )  # fmt: skip
    assert isinstance(kept, Encoder)
    assert isinstance(dropped, Encoder)
    speeches = [corpus.waveform(item)[None] for item in corpus.training().items]
    for layer, scores in enumerate(diagonality_scores(encoder, speeches)):
        left, gone = kept.spec.layers[layer].heads, dropped.spec.layers[layer].heads
        assert set(left) | set(gone) == {0, 1, 2, 3}
        assert scores[list(left)].min() > scores[list(gone)].max()


def test_random_scores_follow_a_head_from_stage_to_stage() -> None:
    encoder = build(_BASE, seed=1).eval()
    method = HeadPruning(score="random")
    rates = [0.25, 0.5, 0.75]
    made = [e for _, e in method.track(encoder, rates, Setting(seed=3))]
    staged = replace(method, schedule="iterative", stages="0.25:0.75:0.25", steps=0)
    again = [e for _, e in staged.track(encoder, rates, Setting(seed=3))]
    assert [e.spec for e in made if isinstance(e, Encoder)] == [
        e.spec for e in again if isinstance(e, Encoder)
    ]
    other = [e for _, e in method.track(encoder, rates, Setting(seed=4))]
    assert any(a.spec != b.spec for a, b in zip(made, other, strict=True)
               if isinstance(a, Encoder) and isinstance(b, Encoder))  # fmt: skip


@pytest.mark.parametrize("score", ["gradient", "diagonality"])
def test_scores_that_need_speech_say_so(score: Any) -> None:
    encoder = build(_BASE, seed=1).eval()
    with pytest.raises(InputError, match="--data"):
        dict(HeadPruning(score=score).track(encoder, [0.5]))
