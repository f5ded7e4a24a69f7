"""The figure of fine-tuning: both scores against the rate, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic_run import make

from core.errors import InputError
from core.metric import Metric
from core.point import DENSE, Point
from core.record import Section
from reports._drawing import Runs, draw
from reports.finetune import Finetune
from results.store import RunFolder


@pytest.fixture
def tuned(tmp_path):
    """Two methods at two rates and the dense model, tuned on an accuracy and an error rate."""
    run = RunFolder(tmp_path / "tuned")
    run.write_run({"finetune": {}})
    points = [Point("m", DENSE, 0.0, 0, "d")]
    points += [Point("m", method, r, 0, "d") for method in ("a", "b") for r in (0.9, 0.5)]
    for place, point in enumerate(points):
        run.write_point(point)
        for task, name, better in (("ks", "ks_acc", "higher"), ("asr", "asr_wer", "lower")):
            values = {f"{name}_frozen": 50.0 + place, f"{name}_tuned": 60.0, f"{name}_gain": 1.0}
            metrics = {key: Metric(key, "%", better) for key in values}
            run.write_section(point.key, Section(f"finetune.{task}", "done", "f", values, metrics))
    return run


def test_solid_is_tuned_and_dashed_is_frozen(tuned):
    figure, table = Finetune().page(Runs.load([tuned.path]))
    wer, acc = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["asr_wer (%) ↓", "ks_acc (%)"]
    assert wer.yaxis_inverted()
    assert not acc.yaxis_inverted()
    drawn = {
        (line.get_linestyle(), tuple(line.get_ydata())): np.array(line.get_xdata())
        for line in acc.lines
    }
    assert drawn["--", (52.0, 51.0)] == pytest.approx([0.5, 0.9]), "in the order of the rates"
    assert drawn["--", (54.0, 53.0)] == pytest.approx([0.5, 0.9])
    assert ("-", (60.0, 60.0)) in drawn
    assert ("--", (50.0, 50.0)) in drawn, "the dense model is a level"
    assert set(table["keys"]) == set(tuned.keys())
    assert set(table["metric"]) == {"asr_wer", "ks_acc"}
    labels = {text.get_text() for text in figure.legends[0].get_texts()}
    assert labels == {"dense", "a", "b", "head alone", "encoder fine-tuned"}


def test_files_are_written(tuned, tmp_path):
    files = draw(Finetune(), [tuned.path], tmp_path / "figure.svg", ("svg",))
    assert [file.name for file in files] == ["figure.svg", "figure.csv"]
    assert all(file.stat().st_size for file in files)


def test_a_sweep_without_fine_tuning_is_refused(tmp_path):
    run = make(tmp_path / "run", methods=("low-rank",), rates=(0.5,), tasks=("ks",))
    with pytest.raises(InputError, match="bench finetune"):
        Finetune().page(Runs.load([run.path]))
