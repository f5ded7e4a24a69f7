from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from bench.executor import Ended, Executor, Said
from core.errors import InputError


@dataclass(frozen=True)
class Act:
    """Does what it is told."""

    what: str
    value: Any = None
    exclusive: ClassVar[bool] = False

    def run(self, say) -> None:
        match self.what:
            case "say":
                say(self.value)
            case "pid":
                say(os.getpid())
            case "threads":
                import torch

                say(torch.get_num_threads())
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "leave":
                os._exit(3)
            case "refuse":
                raise InputError("the disk is full")
            case "note":
                note = Path(self.value)
                note.write_text(note.read_text() + "(")
                time.sleep(0.1)
                note.write_text(note.read_text() + ")")
            case "sleep":
                say("asleep")
                time.sleep(60)


@dataclass(frozen=True)
class Alone(Act):
    exclusive: ClassVar[bool] = True


def follow(jobs, workers=2):
    with Executor(workers) as executor:
        for job in jobs:
            executor.submit(job)
        return list(executor.events())


def test_every_job_has_a_process_of_its_own_with_one_thread():
    jobs = [Act("pid", index) for index in range(4)]
    pids = [event.message for event in follow(jobs) if isinstance(event, Said)]
    assert len(set(pids) | {os.getpid()}) == 5
    assert [e.message for e in follow([Act("threads")]) if isinstance(e, Said)] == [1]


def test_a_job_speaks_before_it_ends():
    job = Act("say", {"any": "thing"})
    assert follow([job]) == [Said(job, {"any": "thing"}), Ended(job, "")]


@pytest.mark.parametrize(("what", "reason"), [("die", "SIGKILL"), ("leave", "code 3")])
def test_a_dead_process_is_a_result_and_the_others_go_on(what, reason):
    events = follow([Act(what), Act("say", 1)])
    ends = {event.job.what: event.reason for event in events if isinstance(event, Ended)}
    assert reason in ends[what]
    assert ends["say"] == ""


def test_bad_input_ends_everything():
    with pytest.raises(InputError, match="the disk is full"):
        follow([Act("sleep"), Act("refuse"), Act("sleep")])


def test_jobs_may_be_submitted_while_others_run():
    with Executor(1) as executor:
        executor.submit(Act("say", 0))
        said = []
        for event in executor.events():
            if isinstance(event, Said):
                said.append(event.message)
                if event.message < 3:
                    executor.submit(Act("say", event.message + 1))
    assert said == [0, 1, 2, 3]


def test_an_exclusive_job_runs_beside_no_other(tmp_path):
    note = tmp_path / "note"
    note.write_text("")
    follow([Alone("note", str(note)), Alone("note", str(note)), Act("say", 1)], workers=3)
    assert note.read_text() == "()()"


def test_leaving_ends_the_children():
    with Executor(2) as executor:
        executor.submit(Act("sleep"))
        events = executor.events()
        assert next(events) == Said(Act("sleep"), "asleep")
        ((process, _),) = executor._running.values()
    assert not process.is_alive()
