"""`bench sweep` from the request to the files: check, preview, run, report."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from bench import environment, executors, pieces
from bench.collect import report, tell_failures
from bench.estimate import estimate
from bench.executors import slurm
from bench.executors._base import Executor
from bench.executors.local import Local
from bench.jobs import Source
from bench.outputs import check_folder
from bench.plan import Plan, Request
from bench.rates import parse_rates
from bench.sweep import Sweep, alone
from core import plugins
from core.errors import InputError
from core.method import QUICK, UNTRAINED, parse_methods
from core.record import Section
from core.runtime import Runtime
from encoders import store
from encoders.hidden_cache import KEPT, Cache
from encoders.tracking import read_trackers
from results.quantity import read_quantity
from results.store import RunFolder

#: What every output says of a model whose weights nobody trained.
RANDOM_WEIGHTS = "the model's weights are random: costs are real, scores of it would mean nothing"

#: What a preset means for whoever waits for it.
PRESETS = {
    QUICK: "methods train for minutes, far less than their papers did; --preset paper does as they",
    "paper": "methods train as long as their papers did; --preset quick trains for minutes",
    UNTRAINED: "methods cut as they would but train nothing, as random weights are not worth it",
}

#: Disk for hidden states of the user's own labelled speech.
CACHE_LIMIT = "4GB"

IDENTITY = ("model", "data", "subset", "task_data", "runtime")


def request(
    *,
    model: str,
    methods: str,
    rates: str,
    seeds: str,
    source: Source,
    tasks: str,
    task_source: Source,
    profilers: str,
    preset: str | None = None,
    runtime: Runtime,
    cache_limit: str | None = None,
    cache_dtype: str = KEPT[0],
    trackers: str | None = None,
    time_limit: str | None = None,
    processes: int = 1,
) -> Request:
    """What the command line asks for.

    Raises:
        InputError: anything in it does not exist or cannot be read.
    """
    chosen = parse_methods(methods, preset or usual_preset(model))
    wanted = Request(
        model, tuple(chosen), parse_rates(rates), read_seeds(seeds), source,
        tuple(plugins.select("task", tasks)), task_source,
        tuple(plugins.select("profiler", profilers)), runtime,
        _cache(cache_limit, cache_dtype, task_source), read_trackers(trackers),
        _time_limit(time_limit), processes,
    )  # fmt: skip
    store.read_spec(model)
    return wanted


def _cache(limit: str | None, dtype: str, tasks: Source) -> Cache:
    """Hidden states of the built-in corpus fit in memory, and are there again in seconds."""
    usual = "0" if tasks.text == "builtin" else CACHE_LIMIT
    return Cache(read_quantity(limit or usual, "B", "cache limit"), dtype)


def _time_limit(text: str | None) -> float | None:
    seconds = None if text is None else read_quantity(text, "s", "time limit")
    if seconds is not None and seconds <= 0:
        raise InputError(f"time limit {text!r}: expected more than no time, such as 90s, 30m or 2h")
    return seconds


def usual_preset(model: str) -> str:
    """The preset of methods that train, where none is asked for."""
    return UNTRAINED if model.startswith("random:") else QUICK


def read_seeds(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isascii() and part.isdigit() for part in parts):
        raise InputError(f"seeds {text!r}: expected whole numbers from 0 up, such as 0,1,2")
    return tuple(dict.fromkeys(map(int, parts)))


def default_folder(request: Request) -> Path:
    """`runs/MODEL[-DATA][-tasks-DATA][-RUNTIME]`: what cannot share records gets folders apart."""
    parts = [_slug(request.model)]
    if request.source.text != "builtin":
        parts.append(_slug(request.source.text))
    if request.source.subset:
        parts.append(_slug(request.source.subset))
    if request.tasks and request.task_source.text != "builtin":
        parts += ["tasks", _slug(request.task_source.text)]
    if not request.runtime.usual:
        parts.append(str(request.runtime))
    return Path("runs") / "-".join(parts)


def _slug(text: str) -> str:
    """The last part of a path, or the text, with what file systems dislike replaced."""
    name = Path(text).resolve().stem if Path(text).exists() else text
    return "".join(c if c.isalnum() or c in "._+" else "-" for c in name)


def preview(request: Request, folder: Path, workers: int | None = None) -> str:
    """Each point with the state of its sections, and why what is not done is not. Writes nothing.

    Last comes what is left to do by what was measured so far.

    Raises:
        InputError: the folder holds a run of something else, or data cannot be read.
    """
    plan = _plan(request, folder)
    lines, totals = [], Counter[str]()
    for key, record in plan.records.items():
        states: dict[str, list[str]] = {}
        for name in request.sections(record.point):
            state, why = _state(plan, key, name)
            totals[state] += 1
            states.setdefault(f"{state} ({why})" if why else state, []).append(name)
        told = "; ".join(f"{state}: {', '.join(names)}" for state, names in states.items())
        lines.append(f"{record.point}: {told}")
    counts = ", ".join(f"{count} {state}" for state, count in sorted(totals.items()))
    lines.append(f"{len(plan.records)} points in {folder}, sections: {counts}")
    left = estimate(plan, Local.of(request.runtime, workers).workers)
    return "\n".join([*lines, *([left] if left else [])])


def _state(plan: Plan, key: str, name: str) -> tuple[str, str]:
    """The section's state, and the reason where it is not just missing."""
    state = plan.state(key, name)
    source = plan.section(key, name) or plan.section(key, "compress")
    if state in ("failed", "unsupported"):
        return state, source.reason if source else ""
    if state == "missing" and (reason := plan.foreseen(key)):
        return "unsupported", reason
    return state, ""


