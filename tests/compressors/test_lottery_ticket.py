"""Lottery tickets: whose mask, on which weights, and how many trainings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from toy_corpus import ToyCorpus
from toy_models import SHALLOW, STAGED

from compressors._base import Setting
from compressors._trained import Pretrained
from compressors._zeros import masked_like, weights, zeros_held
from compressors.lottery_ticket import LotteryTicket
from compressors.weight_pruning import WeightPruning
from encoders.model import Encoder, build
from encoders.objectives import Objective

RATES = [0.25, 0.5, 0.75]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return build(SHALLOW, seed=1).eval()


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """The weights that each training began with."""
    seen: dict[str, Tensor] = {}
    train: Callable[..., dict[str, float]] = Pretrained.train

    def watched(self: Pretrained, encoder: Encoder, objective: Objective, setting: Setting,
                name: str, **rest: Any) -> dict[str, float]:  # fmt: skip
        seen[name] = flat(encoder)
        return train(self, encoder, objective, setting, name, **rest)

    monkeypatch.setattr(Pretrained, "train", watched)
    return seen


def flat(encoder: Encoder) -> Tensor:
    return torch.cat([getattr(m, n).detach().flatten().clone() for m, n in weights(encoder)])


def tickets(method: LotteryTicket, encoder: Encoder, setting: Setting) -> list[Tensor]:
    made = [e for _, e in method.track(encoder, RATES, setting)]
    return [flat(e) for e in made if isinstance(e, Encoder)]


def test_one_mask_run_and_a_training_per_ticket(
    encoder: Encoder, corpus: ToyCorpus, begun: dict[str, Tensor]
) -> None:
    made = tickets(LotteryTicket(**STAGED), encoder, Setting(corpus))
    assert list(begun) == [
        "mask 0", "ticket 0.25", "mask 0.25", "ticket 0.5", "mask 0.5", "ticket 0.75",
    ]  # fmt: skip
    for rate, ticket in zip(RATES, made, strict=True):
        assert int((ticket == 0).sum()) == round(rate * len(ticket))
    assert all(((high == 0) >= (low == 0)).all() for low, high in pairwise(made))


def test_a_ticket_starts_from_the_given_weights_under_the_trained_mask(
    encoder: Encoder, corpus: ToyCorpus, begun: dict[str, Tensor]
) -> None:
    method = LotteryTicket(**STAGED | {"learning_rate": 0.05})
    made = tickets(method, encoder, Setting(corpus))
    given, start = flat(encoder), begun["ticket 0.5"]
    assert torch.equal(start[start != 0], given[start != 0])
    assert torch.equal(start == 0, begun["mask 0.5"] == 0)
    assert torch.equal(made[1] == 0, start == 0)
    assert (made[1] != start)[start != 0].float().mean() > 0.99, "it is trained"
    at_once = dict(WeightPruning().track(encoder, [0.5]))[0.5]
    assert isinstance(at_once, Encoder)
    assert not torch.equal(start == 0, flat(at_once) == 0), "the mask is that of a trained model"


def test_a_ticket_does_not_depend_on_the_others(encoder: Encoder, corpus: ToyCorpus) -> None:
    method = LotteryTicket(**STAGED)
    together = tickets(method, encoder, Setting(corpus))
    (alone,) = (e for _, e in method.track(encoder, [0.75], Setting(corpus)))
    assert isinstance(alone, Encoder)
    assert torch.equal(flat(alone), together[2])


def test_the_control_has_the_mask_and_other_weights(
    encoder: Encoder, corpus: ToyCorpus, begun: dict[str, Tensor]
) -> None:
    tickets(LotteryTicket(**STAGED), encoder, Setting(corpus))
    ours = dict(begun)
    tickets(LotteryTicket(**STAGED, rewind="random"), encoder, Setting(corpus))
    mask = ours["ticket 0.5"] != 0
    assert torch.equal(begun["ticket 0.5"] != 0, mask)
    assert (begun["ticket 0.5"] != ours["ticket 0.5"])[mask].all()
    assert torch.equal(begun["mask 0.5"], ours["mask 0.5"]), "the masks are found alike"


def test_outside_the_maps_the_control_keeps_what_was_given(encoder: Encoder) -> None:
    method = LotteryTicket(**STAGED | {"steps": 0}, rewind="random")
    made = dict(method.track(encoder, [0.5]))[0.5]
    assert isinstance(made, Encoder)
    drawn = {id(getattr(m, n)) for m, n in weights(made)}
    given = dict(encoder.named_parameters())
    others = [(name, p) for name, p in made.named_parameters() if id(p) not in drawn]
    assert len(others) > 5
    assert all(torch.equal(p, given[name]) for name, p in others)


def test_without_updates_a_ticket_is_one_cut(encoder: Encoder) -> None:
    made = tickets(LotteryTicket(**STAGED | {"steps": 0}), encoder, Setting())
    cut = [e for _, e in WeightPruning().track(encoder, RATES)]
    assert all(torch.equal(a, flat(b)) for a, b in zip(made, cut, strict=True) if b)


def test_a_cut_run_goes_on_where_it_was(
    encoder: Encoder, corpus: ToyCorpus, tmp_path: Path
) -> None:
    names = set()

    def hear(name: str, step: int, total: int, values: dict[str, float]) -> None:
        names.add(name)

    setting = Setting(corpus, folder=tmp_path, report=hear)
    next(LotteryTicket(**STAGED).track(encoder, RATES, setting))
    names.clear()
    resumed = tickets(LotteryTicket(**STAGED), encoder, setting)
    assert names == {"mask 0.25", "ticket 0.5", "mask 0.5", "ticket 0.75"}
    whole = tickets(LotteryTicket(**STAGED), encoder, replace(setting, folder=None))
    assert all(map(torch.equal, resumed, whole))


def test_a_mask_is_put_where_the_other_is_zero(encoder: Encoder) -> None:
    sparse = dict(WeightPruning().track(encoder, [0.3]))[0.3]
    other = build(SHALLOW, seed=5)
    assert isinstance(sparse, Encoder)
    masked = flat(masked_like(other, sparse))
    assert torch.equal(masked, flat(other) * (flat(sparse) != 0))


def test_zeros_are_held_only_inside(encoder: Encoder) -> None:
    """Against momentum and weight decay too, which a mask on the loss alone would let through."""
    sparse = dict(WeightPruning().track(encoder, [0.5]))[0.5]
    assert isinstance(sparse, Encoder)
    gone = flat(sparse) == 0
    optimizer = torch.optim.AdamW(sparse.parameters(), 0.1, weight_decay=0.1)

    def update() -> None:
        optimizer.zero_grad()
        sum((getattr(m, n) - 1).square().sum() for m, n in weights(sparse)).backward()
        optimizer.step()

    with zeros_held(sparse):
        for _ in range(3):
            update()
    assert torch.equal(flat(sparse) == 0, gone)
    update()
    assert not (flat(sparse) == 0).any()
