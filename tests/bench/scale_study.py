"""Plans a study of 100,000 points over 1,000 GPUs: the numbers of docs/scale.md.

    python tests/bench/scale_study.py measure RUN   # what a finished run took, into results/scale
    python tests/bench/scale_study.py               # simulate: tables, figure, the guide's tables
    python tests/bench/scale_study.py tables        # the same from the simulations that are there
    python tests/bench/scale_study.py --check       # is the guide what the tables say?

What was measured is results/scale/{sections,storage}.csv, of a sweep of all methods over nine rates
on the built-in model and one core. What is assumed is ASSUMED, PAPER and the clusters below.
"""

from __future__ import annotations

import csv
import math
import random
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any

from simulated_cluster import Cluster, Outcome, Piece, Simulation

from results.store import RunFolder

ROOT = Path(__file__).parents[2]
FOLDER, GUIDE = ROOT / "results" / "scale", ROOT / "docs" / "scale.md"
HOUR, DAY = 3600.0, 86400.0
Row = dict[str, Any]

#: What nobody measured here: value, unit, and where it is from.
ASSUMED: dict[str, tuple[float, str, str]] = {
    "models": (29, "", "encoders, or option variants of one; each a run folder of its own"),
    "seeds": (25, "", "of each; a seed is 15 methods at 9 rates and three references"),
    "gpus": (1000, "", "8 of a node"),
    "macs": (7.44474e9, "products per second of audio", "HuBERT Base: results/hubert-base-costs"),
    "parameters": (94.4e6, "", "HuBERT Base"),
    "rate": (40e12, "products per second of a GPU", "8 % of an H100's dense bf16 peak of 495 T"),
    "audio": (700, "hours that the tasks of a point read", "SUPERB's ten corpora, once each"),
    "heads": (3, "encodings", "what training the heads takes beside encoding once"),
    "left": (0.7, "of the dense model's products", "mean over rates 0.1 to 0.9"),
    "timing": (10, "s per timed model", "load two models, warm up, time them in turns"),
    "spread": (0.1, "of log seconds", "GPUs and file systems are not equal"),
    "write": (1e9, "bytes per second of one writer", "a shared file system"),
    "failures": (6.5, "per 1000 node-days", "Kokolis et al., cluster RSC-1"),
    "repair": (24, "hours", "until a failed node is back"),
    "restart": (5, "minutes", "until a lost piece is known, started again and loaded"),
    "limit": (24, "hours that a job may take", "--time 1-00; what lasts longer goes on"),
    "starts": (500, "jobs per second", "SLURM's guide to high throughput"),
    "held": (10_000, "jobs", "SLURM's default MaxJobCount; each array task counts"),
    "array": (1001, "tasks", "SLURM's default MaxArraySize"),
    "price": (2.5, "$ per GPU-hour", "lists of H100s on demand, early 2026: 2 to 4 $"),
}


@dataclass(frozen=True)
class Training:
    """What a method's track trains: so many trainings of so many updates on `batch` s of audio."""

    trainings: int
    steps: int
    batch: float

    @property
    def audio(self) -> float:
        return self.trainings * self.steps * self.batch


#: As the measured sweep trained, nine rates of a track; what is missing trained nothing.
QUICK = {
    "continue-training": Training(9, 40, 24), "distillation": Training(9, 200, 8),
    "early-exit": Training(1, 200, 24), "lottery-ticket": Training(9, 12, 24),
    "ofa-sequence": Training(1, 350, 24), "small-model": Training(9, 300, 4),
    "structured-l0": Training(1, 400, 24), "subsampling": Training(9, 40, 24),
}  # fmt: skip

