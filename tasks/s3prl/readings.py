"""The scores in a folder of s3prl, in SUPERB's units, whoever has started the run.

Files are those that s3prl and its own scoring scripts leave. A score that is not there is missing,
never 0.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import jiwer

from tasks.s3prl import detection, diarization
from tasks.s3prl.recipes import Recipe

Settings = Mapping[str, Any]


def read(recipe: Recipe, folder: Path, settings: Settings) -> dict[str, float]:
    """The test scores of a run by metric, in percent; empty where it was not tested.

    settings: those that the run was made with, by dotted key.
    """
    values = READERS[recipe.task](folder, settings)
    names = [metric.name for metric in recipe.metrics]
    return dict(zip(names, values, strict=True)) if values else {}


def _accuracy(folder: Path, settings: Settings) -> list[float]:
    """That of the step which was best on dev, from log.log; of the last test where none was."""
    log = folder / "log.log"
    text = log.read_text(encoding="utf-8") if log.is_file() else ""
    tests = re.findall(r"^test at step (\d+): (\S+)$", text, re.MULTILINE)
    best = re.findall(r"^New best on dev at step (\d+):", text, re.MULTILINE)
    chosen = [value for step, value in tests if best and step == best[-1]]
    chosen = chosen or [value for _, value in tests]
    return [100 * float(chosen[-1])] if chosen else []


def _error_rate(name: str) -> Callable[[Path, Settings], list[float]]:
    """A reader of the share of wrong words, from the files of hypotheses and references."""

    def reader(folder: Path, settings: Settings) -> list[float]:
        guesses, truth = (_ark(folder / name.format(kind)) for kind in ("hyp", "ref"))
        return [100 * jiwer.wer(truth, guesses)] if truth else []

    return reader


def _slots(folder: Path, settings: Settings) -> list[float]:
    """By s3prl's own functions, of which there is no other source."""
    guesses, truth = (_ark(folder / f"test-{kind}.ark") for kind in ("hyp", "ref"))
    if not truth:
        return []
    metric = _metric()
    pair = {"hypothesis": guesses, "groundtruth": truth}
    return [100 * metric.slot_type_f1(**pair), 100 * metric.slot_value_cer(**pair)]


def _equal_error(folder: Path, settings: Settings) -> list[float]:
    """The lowest of all checkpoints that were tested, as s3prl's test_expdir.sh reports."""
    logs = [file for suffix in ("txt", "log") for file in folder.rglob(f"*.{suffix}")]
    found = [
        float(value)
        for log in logs
        for value in re.findall(
            r"sv-voxceleb1/test-EER: (\S+)", log.read_text(encoding="utf-8", errors="replace")
        )
    ]
    return [100 * min(found)] if found else []


def _diarization(folder: Path, settings: Settings) -> list[float]:
    """The lowest over settings: dscore's where its results are there, else our own."""
    scoring = folder / "scoring"
    overall = [
        float(value)
        for file in scoring.glob("result_th*")
        for value in re.findall(r"OVERALL \*\*\*\s+(\S+)", file.read_text(encoding="utf-8"))
    ]
    if overall:
        return [min(overall)]
    truth = Path(settings.get("downstream_expert.loaderrc.test_dir", "")) / "rttm"
    shift = folder / "frame_shift"
    predictions = scoring / "predictions"
    if not (truth.is_file() and shift.is_file() and any(predictions.glob("*.h5"))):
        return []
    return [diarization.lowest_error(predictions, truth, int(shift.read_text()))]


def _detection(folder: Path, settings: Settings) -> list[float]:
    """What the corpus' scorer has left beside the list of one layer and split."""
    found = detection.read_score(folder)
    return [] if found is None else [found]


def _ark(file: Path) -> list[str]:
    """The texts of a file with lines `NAME TEXT`, in its order."""
    if not file.is_file():
        return []
    return [line.partition(" ")[2] for line in file.read_text(encoding="utf-8").splitlines()]


@cache
def _metric() -> ModuleType:
    """s3prl's metrics, from their file alone: importing s3prl costs seconds."""
    found = importlib.util.find_spec("s3prl")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("s3prl is not installed, whose functions score slot filling")
    file = Path(found.submodule_search_locations[0]) / "downstream" / "ctc" / "metric.py"
    spec = importlib.util.spec_from_file_location("s3prl_metric", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


READERS: dict[str, Callable[[Path, Settings], list[float]]] = {
    "pr": _error_rate("test-{}.ark"),
    "asr": _error_rate("test-clean-noLM-{}.ark"),
    "ks": _accuracy,
    "qbe": _detection,
    "sid": _accuracy,
    "sv": _equal_error,
    "sd": _diarization,
    "ic": _accuracy,
    "sf": _slots,
    "er": _accuracy,
}
