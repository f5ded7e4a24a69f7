"""Running the command line in processes that a test may interrupt."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

MAIN = "from bench.cli import main; main()"


def start(
    arguments: list[str], code: str = MAIN, preexec_fn: Callable[[], None] | None = None, **options
) -> subprocess.Popen:
    """The command line in a process group of its own, away from the sources in this folder.

    It hears Ctrl-C even where the tests do not, as in the background of a shell's script.
    """

    def prepare() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if preexec_fn is not None:
            preexec_fn()

    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True, cwd=tempfile.gettempdir(),
        preexec_fn=prepare, **options,
    )  # fmt: skip


def wait_until(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.02)
