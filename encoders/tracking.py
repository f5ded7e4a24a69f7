"""Where a training's numbers go beside log.csv: TensorBoard, Weights & Biases, MLflow (Accelerate).

Each training is a run of its own, and one that was cut goes on in that run. A tracker that fails is
told of once and left out: the training goes on without it.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from core.errors import InputError, closest

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

#: What the runs belong to, where a tracker sorts them by project.
PROJECT = "speech-compression-bench"

#: By tracker: the modules of which one must be there, and what to install for it.
_NEEDS = {
    "tensorboard": (("tensorboard", "tensorboardX"), "tensorboardX"),
    "wandb": (("wandb",), "wandb"),
    "mlflow": (("mlflow",), "mlflow-skinny"),
}


def read_trackers(text: str | None) -> tuple[str, ...]:
    """The trackers of a comma list, each of them installed.

    Raises:
        InputError: there is no such tracker, its package is missing, or it knows no account.
    """
    names = tuple(dict.fromkeys(part.strip() for part in (text or "").split(",") if part.strip()))
    for name in names:
        if name not in _NEEDS:
            raise InputError(
                f"tracker {name!r} does not exist{closest(name, _NEEDS)}; there are "
                f"{', '.join(_NEEDS)}"
            )
        modules, package = _NEEDS[name]
        if not any(find_spec(module) for module in modules):
            raise InputError(
                f"--tracker {name} needs a package that is missing: pip install {package}"
            )
    if "wandb" in names:
        _log_in()
    return names


def _log_in() -> None:
    """Have wandb know an account, by asking where somebody can answer."""
    import wandb

    try:
        wandb.login()
    except wandb.Error as error:
        raise InputError(
            f"--tracker wandb has no account ({str(error).rstrip('.')}); or keep its runs on this "
            "machine with WANDB_MODE=offline"
        ) from error


@dataclass(frozen=True)
class Tracking:
    """Which trackers, where those that write files do so, and what their runs are called."""

    names: tuple[str, ...] = ()
    folder: Path = Path()
    title: str = ""

    @classmethod
    def beside(cls, model: Path, names: Sequence[str], title: str) -> Tracking:
        """For what becomes one model, whose folder is made only when all is done."""
        return cls(tuple(names), model.with_name(f"{model.name}.trackers"), title)

    def inside(self, part: str) -> Tracking:
        """The same for trainings of that part of what is trained."""
        return replace(self, title=f"{self.title}, {part}")

    @contextmanager
    def runs(
        self, training: str, config: Mapping[str, Any], step: int, ids: Mapping[str, str]
    ) -> Iterator[Runs]:
        """A run in each tracker, until the training ends.

        step: updates that are done; what was told of later ones is void. ids: of the runs to go on
        with, by tracker; empty where a training begins.
        """
        runs = Runs()
        for name in self.names:
            opened = partial(_OPEN[name], self, f"{self.title}, {training}", step, ids.get(name))
            runs.add(name, opened, config)
        try:
            yield runs
        finally:
            runs.each(lambda tracker: tracker.finish())


UNTRACKED = Tracking()


@dataclass
class Runs:
    """One training in each of its trackers."""

    _trackers: dict[str, GeneralTracker] = field(default_factory=dict)

    def add(
        self, name: str, opened: Callable[[], GeneralTracker], config: Mapping[str, Any]
    ) -> None:
        with self._or_leave_out(name):
            tracker = opened()
            tracker.start()
            if name != "tensorboard":  # which would keep it as another run, in another folder
                tracker.store_init_configuration(dict(config))
            self._trackers[name] = tracker

    def log(self, values: dict[str, float], step: int) -> None:
        self.each(lambda tracker: tracker.log(values, step=step))

    def each(self, action: Callable[[GeneralTracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            with self._or_leave_out(name):
                action(tracker)

    @property
    def ids(self) -> dict[str, str]:
        """By which a run can be gone on with."""
        runs: dict[str, Any] = {name: t.tracker for name, t in self._trackers.items()}
        known = {"wandb": lambda run: run.id, "mlflow": lambda run: run.info.run_id}
        return {name: known[name](run) for name, run in runs.items() if name in known}

    @contextmanager
    def _or_leave_out(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._trackers.pop(name, None)
            warnings.warn(
                f"{name} is told no more of this training, log.csv is ({error})", stacklevel=2
            )


def _tensorboard(tracking: Tracking, run: str, step: int, _: str | None) -> GeneralTracker:
    """A new file in the run's folder voids what earlier ones say of later updates."""
    from accelerate.tracking import TensorBoardTracker

    return TensorBoardTracker(
        run.replace("/", "-"), tracking.folder / "tensorboard", purge_step=step + 1,
        filename_suffix=f".{step}",
    )  # fmt: skip


def _wandb(tracking: Tracking, run: str, _: int, known: str | None) -> GeneralTracker:
    """It keeps the first of what is told twice of an update, which is the same."""
    from accelerate.tracking import WandBTracker

    tracking.folder.mkdir(parents=True, exist_ok=True)
    return WandBTracker(
        os.environ.get("WANDB_PROJECT", PROJECT), name=run, id=known or uuid4().hex[:8],
        resume="allow", dir=str(tracking.folder), settings={"console": "off", "silent": True},
    )  # fmt: skip


def _mlflow(tracking: Tracking, run: str, _: int, known: str | None) -> GeneralTracker:
    """On the server that MLFLOW_TRACKING_URI names, else in files, which need no database."""
    import mlflow
    from accelerate.tracking import MLflowTracker

    if "MLFLOW_TRACKING_URI" not in os.environ:
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        mlflow.set_tracking_uri((tracking.folder / "mlruns").resolve().as_uri())
    tracker = MLflowTracker(PROJECT, run_id=known, run_name=run)
    mlflow.set_experiment(tracker.experiment_name)  # several workers may be about to make it
    return tracker


_OPEN = {"tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow}