#: As `--preset paper` trains nine rates; the control and the ticket, which have no preset of their
#: own, as long as the cuts that they are set against.
PAPER = {
    "weight-pruning": Training(38, 25_000, 48), "head-pruning": Training(11, 25_000, 48),
    "row-pruning": Training(20, 25_000, 48), "low-rank": Training(9, 25_000, 24),
    "distillation": Training(9, 650_000, 480), "small-model": Training(9, 650_000, 480),
    "structured-l0": Training(9, 200_000, 24), "ofa-sequence": Training(1, 200_000, 360),
    "subsampling": Training(9, 200_000, 360), "early-exit": Training(1, 200_000, 374.4),
    "continue-training": Training(9, 25_000, 48), "lottery-ticket": Training(9, 25_000, 48),
}  # fmt: skip

#: Nodes that fail per 1000 node-days, by where that was seen.
FAILURES = {
    "none": 0.0,
    "Kokolis et al., cluster RSC-2": 2.34,
    "Llama 3: 419 interruptions in 54 days of 2,048 nodes": 1000 * 419 / 54 / 2048,
    "Kokolis et al., cluster RSC-1": 6.5,
    "Kokolis et al., jobs of 1,024 GPUs, every 7.9 h": 1000 * 24 / 7.9 / 128,
    "each node taken for a day, daily": 1000.0,
}

RATES, REFERENCES, TASKS = 9, 3, 10
SECTIONS = 1 + 3 + TASKS  # of a point: compress, params, macs, latency, tasks
STATES = 3 * 4  # bytes per parameter that is trained: itself and two moments
UPDATES, APART = 500, 100  # between checkpoints: updates, and times what the last took to write
TAKEN = FAILURES["each node taken for a day, daily"]

GPUS = (256, 1000, 2000, 4000, 8000)

LONG = ("distillation", "small-model", "subsampling")

#: Methods whose rates are trained each for itself; the others go from rate to rate.
APART_RATES = {"distillation", "small-model", "structured-l0", "subsampling", "low-rank",
               "lottery-ticket"}  # fmt: skip

_PLAN = {
    "days": "days", "efficiency": "useful share", "useful": "useful GPU-h",
    "saving": "checkpoints", "starting": "starting", "lost": "lost", "reserved": "beside timings",
    "failures": "node failures", "requeues": "requeues", "dollars": "$",
}  # fmt: skip

CUTS = {"GPUs": "as planned", "GPUs, rates apart, longest first": "rates apart, longest first"}

#: By its name in the guide: the file, columns with what they are called, and which rows.
TABLES: dict[str, tuple[str, Mapping[str, str], tuple[str, ...] | None]] = {
    "assumed": ("assumed", {"name": "", "value": "value", "unit": "unit", "from": "from"}, None),
    "tracks": ("tracks", {
        "method": "method", "trainings": "trainings", "updates": "updates of each",
        "batch_s": "audio of each, s", "passes": "passes, measured", "train_h": "training, h",
        "score_h": "scoring, h", "500_updates_s": "500 updates, s",
        "young_s": "Young's interval, s"}, None),
    "plan": ("outcomes", _PLAN, ("as planned",)),
    "gpus": ("outcomes", {"varied": "cut", "value": "GPUs"} | _PLAN, tuple(CUTS)),
    "order": ("outcomes", {"value": "queue"} | _PLAN, ("as planned", "order")),
    "limits": ("outcomes", {"value": "a job may take"} | _PLAN, ("limit",)),
    "failures": ("outcomes", {"value": "failures per 1000 node-days as in"} | _PLAN, ("failures",)),
    "intervals": ("outcomes", {"value": "seconds between checkpoints"} | _PLAN, ("interval",)),
    "taken": ("outcomes", {"value": "seconds between checkpoints"} | _PLAN,
              ("interval, nodes taken daily",)),
    "bounds": ("bounds", {"what": "what", "how": "how", "helps": "what helps"}, None),
    "storage": ("storage_plan", {"what": "what", "files": "files", "per_point": "MB per point",
                                 "total_tb": "TB"}, None),
    "load": ("load", {"what": "what", "value": "value", "limit": "limit"}, None),
}  # fmt: skip


def assumed(name: str) -> float:
    return ASSUMED[name][0]


# What was measured -------------------------------------------------------------------------------


