from __future__ import annotations

import os
import signal
from types import SimpleNamespace

import pytest
from acting import Act, Alone

from bench import environment
from bench.executors import local
from bench.executors._base import Ended, Said
from bench.executors.local import Local
from core.errors import InputError
from core.runtime import Runtime


def follow(jobs, workers=2, **options):
    with Local(workers, **options) as executor:
        for job in jobs:
            executor.submit(job)
        return list(executor.events())


def said(jobs, workers=1, **options):
    events = follow(jobs, workers, **options)
    return [event.message for event in events if isinstance(event, Said)]


def test_short_jobs_take_turns_in_a_process_and_others_have_one_of_their_own():
    short, work, alone = Act("pid"), Act("work"), Alone("pid")
    first, second, long, fourth, timed, last = said([short, short, work, short, alone, alone])
    assert first == second == long, "a process is young until it has worked for a while"
    assert len({long, fourth, timed, last, os.getpid()}) == 5
    assert said([Act("threads")]) == [1]


def test_a_process_that_was_used_before_draws_the_same_numbers():
    assert len({*said([Act("draw")] * 3)}) == 1


def test_a_process_that_dies_while_it_waits_takes_no_job_with_it():
    with Local(1) as executor:
        executor.submit(Act("pid"))
        for event in executor.events():
            if isinstance(event, Said) and event.job.what == "pid":
                pid = event.message
            elif event.job.what == "pid":
                os.kill(pid, signal.SIGKILL)
                (crew,) = executor._idle
                (process,) = crew.members.values()
                process.join()
                executor.submit(Act("say", "hello"))
        assert event == Ended(Act("say", "hello"))
        assert not executor._idle


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
    with Local(1) as executor:
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
    with Local(2) as executor:
        executor.submit(Act("sleep"))
        events = executor.events()
        assert next(events) == Said(Act("sleep"), "asleep")
        (crew,) = executor._running.values()
        (process,) = crew.members.values()
    assert not process.is_alive()


def test_ctrl_c_in_the_midst_of_a_start_leaves_no_child(monkeypatch):
    class Interrupted(dict):
        def __setitem__(self, *_):
            raise KeyboardInterrupt

    monkeypatch.setattr(local, "Crew", lambda *_: SimpleNamespace(members=Interrupted()))
    with Local(1) as executor:
        executor.submit(Act("overtime"))
        with pytest.raises(KeyboardInterrupt):
            list(executor.events())
        (process,) = executor._children
        assert process.is_alive()
    assert not process.is_alive()


def test_workers_are_spread_over_the_devices():
    jobs = [Act("device", index) for index in range(2)]
    assert sorted(said(jobs, 2, devices=("3", "GPU-5"))) == ["3", "GPU-5"]
    assert said(jobs, 2) == 2 * [os.environ.get("CUDA_VISIBLE_DEVICES")]


def test_a_worker_has_the_threads_that_are_asked_for():
    assert said([Act("threads")], threads=2) == [2]


def test_there_are_as_many_workers_as_there_is_room_for(monkeypatch):
    monkeypatch.setattr(environment, "cores", lambda: 8)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 3,7")
    assert Local.of(Runtime(threads=3)).workers == 2
    assert Local.of(Runtime(threads=16)).workers == 1
    assert Local.of(Runtime(threads=3), workers=5).workers == 5
    assert Local.of(Runtime("cuda")).devices == ("2", "3", "7")
    assert Local.of(Runtime("cuda")).workers == 3
    assert (Local.of(Runtime("cuda:1")).workers, Local.of(Runtime("cuda:1")).devices) == (1, ())


def test_a_job_that_its_own_alarm_ends_has_taken_too_long():
    (end,) = follow([Act("overtime")])
    assert end.overtime
    assert not follow([Act("die")])[0].overtime
