"""A run as a sweep leaves it, with made-up but plausible numbers."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from random import Random

from core.metric import Metric
from core.point import DENSE, FBANK, RANDOM, Point
from core.record import Section
from results.store import RunFolder
from results.superb import ANCHORS, official_metric

METHODS = (
    "first-layers", "head-pruning", "low-rank", "random-pruning", "row-pruning", "weight-pruning",
)  # fmt: skip
COSTS = (
    ("profile.params", Metric("params_total", "", "lower"), 1.2e6),
    ("profile.macs", Metric("macs_per_second", "MAC/s", "lower"), 6.5e7),
    ("profile.latency", Metric("latency_s_p50", "s", "lower"), 0.021),
)
#: Metric, FBANK, dense and random-encoder values, and whether the task counts.
TASKS = {
    "pr": (Metric("pr_per", "%", "lower"), 61.0, 28.0, 70.0, True),
    "ks": (Metric("ks_acc", "%", "higher"), 52.0, 93.0, 49.0, True),
    "sid": (Metric("sid_acc", "%", "higher"), 30.0, 41.0, 33.0, False),
}
#: How fast each method's score falls as the rate goes up.
FALL = dict(zip(METHODS, (1.0, 2.5, 2.0, 0.6, 3.0, 4.0), strict=True))


def make(
    path: Path,
    *,
    methods: Sequence[str] = METHODS,
    rates: Sequence[float] = tuple(r / 10 for r in range(1, 10)),
    seeds: Sequence[int] = (0,),
    tasks: Sequence[str] = tuple(TASKS),
    device: str = "cpu",
    model: str = "builtin",
    info: dict | None = None,
) -> RunFolder:
    """Write a run: three references, and every method at every rate, for each seed."""
    run = RunFolder(path)
    run.write_run({"model": model, "random_weights": False, **(info or {})})
    for seed in seeds:
        for method in (DENSE, FBANK, RANDOM):
            write(run, Point(model, method, 0.0, seed, "builtin"), tasks, device)
        for method in methods:
            for rate in rates:
                write(run, Point(model, method, rate, seed, "builtin"), tasks, device)
    return run


def write(run: RunFolder, point: Point, tasks: Sequence[str], device: str) -> None:
    run.write_point(point)
    random = Random(str(point))
    size = 1.0 if point.method in (RANDOM, "weight-pruning") else 1 - 0.9 * point.rate
    run.write_section(
        point.key, Section("compress", "done", "f", values={"achieved_rate": point.rate})
    )
    for name, metric, dense in COSTS:
        if point.method == FBANK:
            run.write_section(point.key, Section(name, "unsupported", "f", reason="no encoder"))
            continue
        noise = 1 + random.gauss(0, 0.03) if name == "profile.latency" else 1
        section = Section(
            name, "done", "f", {metric.name: dense * size * noise}, {metric.name: metric},
            environment={"device": device},
        )  # fmt: skip
        run.write_section(point.key, section)
    for task in tasks:
        metric, fbank, dense, random_init, counts = TASKS[task]
        kept = 1 - point.rate ** FALL.get(point.method, 1.0)
        value = {FBANK: fbank, DENSE: dense, RANDOM: random_init}.get(
            point.method, fbank + (dense - fbank) * kept + random.gauss(0, 0.8)
        )
        section = Section(
            f"task.{task}", "done", "f", {metric.name: value}, {metric.name: metric},
            {"in_score": counts},
        )  # fmt: skip
        run.write_section(point.key, section)


def time_in_turns(run: RunFolder, *, limits: bool = True, integer: Sequence[str] = ()) -> None:
    """Give every latency what a sweep adds: a speed-up, the root of the MAC reduction, and a limit.

    limits: False as in runs from before there were any. integer: methods that have none.
    """
    dense = COSTS[1][2]
    for record in run.records():
        section, macs = record.sections["profile.latency"], record.values().get("macs_per_second")
        if macs is None:
            continue
        speedup = (dense / macs) ** 0.5
        section.values["speedup"] = speedup
        section.metrics["speedup"] = Metric("speedup", "x", "higher")
        section.details["speedup_interval95"] = [0.9 * speedup, 1.2 * speedup]
        if record.point.method in integer:
            section.details["unavailable"] = {"limit_share": "integers are not probed"}
        elif limits:
            section.values["limit_share"] = 0.25 * speedup
            section.metrics["limit_share"] = Metric("limit_share", "", "higher")
            section.details["limit"] = {
                "seconds": macs / 4e10, "macs": int(macs), "bytes": 5_000_000,
                "macs_per_s": 4e10, "bytes_per_s": 2e10,
            }  # fmt: skip
        run.write_section(record.point.key, section)


def shape(run: RunFolder, layers: int = 3) -> None:
    """Give every encoder its layers, from 2 heads of 8 and 64 units: row-pruning spares the last,
    first-layers leaves layers out, other methods of the layers take the same from each."""
    for record in run.records():
        rate, section = record.point.rate, record.sections["compress"]
        kept = [1 - rate] * layers
        if record.point.method.startswith("row-pruning"):
            kept[-1] = 1.0
        elif record.point.method == "first-layers":
            kept = [1.0] * max(1, round((1 - rate) * layers))
        elif record.point.method in (DENSE, FBANK, RANDOM, "low-rank"):
            kept = [1.0] * layers
        if record.point.method != FBANK:
            section.details["layers"] = [
                {"heads": 2, "qk": 16, "vo": 16, "ffn": round(64 * share), "kept": [0, 1]}
                for share in kept
            ]
            run.write_section(record.point.key, section)


def lengthen(run: RunFolder, methods: Sequence[str] = ("ofa-sequence", "subsampling")) -> None:
    """Give every count of MACs a frame period: 20 ms, longer by the rate for those methods."""
    for record in run.records():
        section, point = record.sections["profile.macs"], record.point
        if section.status == "done":
            longer = point.rate if point.method in methods else 0.0
            section.details["token_ms"] = 20 / (1 - longer)
            run.write_section(point.key, section)


def log_masks(run: RunFolder, method: str, trainings: Sequence[str] = ("gates",)) -> None:
    """Leave the log of a track that learns masks, one for each seed of the method, and name it."""
    for record in run.records():
        point, section = record.point, record.sections["compress"]
        if point.method != method:
            continue
        log = run.track_folder(f"{point.model}-{point.seed}") / "log.csv"
        log.parent.mkdir(parents=True, exist_ok=True)
        lines = ["training,step,metric,value", "clusters,10,loss,3"]
        for training in trainings:
            for step in (10, 20, 30):
                values = {
                    "loss": 1 / step, "mask_qk": 1 - 0.02 * step + 0.1 * point.seed,
                    "mask_ffn": 1.0, "sparsity": 0.01 * step, "target": 0.015 * step,
                }  # fmt: skip
                lines += [f"{training},{step},{name},{value:g}" for name, value in values.items()]
        log.write_text("\n".join(lines) + "\n")
        section.details["training_logs"] = [str(log.relative_to(run.path))]
        run.write_section(point.key, section)


def look(run: RunFolder, heads: int = 4, layers: int = 2) -> None:
    """Look at the dense model's attention: the higher a head, the nearer to the diagonal. Of every
    layer head-pruning keeps the last heads, one less per quarter of the rate."""
    for record in run.records():
        point, section = record.point, record.sections["compress"]
        if point.method == FBANK:
            continue
        gone = int(heads * point.rate) if point.method.startswith("head-pruning") else 0
        told = section.details.get("layers") or [{"qk": 8, "vo": 8, "ffn": 64}] * layers
        kept = {"heads": heads - gone, "kept": list(range(gone, heads))}
        section.details["layers"] = [{**own, **kept} for own in told]
        run.write_section(point.key, section)
        if point.method == DENSE:
            pixels = b64encode(bytes(range(16))).decode()
            details = {
                "reach": [[0.4 - 0.1 * head + 0.01 * layer for head in range(heads)]
                          for layer in range(len(told))],
                "maps": [[pixels] * heads] * len(told), "map_side": 4,
            }  # fmt: skip
            run.write_section(point.key, Section("profile.attention", "done", "f", details=details))


def tune(run: RunFolder, task: str = "ks") -> None:
    """Give every model a frozen and a fine-tuned score."""
    for record in run.records():
        if record.point.method not in (FBANK, RANDOM):
            values = {f"{task}_acc_{kind}": 90.0 for kind in ("frozen", "tuned", "gain")}
            metrics = {name: Metric(name, "%", "higher") for name in values}
            section = Section(f"finetune.{task}", "done", "f", values, metrics)
            run.write_section(record.point.key, section)


def probe(run: RunFolder, states: int = 4, tasks: Sequence[str] = ("phone", "pitch")) -> None:
    """Probe every encoder by state: higher states know more of phones, lower ones of pitch."""
    for record in run.records():
        point = record.point
        for task in tasks:
            rise = -1 if task == "pitch" else 1
            numbers = [50 + rise * 10 * s - 20 * point.rate + point.seed for s in range(states)]
            metric = Metric(f"probe_{task}", "%", "higher")
            section = Section(
                f"task.probe-{task}", "done", "f", {metric.name: max(numbers)},
                {metric.name: metric}, {"by_state": numbers, "in_score": False},
            )  # fmt: skip
            run.write_section(point.key, section)


def score_officially(run: RunFolder, tasks: Sequence[str] = ("pr", "ks"), **details) -> None:
    """Give every encoder what `bench superb` adds: worse than the leaderboard's anchor by the rate.

    The metrics are called as SUPERB calls them, like those of quick tasks.
    """
    for record in run.records():
        point = record.point
        for task in tasks if point.method not in (FBANK, RANDOM) else ():
            values = {
                name: value + (ANCHORS["fbank"][name] - value) * point.rate
                for name, value in ANCHORS["leaderboard"].items()
                if name.startswith(task)
            }
            metrics = {name: Metric(name, "%", official_metric(name).better) for name in values}
            section = Section(
                f"superb.{task}", "done", "f", values, metrics, {"grade": "official", **details}
            )
            run.write_section(point.key, section)
