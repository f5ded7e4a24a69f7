"""Running the command line in processes that a test may interrupt."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

MAIN = "from bench.cli import main; main()"


def start(arguments: list[str], code: str = MAIN, **options) -> subprocess.Popen:
    """The command line in a process group of its own, away from the sources in this folder."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True, cwd=tempfile.gettempdir(), **options,
    )  # fmt: skip


def wait_until(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.02)
