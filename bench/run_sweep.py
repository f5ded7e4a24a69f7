"""`bench sweep` from the request to the files: check, preview, run, report."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console

import reports
from bench import environment
from bench.jobs import Source
from bench.outputs import check_folder
from bench.plan import Plan, Request
from bench.rates import parse_rates
from bench.sweep import Sweep
from core import plugins
from core.errors import InputError
from core.method import QUICK, UNTRAINED, parse_methods
from core.record import Section
from core.runtime import Runtime
from encoders import store
from encoders.hidden_cache import KEPT, Cache
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

#: Costs that the Pareto figure sets the score against, by the profiler that measures them.
FIGURE_COSTS = {"params": "params", "macs": "macs", "latency": "latency"}

_IDENTITY = ("model", "data", "subset", "task_data", "runtime")


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
        _cache(cache_limit, cache_dtype, task_source),
    )  # fmt: skip
    store.read_spec(model)
    if runtime.cuda:
        from profilers._running import check

        check(runtime)
    return wanted


def _cache(limit: str | None, dtype: str, tasks: Source) -> Cache:
    """Hidden states of the built-in corpus fit in memory, and are there again in seconds."""
    usual = "0" if tasks.text == "builtin" else CACHE_LIMIT
    return Cache(read_quantity(limit or usual, "B", "cache limit"), dtype)


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


def preview(request: Request, folder: Path) -> str:
    """Each point with the state of its sections, and why what is not done is not. Writes nothing.

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
    return "\n".join([*lines, f"{len(plan.records)} points in {folder}, sections: {counts}"])


def _state(plan: Plan, key: str, name: str) -> tuple[str, str]:
    """The section's state, and the reason where it is not just missing."""
    state = plan.state(key, name)
    source = plan.section(key, name) or plan.section(key, "compress")
    if state in ("failed", "unsupported"):
        return state, source.reason if source else ""
    if state == "missing" and (reason := plan.foreseen(key)):
        return "unsupported", reason
    return state, ""


def execute(
    request: Request, folder: Path, workers: int | None, retry_failed: bool
) -> dict[str, list[Section]]:
    """Do what is missing, then show and draw what there is.

    Returns:
        The failed sections, by point.

    Raises:
        InputError: data cannot be read, or the folder cannot be written.
        KeyboardInterrupt: the user has had enough; all that was finished is in the folder.
    """
    plan = _plan(request, folder)
    sweep = Sweep(plan, workers or environment.cores(), _environment(), retry_failed)
    for line in _remarks(request):
        print(f"note: {line}")
    worked = sweep.left > 0
    if worked:
        plan.run.write_run(_provenance(request))
        sweep.run()
    _report(request, folder, draw=worked)
    return _tell_failures(plan)


def _plan(request: Request, folder: Path) -> Plan:
    """The plan, after a look at everything that it will read.

    Raises:
        InputError: as `execute`.
    """
    found = RunFolder(check_folder(folder)).run_info()
    asked = _identity(request)
    for name in _IDENTITY:
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


def _environment() -> dict[str, Any]:
    """What each section says of where it was made; a worker computes on one thread."""
    machine = environment.describe()
    return {**machine, "threads": 1, "device": f"{machine['cpu']}, 1 thread"}


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


def _report(request: Request, folder: Path, draw: bool) -> None:
    """Print the table, write the leaderboard and the figure, say where everything lies."""
    from results.summary import render

    Console().print(render(folder))
    leaderboard = folder / "leaderboard.csv"
    if draw or not leaderboard.exists():
        from results.leaderboard import write

        write([folder], leaderboard)
    print(f"\nrecords      {folder / 'points'}")
    print(f"models       {folder / 'models'}")
    print(f"leaderboard  {leaderboard}")
    print(f"figure       {_figure(request, folder, draw)}")


def _figure(request: Request, folder: Path, draw: bool) -> str:
    """The files of the Pareto figure, or why there is none."""
    stem = folder / "pareto"
    costs = [cost for name, cost in FIGURE_COSTS.items() if name in request.profilers]
    if not request.tasks or not costs:
        lacking = "task was scored" if not request.tasks else "cost was measured"
        return f"none, because no {lacking}"
    if not draw and any(folder.glob("pareto*.png")):
        return ", ".join(map(str, sorted(folder.glob("pareto*.p[dn][fg]"))))
    from results.table import load

    try:
        if load([folder])["superb_s"].notna().any():
            drawing = reports.figure("pareto", x=costs)
            return ", ".join(map(str, reports.draw(drawing, [folder], stem)))
    except InputError as error:
        return f"none: {error}"
    drawn = "\n".join(f"             {path}" for path in _draw_tasks(request, folder, costs))
    return f"of each task, because none in superb_s has a margin over FBANK\n{drawn}"


def _draw_tasks(request: Request, folder: Path, costs: list[str]) -> list[Path]:
    """A figure of each task by itself, for runs without a superb_s."""
    drawn: list[Path] = []
    for task in request.tasks:
        with suppress(InputError):  # that task came to nothing; the table says why
            drawing = reports.figure("pareto", x=costs, y=task)
            drawn += reports.draw(drawing, [folder], folder / f"pareto-{task}")
    return drawn


def _tell_failures(plan: Plan) -> dict[str, list[Section]]:
    """Name the points that failed, with what was in the way."""
    failed = {
        key: sections
        for key, record in plan.records.items()
        if (sections := [s for s in record.sections.values() if s.status == "failed"])
    }
    if failed:
        print(f"\n{len(failed)} of {len(plan.records)} points failed; try them again with "
              "--retry-failed")  # fmt: skip
    for key, sections in failed.items():
        print(f"  {plan.records[key].point}: {sections[0].name}: {sections[0].reason}")
    return failed
