"""What a sweep leaves for its reader: copies for twins, the table, the leaderboard, the figure.

`bench collect` does it for a run that several processes or machines have written into.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from rich.console import Console

import reports
from bench.status import look
from bench.sweep import alone, copy_of, share_weights
from core.errors import InputError
from core.record import Record, Section
from results.store import RunFolder

#: Costs that the Pareto figure sets the score against, by the profiler that measures them.
FIGURE_COSTS = {"params": "params", "macs": "macs", "latency": "latency"}


def collect(run: RunFolder) -> bool:
    """Settle what several processes left, then show and draw what there is.

    A section that failed in one piece of a sweep, and was made of an equal model in another, is
    taken over from there; equal weights are stored once.

    Returns:
        Whether something failed, or is not there yet.

    Raises:
        InputError: someone is writing into the run, or it cannot be written.
    """
    info = run.run_info()
    with alone(run):
        records = {record.point.key: record for record in run.records()}
        _copy_twins(run, records)
        _share_weights(run, records)
    report(run.path, info.get("tasks", ()), info.get("profilers", ()))
    if missing := len(look(run).missing):
        print(f"\n{missing} sections are not there yet: the same `bench sweep` makes them")
    return bool(tell_failures(records)) or missing > 0


def _copy_twins(run: RunFolder, records: Mapping[str, Record]) -> None:
    sections = [(key, s) for key, record in records.items() for s in record.sections.values()]
    made = {s.fingerprint: (key, s) for key, s in sections
            if s.status == "done" and s.name != "compress"}  # fmt: skip
    for key, section in sections:
        if section.status == "failed" and section.fingerprint in made:
            copied = copy_of(*made[section.fingerprint])
            run.write_section(key, copied)
            records[key].sections[section.name] = copied


def _share_weights(run: RunFolder, records: Mapping[str, Record]) -> None:
    models: dict[str, str] = {}
    for key, record in records.items():
        made = record.sections.get("compress")
        if made and made.status == "done":
            share_weights(run, key, models.setdefault(made.details["weights"], key))


def report(folder: Path, tasks: Sequence[str], profilers: Sequence[str], draw: bool = True) -> None:
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
    print(f"figure       {_figure(folder, tasks, profilers, draw)}")


def _figure(folder: Path, tasks: Sequence[str], profilers: Sequence[str], draw: bool) -> str:
    """The files of the Pareto figure, or why there is none."""
    stem = folder / "pareto"
    costs = [cost for name, cost in FIGURE_COSTS.items() if name in profilers]
    if not tasks or not costs:
        lacking = "task was scored" if not tasks else "cost was measured"
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
    drawn = "\n".join(f"             {path}" for path in _draw_tasks(tasks, folder, costs))
    return f"of each task, because none in superb_s has a margin over FBANK\n{drawn}"


def _draw_tasks(tasks: Sequence[str], folder: Path, costs: list[str]) -> list[Path]:
    """A figure of each task by itself, for runs without a superb_s."""
    drawn: list[Path] = []
    for task in tasks:
        with suppress(InputError):  # that task came to nothing; the table says why
            drawing = reports.figure("pareto", x=costs, y=task)
            drawn += reports.draw(drawing, [folder], folder / f"pareto-{task}")
    return drawn


def tell_failures(records: Mapping[str, Record]) -> dict[str, list[Section]]:
    """Name the points that failed, with what was in the way."""
    failed = {
        key: sections
        for key, record in records.items()
        if (sections := [s for s in record.sections.values() if s.status == "failed"])
    }
    if failed:
        print(f"\n{len(failed)} of {len(records)} points failed; try them again with "
              "--retry-failed")  # fmt: skip
    for key, sections in failed.items():
        print(f"  {records[key].point}: {sections[0].name}: {sections[0].reason}")
    return failed
