"""One recipe of s3prl with one learning rate: its folder, and the processes that train and test it.

trial.json       what is run: model, settings, seed; another run is refused the folder
train.log        what s3prl says while it trains, test*.log while it tests
args_*.yaml ...  what s3prl writes: checkpoints, hypotheses, log.log
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

import tasks
from core.errors import InputError
from encoders import store
from results.store import write_whole
from tasks.s3prl import data, detection, readings
from tasks.s3prl.recipes import Recipe, flatten, replaced
from tasks.s3prl.upstream import NAME

#: Lines of a log that a failure is told with, and how much of them.
LAST_LINES, LAST_LETTERS = 3, 400

_BAR = re.compile(r"\d+%\|")  # of tqdm


class RecipeFailed(RuntimeError):
    """A process of s3prl that ended with an error, told in one sentence."""


@dataclass(frozen=True)
class Trial:
    """What is trained and tested. settings: the recipe's, complete, nested."""

    recipe: Recipe
    folder: Path
    settings: Mapping[str, Any]
    model: str
    seed: int
    device: str
    checkout: Path | None = None

    def train(self) -> None:
        """Train, or go on where an earlier process was stopped; nothing where it is done.

        Raises:
            RecipeFailed: s3prl failed.
        """
        self._claim()
        if self.recipe.trains and not (self.folder / "trained").is_file():
            self._run("train", "-m", "train", "-a", *self._new(self.folder))
            (self.folder / "trained").touch()

    def test(self) -> dict[str, float]:
        """The test scores by metric, in percent.

        Raises:
            RecipeFailed: s3prl failed, or has left no score.
        """
        if self.recipe.task == "qbe":
            return self._test_layers()
        if self.recipe.task == "sv":
            for checkpoint in self._saved():
                self._test_states(checkpoint)
        elif not self.recipe.tests_on_the_way:
            self._run("test", "-m", "evaluate", "-t", self.recipe.split, "-e", self.checkpoint())
        values = readings.read(self.recipe, self.folder, dict(flatten(self.settings)))
        if not values:
            raise RecipeFailed(f"s3prl has left no score of {self.recipe.task} in {self.folder}")
        return values

    def checkpoint(self) -> str:
        """The best on dev, or the newest where none was better than what s3prl begins with.

        Of speaker verification, which has no dev split, the best of those that were tested.
        """
        best, saved = self.folder / (self.recipe.checkpoint or ""), self._saved()
        if best.is_file():
            return str(best)
        if self.recipe.task == "sv":
            name = self.recipe.metrics[0].name
            saved.sort(key=lambda file: -self._tested(file).get(name, math.inf))
        if saved:
            return str(saved[-1])
        raise RecipeFailed(f"s3prl has left no checkpoint in {self.folder}")

    def dev(self) -> tuple[float, int] | None:
        """Score on dev in s3prl's own unit, and updates, of the best checkpoint if there is one."""
        best = self.folder / (self.recipe.checkpoint or "")
        if not best.is_file():
            return None
        with torch.serialization.safe_globals([argparse.Namespace]):
            state = torch.load(best, map_location="cpu", weights_only=True)
        return float(state["Downstream"]["best_score"]), int(state["Step"])

    def skipped(self) -> int:
        """Updates that s3prl left out because their gradient was not finite."""
        log = self.folder / "train.log"
        text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
        return text.count("grad norm is NaN")

    def _claim(self) -> None:
        """Make the folder this trial's own.

        Raises:
            InputError: it holds another one.
        """
        settings = {k: v for k, v in flatten(self.settings) if not k.endswith("workers")}
        whole = {"model": self._model, "fingerprint": store.fingerprint(self.model),
                 "seed": self.seed, "settings": settings}  # fmt: skip
        text = json.dumps(whole, indent=1) + "\n"
        file = self.folder / "trial.json"
        if file.is_file() and file.read_text(encoding="utf-8") != text:
            before = json.loads(file.read_text(encoding="utf-8"))
            raise InputError(
                f"{self.folder} holds another run ({_difference(before, whole)}); "
                "choose another --out or remove it"
            )
        write_whole(file, text.encode())
        write_whole(self.folder / "settings.yaml", yaml.safe_dump(dict(self.settings)).encode())
        if self.recipe.task == "asr":
            inner = self.settings["downstream_expert"]["datarc"]
            subsets = [*inner["train"], *inner["dev-clean"], *inner["test-clean"]]
            if not Path(inner["bucket_file"]).is_dir():
                data.write_lengths(Path(inner["libri_root"]), subsets, Path(inner["bucket_file"]))

    def _saved(self) -> list[Path]:
        """The checkpoints of certain updates, the first one first."""
        files = self.folder.glob("states-*.ckpt")
        return sorted(files, key=lambda file: int(file.stem.partition("-")[2]))

    @property
    def _model(self) -> str:
        """The model's name for a process with another working directory."""
        return str(Path(self.model).absolute()) if Path(self.model).is_dir() else self.model

    def _new(self, folder: Path) -> list[str]:
        """The arguments of an experiment in that folder."""
        return ["-u", NAME, "-k", self._model, "-d", self.recipe.downstream,
                "-c", str(self.folder / "settings.yaml"), "-p", str(folder),
                "--seed", str(self.seed)]  # fmt: skip

    def _test_states(self, checkpoint: Path) -> None:
        """Test one checkpoint into a folder of its name, as s3prl's test_expdir.sh does."""
        folder = self.folder / checkpoint.stem
        folder.mkdir(exist_ok=True)
        if not self._tested(checkpoint):
            where = f"args.expdir={folder}"
            self._run(f"{folder.name}/test", "-m", "evaluate", "-e", str(checkpoint), "-o", where)

    def _tested(self, checkpoint: Path) -> dict[str, float]:
        """The scores of one checkpoint, empty where it was not tested."""
        return readings.read(self.recipe, self.folder / checkpoint.stem, {})

    def _test_layers(self) -> dict[str, float]:
        """MTWV of the layer that is best on dev."""
        layers = range(len(store.read_spec(self.model).layers) + 1)
        dev = {layer: self._detect(layer, "dev", "dev") for layer in layers}
        best = max(dev, key=lambda layer: dev[layer][0])
        value, scorer = self._detect(best, "test", "eval")
        found = {
            "layer": best,
            "scorer": scorer,
            "dev": {layer: v for layer, (v, _) in dev.items()},
        }
        write_whole(self.folder / "layers.json", (json.dumps(found, indent=1) + "\n").encode())
        return {self.recipe.metrics[0].name: value}

    def _detect(self, layer: int, split: str, named: str) -> tuple[float, str]:
        """MTWV of one layer on one split, which QUESST has named so; and whose scorer it is by."""
        folder = self.folder / f"layer-{layer}-{split}"
        if not (folder / detection.LIST).is_file():
            folder.mkdir(exist_ok=True)
            begin = ["-m", "evaluate", "-t", split, "-l", str(layer), *self._new(folder)]
            self._run(f"{folder.name}/test", *begin)
        root = Path(self.settings["downstream_expert"]["datarc"]["dataset_root"])
        return detection.score(folder, root / "scoring", named)

    def _run(self, log: str, *arguments: str) -> None:
        """One process of s3prl; what it says is added to a log."""
        # -P: not from where the user happens to be, which may be a checkout of s3prl.
        command = [sys.executable, "-P", "-m", "tasks.s3prl", "run_downstream", *arguments]
        file, begin = self.folder / f"{log}.log", time.perf_counter()
        with file.open("ab") as out:
            ended = subprocess.run(
                [*command, "--device", self.device], stdin=subprocess.DEVNULL, stdout=out,
                stderr=subprocess.STDOUT, env=self._environment(), check=False,
                close_fds=False,  # it holds the run's lock, for the case that we are killed
            )  # fmt: skip
        with (self.folder / "seconds.log").open("a", encoding="utf-8") as seconds:
            seconds.write(f"{log} {time.perf_counter() - begin:.1f}\n")
        if ended.returncode:
            raise RecipeFailed(
                f"s3prl's {log} of {self.recipe.task} ended with exit code {ended.returncode}: "
                f"{last_lines(file)} (all of it: {file})"
            )

    def _environment(self) -> dict[str, str]:
        ours = Path(next(iter(tasks.__path__))).parent
        paths = [self.checkout, ours, os.environ.get("PYTHONPATH")]
        more = {"PYTHONPATH": os.pathsep.join(str(path) for path in paths if path),
                "TQDM_MININTERVAL": "30", "PYTHONUNBUFFERED": "1"}  # fmt: skip
        return {**os.environ, **more}


def complete(
    settings: Mapping[str, Any], folder: Path, places: Mapping[str, Any], changes: Mapping[str, Any]
) -> dict[str, Any]:
    """The settings with the places of data and other values; lengths of asr lie in the folder."""
    whole = replaced(settings, {**places, **changes})
    inner = whole["downstream_expert"].get("datarc", {})
    if "libri_root" in inner:
        inner["bucket_file"] = str(folder / "lengths")
    return whole


def last_lines(file: Path) -> str:
    """The end of a log on one line, without progress bars."""
    text = file.read_text(encoding="utf-8", errors="replace").replace("\r", "\n")
    lines = [line.strip() for line in text.splitlines() if not _BAR.search(line)]
    return " | ".join(list(filter(None, lines))[-LAST_LINES:])[-LAST_LETTERS:]


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first thing in which two trials differ."""
    a, b = (dict(flatten(whole)) for whole in (before, now))
    key = next(key for key in [*a, *b] if a.get(key) != b.get(key))
    return f"{key.removeprefix('settings.')}: {a.get(key)}, not {b.get(key)}"
