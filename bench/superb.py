"""`bench superb`: SUPERB's official recipes through s3prl, with an encoder of ours as the upstream.

Each training and each test is a process of its own. A folder has a record per task (`TASK.json`)
and what s3prl wrote below `TASK/lr-RATE`; what is done is not done again.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bench import environment
from bench.superb_trial import RecipeFailed, Trial, complete
from core import plugins
from core.errors import InputError
from core.record import Section
from core.runtime import Runtime
from encoders import store
from results.store import RunFolder, write_whole
from tasks.s3prl import data
from tasks.s3prl import recipes as known
from tasks.s3prl.recipes import Recipe

#: What each recipe imports beside s3prl itself; the extra `superb` has them all.
MODULES = {
    "": ("s3prl", "tensorboardX"), "pr": ("editdistance",), "asr": ("editdistance",),
    "sf": ("editdistance",), "sd": ("h5py",), "qbe": ("dtw", "lxml"), "sv": ("joblib",),
}  # fmt: skip

GRADE = "official"


@dataclass(frozen=True)
class Request:
    """What is run. rates: learning rates to choose from on dev, none for the recipes' own.

    changes: other values of the recipes' settings by dotted key. workers: processes that read
    audio. checkout: a clone of s3prl's repository, which is then run in place of the package.
    """

    model: str
    recipes: Sequence[Recipe]
    data_root: Path
    out: Path
    rates: tuple[float, ...]
    steps: int | None
    seed: int
    device: str
    workers: int
    checkout: Path | None
    changes: dict[str, Any]


def request(
    model: str, tasks: str, data_root: str | None, out: Path | None, rates: str | None,
    steps: int | None, seed: int, device: str | None, workers: int, checkout: Path | None,
    overrides: Sequence[str],
) -> Request:  # fmt: skip
    """What the command line asks for, with everything checked that can be.

    Raises:
        InputError: there is no such model, task, setting or rate, a package is missing, or a
            file of a corpus is not where it is expected.
    """
    if data_root is None:
        raise InputError("bench superb needs --data-root, the folder that holds the corpora")
    store.read_spec(model)
    chosen = known.select(tasks)
    changes = dict(known.read_override(text) for text in overrides)
    known.check_overrides(changes, chosen)
    _check_modules(chosen, checkout)
    root = Path(data_root).expanduser().absolute()
    for recipe in chosen:
        data.locate(recipe, root, checkout)
    folder = (out or Path("runs") / f"superb-{Path(model).name.replace(':', '-')}").absolute()
    return Request(
        model, chosen, root, folder, _rates(rates), steps, seed, _device(device), workers,
        checkout and checkout.absolute(), changes,
    )  # fmt: skip


def run(request: Request, say: Callable[[str], None]) -> Iterator[Section]:
    """The record of each task as soon as it is there; one that failed has the reason.

    say: is told what is begun.

    Raises:
        InputError: the folder holds something else, or somebody is at work in it.
    """
    with _alone(request.out):
        for recipe in request.recipes:
            file = request.out / f"{recipe.task}.json"
            section = _finished(file, _fingerprint(request, recipe))
            if section is None:
                section = _score(request, recipe, say)
                text = json.dumps(section.to_json(), indent=1)
                write_whole(file, f"{text}\n".encode())
            _add_to_point(request.model, section)
            yield section


def as_line(section: Section) -> str:
    """A record on one line."""
    task = section.name.partition(".")[2]
    if section.status != "done":
        return f"{task:<4} {section.status}: {section.reason}"
    values = "  ".join(f"{name} {value:.2f}" for name, value in section.values.items())
    rate = section.details["learning_rate"]
    chosen = f"  lr {rate:g}" if rate is not None else ""
    notes = "".join(f"; {note}" for note in section.details["notes"])
    return f"{task:<4} {values}{chosen}{notes}"


def _add_to_point(model: str, section: Section) -> None:
    """Beside what a sweep knows of its model RUN/models/KEY, the official score stands as well."""
    folder = Path(model).absolute()
    run = RunFolder(folder.parents[1]) if folder.parent.name == "models" else None
    if run is not None and folder.name in set(run.keys()):
        run.write_section(folder.name, section)


def _score(request: Request, recipe: Recipe, say: Callable[[str], None]) -> Section:
    """Train with every rate, choose on dev, test what was chosen."""
    section = Section(
        f"superb.{recipe.task}", "done", _fingerprint(request, recipe),
        metrics={metric.name: metric for metric in recipe.metrics},
        environment={**environment.describe(), "s3prl": environment.version("s3prl")},
    )  # fmt: skip
    begin = time.perf_counter()
    try:
        attempts: dict[float | None, list[Trial]] = {}
        for rate in _searched(request, recipe):
            attempts[rate] = _trials(request, recipe, rate)
            for trial in attempts[rate]:
                say(f"{recipe.task}: {trial.folder}")
                trial.train()
        rate = _best(recipe, attempts)
        scores = [trial.test() for trial in attempts[rate]]
        section.values = {
            name: sum(score[name] for score in scores) / len(scores) for name in scores[0]
        }
        section.details = _details(request, recipe, rate, attempts)
    except RecipeFailed as error:
        section.status, section.reason = "failed", str(error)
    section.seconds = round(time.perf_counter() - begin, 1)
    return section


def _searched(request: Request, recipe: Recipe) -> list[float | None]:
    """The rates to try: with several to choose from but no dev split, the recipe's own."""
    if not recipe.trains:
        return [None]
    own = known.settings(recipe, request.checkout)["optimizer"]["lr"]
    if len(request.rates) > 1 and not recipe.searches:
        return [float(own)]
    return list(request.rates) or [float(own)]


