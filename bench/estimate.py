"""How long a plan will take and how much disk, by what like sections took and like models weigh."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from statistics import fmean

from bench.plan import Plan, exclusive
from bench.progress import in_words
from core.errors import InputError
from core.method import Method
from core.point import REFERENCES
from encoders import store
from results.store import RunFolder

#: (what, method): numbers of one method, or of all where the method is empty.
Measured = dict[tuple[str, str], list[float]]

_DISK = "bytes"

#: How a reference is made says nothing of how methods make models, nor how large they are.
_MADE = ("compress", _DISK)


def estimate(plan: Plan, workers: int) -> str:
    """One sentence: the time and the disk that the plan still takes, and by what that is told.

    It is told by what was measured in the run itself, or else in runs of the same model beside it.
    Empty where nothing is left to do.
    """
    if not plan.todo():
        return ""
    for place, runs in _places(plan):
        if known := _measured(runs):
            return f"{_told(plan, known, workers)}, by {place}"
    return "nothing like it was measured yet, so hours and disk are not known"


def lengths(plan: Plan) -> Callable[[str, str], float]:
    """How long a section (method, name) takes, for the sake of order: in seconds if any was made.

    A model of a method of which none was made takes as long as the audio that it trains on, at the
    pace of those that were.
    """
    known = next((found for _, runs in _places(plan) if (found := _measured(runs))), {})
    trained = [(fmean(took), heard) for (name, method), took in known.items()
               if name == "compress" and method and (heard := _heard(method))]  # fmt: skip
    pace = sum(took for took, _ in trained) / sum(heard for _, heard in trained) if trained else 1.0

    def length(method: str, name: str) -> float:
        if took := known.get((name, method)):
            return fmean(took)
        if name == "compress":
            return _heard(method) * pace
        return fmean(known.get((name, ""), [0.0]))

    return cache(length)


def _heard(method: str) -> float:
    """Seconds of audio that models of that method train on; 0 where it is not there any more."""
    try:
        return sum(step.heard for step in Method.parse(method).steps)
    except InputError:
        return 0.0


def _places(plan: Plan) -> Iterator[tuple[str, list[RunFolder]]]:
    """Where to look, in the order of trust."""
    yield f"what is in {plan.run.path}", [plan.run]
    folders = (RunFolder(path) for path in sorted(plan.run.path.parent.glob("*/")))
    yield f"the runs beside {plan.run.path}", [run for run in folders if _alike(plan, run)]


def _alike(plan: Plan, run: RunFolder) -> bool:
    """Whether that is a run of the same model under the same conditions."""
    info = run.run_info() if (run.path / "run.json").is_file() else {}
    return (info.get("model"), info.get("runtime")) == (
        plan.request.model, str(plan.request.runtime),
    )  # fmt: skip


def _measured(runs: Iterable[RunFolder]) -> Measured:
    """Seconds of sections by name, bytes of models. A twin's copy took none, a link takes none."""
    found: Measured = defaultdict(list)
    seen: set[int] = set()
    for run in runs:
        for record in run.records():
            own = {s.name: s.seconds for s in record.sections.values() if s.status == "done"}
            size = _size(run.model_folder(record.point.key), seen)
            own |= {} if size is None else {_DISK: size}
            for name, value in own.items():
                found[name, record.point.method].append(value)
                if name not in _MADE or record.point.method not in REFERENCES:
                    found[name, ""].append(value)
    return found


def _size(model: Path, seen: set[int]) -> float | None:
    """The bytes of a model's weights, 0 where they are a link to others, None where it is gone."""
    try:
        file = (model / store.WEIGHTS).stat()
    except OSError:
        return None
    new = file.st_ino not in seen
    seen.add(file.st_ino)
    return float(file.st_size if new else 0)


def _told(plan: Plan, known: Measured, workers: int) -> str:
    shared = alone = disk = 0.0
    unknown = set()
    for key, name in plan.todo():
        method = plan.records[key].point.method
        took = known.get((name, method)) or known.get((name, ""))
        weighs = known.get((_DISK, method)) or known.get((_DISK, ""))
        if took is None:
            unknown.add(name)
        elif exclusive(name):
            alone += fmean(took)
        else:
            processes = plan.request.together(method) if name == "compress" else 1
            shared += fmean(took) * processes
        if name == "compress" and weighs:
            disk += fmean(weighs)
    room = f"{disk / 1e9:.3g} GB" if disk >= 1e9 else f"{disk / 1e6:.3g} MB"
    words = f"about {in_words(shared / workers + alone)} and {room} still to go"
    without = f" without {', '.join(sorted(unknown))}, as none was made yet" if unknown else ""
    return words + without
