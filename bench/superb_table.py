"""`bench superb gather`: finished runs of s3prl's recipes as tables, whoever has started them.

    runs.csv     a row per run and metric, with all that has to be known of it
    superb.csv   a row per model, with the columns of results/published/superb.csv
    scores.csv   superb_s of each model by each convention, with its anchors and what is missing

A run is a record of `bench superb`, or a folder with the `args_*.yaml` that s3prl itself writes.
Full SUPERB and the quick suite stay apart: every row says its grade.
"""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from core.errors import InputError
from core.record import Section
from results.store import write_whole
from results.superb import CONVENTIONS, METRICS, superb_s
from tasks.s3prl import detection, readings
from tasks.s3prl.recipes import RECIPES, Recipe, flatten

GRADE = "official"
BY_HAND = "s3prl"


@dataclass(frozen=True)
class Run:
    """One metric of one finished run.

    params, macs: the model's, the latter over SUPERB's 32 utterances; unknown of runs by hand.
    notes: what a reader must not overlook.
    """

    model: str
    task: str
    metric: str
    value: float
    learning_rate: float | None
    steps: int
    seed: int | None
    grade: str
    started_by: str
    folder: str
    checkpoint: str = ""
    log: str = ""
    notes: str = ""
    params: float | None = None
    macs: float | None = None


def gather(folder: Path) -> list[Run]:
    """All finished runs below a folder, the oldest first.

    Raises:
        InputError: there are none.
    """
    records = {file: list(_ours(file, folder)) for file in sorted(folder.rglob("*.json"))}
    found = [(file.stat().st_mtime, runs) for file, runs in records.items() if runs]
    for group in _by_hand(folder):
        if runs := list(_runs(group, folder)):
            found.append((max(e.folder.stat().st_mtime for e in group), runs))
    runs = [run for _, some in sorted(found, key=lambda pair: pair[0]) for run in some]
    if not runs:
        raise InputError(
            f"{folder} holds no finished run; give a folder that bench superb or s3prl has written"
        )
    return runs


def write(runs: Sequence[Run], out: Path) -> None:
    """Write the three tables into a folder."""
    models = newest_by_model(runs)
    columns = ["model", "params_millions", "macs_giga", *METRICS, "source"]
    costs = {run.model: _costs(run) for run in runs}
    rows = [
        {"model": name, **costs[name], **values, "source": f"{GRADE}, s3prl"}
        for name, values in models.items()
    ]
    write_whole(out / "runs.csv", _table([f.name for f in fields(Run)], map(asdict, runs)))
    write_whole(out / "superb.csv", _table(columns, rows))
    scores = [{"model": n, **row} for n, values in models.items() for row in _scores(values)]
    head = ["model", "grade", "convention", "superb_s", "anchors", "missing", *_terms()]
    write_whole(out / "scores.csv", _table(head, scores))


def _costs(run: Run) -> dict[str, float]:
    """In the units of the published table."""
    scaled = {"params_millions": (run.params, 1e6), "macs_giga": (run.macs, 1e9)}
    return {name: cost / unit for name, (cost, unit) in scaled.items() if cost is not None}


def newest_by_model(runs: Sequence[Run]) -> dict[str, dict[str, float]]:
    """The metrics of each model; of several runs of a task the newest one's."""
    models: dict[str, dict[str, float]] = defaultdict(dict)
    for run in runs:
        models[run.model][run.metric] = run.value
    return dict(models)


def as_text(runs: Sequence[Run]) -> str:
    """Each model's metrics, and a line per convention."""
    lines = []
    for name, values in newest_by_model(runs).items():
        lines.append(f"{name}: " + ", ".join(f"{m} {v:.2f}" for m, v in values.items()))
        for row in _scores(values):
            left_out = f", without {row['missing']}" if row["missing"] else ""
            lines.append(f"  superb_s {row['superb_s']:.2f} ({row['anchors']}{left_out})")
    if any(run.notes for run in runs):
        lines.append("note: not all of it is as SUPERB has it; the notes of runs.csv say what")
    return "\n".join(lines)


def _scores(values: Mapping[str, float]) -> Iterator[dict[str, Any]]:
    for convention in CONVENTIONS:
        try:
            score = superb_s(values, convention)
        except InputError:  # its only metric is one that this convention leaves out
            continue
        yield {
            "grade": GRADE, "convention": convention, "superb_s": score.value,
            "anchors": score.anchors, "missing": " ".join(score.missing), **score.terms,
        }  # fmt: skip


def _terms() -> list[str]:
    return list(CONVENTIONS["leaderboard"].tasks)


