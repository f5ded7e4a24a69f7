"""The ten recipes of SUPERB in s3prl: what each trains, by which settings, and what it reports.

Needs no torch. Settings are nested dicts, addressed by dotted keys (`optimizer.lr`).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from core.errors import InputError, closest
from core.metric import Metric

SETTINGS = Path(__file__).parent / "settings"


@dataclass(frozen=True)
class Recipe:
    """One of SUPERB's tasks as s3prl runs it.

    downstream: its name after `-d`. config: its settings in a checkout of s3prl, below
    `s3prl/downstream`. checkpoint: the file of the best model on dev; None where there is no dev
    split (SV) or no training (QbE). split: the name of the test set after `-t`. workers: the key
    of the number of processes that read audio. folds: of a cross-validation, the key and values.
    """

    task: str
    downstream: str
    config: str
    metrics: tuple[Metric, ...]
    checkpoint: str | None = "dev-best.ckpt"
    split: str = "test"
    workers: str = "downstream_expert.datarc.num_workers"
    fold_key: str = ""
    folds: tuple[str, ...] = ("",)
    lower_on_dev: bool = False

    @property
    def trains(self) -> bool:
        return self.task != "qbe"

    @property
    def tests_on_the_way(self) -> bool:
        """Whether training tests on the test set whenever it does on dev."""
        return self.metrics[0].name.endswith("_acc")

    @property
    def searches(self) -> bool:
        """Whether there is a dev split that a learning rate can be chosen on."""
        return self.checkpoint is not None


def _accuracy(task: str, about: str) -> tuple[Metric, ...]:
    return (Metric(f"{task}_acc", "%", "higher", f"{about} accuracy"),)


_CTC_WORKERS = "downstream_expert.corpus.num_workers"

RECIPES: dict[str, Recipe] = {
    recipe.task: recipe
    for recipe in (
        Recipe(
            "pr", "ctc", "ctc/libriphone.yaml",
            (Metric("pr_per", "%", "lower", "phone error rate"),),
            workers=_CTC_WORKERS, lower_on_dev=True,
        ),
        Recipe(
            "asr", "asr", "asr/config.yaml",
            (Metric("asr_wer", "%", "lower", "word error rate"),),
            "dev-clean-best.ckpt", split="test-clean", lower_on_dev=True,
        ),
        Recipe("ks", "speech_commands", "speech_commands/config.yaml", _accuracy("ks", "keyword")),
        Recipe(
            "qbe", "quesst14_dtw", "quesst14_dtw/config.yaml",
            (Metric("qbe_mtwv", "%", "higher", "maximum term-weighted value"),), None,
        ),
        Recipe("sid", "voxceleb1", "voxceleb1/config.yaml", _accuracy("sid", "speaker")),
        Recipe(
            "sv", "sv_voxceleb1", "sv_voxceleb1/configs/amsoftmax.yaml",
            (Metric("sv_eer", "%", "lower", "equal error rate"),), None,
        ),
        Recipe(
            "sd", "diarization", "diarization/config.yaml",
            (Metric("sd_der", "%", "lower", "diarization error rate"),),
            "best-states-dev.ckpt", workers="downstream_expert.loaderrc.num_workers",
        ),
        Recipe("ic", "fluent_commands", "fluent_commands/config.yaml", _accuracy("ic", "intent")),
        Recipe(
            "sf", "ctc", "ctc/snips.yaml",
            (Metric("sf_f1", "%", "higher", "slot type F1"),
             Metric("sf_cer", "%", "lower", "slot value character error rate")),
            workers=_CTC_WORKERS,
        ),
        Recipe(
            "er", "emotion", "emotion/config.yaml", _accuracy("er", "emotion"),
            fold_key="downstream_expert.datarc.test_fold",
            folds=("fold1", "fold2", "fold3", "fold4", "fold5"),
        ),
    )
}  # fmt: skip


def select(wanted: str) -> list[Recipe]:
    """The recipes that a comma list names, `all` for every one.

    Raises:
        InputError: there is no such task.
    """
    names = list(RECIPES) if wanted == "all" else [name.strip() for name in wanted.split(",")]
    for name in names:
        if name not in RECIPES:
            raise InputError(
                f"unknown task {name!r}{closest(name, RECIPES)}; SUPERB's are {', '.join(RECIPES)}"
            )
    return [RECIPES[name] for name in dict.fromkeys(names)]


def settings(recipe: Recipe, checkout: Path | None = None) -> dict[str, Any]:
    """The recipe's settings: ours, or those of a checkout of s3prl.

    Raises:
        InputError: the checkout has none.
    """
    file = SETTINGS / f"{recipe.task}.yaml"
    if checkout is not None:
        file = checkout / "s3prl" / "downstream" / recipe.config
        if not file.is_file():
            raise InputError(f"{file} is missing; --s3prl-root takes a git checkout of s3prl")
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def flatten(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Every dotted key with its value; lists and empty dicts are values."""
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def replaced(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with other values at some dotted keys, which may be new in what is there."""
    changed = copy.deepcopy(dict(settings))
    for key, value in changes.items():
        *path, last = key.split(".")
        inner = changed
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return changed


def shortened(settings: Mapping[str, Any], steps: int) -> dict[str, int]:
    """What has to change for that many updates: it logs, tests and saves once at least."""
    runner = settings["runner"]
    periods = {name: min(runner[name], steps) for name in ("log_step", "eval_step", "save_step")}
    return {f"runner.{name}": value for name, value in {"total_steps": steps, **periods}.items()}


def read_override(text: str) -> tuple[str, Any]:
    """Key and value of `KEY=VALUE`; the value as YAML has it, with 1e-4 a number.

    Raises:
        InputError: it is not of that form.
    """
    key, equals, value = text.partition("=")
    key = key.strip().removeprefix("config.")
    if not equals or not key:
        raise InputError(f"override {text!r}: expected KEY=VALUE, such as runner.eval_step=500")
    try:
        return key, float(value) if "e" in value else yaml.safe_load(value)
    except ValueError:
        return key, yaml.safe_load(value)


def check_overrides(overrides: Mapping[str, Any], recipes: list[Recipe]) -> None:
    """Refuse what no chosen recipe has, and words where it has a number.

    Raises:
        InputError: as said.
    """
    known = {key: value for recipe in recipes for key, value in flatten(settings(recipe))}
    for key, value in overrides.items():
        if key not in known:
            tasks = ", ".join(recipe.task for recipe in recipes)
            raise InputError(
                f"override {key!r}: the settings of {tasks} have no such key{closest(key, known)}"
            )
        numbers = isinstance(known[key], int | float), isinstance(value, int | float)
        if numbers == (True, False):
            raise InputError(f"override {key}={value}: expected a number, as {known[key]} is")