def _trials(request: Request, recipe: Recipe, rate: float | None) -> list[Trial]:
    """The trainings with one learning rate: one, or one per fold."""
    settings = known.settings(recipe, request.checkout)
    changes = _changes(request, recipe)
    places = data.locate(recipe, request.data_root, request.checkout)
    if rate is not None:
        changes["optimizer.lr"] = rate
    changes[recipe.workers] = request.workers
    if recipe.task == "qbe":
        changes["downstream_expert.max_workers"] = max(1, request.workers)
    trials = []
    for fold in recipe.folds:
        folder = request.out / recipe.task / (f"lr-{rate:g}" if rate is not None else "") / fold
        own = {recipe.fold_key: fold} if fold else {}
        whole = complete(settings, folder, places, {**changes, **own})
        trials.append(
            Trial(recipe, folder, whole, request.model, request.seed, request.device,
                  request.checkout)
        )  # fmt: skip
    return trials


def _changes(request: Request, recipe: Recipe) -> dict[str, Any]:
    """In what the run differs from the recipe, but for its learning rate."""
    settings = known.settings(recipe, request.checkout)
    own = dict(known.flatten(settings))
    steps = known.shortened(settings, request.steps) if request.steps and recipe.trains else {}
    wanted = {key: value for key, value in request.changes.items() if key in own}
    return {key: value for key, value in {**steps, **wanted}.items() if own.get(key) != value}


def _best(recipe: Recipe, attempts: dict[float | None, list[Trial]]) -> float | None:
    """The rate with the best mean score on dev; the first where none has one."""
    if len(attempts) == 1:
        return next(iter(attempts))
    sign = -1 if recipe.lower_on_dev else 1

    def worth(rate: float | None) -> float:
        found = [trial.dev() for trial in attempts[rate]]
        scores = [sign * score[0] for score in found if score is not None]
        return sum(scores) / len(scores) if len(scores) == len(found) else float("-inf")

    return max(attempts, key=worth)


def _details(
    request: Request, recipe: Recipe, rate: float | None, attempts: dict[float | None, list[Trial]]
) -> dict[str, Any]:
    """What has to be known beside the score. Paths are relative to the run's folder."""
    trials = attempts[rate]
    tried = [
        {"learning_rate": each, "fold": fold, "dev": dev and dev[0], "step": dev and dev[1]}
        for each, group in attempts.items()
        for fold, dev in zip(recipe.folds, (trial.dev() for trial in group), strict=True)
    ]
    runner = trials[0].settings["runner"]
    return {
        "grade": GRADE,
        "model": request.model,
        "learning_rate": rate,
        "steps": runner.get("total_steps", 0),
        "seed": request.seed,
        "changed": _changes(request, recipe),
        "costs": _costs(request.model),
        "tried": tried,
        "checkpoint": [_relative(t.checkpoint(), request) for t in trials if recipe.trains],
        "log": [_relative(t.folder / "train.log", request) for t in trials if recipe.trains],
        "notes": _notes(request, recipe, trials),
    }


