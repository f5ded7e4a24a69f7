"""What a process prints while it works at a section, and where it can be read."""

from __future__ import annotations

import os
import subprocess

import idle
import pytest
from running import MAIN, start

from bench import logs
from core.errors import InputError
from results.store import RunFolder

LOUD = '''"""Prints, and does not survive."""

import ctypes
import os
import warnings
from dataclasses import dataclass
from typing import ClassVar

from compressors._base import Compressor


@dataclass
class Loud(Compressor):
    acts_on: ClassVar[str] = "patience"
    reduces: ClassVar[str] = "params_total"

    def prepare(self, encoder, setting):
        def shrink(rate):
            if rate == 0.2:
                os.write(1, b"written below Python")
                warnings.warn("take care", stacklevel=1)
            if rate == 0.4:
                print("nearly there", flush=True)
                ctypes.string_at(0)
            return encoder

        return shrink

    def achieved(self, dense, compressed):
        return 0.0
'''


@pytest.fixture
def run(tmp_path) -> RunFolder:
    (tmp_path / "run").mkdir()
    return RunFolder(tmp_path / "run")


def test_all_that_a_process_prints_is_kept_and_goes_on_afterwards(run, capfd):
    log = run.log("k", "task.ks")
    with logs.kept(log):
        print("of Python")
        os.write(1, b"of the kernel\n")
        subprocess.run(["sh", "-c", "echo of another program >&2"], check=True)
    assert logs.settle(log)
    print("afterwards")
    said = log.read_text()
    assert {"of the kernel", "of another program"} <= set(said.splitlines())
    assert "afterwards" in capfd.readouterr().out
    assert sorted(run.path.rglob("*")) == [run.path / "logs", log.parent, log]


def test_silence_leaves_no_file_and_an_older_log_goes(run):
    log = run.log("k", "task.ks")
    with logs.kept(log):
        os.write(2, b"once")
    assert logs.settle(log)
    with logs.kept(log):
        pass
    assert not logs.settle(log)
    assert not [path for path in run.path.rglob("*") if path.is_file()]


def test_a_log_goes_by_the_name_that_the_section_has_in_the_end(run):
    with logs.kept(run.log("k", "task.ks")):
        os.write(2, b"heard")
    assert logs.settle(run.log("k", "task.ks"), run.log("k", "task.pr"))
    assert run.log("k", "task.pr").read_text() == "heard"
    assert not run.log("k", "task.ks").exists()


def test_processes_that_work_together_share_a_log_while_it_is_there(run, capfd):
    log = run.log("k", "compress")
    with logs.kept(log):
        os.write(1, b"one, ")
        with logs.kept(log, leads=False):
            os.write(2, b"two, ")
        os.write(1, b"one")
    assert logs.settle(log)
    with logs.kept(log, leads=False):
        os.write(2, b"late")
    assert log.read_text() == "one, two, one"
    assert [path for path in run.path.rglob("*") if path.is_file()] == [log]
    assert "late" not in capfd.readouterr().err


def test_a_run_that_was_removed_stays_so(run):
    run.path.rmdir()
    with pytest.raises(InputError, match="choose another folder"), logs.kept(run.log("k", "s")):
        pass
    assert not run.path.exists()


def test_a_crash_leaves_its_last_words_and_the_record_says_where(arguments, tmp_path):
    env = idle.install(tmp_path / "path", {"method": {"loud": LOUD}})
    process = start(arguments(methods="loud", rates="0.2,0.4,0.6"), MAIN, env=env)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    run = RunFolder(tmp_path / "run")
    found = {
        r.point.rate: r.sections["compress"] for r in run.records() if r.point.method == "loud"
    }
    assert {rate: section.status for rate, section in found.items()} == {
        0.2: "done", 0.4: "failed", 0.6: "done",
    }  # fmt: skip
    warned, died = (run.path / found[rate].details["log"] for rate in (0.2, 0.4))
    assert "written below Python" in warned.read_text()
    assert "take care" in warned.read_text()
    assert "nearly there" in died.read_text()
    assert "Segmentation fault" in died.read_text()
    assert "in shrink" in died.read_text(), "the stack"
    assert "SIGSEGV" in found[0.4].reason
    assert str(died) in found[0.4].reason
    assert str(died) in out
    assert "log" not in found[0.6].details
    assert len([path for path in (run.path / "logs").rglob("*") if path.is_file()]) == 2
