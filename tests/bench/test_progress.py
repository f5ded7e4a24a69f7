from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from bench.progress import Progress, TimeLeft


@pytest.fixture
def left() -> TimeLeft:
    return TimeLeft(workers=2, alone=lambda name: name == "profile.latency")


def test_nothing_is_foretold_before_anything_was_seen(left):
    assert left.seconds(["compress"]) is None


def test_time_left_is_the_mean_per_section_shared_by_the_workers(left):
    left.learn("compress", 2.0)
    left.learn("compress", 4.0)
    left.learn("profile.latency", 5.0)
    assert left.seconds(["compress"] * 4) == pytest.approx(4 * 3 / 2)
    assert left.seconds(["profile.latency"] * 2) == pytest.approx(2 * 5), "timing runs alone"
    assert left.seconds(["task.pr"]) == pytest.approx((3 + 5) / 2 / 2), "unseen: as the others"
    assert left.seconds([]) == 0


def test_a_log_gets_a_line_now_and_then_with_the_point_and_the_time_left(left):
    out = StringIO()
    left.learn("compress", 90.0)
    with Progress(40, left, Console(file=out)) as progress:
        for done in range(40):
            progress.finished(f"low-rank at {done}", ["compress"] * (39 - done))
    lines = out.getvalue().splitlines()
    assert len(lines) == 20
    assert lines[0] == "2/40, 28 min 30 s left: low-rank at 1"
    assert lines[-1] == "40/40, 0 s left: low-rank at 39"
