"""What the harness itself costs: a sweep over points that take no time, planned, run and reported.

    python tests/bench/harness_cost.py --points 1000,10000 --out results/harness

A point has four sections: its model, a cost, a timing that wants quiet, a task; all of them claim
what they tell (`idle.py`). Every model has weights of its own, so none is measured for another.
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import idle

#: Rates of each method; there are as many methods as the points need.
RATES = 100


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--points", default="1000,10000")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= idle.install(Path(folder) / "path")
        sys.path[:0] = [str(Path(folder) / "path")]
        asked.out = asked.out.resolve()
        os.chdir(folder)  # workers look here first, and are to find the plug-ins above
        rows = [
            row
            for points in map(int, asked.points.split(","))
            for row in measure(points, asked.workers, Path(folder))
        ]
    asked.out.mkdir(parents=True, exist_ok=True)
    with (asked.out / "cost.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def measure(points: int, workers: int, folder: Path) -> Iterator[dict[str, Any]]:
    """A row for each of the things that are done with that many points."""
    for what, act in stages(request(points, folder), workers, folder / f"run-{points}").items():
        start, cpu = time.perf_counter(), time.process_time()
        with (folder / "said").open("w") as said, redirect_stdout(said), redirect_stderr(said):
            act()
        seconds = time.perf_counter() - start
        row = {
            "what": what, "points": points, "workers": workers, "seconds": round(seconds, 3),
            "ms_per_point": round(1000 * seconds / points, 3),
            "own_cpu_s": round(time.process_time() - cpu, 3),
            "own_peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "worker_peak_mib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024,
        }  # fmt: skip
        print(row, flush=True)
        yield row


def request(points: int, folder: Path) -> Any:
    """Of a model of one layer and a second of noise."""
    import numpy as np
    import soundfile

    from bench import run_sweep
    from bench.jobs import Source
    from core.runtime import Runtime
    from core.spec import LayerSpec, MelFrontEnd, ModelSpec, Positions
    from encoders import store
    from encoders.model import build

    layer = LayerSpec.dense(heads=1, head_dim=8, ffn=8)
    spec = ModelSpec("melhubert", MelFrontEnd(20, stack=2), 8, 1, 8, (layer,),
                     Positions(bias_reach=2), feature_norm=False)  # fmt: skip
    store.save(build(spec, seed=0), folder / "model")
    (folder / "data").mkdir(exist_ok=True)
    noise = np.random.default_rng(0).normal(0, 0.05, 16_000)
    soundfile.write(folder / "data" / "noise.wav", noise, 16_000)
    methods = ",".join(f"idle[number={number}]" for number in range(1, 1 + points // RATES))
    rates = ",".join(f"{(2 * rate + 1) / (2 * RATES):g}" for rate in range(RATES))
    data = Source(str(folder / "data"))
    return run_sweep.request(
        model=str(folder / "model"), methods=methods, rates=rates, seeds="0", source=data,
        tasks="idle", task_source=data, profilers="idle,idle-timer", preset="quick",
        runtime=Runtime(), cache_limit="0",
    )  # fmt: skip


def stages(request: Any, workers: int, run: Path) -> dict[str, Any]:
    """What is timed, in order."""
    import reports
    from bench import run_sweep
    from bench.executors.local import Local
    from bench.plan import Plan
    from bench.sweep import Sweep
    from reports.html import write as page
    from results.leaderboard import write as leaderboard
    from results.summary import render

    def sweep() -> None:
        with Local(workers) as executor:
            Sweep(Plan.of(request, run), executor).run()

    def table() -> None:
        from rich.console import Console

        Console().print(render(run))

    return {
        "imports": lambda: (table if run.exists() else str)() or reports.draw,
        "plan of nothing done": lambda: Plan.of(request, run).todo(),
        "dry run": lambda: print(run_sweep.preview(request, run)),
        "sweep": sweep,
        "plan of all done": lambda: Plan.of(request, run).todo(),
        "table": table,
        "leaderboard": lambda: leaderboard([run], run / "leaderboard.csv"),
        "figure": lambda: reports.draw(
            reports.figure("pareto", x=["params"]), [run], run / "pareto"
        ),
        "page": lambda: page([run], run / "page.html"),
    }  # fmt: skip


if __name__ == "__main__":
    main()
