"""Energy from counters that count: a made-up RAPL tree, and what is said where there is none."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from core.runtime import Runtime
from encoders import zoo
from encoders.model import build
from encoders.workload import Workload
from profilers import energy
from profilers._base import Setting, Unavailable
from profilers._rapl import Packages

SETTING = Setting(Workload("corpus", (8000,) * 2, lambda _: torch.zeros(8000), {}), min_seconds=0.0)


def zone(root: Path, name: str, value: int, span: int = 999_999) -> Path:
    folder = root / name
    folder.mkdir()
    (folder / "energy_uj").write_text(f"{value}\n")
    (folder / "max_energy_range_uj").write_text(f"{span}\n")
    return folder


def test_packages_are_summed_and_followed_round(tmp_path: Path) -> None:
    first, second = zone(tmp_path, "intel-rapl:0", 999_000), zone(tmp_path, "intel-rapl:1", 5)
    zone(tmp_path, "intel-rapl:0:0", 77)  # the cores of the first, which it holds already
    packages = Packages(tmp_path)
    assert packages.joules() == 0
    (first / "energy_uj").write_text("500\n")  # 1,500 microjoules further
    (second / "energy_uj").write_text("250005\n")
    assert packages.joules() == pytest.approx(0.2515)
    assert packages.joules() == pytest.approx(0.2515)


def test_no_counter_is_a_reason(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no RAPL counters"):
        Packages(tmp_path)
    (zone(tmp_path, "intel-rapl:0", 1) / "energy_uj").unlink()
    with pytest.raises(Unavailable, match=r"intel-rapl:0 cannot be read .*chmod"):
        Packages(tmp_path)


def test_an_absent_counter_is_unavailable_and_not_0(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(runtime: Runtime) -> None:
        raise Unavailable("no counter here")

    monkeypatch.setattr(energy, "meter", none)
    found = energy.Energy().measure(build(zoo.tiny(), 0), SETTING)
    assert found.values == {}
    assert set(found.details["unavailable"]) == {metric.name for metric in energy.Energy.metrics}
    assert found.details["unavailable"]["power_w"] == "no counter here"


def test_energy_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device of 10 W at rest that takes 30 W at work, on a clock that each look moves on."""

    def ticks() -> Iterator[float]:
        now = 0.0
        while True:
            yield now
            now += 1.0

    clock = ticks()
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(time, "sleep", lambda _: None)
    # The counter is asked before and after resting, before and after working.
    counter = iter((0.0, 10.0, 100.0, 400.0))
    monkeypatch.setattr(energy, "meter", lambda _: (lambda: next(counter), "made up"))
    found = energy.Energy().measure(build(zoo.tiny(), 0), replace(SETTING, repeats=4))
    assert found.details["idle_w"] == 10.0
    assert found.details["passes"] == 4
    seconds = found.details["seconds"]
    per_hour = 3600 / (4 * 1.0)  # four passes over one second of audio
    assert found.values["power_w"] == pytest.approx(300 / seconds)
    assert found.values["energy_j_per_hour"] == pytest.approx(300 * per_hour)
    above = (300 - 10 * seconds) * per_hour
    assert found.values["energy_above_idle_j_per_hour"] == pytest.approx(max(0, above))
