"""`bench select`, `bench analyse` and `bench compare`: what they print, from records alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Group
from rich.table import Table
from rich.text import Text

from core.errors import InputError
from core.point import DENSE
from results.comparison import Change
from results.comparison import compare as hold
from results.selection import Candidate, candidates, open_run, read_limits, shown

#: Columns that every choice shows where they were measured, with their units.
SHOWN = {"superb_s": "", "params_total": "", "macs_superb32": "MAC", "latency_s_paired": "s"}

#: Misses, and changes of a kind, that are listed.
NEAREST, LISTED = 3, 20


def select(
    run: Path, wanted: Mapping[str, str | None], conditions: Sequence[str], best: int
) -> tuple[Group, bool]:
    """What to print, and whether a model keeps within all limits.

    Raises:
        InputError: the folder holds no run, or a limit cannot be read.
    """
    frame = open_run(run)
    limits = read_limits(frame, wanted, conditions)
    ranked = candidates(run, limits, frame)
    fitting = [candidate for candidate in ranked if candidate.fits]
    if fitting:
        return Group(_table(fitting[:best], [limit.column for limit in limits])), True
    lines = [Text(f"none of {len(ranked)} models keeps within all limits; the nearest are:")]
    for candidate in ranked[:NEAREST]:
        lines.append(Text(f"\n{_name(candidate)}", "bold"))
        missed = [limit for limit, miss in candidate.misses.items() if miss]
        lines += [Text(f"  {limit.told(candidate.values[limit.column])}") for limit in missed]
        lines.append(Text(f"  {candidate.folder}", "dim"))
    return Group(*lines), False


def _table(found: Sequence[Candidate], asked: Sequence[str]) -> Table:
    columns = [c for c in dict.fromkeys([*SHOWN, *asked]) if c in found[0].values]
    table = Table("model", *columns, "encoder", box=None, pad_edge=False)
    for column in table.columns[1:-1]:
        column.justify = "right"
    table.columns[-1].overflow = "fold"
    for candidate in found:
        numbers = [shown(candidate.values[c], SHOWN.get(c, "")) for c in columns]
        table.add_row(_name(candidate), *numbers, str(candidate.folder))
    return table


def _name(candidate: Candidate) -> str:
    seeds = f", {candidate.seeds} seeds" if candidate.seeds > 1 else ""
    rate = f" at {candidate.rate:g}" if candidate.rate else ""
    return f"{candidate.method}{rate}{seeds}"


def compare(before: Path, after: Path, fail_on: str | None) -> tuple[Group, bool]:
    """What to print, and whether the second run is worse by more than is allowed.

    Raises:
        InputError: a folder holds no run, they share no point, or the share cannot be read.
    """
    tolerance = None if fail_on is None else read_share(fail_on)
    found = hold(before, after)
    if not found.seeds:
        raise InputError(f"{before} and {after} have no point in common; compare runs of one model")
    lines: list[Text] = []
    for title, changes in (
        ("gone", found.of("lost")), ("worse", found.of("worse")), ("better", found.of("better")),
    ):  # fmt: skip
        lines += _listed(title, changes)
    noise = len(found.of("noise"))
    lines.append(Text(f"{found.same} numbers as before, {noise} different within noise"))
    lines += [Text(remark, "yellow") for remark in found.remarks]
    if found.seeds == 1:
        lines.append(Text("one seed: how much another would differ is not known", "dim"))
    if tolerance is None:
        return Group(*lines), False
    bad = found.regressions(tolerance)
    verdict = f"{len(bad)} regressions beyond {tolerance:.3g}" if bad else "no regression"
    lines.append(Text(f"{verdict} (limit {tolerance:.1%})", "bold red" if bad else "bold"))
    return Group(*lines), bool(bad)


def analyse(
    runs: Sequence[Path],
    x: str,
    y: str,
    costs: Sequence[str],
    scores: Sequence[str],
    out: Path | None,
) -> str:
    """The methods' curves as text; every point goes to `out`.

    Raises:
        InputError: as `results.analysis.analyse`, or the file cannot be written.
    """
    from results.analysis import analyse as numbers
    from results.store import write_whole

    found = numbers(runs, x, y, costs, scores)
    methods = found.methods
    if methods["run"].nunique() <= 1:
        methods = methods.drop(columns="run")
    if out is not None:
        text = found.points.to_csv(index=False, lineterminator="\n", float_format="%.10g")
        write_whole(out, text.encode())
    front = found.points[found.points["dominated_by"] == ""]
    best = ", ".join(
        dict.fromkeys(
            method if method == DENSE else f"{method} {rate:g}"
            for method, rate in zip(front["method"], front["rate"], strict=True)
        )
    )
    lost = f"\n{found.lost} points without {found.x} or {found.y} left out" if found.lost else ""
    return f"{methods.to_string(index=False)}\n\nnot dominated: {best}{lost}"


def _listed(title: str, changes: Sequence[Change]) -> list[Text]:
    lines = [Text(f"{title}: {len(changes)}", "bold")] if changes else []
    lines += [Text(f"  {change}") for change in changes[:LISTED]]
    if len(changes) > LISTED:
        lines.append(Text(f"  and {len(changes) - LISTED} more", "dim"))
    return lines


def read_share(text: str) -> float:
    """`1%` or `0.01` as 0.01.

    Raises:
        InputError: it is neither, or negative.
    """
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1e6:
        raise InputError(f"--fail-on-regression {text!r}: expected a share such as 1% or 0.01")
    return share