def executor(
    name: str,
    runtime: Runtime,
    workers: int | None,
    address: str | None,
    memory: str | None,
    processes: int = 1,
) -> Executor:
    """Where the jobs of a sweep will run. workers: side by side; None for what there is room for.

    memory: of a job on Ray. processes: of the largest job.

    Raises:
        InputError: there is no such place, or what it needs is not installed; this machine has
            not the device, or no room.
    """
    executors.check(name)
    if address is not None and name != "ray":
        raise InputError(f"--address {address!r} is of --executor ray, not of {name}")
    if name == "ray":
        from bench.executors.ray import Ray

        size = read_quantity(memory, "B", "memory") if memory else 0
        return Ray(runtime, address, workers, int(size), processes)
    if runtime.cuda:
        from profilers._running import check

        check(runtime)
    return Local.of(runtime, workers, processes)


def execute(
    request: Request, folder: Path, executor: Executor, retry_failed: bool
) -> dict[str, list[Section]]:
    """Do what is missing, then show and draw what there is.

    Returns:
        The failed sections, by point.

    Raises:
        InputError: data cannot be read, or the folder cannot be written.
        KeyboardInterrupt: the user has had enough; all that was finished is in the folder.
    """
    plan = _plan(request, folder)
    slurm.refuse_submitted(folder)
    sweep = Sweep(plan, executor, retry_failed)
    for line in _remarks(request):
        print(f"note: {line}")
    worked = sweep.left > 0
    if worked:
        with executor:
            plan.run.write_run(_provenance(request))
            sweep.run()
    report(folder, request.tasks, request.profilers, draw=worked)
    return tell_failures(plan.records)


def submit(
    request: Request,
    folder: Path,
    resources: slurm.Resources,
    workers: int | None,
    retry_failed: bool,
) -> None:
    """Submit what is missing to SLURM, and say how to see what comes of it.

    Raises:
        InputError: as `execute`; SLURM refuses; earlier jobs are to write there still.
    """
    slurm.check(request.runtime, resources, request.processes, workers)
    plan = _plan(request, folder)
    for line in _remarks(request):
        print(f"note: {line}")
    with alone(plan.run, "submission"):
        slurm.refuse_submitted(folder)
        side_by_side = workers or resources.workers(request.runtime, request.processes)
        if parts := pieces.cut(plan, side_by_side, retry_failed):
            plan.run.write_run(_provenance(request))
            for key in {key for key, record in plan.records.items() if not record.sections}:
                plan.run.write_point(plan.records[key].point)
            jobs = slurm.submit(parts, folder, resources)
            print(f"submitted {len(parts)} pieces as {', '.join(jobs)}; how far they are: "
                  f"bench status {folder}")  # fmt: skip
    print(f"when all is done: bench collect {folder}")


def _plan(request: Request, folder: Path) -> Plan:
    """The plan, after a look at everything that it will read.

    Raises:
        InputError: as `execute`.
    """
    found = RunFolder(check_folder(folder)).run_info()
    asked = _identity(request)
    for name in IDENTITY:
        if found and found.get(name, asked[name]) != asked[name]:
            raise InputError(
                f"{folder} holds a sweep of {name.replace('_', ' ')} {found.get(name)!r}, not of "
                f"{asked[name]!r}; choose another folder with --out"
            )
    if _needs_data(request):
        request.source.open()
    return Plan.of(request, folder)


def _needs_data(request: Request) -> bool:
    return bool(request.profilers) or any(method.uses_data for method in request.methods)


def _identity(request: Request) -> dict[str, Any]:
    """What all requests that share a folder have in common."""
    return {
        "model": request.model,
        "data": request.source.text,
        "subset": request.source.subset,
        "task_data": request.task_source.text,
        "runtime": str(request.runtime),
    }


def _provenance(request: Request) -> dict[str, Any]:
    """What run.json says."""
    return {
        **_identity(request),
        "methods": [str(method) for method in request.methods],
        "rates": request.rates,
        "seeds": request.seeds,
        "tasks": request.tasks,
        "profilers": request.profilers,
        "random_weights": request.random_weights,
        "machine": environment.describe(),
    }


def _remarks(request: Request) -> list[str]:
    """What the user should know of the request: converted audio, weights without meaning."""
    sources = [request.source] if _needs_data(request) else []
    sources += [request.task_source] if request.tasks else []
    notes = [f"{s.text}: {note}" for s in dict.fromkeys(sources) for note in s.open().notes]
    presets = {step.preset for method in request.methods for step in method.steps}
    if not any(method.uses_data for method in request.methods) or request.model == "builtin":
        presets.discard(QUICK)
    notes += [f"preset {name}: {PRESETS[name]}" for name in PRESETS if name in presets]
    return [*notes, *([RANDOM_WEIGHTS] if request.random_weights else [])]
