"""Jobs that do what they are told, for any executor."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from bench.executors._worker import YOUNG
from core.errors import InputError
from encoders.together import leads


@dataclass(frozen=True)
class Act:
    """Does what it is told."""

    what: str
    value: Any = None
    processes: int = 1
    exclusive: ClassVar[bool] = False

    def run(self, say) -> None:
        match self.what:
            case "say":
                say(self.value)
            case "pid":
                say(os.getpid())
            case "work":
                while time.process_time() < YOUNG:
                    sum(range(1000))
                say(os.getpid())
            case "draw":
                import torch

                say(torch.rand(()).item())
            case "threads":
                import torch

                say(torch.get_num_threads())
            case "device":
                say(os.environ.get("CUDA_VISIBLE_DEVICES"))
            case "overtime":
                signal.setitimer(signal.ITIMER_REAL, 0.01)
                time.sleep(60)
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "leave":
                os._exit(3)
            case "fail":
                raise ValueError(self.value)
            case "refuse":
                raise InputError("the disk is full")
            case "note" if leads():
                note = Path(self.value)
                note.write_text(note.read_text() + "(")
                time.sleep(0.1)
                note.write_text(note.read_text() + ")")
            case "sleep":
                say("asleep")
                time.sleep(60)
            case "meet":
                say(gathered())
            case "second":
                if os.environ["RANK"] == "1":
                    self.value.run(say)
                gathered()


def gathered() -> list[tuple]:
    """What each of the processes that do a job together sees of the machine, in order."""
    import torch

    own = (os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES"), torch.get_num_threads())
    found = [()] * int(os.environ["WORLD_SIZE"])
    torch.distributed.all_gather_object(found, own)
    return found


@dataclass(frozen=True)
class Alone(Act):
    exclusive: ClassVar[bool] = True
