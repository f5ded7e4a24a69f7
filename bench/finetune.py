"""`bench finetune`: what fine-tuning still gains on compressed models, per task, method and rate.

The folder of results is one of a run: each model is a point, each task a section `finetune.TASK`.
What is there already is not done again; trainings that were cut go on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from bench import environment
from bench.deaths import write_death
from bench.executors._base import Ended, Said, Say
from bench.executors.local import Local
from bench.finetune_table import SECTION, as_csv, render, rows
from bench.jobs import Finished, Job, Source, Started, Trained
from bench.outputs import check_folder
from bench.progress import Progress, TimeLeft
from bench.rates import parse_rates
from bench.run_sweep import read_seeds
from bench.sweep import alone
from core import plugins
from core.errors import InputError, closest
from core.metric import Metric
from core.point import DENSE, FBANK, REFERENCES, Point, digest
from core.record import Section
from encoders import store
from encoders.tracking import Tracking, read_trackers
from results.store import RunFolder, write_whole
from results.table import order

if TYPE_CHECKING:
    from bench.tuning import Recipe


@dataclass(frozen=True)
class Request:
    """Models by what they are, and the tasks that each is fine-tuned on."""

    models: Mapping[Point, str]
    tasks: Sequence[str]
    source: Source
    recipe: Recipe
    out: Path
    trackers: tuple[str, ...] = ()

    def pairs(self) -> dict[tuple[str, str], str]:
        """Fingerprints by (point key, section name), task by task."""
        sources = {task: plugins.card("task", task).source_hash for task in self.tasks}
        common = [asdict(self.recipe), self.source.open().fingerprint]
        return {
            (point.key, SECTION + task): digest(
                [store.fingerprint(model), sources[task], point.seed, *common]
            )
            for task in self.tasks
            for point, model in self.models.items()
        }


@dataclass(frozen=True)
class Finetune(Job):
    """One model on one task, both ways."""

    source: Source = field(kw_only=True)
    recipe: Recipe = field(kw_only=True)
    model: str = field(kw_only=True)
    trackers: tuple[str, ...] = ()

    def run(self, say: Say) -> None:
        from bench.tuning import tune

        (point,), ((key, name),) = self.points, self.todo
        task = name.removeprefix(SECTION)
        # A training belongs to what it depends on: one of another recipe begins anew.
        track = RunFolder(self.run_path).track_folder(digest([key, self.todo[key, name]]))

        def report(training: str, step: int, total: int, values: dict[str, float]) -> None:
            say(Trained(key, training, step, total, values))

        with self.section(say, key, name) as section:
            tracking = Tracking(self.trackers, track, str(point))
            scores = tune(
                store.load(self.model), task, self.source.open(), point.seed, self.recipe, track,
                report, tracking,
            )  # fmt: skip
            section.metrics = metrics(task)
            frozen, tuned = scores["frozen"]["test"], scores["tuned"]["test"]
            better = plugins.card("task", task).metrics[0].better
            gain = frozen - tuned if better == "lower" else tuned - frozen
            section.values = dict(zip(section.metrics, (frozen, tuned, gain), strict=True))
            log = (track / "log.csv").relative_to(self.run_path)
            section.details = {
                "scores": scores, "recipe": asdict(self.recipe), "weights": self.model,
                "training_logs": [str(log)],
            }  # fmt: skip
            for checkpoint in track.glob("*.pt"):
                checkpoint.unlink()


def metrics(task: str) -> dict[str, Metric]:
    """What is reported of a task, by name: both scores, and by how much fine-tuning is better."""
    own = plugins.card("task", task).metrics[0]
    told = (
        Metric(f"{own.name}_frozen", own.unit, own.better, f"{own.about}, head alone trained"),
        Metric(f"{own.name}_tuned", own.unit, own.better, f"{own.about}, encoder fine-tuned"),
        Metric(f"{own.name}_gain", own.unit, "higher", "how much better fine-tuned than frozen"),
    )
    return {metric.name: metric for metric in told}


def request(
    model: str,
    tasks: str,
    methods: str | None,
    rates: str | None,
    seeds: str | None,
    data: str,
    out: Path,
    recipe: tuple[int, float, float, float, str],
    trackers: str | None = None,
) -> Request:
    """What the command line asks for. recipe: the fields of `Recipe`, in order.

    Raises:
        InputError: anything in it does not exist, or the audio lacks the labels of a task.
    """
    amounts = None if rates is None else parse_rates(rates)
    found = seeded(models(model, methods, amounts), None if seeds is None else read_seeds(seeds))
    chosen, source = check_tasks(tasks), Source(data)
    from bench.tuning import Recipe

    corpus = source.open()
    for task in chosen:
        plugins.load("task", task)().select(corpus)
    heard = read_trackers(trackers)
    return Request(found, chosen, source, Recipe.of(*recipe), check_folder(out), heard)


def models(where: str, methods: str | None, rates: Sequence[float] | None) -> dict[Point, str]:
    """The models of a run that have layers to tune, in order; or the one model of that name.

    methods: a comma list, a plain name with whatever options; references always belong to it.

    Raises:
        InputError: there is neither a run nor a model, or the run lacks what is asked for.
    """
    run = RunFolder(where)
    if not run.keys():
        return {Point(where, DENSE, 0.0, 0, "none"): _model(where)}
    found = {
        record.point: str(run.model_folder(record.point.key))
        for record in sorted(run.records(), key=lambda record: order(record.point))
        if record.point.method != FBANK
        and (run.model_folder(record.point.key) / store.WEIGHTS).is_file()
    }
    if methods is not None:
        found = {point: found[point] for point in _of(list(found), methods)}
    if rates is not None:
        found = {p: m for p, m in found.items() if p.method in REFERENCES or p.rate in rates}
    if not any(point.method not in REFERENCES for point in found) and (methods or rates):
        raise InputError(f"{where} has no model of those methods at those rates; it lists what it "
                         "has with: bench leaderboard")  # fmt: skip
    if not found:
        raise InputError(f"{where} has no models; they are gone or were never made: sweep again")
    return found


def _model(where: str) -> str:
    """The name itself where it is one of a model."""
    try:
        store.read_spec(where)
    except InputError as error:
        if Path(where).is_dir():
            raise InputError(
                f"{where} is neither a run nor a model; give a folder that a sweep has written, or "
                f"one with {store.SPEC} and {store.WEIGHTS}"
            ) from error
        raise
    return where


def _of(points: list[Point], methods: str) -> list[Point]:
    """References, and the points of these methods."""
    wanted = [part for part in re.split(r",(?![^\[]*\])", methods) if part]
    known = {p.method: re.sub(r"[@\[][^+]*", "", p.method) for p in points}
    for name in wanted:
        if name not in {*known, *known.values()}:
            own = sorted(set(known) - set(REFERENCES))
            raise InputError(
                f"method {name!r} is not in this run{closest(name, own)}; it has: "
                f"{', '.join(own) or 'none'}"
            )
    chosen = {*wanted, *REFERENCES}
    return [p for p in points if p.method in chosen or known[p.method] in chosen]


def seeded(found: Mapping[Point, str], seeds: Sequence[int] | None) -> dict[Point, str]:
    """Each model with each of these seeds of fine-tuning, by default with the seed it has.

    Raises:
        InputError: the models have several seeds by themselves.
    """
    if seeds is None:
        return dict(found)
    if len({point.seed for point in found}) > 1:
        raise InputError("the models of this run have several seeds, which fine-tuning uses; leave "
                         "--seeds out")  # fmt: skip
    return {replace(point, seed=seed): m for point, m in found.items() for seed in seeds}


def check_tasks(text: str) -> list[str]:
    """Tasks whose head can be fine-tuned along with the encoder (imports them, so torch).

    Raises:
        InputError: there is no such task, or none of its heads can.
    """
    from bench.goals import HEADS

    chosen = plugins.select("task", text)
    able = [name for name in plugins.names("task") if issubclass(plugins.load("task", name), HEADS)]
    for name in chosen:
        if name not in able:
            raise InputError(
                f"task {name!r} has no head that is trained with the encoder; {', '.join(able)} do"
            )
    if not chosen:
        raise InputError(f"no task to fine-tune on; name some of {', '.join(able)} with --task")
    return chosen


def execute(request: Request, workers: int | None, retry_failed: bool) -> int:
    """Do what is missing, write `finetune.csv` and show it; how many sections have failed.

    All that the folder holds is shown, that of earlier requests included.

    Raises:
        InputError: the folder cannot be written, or holds something else.
    """
    run = RunFolder(request.out)
    workers = workers or environment.cores()
    if (info := run.run_info()) and "finetune" not in info:
        raise InputError(f"{request.out} holds a sweep; choose another folder with --out")
    points = {point.key: point for point in request.models}
    with alone(run):
        run.write_run(
            {"finetune": asdict(request.recipe), "task_data": request.source.text,
             "machine": environment.describe()}
        )  # fmt: skip
        for point in points.values():
            run.write_point(point)
        known = {k: run.read(k).sections for k in points}
        jobs = [
            Finetune(
                run.path, (points[key],), {(key, name): fingerprint},
                source=request.source, recipe=request.recipe, model=request.models[points[key]],
                trackers=request.trackers,
            )
            for (key, name), fingerprint in request.pairs().items()
            if _missing(known[key].get(name), fingerprint, retry_failed)
        ]  # fmt: skip
        _follow(run, jobs, points, workers)
    made = rows(run)
    write_whole(request.out / "finetune.csv", as_csv(made))
    Console().print(render(made))
    print(f"\nhead alone, encoder fine-tuned, and how much better: {request.out / 'finetune.csv'}")
    failed = [row for row in made if row["status"] != "done"]
    for row in failed:
        print(
            f"{row['status']}: {row['method']} at {row['rate']:g}, {row['task']}: {row['reason']}"
        )
    return sum(row["status"] == "failed" for row in failed)


def _missing(section: Section | None, fingerprint: str, retry_failed: bool) -> bool:
    if section is None or section.fingerprint != fingerprint:
        return True
    return retry_failed and section.status != "done"


def _follow(
    run: RunFolder, jobs: Sequence[Finetune], points: Mapping[str, Point], workers: int
) -> None:
    """Run the jobs side by side; one whose process dies is a failure, with its reason."""
    left = [pair for job in jobs for pair in job.todo]
    in_work: dict[tuple[str, str], Started] = {}
    time_left = TimeLeft(workers, lambda name: False)

    def over(key: str, section: Section) -> None:
        left.remove((key, section.name))
        time_left.learn(section.name, section.seconds)
        if section.status == "failed":
            progress.say(f"failed: {points[key]}, {section.name}: {section.reason}")
        progress.finished(str(points[key]), [name for _, name in left])

    if not jobs:
        return
    with Local(workers) as executor, Progress(len(jobs), time_left) as progress:
        for job in jobs:
            executor.submit(job)
        for event in executor.events():
            match event:
                case Said(_, Started(key, name) as started):
                    in_work[key, name] = started
                    progress.working(f"{points[key]}: {name}")
                case Said(_, Trained() as training):
                    progress.training(str(points[training.key]), training)
                case Said(_, Finished(key, section)):
                    over(key, section)
                case Ended(Finetune() as job, reason) if reason:
                    ((pair, fingerprint),) = job.todo.items()
                    if pair in left:
                        over(
                            pair[0],
                            write_death(run, *pair, fingerprint, reason, in_work.get(pair)),
                        )
