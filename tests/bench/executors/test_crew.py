"""Jobs of several processes: what they see, who is heard, and that all end with any of them."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from acting import Act
from torch import nn

from bench import environment
from bench.executors import _crew
from bench.executors._base import Ended
from bench.executors.local import Local
from core.errors import InputError
from core.runtime import Runtime
from encoders.training import Settings, train

SETTINGS = Settings(steps=12, learning_rate=0.05, checkpoint_every=5, report_every=4, clip=10.0)


class Line(nn.Module):
    """Fits y = 2 x + noise, and remembers the last loss of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 1)
        self.register_buffer("last", torch.zeros(()))
        nn.init.constant_(self.linear.weight, 0.5)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x, generator):
        noise = 0.1 * torch.randn(len(x), 1, generator=generator)
        loss = (self.linear(x) - 2 * x.sum(1, keepdim=True) - noise).square().mean()
        self.last.copy_(loss.detach())
        return {"loss": loss}

    def groups(self, learning_rate):
        return [{"params": list(self.linear.parameters())}]


class Noise:
    def __getitem__(self, index):
        return torch.randn(8, 4, generator=torch.Generator().manual_seed(index))


@dataclass(frozen=True)
class Fit:
    """Trains, and tells what has become of each process's learner. cut: when the second dies."""

    folder: Path
    processes: int = 2
    accumulate: int = 1
    cut: int = -1
    exclusive: ClassVar[bool] = False

    def run(self, say) -> None:
        def after_step(step: int) -> None:
            if step == self.cut and os.environ["RANK"] == "1":
                os.kill(os.getpid(), signal.SIGKILL)

        self.folder.mkdir(exist_ok=True)
        learner, heard = Line(), []
        settings = Settings(**vars(SETTINGS) | {"accumulate": self.accumulate})
        means = train(
            learner,
            Noise(),
            settings,
            "a",
            self.folder,
            lambda *told: heard.append(told),
            after_step,
        )
        own = {key: value.tolist() for key, value in learner.state_dict().items()}
        every = [None] * self.processes
        if self.processes > 1:
            torch.distributed.all_gather_object(every, (own, means, len(heard)))
        say(every if self.processes > 1 else [(own, means, len(heard))])


def follow(*jobs, workers=2, **options):
    with Local(workers, **options) as executor:
        for job in jobs:
            executor.submit(job)
        events = list(executor.events())
        assert not executor._running
    return events


def reason(job) -> str:
    """Why the job ended, all of whose processes are gone."""
    with Local(2) as executor:
        executor.submit(job)
        executor._start_what_fits()
        processes = [p for crew in executor._running.values() for p in crew.members.values()]
        *_, end = executor.events()
        assert processes
        assert not any(process.is_alive() for process in processes)
    return end.reason


def test_each_has_its_place_and_threads_and_the_first_is_heard():
    job = Act("meet", processes=2)
    said, end = follow(job, workers=3, threads=2)
    assert end == Ended(job)
    (one, *seen), (other, *too) = said.message
    assert one != other
    assert seen == too == ["", 2], "on CPUs none has a GPU"


def test_each_has_a_device_of_its_own():
    with Local(4, devices=("0", "1", "GPU-5")) as executor:
        for job in (Act("sleep"), Act("sleep", processes=2)):
            executor.submit(job)
        executor._start_what_fits()
        one, two = executor._at_work()
        assert (one.devices, two.devices) == (("0",), ("1", "GPU-5"))


def test_a_job_waits_until_there_is_room_for_all_its_processes(tmp_path):
    note = tmp_path / "note"
    note.write_text("")
    follow(*(Act("note", str(note), processes=count) for count in (1, 2, 1)))
    assert note.read_text() == "()()()"


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (Act("die"), "SIGKILL, out of memory? (process 2 of 2 that train together)"),
        (Act("leave"), "ended early with code 3 (process 2 of 2"),
        (Act("fail", "no luck"), "no luck (process 2 of 2"),
    ],
)
def test_one_that_fails_ends_all_of_them_and_is_named(what, said, monkeypatch):
    if what.what == "fail":
        monkeypatch.setattr(_crew, "MOURNING", 0.1)
    assert said in reason(Act("second", what, processes=2))


def test_the_alarm_of_one_ends_all_of_them():
    (end,) = follow(Act("overtime", processes=2))
    assert end.overtime


def test_a_training_of_two_processes_is_that_of_one_with_twice_the_batches(tmp_path):
    (said, _) = follow(Fit(tmp_path / "two"))
    (alone, _) = follow(Fit(tmp_path / "one", processes=1, accumulate=2))
    first, second = said.message
    assert first[:2] == second[:2], "also the buffers, and what `stop` decides by"
    assert [heard for *_, heard in said.message] == [3, 0]
    ((learner, means, _),) = alone.message
    assert first[0]["linear.weight"] == learner["linear.weight"]
    assert first[1]["loss"] == pytest.approx(means["loss"], rel=1e-6)


def test_a_training_that_loses_a_process_goes_on_with_the_same_numbers(tmp_path):
    whole, _ = follow(Fit(tmp_path / "whole"))
    (end,) = follow(Fit(tmp_path / "cut", cut=6))
    assert "process 2 of 2" in end.reason
    assert torch.load(tmp_path / "cut" / "a.pt", weights_only=True)["step"] == 5
    with pytest.raises(InputError, match="begun by 2 processes, not by 1"):
        follow(Fit(tmp_path / "cut", processes=1))
    again, _ = follow(Fit(tmp_path / "cut"))
    assert [told[:2] for told in again.message] == [told[:2] for told in whole.message]
    logs = [(tmp_path / name / "log.csv").read_text().splitlines() for name in ("whole", "cut")]
    one, other = ([line for line in log if "seconds" not in line] for log in logs)
    assert one == other


def test_more_processes_than_there_is_room_for_are_refused(monkeypatch):
    monkeypatch.setattr(environment, "cores", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert Local.of(Runtime(), processes=2).workers == 2
    assert Local.of(Runtime("cuda"), processes=2).devices == ("0", "1")
    with pytest.raises(InputError, match="3 takes as many workers, and there are 2; give"):
        Local.of(Runtime(), processes=3)
    with pytest.raises(InputError, match="with --device cuda there are 2 and 4"):
        Local.of(Runtime("cuda"), 4, processes=3)
    with pytest.raises(InputError, match="with --device cuda:1 there are 1 and 1"):
        Local.of(Runtime("cuda:1"), processes=2)
