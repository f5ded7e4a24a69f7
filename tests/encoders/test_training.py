"""The training loop: what a cut, a NaN, a second process and a log must and must not change."""

from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from textwrap import dedent

import pytest
import torch
from torch import nn

from core.errors import Diverged
from encoders.training import Settings, train

SETTINGS = Settings(
    steps=12, learning_rate=0.05, warm_up=0.25, checkpoint_every=5, report_every=3, clip=10.0
)


class Line(nn.Module):
    """Fits y = 2 x + noise; `spoil` makes the loss NaN at that batch."""

    def __init__(self, spoil: int | None = None) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 1)
        self.teacher = nn.Linear(4, 1).requires_grad_(False)
        self.register_buffer("seen", torch.zeros(()))
        self.spoil = spoil
        self.dtypes: set[torch.dtype] = set()
        with torch.no_grad():
            self.linear.weight.fill_(0.5)
            self.linear.bias.zero_()

    def forward(self, batch, generator):
        index, x = batch
        out = self.linear(x)
        self.dtypes.add(out.dtype)
        self.seen += 1
        noise = 0.1 * torch.randn(len(x), 1, generator=generator)
        loss = (out.float() - 2 * x.sum(1, keepdim=True) - noise).square().mean()
        loss = loss * float("nan") if index == self.spoil else loss
        return {"loss": loss, "index": x.new_tensor(index)}

    def groups(self, learning_rate):
        return [{"params": [self.linear.weight, self.linear.bias], "lr": learning_rate}]


class Numbers:
    """Batch i is drawn from i; `until`: the first that cannot be had."""

    def __init__(self, until: int = 10**9) -> None:
        self.until, self.drawn = until, []

    def __getitem__(self, index):
        if index >= self.until:
            raise KeyboardInterrupt
        self.drawn.append(index)
        return index, torch.randn(8, 4, generator=torch.Generator().manual_seed(index))


def fitted(folder: Path, settings: Settings = SETTINGS, **rest) -> dict[str, torch.Tensor]:
    learner = Line()
    train(learner, Numbers(), settings, "a line", folder, **rest)
    return {k: v for k, v in learner.state_dict().items() if "teacher" not in k}


def rows(folder: Path) -> list[list[str]]:
    with (folder / "log.csv").open(newline="") as file:
        return list(csv.reader(file))[1:]


def test_it_learns(tmp_path):
    reports = []
    settings = replace(SETTINGS, steps=300)
    learner = Line()
    train(learner, Numbers(), settings, "a line", tmp_path, lambda *told: reports.append(told))
    assert learner.linear.weight.detach().mean() == pytest.approx(2, abs=0.05)
    assert [told[1] for told in reports] == list(range(3, 301, 3))
    assert reports[-1][3]["loss"] < 0.1 < reports[0][3]["loss"]
    assert not learner.training


@pytest.mark.parametrize("cut", [2, 5, 7, 11])
def test_a_cut_run_goes_on_with_the_same_numbers(tmp_path, cut):
    whole = fitted(tmp_path / mkdir(tmp_path, "whole"))
    folder = tmp_path / mkdir(tmp_path, "cut")
    with pytest.raises(KeyboardInterrupt):
        train(Line(), Numbers(until=cut), SETTINGS, "a line", folder)
    again = fitted(folder)
    assert whole.keys() == again.keys()
    assert all(torch.equal(value, again[key]) for key, value in whole.items())
    losses = [[row for row in rows(f) if row[2] != "seconds"] for f in (tmp_path / "whole", folder)]
    assert losses[0] == losses[1]


def mkdir(root: Path, name: str) -> str:
    (root / name).mkdir()
    return name


def test_a_finished_training_is_only_read(tmp_path):
    first = fitted(tmp_path)
    learner, none = Line(), Numbers(until=0)
    means = train(learner, none, SETTINGS, "a line", tmp_path)
    assert none.drawn == []
    assert all(torch.equal(value, learner.state_dict()[key]) for key, value in first.items())
    assert means["index"] == 10  # the mean of the last three batches: 9, 10, 11


def test_only_what_is_trained_is_kept(tmp_path):
    fitted(tmp_path)
    state = torch.load(tmp_path / "a-line.pt", weights_only=True)
    assert set(state["learner"]) == {"linear.weight", "linear.bias", "seen"}
    assert "optimizer" not in state


def test_checkpoints_that_take_long_are_far_apart(tmp_path, monkeypatch):
    clock, written, save = [0], [], torch.save

    def slowly(state, path):
        clock[0] += 2
        written.append(state["step"])
        save(state, path)

    monkeypatch.setattr("encoders.training.time.monotonic", lambda: clock[0])
    monkeypatch.setattr(torch, "save", slowly)

    def tick(_: int) -> None:
        clock[0] += 1

    settings = replace(SETTINGS, steps=24, checkpoint_every=2, checkpoint_apart=4.0)
    train(Line(), Numbers(), settings, "a", tmp_path, after_step=tick)
    assert written == [2, 10, 18, 24]  # 8 s after the last one, which took 2 s


