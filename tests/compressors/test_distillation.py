"""Students: what they are asked for, which one a rate means, and that each is trained once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from toy_corpus import ToyCorpus
from toy_models import DEEP, FAST

from compressors._base import Setting
from compressors._imitation import Clusters, LayerToLayer, MultiLayer, Posteriors, Teacher
from compressors._students import begin, family, size, student
from compressors.distillation import Distillation
from core import plugins
from core.errors import InputError, Unsupported
from core.spec import ConvFrontEnd, Exits, LayerSpec, ModelSpec, Positions
from encoders import build, zoo
from encoders.crops import Batch
from encoders.cut import keep_heads, keep_layers, keep_units
from encoders.masked_prediction import MaskedPrediction
from encoders.model import Encoder
from encoders.objectives import Objective
from encoders.store import load

WAVLM = replace(
    DEEP, family="wavlm", front_end=ConvFrontEnd(channels=(16,) * 7), dim=32, total_heads=4,
    layers=(LayerSpec.dense(4, 8, 32),) * 3, feature_norm=True,
    positions=Positions(8, 4, gated_buckets=16, gated_distance=40),
)  # fmt: skip
RATES = [rate / 10 for rate in range(1, 10)]
WAYS = ("depth", "width", "heads", "dim")


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return build(DEEP, seed=1).eval()


def batch_of(front: int, seed: int = 5) -> Batch:
    """Three utterances of 20 frames, the clean ones unlike the augmented."""
    generator = torch.Generator().manual_seed(seed)
    noisy, clean = (torch.randn(3, 20, front, generator=generator) for _ in range(2))
    return Batch(noisy, clean, (), ())


def loss_of(objective: Objective, encoder: Encoder, batch: Batch) -> float:
    with torch.no_grad():
        return float(objective(encoder, batch, torch.Generator())["loss"])


def parameters(encoder: Encoder) -> int:
    return sum(p.numel() for p in encoder.layers.parameters())


def same(one: Encoder | Unsupported, other: Encoder | Unsupported) -> bool:
    assert isinstance(one, Encoder)
    assert isinstance(other, Encoder)
    ours, its = one.state_dict(), other.state_dict()
    return ours.keys() == its.keys() and all(torch.equal(v, its[k]) for k, v in ours.items())


# What students are asked for


@pytest.mark.parametrize("name", ["builtin", "other"])
def test_posteriors_are_matched_in_kl_divergence(
    name: str, encoder: Encoder, corpus: ToyCorpus
) -> None:
    teacher = load("builtin").eval() if name == "builtin" else encoder
    batch = batch_of(teacher.spec.front_end.dim)
    own = begin(student(teacher.spec, 0.5, "depth"), teacher, seed=3)
    objective = Posteriors(Clusters(teacher, corpus, seed=0, clusters=8), teacher.spec.dim, seed=4)
    with torch.no_grad():
        logits = objective.head(own.encode(batch.features).states[-1])
        states = teacher.encode(batch.clean).states
        if name == "builtin":
            wanted = MaskedPrediction.load().head(states[-1])
        else:
            task = MaskedPrediction.of(teacher, corpus, 0, 8)
            frames = (states[task.layer] - task.mean) / task.std
            wanted = -(frames[..., None, :] - task.centroids).norm(dim=-1)
    distributions = [torch.distributions.Categorical(logits=x) for x in (wanted, logits)]
    expected = torch.distributions.kl_divergence(*distributions).mean()
    assert loss_of(objective, own, batch) == pytest.approx(float(expected), rel=1e-3)


def test_a_teacher_agrees_with_itself(corpus: ToyCorpus) -> None:
    teacher = load("builtin").eval()
    objective = Posteriors(Clusters(teacher, corpus, 0, 8), teacher.spec.dim)
    batch = batch_of(teacher.spec.front_end.dim)
    assert loss_of(objective, teacher, replace(batch, features=batch.clean)) < 1e-5
    assert loss_of(objective, teacher, batch) > 0.1  # what it hears is not what its teacher hears


@pytest.mark.parametrize(
    ("depth", "predicted"), [(12, [4, 8, 12]), (6, [2, 4, 6]), (2, [1, 2]), (1, [1])]
)
def test_distilhubert_predicts_thirds_of_the_depth(depth: int, predicted: list[int]) -> None:
    teacher = Teacher(build(replace(DEEP, layers=DEEP.layers[:1] * depth), seed=1))
    objective = MultiLayer(teacher, DEEP.dim)
    assert objective.predicted == predicted
    assert len(objective.heads) == len(predicted)


def test_distilhubert_loss_is_its_equation(encoder: Encoder) -> None:
    batch, own = batch_of(DEEP.front_end.dim), build(student(DEEP, 0.5, "depth"), seed=2)
    objective = MultiLayer(Teacher(encoder), DEEP.dim, seed=3)
    total = 0.0
    with torch.no_grad():
        states = encoder.encode(batch.clean).states
        last = own.encode(batch.features).states[-1]
        for head, layer in zip(objective.heads, (2, 4, 6), strict=True):
            for guess, wanted in zip(
                head(last).flatten(0, 1), states[layer].flatten(0, 1), strict=True
            ):
                cosine = guess @ wanted / (guess.norm() * wanted.norm())
                near = (guess - wanted).abs().sum() / DEEP.dim
                total += float(near - torch.log(torch.sigmoid(cosine))) / (3 * 3 * 20)
    assert loss_of(objective, own, batch) == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize(
    ("by", "rate", "pairs"),
    [("dim", 0.5, [1, 2, 3, 4, 5, 6]), ("depth", 0.5, [2, 4, 6]), ("depth", 0.3, [2, 3, 5, 6])],
)
def test_layer_to_layer_pairs_layers_at_the_same_depth(
    by: str, rate: float, pairs: list[int], encoder: Encoder
) -> None:
    batch, own = batch_of(DEEP.front_end.dim), build(student(DEEP, rate, by), seed=2)
    objective = LayerToLayer(Teacher(encoder), own.spec.dim, len(own.layers), seed=3)
    assert objective.predicted == pairs
    with torch.no_grad():
        wanted, given = encoder.encode(batch.clean).states, own.encode(batch.features).states
        errors = [
            float((F.linear(given[i], m.weight, m.bias) - wanted[layer]).square().mean())
            for i, (m, layer) in enumerate(zip(objective.maps, pairs, strict=True), start=1)
        ]
    expected = errors[-1] + 0.1 * sum(errors[:-1])
    assert loss_of(objective, own, batch) == pytest.approx(expected, rel=1e-5)


# Which student a rate means


def test_half_of_twelve_layers_is_the_six_layer_student() -> None:
    spec = zoo.melhubert_20ms()
    half = student(spec, 0.5, "depth")
    assert half == replace(spec, layers=spec.layers[:6])
    assert student(spec, 0.8, "depth").layers == spec.layers[:2]


@pytest.mark.parametrize("by", WAYS)
@pytest.mark.parametrize("spec", [DEEP, WAVLM, zoo.tiny(), zoo.hubert_base()])
def test_families_are_ordered_and_end_with_the_model_itself(spec: ModelSpec, by: str) -> None:
    shapes = family(spec, by)
    sizes = [size(shape) for shape in shapes]
    assert sizes == sorted(sizes)
    assert shapes[-1] == spec
    assert all(len(shape.layers) == len(spec.layers) for shape in shapes) == (by != "depth")
    assert all(shape.dim == spec.dim for shape in shapes) == (by != "dim")
    assert {shape.front_end for shape in shapes} == {spec.front_end}


@pytest.mark.parametrize("by", WAYS)
def test_a_rate_is_of_the_parameters_of_the_layers(by: str) -> None:
    spec = replace(DEEP, dim=64, total_heads=8, layers=(LayerSpec.dense(8, 8, 256),) * 6)
    dense, method = build(spec, seed=1), Distillation(steps=0, by=by)  # type: ignore[arg-type]
    #: Half of the largest step: a layer of 6, a head of 8, and of what is square in the width.
    near = {"depth": 1 / 12, "width": 0.025, "heads": 1 / 48, "dim": 1 / 8}[by]
    reached = {"depth": RATES, "width": RATES[:8], "heads": RATES[:3], "dim": RATES[2:]}[by]
    for rate, made in method.track(dense, reached):
        assert isinstance(made, Encoder)
        assert method.achieved(dense, made) == pytest.approx(rate, abs=near + 1e-6)
        left = parameters(made) / parameters(dense)
        assert method.achieved(dense, made) == pytest.approx(1 - left)


@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.sampled_from(WAYS))
def test_a_higher_rate_is_never_a_larger_student(one: float, other: float, by: str) -> None:
    sizes = []
    for rate in sorted((one, other)):
        with suppress(Unsupported):
            sizes.append(size(student(zoo.tiny(), rate, by)))
    assert all(own < size(zoo.tiny()) for own in sizes)
    assert sizes == sorted(sizes, reverse=True)


def test_what_cannot_go_is_unsupported_with_the_reason(encoder: Encoder) -> None:
    made = dict(Distillation(steps=0, by="heads").track(encoder, [0.2, 0.9]))
    assert isinstance(made[0.2], Encoder)
    assert isinstance(made[0.9], Unsupported)
    assert "by heads from 0.32 to 0.32" in str(made[0.9])
    with pytest.raises(Unsupported, match=r"by depth from 0.17 to 0.83 .* not 0.05"):
        student(DEEP, 0.05, "depth")
    shallow = replace(DEEP, layers=DEEP.layers[:1])
    assert "no smaller" in str(Distillation().supports(shallow))
    assert Distillation(by="width").supports(shallow) is None
    integers = replace(DEEP, layers=(replace(DEEP.layers[0], numeric="int8"),) * 6)
    assert "integers" in str(Distillation().supports(integers))


# What they begin with


@pytest.mark.parametrize("shape", [DEEP, WAVLM])
def test_a_student_begins_with_its_teachers_first_layers(shape: ModelSpec) -> None:
    dense = build(shape, seed=1).eval()
    begun = begin(student(shape, 0.6, "depth"), dense, seed=7, start="teacher")
    assert same(begun, keep_layers(dense, range(len(begun.layers))))


def test_a_thin_student_begins_with_the_first_heads_and_units() -> None:
    dense = build(WAVLM, seed=1).eval()
    begun = begin(student(WAVLM, 0.5, "width"), dense, seed=7, start="teacher")
    heads, units = len(begun.spec.layers[0].heads), begun.spec.layers[0].ffn
    assert heads == 2
    assert same(begun, keep_units(keep_heads(dense, [range(heads)] * 3), [range(units)] * 3))


@pytest.mark.parametrize("by", WAYS)
def test_from_scratch_it_shares_the_front_end_alone(by: str) -> None:
    dense = build(WAVLM, seed=1).eval()
    shape = student(WAVLM, 0.3, by)
    begun, fresh = begin(shape, dense, seed=7), build(shape, seed=7)
    given = dense.front_end.state_dict()
    assert all(torch.equal(v, given[k]) for k, v in begun.front_end.state_dict().items())
    begun.front_end.load_state_dict(fresh.front_end.state_dict())
    assert same(begun, fresh)


def test_students_of_a_model_with_exits_have_none() -> None:
    dense = build(replace(DEEP, exits=Exits(4)), seed=1).eval()
    begun = begin(student(dense.spec, 0.5, "depth"), dense, seed=0, start="teacher")
    assert begun.spec == replace(DEEP, layers=DEEP.layers[:3])


@pytest.mark.parametrize("start", ["teacher", "random"])
def test_untrained_it_needs_no_speech(start: Any, encoder: Encoder, trainings: list[str]) -> None:
    made = dict(Distillation(steps=0, start=start).track(encoder, [0.5], Setting(seed=2)))
    assert trainings == []
    assert same(made[0.5], begin(student(DEEP, 0.5, "depth"), encoder, 2, start))
    with pytest.raises(InputError, match="--data"):
        list(Distillation().track(encoder, [0.5]))


# How they are trained

RECIPES = ("posteriors", "multi-layer", "layer-to-layer")


def test_each_distinct_student_is_trained_once(
    encoder: Encoder, corpus: ToyCorpus, trainings: list[str]
) -> None:
    method = Distillation(**FAST | {"steps": 1})
    made = dict(method.track(encoder, RATES, Setting(corpus)))
    assert [len(e.layers) for e in made.values() if isinstance(e, Encoder)] == [
        5, 5, 4, 4, 3, 2, 2, 1, 1,
    ]  # fmt: skip
    assert len(trainings) == len(set(trainings)) == 5
    assert made[0.1] is made[0.2]
    alone = dict(method.track(encoder, [0.7], Setting(corpus)))
    assert same(alone[0.7], made[0.7])


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("by", ["depth", "dim"])
def test_updates_lower_the_loss_and_leave_the_teacher(
    recipe: Any, by: Any, encoder: Encoder, corpus: ToyCorpus
) -> None:
    told: list[dict[str, float]] = []

    def report(name: str, step: int, total: int, values: dict[str, float]) -> None:
        told.append(values)

    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    method = Distillation(**FAST | {"steps": 25}, recipe=recipe, by=by, start="random")
    (_, made), *_ = method.track(encoder, [0.5], Setting(corpus, report=report))
    assert isinstance(made, Encoder)
    assert not made.training
    assert told[-1]["loss"] < 0.9 * told[0]["loss"]
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    rebuilt = build(made.spec, seed=9)
    rebuilt.load_state_dict(made.state_dict(), strict=True)


class Cut(Exception):
    """What stops a training in the tests."""


def cut_at(step: int) -> Callable[..., None]:
    def report(name: str, done: int, total: int, values: dict[str, float]) -> None:
        if done == step:
            raise Cut

    return report


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_cut_run_goes_on_to_the_same_student(
    recipe: Any, encoder: Encoder, corpus: ToyCorpus, tmp_path: Path,
    trainings: list[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    settings = Distillation._settings
    monkeypatch.setattr(
        Distillation, "_settings",
        lambda self, *given: replace(settings(self, *given), checkpoint_every=2),
    )  # fmt: skip
    method = Distillation(**FAST, recipe=recipe)
    whole = dict(method.track(encoder, [0.5, 0.8], Setting(corpus)))
    with pytest.raises(Cut):
        dict(method.track(encoder, [0.5, 0.8], Setting(corpus, folder=tmp_path, report=cut_at(5))))
    again = dict(method.track(encoder, [0.5, 0.8], Setting(corpus, folder=tmp_path)))
    assert all(same(again[rate], whole[rate]) for rate in whole)


def test_presets_are_the_papers() -> None:
    card = plugins.card("method", "distillation")
    assert "2110.01900" in card.summary
    assert {"untrained", "paper", "distilhubert", "fithubert"} <= set(card.presets)
    paper, hubert = card.preset("paper"), card.preset("distilhubert")
    assert (paper["recipe"], paper["learning_rate"], paper["start"]) == (
        "posteriors", 1e-4, "random",
    )  # fmt: skip
    assert (hubert["learning_rate"], hubert["steps"], hubert["warm_up"]) == (2e-4, 200_000, 0.07)
    assert hubert["batch_seconds"] / hubert["crop_seconds"] == pytest.approx(24)
    assert all(Distillation(**card.preset(name)) for name in card.presets)
