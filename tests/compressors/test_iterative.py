"""Pruning in stages: which trainings there are, what they start from, and what stays zero."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from toy_corpus import ToyCorpus
from toy_models import SHALLOW, STAGED

from compressors._base import Setting
from compressors._iterative import Pruning, Staged, Watched, read_stages
from compressors._trained import Pretrained
from compressors._zeros import nonzero, weights
from compressors.continue_training import ContinueTraining
from compressors.head_pruning import HeadPruning
from compressors.row_pruning import RowPruning
from compressors.weight_pruning import WeightPruning
from core.errors import InputError, Unsupported
from encoders.model import Encoder, build
from encoders.objectives import Objective

METHODS: list[type[Pruning]] = [WeightPruning, HeadPruning, RowPruning]
Trainings = list[tuple[str, int]]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return build(SHALLOW, seed=1).eval()


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Trainings:
    """Names of the trainings that were begun, and what the models weighed then."""
    seen: Trainings = []
    train: Callable[..., dict[str, float]] = Pretrained.train

    def counted(self: Pretrained, encoder: Encoder, objective: Objective, setting: Setting,
                name: str, **rest: Any) -> dict[str, float]:  # fmt: skip
        seen.append((name, nonzero(encoder)))
        return train(self, encoder, objective, setting, name, **rest)

    monkeypatch.setattr(Pretrained, "train", counted)
    return seen


def made(method: Staged, encoder: Encoder, rates: list[float], setting: Setting) -> list[Encoder]:
    found = dict(method.track(encoder, rates, setting))
    assert list(found) == rates
    assert all(isinstance(e, Encoder) for e in found.values())
    return [e for e in found.values() if isinstance(e, Encoder)]


def same(one: Encoder, other: Encoder) -> bool:
    ours, its = one.state_dict(), other.state_dict()
    return one.spec == other.spec and all(torch.equal(v, its[k]) for k, v in ours.items())


@pytest.mark.parametrize("kind", METHODS)
def test_one_training_a_stage_gives_every_rate(
    kind: type[Pruning], encoder: Encoder, corpus: ToyCorpus, trainings: Trainings
) -> None:
    method = kind(**STAGED, schedule="iterative")
    small = made(method, encoder, [0.25, 0.5, 0.75], Setting(corpus))
    assert [name for name, _ in trainings] == ["to 0.25", "to 0.5", "to 0.75"]
    achieved = [method.achieved(encoder, e) for e in small]
    assert achieved == pytest.approx([0.25, 0.5, 0.75], abs=2e-3)
    assert [nonzero(e) for e in small] == pytest.approx([n for _, n in trainings], rel=0.01)


@pytest.mark.parametrize("kind", METHODS)
def test_a_rate_does_not_depend_on_the_other_rates(
    kind: type[Pruning], encoder: Encoder, corpus: ToyCorpus, trainings: Trainings
) -> None:
    """Neither a stage nor a branch, which starts from the stage below it."""
    method = kind(**STAGED, schedule="iterative")
    together = made(method, encoder, [0.1, 0.4, 0.5, 0.65], Setting(corpus))
    names = [name for name, _ in trainings]
    assert names == ["to 0.1", "to 0.25", "to 0.4", "to 0.5", "to 0.65"]
    for rate, expected in zip([0.1, 0.4, 0.5, 0.65], together, strict=True):
        assert same(made(method, encoder, [rate], Setting(corpus))[0], expected)


@pytest.mark.parametrize("until", ["steps", "recovered"])
@pytest.mark.parametrize("kind", METHODS)
def test_a_cut_run_goes_on_where_it_was(
    kind: type[Pruning], until: Any, encoder: Encoder, corpus: ToyCorpus, tmp_path: Path
) -> None:
    method, reports = kind(**STAGED, schedule="iterative", until=until), []

    def hear(name: str, step: int, total: int, values: dict[str, float]) -> None:
        reports.append((name, values["sparsity"]))

    setting = Setting(corpus, folder=tmp_path, report=hear)
    run = method.track(encoder, [0.25, 0.5], setting)
    next(run)
    assert {name for name, _ in reports} - {"to 0"} == {"to 0.25"}
    reports.clear()
    resumed = made(method, encoder, [0.25, 0.5], setting)
    assert set(reports) == {("to 0.5", 0.5)}, "the first stage is read, the second is trained"
    whole = made(method, encoder, [0.25, 0.5], Setting(corpus))
    assert all(map(same, resumed, whole))


def test_every_stage_hears_other_speech(
    encoder: Encoder, corpus: ToyCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[list[tuple[int, ...]]] = []

    def hear(self: Pretrained, encoder: Encoder, objective: Objective, setting: Setting,
             name: str, **rest: Any) -> dict[str, float]:  # fmt: skip
        heard.append([self._crops(setting)[index].offsets for index in range(3)])
        return {}

    monkeypatch.setattr(Pretrained, "train", hear)
    for seed in (0, 1):
        setting = Setting(corpus, seed)
        made(RowPruning(**STAGED, schedule="iterative"), encoder, [0.25, 0.5], setting)
    assert len({str(offsets) for offsets in heard}) == len(heard) == 4


def test_zeros_stay_zero_and_what_is_left_is_trained(encoder: Encoder, corpus: ToyCorpus) -> None:
    method = WeightPruning(**STAGED, schedule="iterative")
    half, more = made(method, encoder, [0.5, 0.75], Setting(corpus))
    pairs = list(zip(weights(half), weights(more), strict=True))
    for (module, name), (other, _) in pairs:
        assert not (getattr(other, name) != 0)[getattr(module, name) == 0].any()
    gone = torch.cat([(getattr(m, n) == 0).flatten() for m, n in weights(half)])
    trained = torch.cat([getattr(m, n).detach().flatten() for m, n in weights(half)])
    before = torch.cat([getattr(m, n).detach().flatten() for m, n in weights(encoder)])
    assert int(gone.sum()) == round(0.5 * len(gone))
    assert (trained != before)[~gone].float().mean() > 0.99


def test_the_next_cut_goes_by_the_weights_that_training_left(
    encoder: Encoder, corpus: ToyCorpus
) -> None:
    method = WeightPruning(**STAGED | {"learning_rate": 0.05}, schedule="iterative")
    once = made(replace(method, schedule="one-shot"), encoder, [0.5], Setting())[0]
    there = made(method, encoder, [0.5], Setting(corpus))[0]
    pairs = zip(weights(once), weights(there), strict=True)
    assert any(((getattr(a, n) == 0) != (getattr(b, n) == 0)).any() for (a, n), (b, _) in pairs)


def test_training_at_once_starts_from_the_dense_model(
    encoder: Encoder, corpus: ToyCorpus, trainings: Trainings
) -> None:
    method = RowPruning(**STAGED, schedule="retrain")
    made(method, encoder, [0.25, 0.75], Setting(corpus))
    assert [name for name, _ in trainings] == ["to 0.25", "to 0.75"]
    assert same(made(replace(method, steps=0), encoder, [0.75], Setting())[0],
                made(RowPruning(), encoder, [0.75], Setting())[0])  # fmt: skip


@pytest.mark.parametrize("kind", METHODS)
def test_without_updates_stages_end_where_one_cut_does(
    kind: type[Pruning], encoder: Encoder
) -> None:
    staged = kind(**STAGED | {"steps": 0}, schedule="iterative")
    at_once = made(kind(), encoder, [0.25, 0.5, 0.75], Setting())
    assert all(map(same, made(staged, encoder, [0.25, 0.5, 0.75], Setting()), at_once))


def test_the_control_is_trained_as_long_and_loses_nothing(
    encoder: Encoder, corpus: ToyCorpus, trainings: Trainings
) -> None:
    method = ContinueTraining(**STAGED)
    kept = made(method, encoder, [0.25, 0.4, 0.5], Setting(corpus))
    assert [name for name, _ in trainings] == ["to 0.25", "to 0.4", "to 0.5"]
    assert all(e.spec == encoder.spec and method.achieved(encoder, e) == 0 for e in kept)
    assert not same(kept[0], encoder)
    assert not same(kept[0], kept[2])
    assert same(made(replace(method, steps=0), encoder, [0.5], Setting())[0], encoder)


def test_a_stage_ends_when_the_smoothed_loss_is_back(
    encoder: Encoder, corpus: ToyCorpus, trainings: Trainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    updates: dict[str, int] = {}
    losses = iter([1.0] * 20 + [2.0] * 5 + [0.5] * 100)

    def forward(self: Watched, *_: Any) -> dict[str, Tensor]:
        loss = torch.tensor(next(losses))
        self.smoothed.copy_(loss)
        return {"loss": loss.requires_grad_(), "smoothed": loss.detach().clone()}

    def hear(name: str, step: int, total: int, values: dict[str, float]) -> None:
        updates[name] = step

    monkeypatch.setattr(Watched, "forward", forward)
    method = RowPruning(**STAGED | {"steps": 20}, schedule="iterative", until="recovered")
    made(method, encoder, [0.25, 0.5], Setting(corpus, report=hear))
    assert updates == {"to 0": 20, "to 0.25": 6, "to 0.5": 1}


def test_the_moving_average_is_that_of_the_papers_code() -> None:
    class Given(Objective):
        def forward(self, *_: Any) -> dict[str, Tensor]:
            return {"loss": torch.tensor(next(values))}

    watched = Watched(Given(), 25_000)
    assert watched.factor == pytest.approx(0.9998)
    watched.factor, values = 0.9, iter([2.0, 1.0, 4.0])
    watched.begin(0.3)
    told = [watched(None, None, None) for _ in range(3)]
    assert [float(t["smoothed"]) for t in told] == pytest.approx([2.0, 1.9, 2.11])
    assert all(float(t["sparsity"]) == pytest.approx(0.3) for t in told)
    assert "smoothed" in watched.state_dict(), "a run that is cut goes on with it"


def test_stages_are_read_exactly() -> None:
    assert read_stages("0.1:0.9:0.1") == [n / 10 for n in range(1, 10)]
    assert read_stages("1/12:11/12:1/12") == [n / 12 for n in range(1, 12)]
    assert read_stages(".5 .2:.4:.1") == [0.2, 0.3, 0.4, 0.5]
    assert read_stages("") == []


def test_the_38_sparsities_of_the_papers_code() -> None:
    stages = read_stages(WeightPruning.presets["paper"]["stages"])
    fine = [round(0.7 + n / 100, 2) for n in range(22)]
    assert stages == [
        0.2, 0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.675, *fine, 0.915, 0.92, 0.925, 0.93, 0.935, 0.94,
        0.945, 0.95,
    ]  # fmt: skip
    assert len(stages) == 38


@given(st.text(alphabet="0123456789.:/ -a", max_size=12))
def test_stages_are_rates_or_refused(text: str) -> None:
    with suppress(InputError):
        stages = read_stages(text)
        assert stages == sorted(set(stages))
        assert all(0 < stage < 1 for stage in stages)


@pytest.mark.parametrize("text", ["0.5 1.0", "0:0.5:0.1", "0.5:0.1:0.1", "half", "1/0", "-0.5"])
def test_stages_that_are_no_rates_are_named(text: str) -> None:
    with pytest.raises(InputError, match=re.escape(repr(text))):
        read_stages(text)


def test_a_stage_that_does_not_exist_is_an_outcome(encoder: Encoder) -> None:
    method = HeadPruning(steps=0, schedule="iterative", stages="0.5 0.9 0.95")
    found = dict(method.track(encoder, [0.5, 0.9, 0.97], Setting()))
    assert isinstance(found[0.5], Encoder)
    assert isinstance(found[0.9], Unsupported)
    assert isinstance(found[0.97], Unsupported)