def measure(path: str) -> None:
    """Keep of a finished run what each section took, and the files that it left."""
    run, rows = RunFolder.existing(path), []
    for record in run.records():
        point = record.point
        rows += [
            {"method": point.method, "rate": point.rate, "section": s.name, "seconds": s.seconds}
            for s in record.sections.values()
            if s.status == "done" and s.seconds  # copies of equal models took none
        ]
    write("sections", rows)
    kinds = {"points": run.path / "points", "models": run.path / "models"}
    write("storage", [stored(kind, folder) for kind, folder in kinds.items()])


def stored(kind: str, folder: Path) -> Row:
    """Files of that folder, what they hold, and what they take where links are followed once."""
    found = [path.stat() for path in folder.rglob("*") if path.is_file()]
    once = {stat.st_ino: stat for stat in found}.values()
    return {
        "kind": kind, "of": len(list(folder.iterdir())), "files": len(found),
        "bytes": sum(stat.st_size for stat in found),
        "linked_bytes": sum(stat.st_size for stat in once),
        "linked_blocks_bytes": sum(-(-stat.st_size // 4096) * 4096 for stat in once),
    }  # fmt: skip


@cache
def sections() -> list[Row]:
    return read("sections")


def builtin(column: str) -> float:
    """Of the dense built-in model in results/default."""
    with (ROOT / "results" / "default" / "leaderboard.csv").open(newline="") as file:
        return next(float(row[column]) for row in csv.DictReader(file) if row["method"] == "dense")


def passes(method: str) -> float:
    """What training on audio costs, in encodings of it by the dense model: the measured ratio."""
    like = method if method in QUICK else "continue-training"
    trained = sum(r["seconds"] for r in sections()
                  if r["section"] == "compress" and r["method"] == like)  # fmt: skip
    return trained / QUICK[like].audio / builtin("rtf")


#: How far checkpoints are apart, by method.
INTERVALS: dict[str, Callable[[str], float]] = {
    "500 updates, however fast": lambda method: often(method),
    "500 updates, 100 times what one takes": lambda method: interval(method),
    "60": lambda _: 60.0, "600": lambda _: 600.0, "1800": lambda _: 1800.0,
    "7200": lambda _: 7200.0, "36000": lambda _: 36_000.0,
}  # fmt: skip


# What follows for base-size models ---------------------------------------------------------------


def encoding() -> float:
    """Seconds of a GPU per second of audio."""
    return assumed("macs") / assumed("rate")


def training(method: str) -> float:
    """Seconds that a track trains on one GPU."""
    work = PAPER.get(method)
    return work.audio * passes(method) * encoding() if work else 0.0


def lasts(method: str) -> float:
    """Seconds that a track is expected to take; a reference is one point."""
    return training(method) + (RATES if method else 1) * measuring()


def interval(method: str) -> float:
    """Seconds between its checkpoints."""
    return max(APART * checkpoint() / assumed("write"), often(method))


def often(method: str) -> float:
    """Seconds between checkpoints that are a number of updates apart, whatever those take."""
    return UPDATES * PAPER[method].batch * passes(method) * encoding()


def measuring() -> float:
    """Seconds to score one compressed model by all tasks."""
    audio = assumed("audio") * HOUR * encoding()
    return audio * (assumed("left") + assumed("heads"))


def spread() -> list[float]:
    """How long scoring one point took over the mean, of all measured points."""
    totals: dict[tuple[str, float], float] = defaultdict(float)
    for row in sections():
        if row["section"].startswith("task.") and row["rate"]:
            totals[row["method"], row["rate"]] += row["seconds"]
    return [total / mean(totals.values()) for total in totals.values()]


def methods() -> list[str]:
    return sorted({row["method"] for row in sections() if row["rate"]})


def study(
    apart: Callable[[str], float] = interval,
    split: bool = False,
    only: Sequence[str] = (),
    listed: bool = False,
) -> list[list[Piece]]:
    """The pieces of each run in the order of its array: a track each, then the timings of all.

    apart: seconds between the checkpoints of a method. split: rates that are trained apart become
    pieces apart. only: methods, "" for a reference; by default all. listed: in the order of their
    names; else, as sweeps submit them, by how long they take.
    """
    draw, ratios = random.Random(0), spread()
    tracks = list(only) or [*REFERENCES * [""], *methods()]

    def piece(run: int, method: str) -> Piece:
        speed = draw.lognormvariate(0, assumed("spread"))
        points = RATES // cuts(method) if method else 1
        scored = sum(measuring() * draw.choice(ratios) for _ in range(points)) * speed
        return Piece(
            run, training(method) * speed / cuts(method), scored, scored / points / SECTIONS,
            apart(method) * speed if method in PAPER else math.inf,
        )  # fmt: skip

    def cuts(method: str) -> int:
        return RATES if split and method in APART_RATES else 1

    seeds, timing = range(int(assumed("seeds"))), assumed("timing")
    timed = len(seeds) * sum(RATES if method else 1 for method in tracks) * timing
    arrays = [
        [(m, piece(run, m)) for m in tracks for _ in seeds for _ in range(cuts(m))]
        for run in range(int(assumed("models")))
    ]
    for array in arrays if not listed else ():
        array.sort(key=lambda track: lasts(track[0]) / cuts(track[0]), reverse=True)
    return [
        [*(piece for _, piece in array), Piece(run, 0.0, timed, timing, alone=True)]
        for run, array in enumerate(arrays)
    ]


def long_ones_first() -> list[list[Piece]]:
    """Of each model the longest tracks in a run of their own; all of those are submitted first."""
    others = [m for m in [*REFERENCES * [""], *methods()] if m not in LONG]
    later = study(only=others)
    for piece in (piece for run in later for piece in run):
        piece.run += len(later)
    return [*study(only=LONG), *later]


def per_seed() -> int:
    """Points."""
    return RATES * len(methods()) + REFERENCES


def points() -> int:
    return int(assumed("models") * assumed("seeds")) * per_seed()


def cluster(gpus: int = int(assumed("gpus")), failures: float = assumed("failures")) -> Cluster:
    return Cluster(
        gpus // 8, 8, 1000 * DAY / failures if failures else math.inf,
        assumed("repair") * HOUR, assumed("restart") * 60, checkpoint() / assumed("write"),
        assumed("starts"), assumed("held"), assumed("limit") * HOUR,
    )  # fmt: skip


def checkpoint() -> float:
    """Bytes of one."""
    return assumed("parameters") * STATES


def told(name: str, value: Any, outcome: Outcome, gpus: int = int(assumed("gpus"))) -> Row:
    """One line of the tables, in days, hours of GPUs and money."""
    paid = outcome.makespan * gpus / HOUR
    hours = {
        column: round(getattr(outcome, column) / HOUR)
        for column in ("useful", "saving", "starting", "lost", "reserved")
    }
    return {
        "varied": name, "value": value, "days": round(outcome.makespan / DAY, 1),
        "timed_after_days": round((outcome.makespan - outcome.trained_until) / DAY, 2), **hours,
        "efficiency": round(outcome.useful / HOUR / paid, 3), "failures": outcome.failures,
        "requeues": outcome.requeues, "most_held": outcome.most_held,
        "dollars": round(paid * assumed("price")),
    }  # fmt: skip


def base() -> Outcome:
    return Simulation(cluster(), study()).go()


def outcomes() -> Iterator[Row]:
    """What comes of the plan, and of each change to it."""
    yield told("as planned", "", base())
    for gpus in GPUS:
        yield told("GPUs", gpus, Simulation(cluster(gpus), study()).go(), gpus)
    for gpus in GPUS:
        best = replace(cluster(gpus), held=math.inf, longest_first=True)
        yield told(
            "GPUs, rates apart, longest first", gpus, Simulation(best, study(split=True)).go(), gpus
        )
    wide = replace(cluster(), held=math.inf)
    yield told("order", "all jobs held at once", Simulation(wide, study()).go())
    yield told("order", "by the methods' names", Simulation(cluster(), study(listed=True)).go())
    for name, listed in (("by the methods' names", True), ("longest first", False)):
        alone = Simulation(cluster(FEW), study(listed=listed)[:1]).go()
        yield told("order", f"one run alone on {FEW} GPUs, {name}", alone, FEW)
    yield told("order", FIRST,
               Simulation(cluster(), long_ones_first()).go())  # fmt: skip
    best = replace(wide, longest_first=True)
    yield told("order", "longest first, by priority", Simulation(best, study()).go())
    yield told("order", "rates apart, longest first", Simulation(best, study(split=True)).go())
    for hours in (4, 24, 96):
        limited = replace(cluster(), limit=hours * HOUR)
        yield told("limit", f"{hours} hours", Simulation(limited, study()).go())
    for where, failures in FAILURES.items():
        yield told("failures", where, Simulation(cluster(failures=failures), study()).go())
    for name, apart in INTERVALS.items():
        for failures, where in ((assumed("failures"), ""), (TAKEN, ", nodes taken daily")):
            outcome = Simulation(cluster(failures=failures), study(apart)).go()
            yield told(f"interval{where}", name, outcome)


def storage() -> Iterator[Row]:
    """What the study leaves on disk, and what lies there meanwhile."""
    measured = {row["kind"]: row for row in read("storage")}
    files, models = SECTIONS + 1, measured["models"]
    record = measured["points"]["bytes"] / measured["points"]["files"]
    share = models["linked_bytes"] / models["of"] / builtin("bytes_stored")
    weights = assumed("parameters") * 4
    yield kept("records", files, files * record)
    yield kept("records, as blocks of 4 KiB", files, files * 4096)
    yield kept("models, equal weights once", models["files"] / models["of"], share * weights)
    gpus, shares = assumed("gpus"), {m: training(m) for m in PAPER}
    stages = sum(t * PAPER[m].trainings / 2 for m, t in shares.items()) / sum(shares.values())
    yield {"what": "checkpoints of what trains", "files": round(gpus), "per_point": "",
           "total_tb": round(gpus * checkpoint() / 1e12, 2)}  # fmt: skip
    yield {"what": "trainings of a track that are done, until it is", "files": round(gpus * stages),
           "per_point": "", "total_tb": round(gpus * stages * weights / 1e12, 2)}  # fmt: skip
    frames = 13 * 768 * 50 * 2  # bytes of a second's hidden states in float16
    yield {"what": "hidden states of one point's audio, float16", "files": "",
           "per_point": megabytes(assumed("audio") * HOUR * frames), "total_tb": ""}  # fmt: skip


def kept(what: str, files: float, size: float) -> Row:
    return {
        "what": what, "files": round(files * points()), "per_point": megabytes(size),
        "total_tb": round(size * points() / 1e12, 3),
    }  # fmt: skip


def megabytes(size: float) -> float:
    return float(f"{size / 1e6:.3g}")


def load() -> Iterator[Row]:
    """What the scheduler and the file system are asked."""
    (plan,) = (row for row in read("outcomes") if row["varied"] == "as planned")
    seconds, runs = plan["days"] * DAY, int(assumed("models"))
    tracks = int(assumed("seeds")) * (len(methods()) + REFERENCES)
    beats = points() * SECTIONS * 2 / seconds + assumed("gpus") / 60
    gpus, written = assumed("gpus"), sum(training(m) / interval(m) for m in PAPER)
    share = sum(map(training, PAPER)) * assumed("models") * assumed("seeds") / seconds / gpus
    apart = sum(map(training, PAPER)) / written
    yield asked("array tasks of a run, one for each track", tracks, f"{assumed('array'):.0f}")
    yield asked("submissions: an array and a timing job for each run", 2 * runs, "")
    yield asked("jobs in all", (tracks + 1) * runs, "")
    yield asked("most jobs at once", plan["most_held"], f"{assumed('held'):.0f}")
    yield asked("jobs started per day", round((tracks * runs + plan["requeues"]) / plan["days"]),
                f"{assumed('starts') * DAY:.0f}")  # fmt: skip
    yield asked("arrays if all were one run", math.ceil(tracks * runs / assumed("array")), "")
    yield asked("sections written per second", round(points() * SECTIONS / seconds, 2), "")
    yield asked("status files written per second, without fsync", round(beats, 1), "")
    yield asked("seconds between checkpoints, mean of what trains", round(apart), "")
    yield asked("GB of checkpoints per second", round(share * gpus * checkpoint() / apart / 1e9, 2),
                "")  # fmt: skip
    yield asked("GB read as all GPUs load the dense model", round(gpus * assumed("parameters") * 4
                / 1e9), "")  # fmt: skip


def bounds() -> Iterator[Row]:
    """What stands in the way, in the order of what it costs, and what helps."""
    rows = {(row["varied"], row["value"]): row for row in read("outcomes")}
    plan = rows["as planned", ""]
    held, first = rows["order", "all jobs held at once"], rows["order", FIRST]
    best = rows["order", "longest first, by priority"]
    wide, apart = (rows[cut, 4000] for cut in CUTS)
    often_, daily = rows["interval", "500 updates, however fast"], "interval, nodes taken daily"
    rare, taken = rows[daily, 36_000], rows["failures", "each node taken for a day, daily"]
    longest = max(training(method) + RATES * measuring() for method in methods()) / HOUR
    ideal = plan["useful"] / assumed("gpus") / 24
    apart_hours, starting = plan["saving"], plan["starting"] + plan["lost"]
    rows_of = {
        "work": (f"{plan['useful']:,} GPU-h: {ideal:.1f} days if nothing were in the way", ""),
        "the longest track": (
            f"{longest:.0f} h on one GPU, however many there are",
            "methods that train each rate for itself, a rate in each run, long ones first: "
            f"{apart['days']} days on 4,000 GPUs instead of {wide['days']}",
        ),
        "the order of the queue": (
            f"long tracks of the last runs begin late: {plan['days']} days, though each run's are "
            "submitted longest first",
            f"their methods in runs of their own, submitted first: {first['days']} days; "
            f"the longest first by priority: {best['days']}",
        ),
        "MaxJobCount": (
            f"holds {plan['most_held']:,} jobs, so the last runs are submitted later",
            f"a higher one, in itself: {held['days']} days",
        ),
        "checkpoints": (
            f"one every 500 updates, however fast: {often_['saving']:,} GPU-h of writing",
            f"one after 100 times what the last took, as sweeps do: {apart_hours:,} GPU-h",
        ),
        "timings": (
            f"{plan['reserved']:,} GPU-h of GPUs that stand beside, and "
            f"{plan['timed_after_days']} days at the end",
            "nothing: a node is timed on alone",
        ),
        "nodes that fail": (
            f"{plan['failures']} of them, {plan['requeues']:,} requeues with those at the time "
            f"limit: {starting:,} GPU-h",
            "nothing is needed",
        ),
        "nodes that are taken away daily": (
            f"{taken['days']} days, {taken['starting'] + taken['lost']:,} GPU-h",
            f"checkpoints: with one every 10 h it were {rare['days']} days",
        ),
    }
    yield from (
        {"what": what, "how": how, "helps": helps} for what, (how, helps) in rows_of.items()
    )


#: On which the order of a single run's tracks matters.
FEW = 64

FIRST = "long methods in runs of their own, first"


def asked(what: str, value: float, limit: str) -> Row:
    return {"what": what, "value": value, "limit": limit}


def tracks() -> Iterator[Row]:
    """What a track of nine rates costs on one GPU."""
    for method in sorted(methods(), key=training, reverse=True):
        work = PAPER.get(method)
        young = math.sqrt(2 * checkpoint() / assumed("write") * 1000 * DAY / assumed("failures"))
        yield {
            "method": method, "trainings": work.trainings if work else 0,
            "updates": work.steps if work else 0, "batch_s": work.batch if work else 0,
            "passes": round(passes(method), 2) if work else "",
            "train_h": round(training(method) / HOUR, 1),
            "score_h": round(RATES * measuring() / HOUR, 1),
            "500_updates_s": round(often(method)) if work else "",
            "young_s": round(young) if work else "",
        }  # fmt: skip


def assumptions() -> Iterator[Row]:
    for name, (value, unit, where) in ASSUMED.items():
        yield {"name": name, "value": f"{value:g}", "unit": unit, "from": where}


#: What is computed, in this order.
FILES: dict[str, Callable[[], Iterator[Row]]] = {
    "assumed": assumptions, "tracks": tracks, "storage_plan": storage, "outcomes": outcomes,
    "load": load, "bounds": bounds,
}  # fmt: skip


# Files -------------------------------------------------------------------------------------------


def write(name: str, rows: Iterable[Row]) -> None:
    """Line by line, as simulations take their time."""
    with (FOLDER / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
        writer: csv.DictWriter[str] | None = None
        for row in rows:
            if writer is None:
                writer = csv.DictWriter(file, list(row), lineterminator="\n")
                writer.writeheader()
            writer.writerow(row)
            file.flush()


def read(name: str) -> list[Row]:
    with (FOLDER / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return [{key: number(text) for key, text in row.items()} for row in csv.DictReader(file)]


def number(text: str) -> Any:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def guide(text: str) -> str:
    """The guide with its tables as the files have them."""
    for name, (source, columns, varied) in TABLES.items():
        rows = [r for r in read(source) if varied is None or r["varied"] in varied]
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        pattern = re.compile(f"{begin}.*?{end}", re.DOTALL)
        assert pattern.search(text), f"the guide has no place for {name}"
        made = f"{begin}\n{table(rows, columns)}\n{end}"
        text = pattern.sub(made.replace("\\", r"\\"), text)
    return text


def table(rows: list[Row], columns: Mapping[str, str]) -> str:
    lines = [columns.values(), ["---"] * len(columns)]
    lines += [[shown(row[column]) for column in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def shown(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def draw() -> None:
    """Efficiency over GPUs; what is wasted over the interval of checkpoints."""
    import matplotlib.pyplot as plt

    from reports._looks import STYLE

    rows = read("outcomes")
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(6.8, 2.6), layout="constrained")
        for name, label in CUTS.items():
            own = [row for row in rows if row["varied"] == name]
            left.plot([r["value"] for r in own], [r["efficiency"] for r in own], "o-", ms=3,
                      label=label)  # fmt: skip
        left.set(xscale="log", xlabel="GPUs", ylabel="useful share of GPU-hours", ylim=(0, 1))
        for name, label in (("interval", "6.5 failures per 1000 node-days"),
                            ("interval, nodes taken daily", "each node taken daily")):  # fmt: skip
            own = [r for r in rows if r["varied"] == name and isinstance(r["value"], int)]
            waste = [(r["saving"] + r["lost"] + r["starting"]) / r["useful"] for r in own]
            right.plot([r["value"] for r in own], waste, "o-", ms=3, label=label)
        right.set(xscale="log", yscale="log", xlabel="seconds between checkpoints",
                  ylabel="wasted over useful")  # fmt: skip
        left.set_xticks(GPUS, [f"{gpus:,}" for gpus in GPUS])
        left.minorticks_off()
        left.legend()
        right.legend()
        figure.savefig(FOLDER / "scale.png", dpi=200)


def main(arguments: list[str]) -> int:
    match arguments:
        case ["measure", run]:
            measure(run)
        case ["--check"]:
            text = GUIDE.read_text(encoding="utf-8")
            if guide(text) != text:
                print(f"{GUIDE} is not what results/scale says: run scale_study.py")
                return 1
        case [] | ["tables"]:
            for name, rows in FILES.items():
                if not arguments or name != "outcomes":
                    write(name, rows())
            draw()
            GUIDE.write_text(guide(GUIDE.read_text(encoding="utf-8")), encoding="utf-8")
        case _:
            print(__doc__)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
