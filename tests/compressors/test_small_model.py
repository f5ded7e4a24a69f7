"""Models trained from scratch by the dense model's own loss."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from toy_corpus import ToyCorpus

from compressors import _trained
from compressors._base import Setting
from compressors._students import begin, student
from compressors.small_model import SmallModel
from core import plugins
from core.errors import Unsupported
from core.spec import LayerSpec, MelFrontEnd
from encoders import build, zoo
from encoders.model import Encoder
from encoders.store import load

CAUSAL = replace(
    zoo.tiny_causal(), front_end=MelFrontEnd(bins=10, stack=2), dim=16, total_heads=2, head_dim=8,
    layers=(LayerSpec.dense(2, 8, 16),) * 4,
)  # fmt: skip
SPEC = replace(CAUSAL, causal=False)
FAST: dict[str, Any] = {
    "steps": 25, "batch_seconds": 2.0, "crop_seconds": 0.5, "clusters": 8, "precision": "no",
    "learning_rate": 5e-3,
}  # fmt: skip


def same(one: Encoder, other: Encoder) -> bool:
    ours, its = one.state_dict(), other.state_dict()
    return ours.keys() == its.keys() and all(torch.equal(v, its[k]) for k, v in ours.items())


@pytest.mark.parametrize("by", ["depth", "width", "heads", "dim"])
def test_untrained_it_is_random_but_for_the_front_end(by: Any) -> None:
    dense = build(SPEC, seed=1).eval()
    made = dict(SmallModel(steps=0, by=by).track(dense, [0.4], Setting(seed=3)))[0.4]
    assert isinstance(made, Encoder)
    assert same(made, begin(student(SPEC, 0.4, by), dense, seed=3))
    assert not same(made, begin(student(SPEC, 0.4, by), dense, seed=4))


@pytest.mark.parametrize("loss", ["masked-clusters", "apc", "vq-apc"])
@pytest.mark.parametrize("by", ["depth", "dim"])
def test_updates_lower_the_loss_of_pretraining(loss: Any, by: Any, corpus: ToyCorpus) -> None:
    told: list[dict[str, float]] = []

    def report(name: str, step: int, total: int, values: dict[str, float]) -> None:
        told.append(values)

    dense = build(SPEC if loss == "masked-clusters" else CAUSAL, seed=1).eval()
    before = {name: value.clone() for name, value in dense.state_dict().items()}
    method = SmallModel(**FAST, loss=loss, by=by)
    (_, made), *_ = method.track(dense, [0.5], Setting(corpus, report=report))
    assert isinstance(made, Encoder)
    assert made.spec == student(dense.spec, 0.5, by)
    assert told[-1]["loss"] < 0.95 * told[0]["loss"]
    assert all(torch.equal(value, before[name]) for name, value in dense.state_dict().items())
    given = dense.front_end.state_dict()
    assert all(torch.equal(v, given[k]) for k, v in made.front_end.state_dict().items())


def test_apc_of_a_model_that_sees_ahead_is_unsupported(corpus: ToyCorpus) -> None:
    method = SmallModel(**FAST, loss="apc")
    outcome = dict(method.track(build(SPEC, seed=1), [0.5], Setting(corpus)))[0.5]
    assert isinstance(outcome, Unsupported)
    assert "causal" in str(outcome)


def test_it_learns_the_dense_models_clusters(
    corpus: ToyCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal rates share a training, whose targets are those of the built-in model."""
    seen: list[tuple[str, int]] = []

    def noted(learner: Any, batches: Any, settings: Any, name: str, *rest: Any) -> Any:
        seen.append((name, learner.objective.head.linear.out_features))
        return {}

    monkeypatch.setattr(_trained, "train", noted)
    made = dict(SmallModel(by="depth").track(load("builtin"), [0.1, 0.2, 0.5], Setting(corpus)))
    assert made[0.1] is made[0.2]
    assert [classes for _, classes in seen] == [200, 200]
    assert len({name for name, _ in seen}) == 2


def test_the_papers_budget_is_that_of_distillation() -> None:
    own, its = (plugins.card("method", n).preset("paper") for n in ("small-model", "distillation"))
    assert own.items() <= its.items()
    assert {"steps", "learning_rate", "batch_seconds", "crop_seconds"} <= own.keys()