@cache
def _costs(model: str) -> dict[str, float]:
    """Parameters and MACs over 32 utterances, as SUPERB's leaderboard has them.

    Where what is said decides on the arithmetic, there is none of 32 lengths.
    """
    from encoders.workload import Workload
    from profilers._base import Setting

    encoder, setting = store.load(model), Setting(Workload.parse("superb32"))
    found: dict[str, float] = {}
    for name, metric in (("params", "params_total"), ("macs", "macs_superb32")):
        with suppress(InputError):
            values = plugins.load("profiler", name)().measure(encoder, setting).values
            found[metric] = values[metric]
    return found


def _notes(request: Request, recipe: Recipe, trials: Sequence[Trial]) -> list[str]:
    """What a reader of the score must not overlook."""
    notes = []
    if changed := _changes(request, recipe):
        values = (f"{key.rpartition('.')[2]}={value}" for key, value in changed.items())
        notes.append(f"not SUPERB's settings: {', '.join(values)}")
    if recipe.searches and any(trial.dev() is None for trial in trials):
        notes.append("no checkpoint was better on dev than nothing; the last one was tested")
    if len(request.rates) > 1 and recipe.trains and not recipe.searches:
        notes.append("no dev split to choose a learning rate on; the recipe's own")
    if skipped := sum(trial.skipped() for trial in trials):
        notes.append(f"{skipped} updates left out, their gradient was not finite")
    layers = trials[0].folder / "layers.json"
    if layers.is_file():
        found = json.loads(layers.read_text(encoding="utf-8"))
        notes.append(f"layer {found['layer']}; MTWV {found['scorer']}")
    return notes


def _relative(path: str | Path, request: Request) -> str:
    return str(Path(path).relative_to(request.out))


def _fingerprint(request: Request, recipe: Recipe) -> str:
    """Changes with everything that the record of a task depends on."""
    whole = [
        store.fingerprint(request.model), environment.version("s3prl"), request.seed, request.rates,
        str(request.data_root), request.steps, sorted(_changes(request, recipe).items()),
    ]  # fmt: skip
    return hashlib.blake2b(json.dumps(whole).encode(), digest_size=8).hexdigest()


def _finished(file: Path, fingerprint: str) -> Section | None:
    """The record in a file, where it is done and of the same run."""
    if not file.is_file():
        return None
    section = Section.from_json(json.loads(file.read_text(encoding="utf-8")))
    return section if (section.status, section.fingerprint) == ("done", fingerprint) else None


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Nobody else works in the folder meanwhile, not even a process that an earlier run left.

    Raises:
        InputError: somebody does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        os.set_inheritable(lock.fileno(), True)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(
                f"another run is at work in {folder}; wait for it or stop it"
            ) from None
        yield


def _rates(text: str | None) -> tuple[float, ...]:
    """Learning rates from a comma list."""
    try:
        rates = tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        rates = (0.0,)
    if not all(0 < rate < float("inf") for rate in rates):
        raise InputError(f"learning rate {text!r}: expected numbers above 0, such as 1e-4,1e-3")
    return tuple(dict.fromkeys(rates))


def _device(name: str | None) -> str:
    """The device of that name; CUDA where there is one and nothing is said."""
    import torch

    return Runtime(name or ("cuda" if torch.cuda.is_available() else "cpu")).device


def _check_modules(chosen: Sequence[Recipe], checkout: Path | None) -> None:
    if checkout is not None and not (checkout / "s3prl" / "run_downstream.py").is_file():
        raise InputError(
            f"{checkout / 's3prl' / 'run_downstream.py'} is missing; --s3prl-root takes a git "
            "checkout of s3prl"
        )
    for task in ("", *(recipe.task for recipe in chosen)):
        for module in MODULES.get(task, ()):
            if importlib.util.find_spec(module) is None and not (module == "s3prl" and checkout):
                raise InputError(
                    f"task {task or chosen[0].task} needs {module}, which is not installed; "
                    "pip install '.[superb]'"
                )