def test_accumulated_batches_are_one_large_batch(tmp_path):
    class Joined(Numbers):
        def __getitem__(self, index):
            parts = [Numbers()[2 * index + part][1] for part in (0, 1)]
            return index, torch.cat(parts)

    settings = replace(SETTINGS, steps=4)
    learners = Line(), Line()
    for learner in learners:
        learner.forward = without_noise(learner)
    train(learners[0], Numbers(), replace(settings, accumulate=2), "a", tmp_path)
    train(learners[1], Joined(), settings, "b", tmp_path)
    assert torch.allclose(learners[0].linear.weight, learners[1].linear.weight, atol=1e-6)


def without_noise(learner):
    def forward(batch, generator):
        x = batch[1]
        return {"loss": (learner.linear(x) - x.sum(1, keepdim=True)).square().mean()}

    return forward


def test_gradients_are_clipped(tmp_path):
    norms = []

    class Loud(Line):
        def forward(self, batch, generator):
            return {"loss": 1e6 * super().forward(batch, generator)["loss"]}

    learner = Loud()
    clip = torch.nn.utils.clip_grad_norm_
    with pytest.MonkeyPatch.context() as patch:

        def spy(parameters, limit, **rest):
            parameters = list(parameters)
            before = clip(parameters, limit, **rest)
            norms.append(
                sum(p.grad.square().sum() for p in parameters if p.grad is not None) ** 0.5
            )
            return before

        patch.setattr(torch.nn.utils, "clip_grad_norm_", spy)
        train(learner, Numbers(), replace(SETTINGS, clip=0.5), "a", tmp_path)
    assert len(norms) == SETTINGS.steps
    assert max(norms) <= 0.5 + 1e-4


def test_a_loss_that_is_no_number_stops_the_training_and_keeps_the_last_good_state(tmp_path):
    with pytest.raises(
        Diverged, match=r"'a line'.*nan by update 9 of 12.*a-line.pt.*learning_rate"
    ):
        train(Line(spoil=7), Numbers(), SETTINGS, "a line", tmp_path)
    state = torch.load(tmp_path / "a-line.pt", weights_only=True)
    assert state["step"] == 5
    assert all(value.isfinite().all() for value in state["learner"].values())


def test_precision_is_that_of_each_training(tmp_path):
    for precision, dtype in (("bf16", torch.bfloat16), ("no", torch.float32)):
        learner = Line()
        settings = replace(SETTINGS, precision=precision)
        train(learner, Numbers(), settings, precision, tmp_path)
        assert learner.dtypes == {dtype}
        assert learner.linear.weight.dtype == torch.float32


def test_it_stops_when_told_and_stays_stopped(tmp_path):
    learner, numbers = Line(), Numbers()
    train(learner, numbers, SETTINGS, "a", tmp_path, stop=lambda means: means["index"] > 3)
    assert numbers.drawn == list(range(6))
    none = Numbers(until=0)
    train(Line(), none, SETTINGS, "a", tmp_path)
    assert none.drawn == []


def test_every_update_is_followed(tmp_path):
    steps = []
    train(Line(), Numbers(), SETTINGS, "a", tmp_path, after_step=steps.append)
    assert steps == list(range(12))


def test_the_learning_rate_rises_and_falls():
    shares = [SETTINGS.rate(step) for step in range(12)]
    assert shares[:4] == pytest.approx([1e-4 / 0.25, 1 / 3, 2 / 3, 1])
    assert shares[3:] == sorted(shares[3:], reverse=True)
    assert shares[-1] == pytest.approx(1 / 9)
    cosine = replace(SETTINGS, decay="cosine", floor=0.4)
    assert cosine.rate(3) == 1
    assert cosine.rate(11) == 0.4


def test_the_global_random_numbers_are_left_alone(tmp_path):
    state = torch.get_rng_state()
    learner = Line()
    torch.set_rng_state(state)
    train(learner, Numbers(), SETTINGS, "a", tmp_path)
    assert torch.equal(torch.get_rng_state(), state)


def test_two_processes_train_as_two_accumulated_batches_do(tmp_path):
    script = tmp_path / "together.py"
    script.write_text(
        dedent(
            f"""
            import os, sys, torch
            sys.path[:0] = [{str(Path(__file__).parent)!r}]
            from pathlib import Path
            from dataclasses import replace
            from test_training import Line, Numbers, SETTINGS
            from encoders.training import train
            learner = Line()
            train(learner, Numbers(), replace(SETTINGS, steps=3), "a", Path(sys.argv[1]))
            torch.save(learner.linear.weight, Path(sys.argv[1]) / f"rank{{os.environ['RANK']}}")
            """
        )
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
               "--master-port", "0", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0",
               str(script), str(tmp_path)]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=120,
                   cwd=Path(__file__).parents[2])  # fmt: skip
    alone = Line()
    train(alone, Numbers(), replace(SETTINGS, steps=3, accumulate=2), "alone", tmp_path)
    together = [torch.load(tmp_path / f"rank{rank}", weights_only=True) for rank in (0, 1)]
    assert torch.equal(*together)
    assert torch.allclose(together[0], alone.linear.weight, atol=1e-6)