def _ours(file: Path, above: Path) -> Iterator[Run]:
    """The metrics of a record of `bench superb`."""
    try:
        section = Section.from_json(json.loads(file.read_text(encoding="utf-8")))
        task = section.name.removeprefix("superb.")
    except (ValueError, TypeError, AttributeError, OSError):
        return
    if section.status != "done" or task not in RECIPES or task == section.name:
        return
    known = section.details
    costs = known.get("costs", {})
    for metric, value in section.values.items():
        yield Run(
            known["model"], task, metric, value, known["learning_rate"], known["steps"],
            known["seed"], known["grade"], "bench", str(file.parent.relative_to(above) / task),
            " ".join(known["checkpoint"]), " ".join(known["log"]), "; ".join(known["notes"]),
            costs.get("params_total"), costs.get("macs_superb32"),
        )  # fmt: skip


@dataclass(frozen=True)
class Experiment:
    """A folder that s3prl wrote, started by hand."""

    folder: Path
    recipe: Recipe
    arguments: Mapping[str, Any]
    settings: Mapping[str, Any]

    @property
    def model(self) -> str:
        upstream, checkpoint = self.arguments["upstream"], self.arguments.get("upstream_ckpt")
        return f"{upstream}:{checkpoint}" if checkpoint else str(upstream)

    @property
    def group(self) -> tuple[Any, ...]:
        """The same for folds and layers of one run."""
        return (self.model, self.recipe.task, self.settings.get("optimizer.lr"),
                self.settings.get("runner.total_steps"), self.arguments.get("seed"))  # fmt: skip


def _by_hand(folder: Path) -> Iterable[Sequence[Experiment]]:
    """Runs of s3prl that we did not start, each with the folders of its folds and layers."""
    groups: dict[tuple[Any, ...], list[Experiment]] = defaultdict(list)
    for place in sorted({file.parent for file in folder.rglob("args_*.yaml")}):
        if any((above / "trial.json").is_file() for above in (place, *place.parents)):
            continue
        experiment = _experiment(place)
        if experiment is not None:
            groups[experiment.group].append(experiment)
    return groups.values()


def _experiment(folder: Path) -> Experiment | None:
    """What s3prl has noted there, None where it is none of SUPERB's recipes."""
    arguments: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    for file in sorted(folder.glob("args_*.yaml")):
        arguments |= yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    for file in sorted(folder.glob("config_*.yaml")):
        settings = dict(flatten(yaml.safe_load(file.read_text(encoding="utf-8")) or {}))
    named = {"libriphone": "pr", "snips": "sf"}
    corpus = settings.get("downstream_expert.corpus.name", "")
    for recipe in RECIPES.values():
        fits = recipe.downstream != "ctc" or named.get(str(corpus).lower()) == recipe.task
        if recipe.downstream == arguments.get("downstream") and fits:
            return Experiment(folder, recipe, arguments, settings)
    return None


def _runs(group: Sequence[Experiment], above: Path) -> Iterator[Run]:
    """The metrics of one run, of whose folds and layers each has its own folder."""
    first = group[0]
    found = [(e, readings.read(e.recipe, e.folder, e.settings)) for e in group]
    found = [(experiment, values) for experiment, values in found if values]
    notes = ""
    if first.recipe.task == "qbe":
        found, notes = _best_layer(found)
    folds = len(first.recipe.folds)
    if folds > 1 and found and len(found) != folds:
        notes = f"{len(found)} of {folds} folds"
    for metric in first.recipe.metrics if found else ():
        yield Run(
            first.model, first.recipe.task, metric.name,
            sum(values[metric.name] for _, values in found) / len(found),
            first.settings.get("optimizer.lr"), first.settings.get("runner.total_steps", 0),
            first.arguments.get("seed"), GRADE, BY_HAND,
            " ".join(str(e.folder.relative_to(above)) for e, _ in found), notes=notes,
        )  # fmt: skip


def _best_layer(
    found: Sequence[tuple[Experiment, dict[str, float]]],
) -> tuple[list[tuple[Experiment, dict[str, float]]], str]:
    """The test of the layer that is best on dev."""
    parts: dict[str, dict[Any, tuple[Experiment, dict[str, float]]]] = {"dev": {}, "test": {}}
    for experiment, values in found:
        split = "dev" if experiment.arguments.get("evaluate_split") == "dev" else "test"
        layer = experiment.arguments.get("upstream_layer_selection")
        parts[split][layer] = (experiment, values)
    both = [layer for layer in parts["dev"] if layer in parts["test"]]
    if not both:
        return list(parts["test"].values())[:1], "layer not chosen on dev"
    best = max(both, key=lambda layer: parts["dev"][layer][1]["qbe_mtwv"])
    return [parts["test"][best]], f"layer {best}; MTWV {detection.BY_CORPUS}"


def _table(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    table.writeheader()
    for row in rows:
        table.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
    return text.getvalue().encode()
