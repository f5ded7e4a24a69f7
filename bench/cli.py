"""The command line. What a command needs is imported when it runs, so that help answers at once."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

import reports
from core.errors import InputError

app = typer.Typer(
    name="bench",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="How far can a speech model be compressed, by which technique, at what cost?",
)

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130


def main() -> None:
    """Run the command line; bad input is one sentence on stderr and exit code 2."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """The exit code of a command."""
    try:
        return app(args=arguments, prog_name="bench", standalone_mode=False) or 0
    except InputError as error:
        return _refuse(" ".join(str(error).split()))
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has left, as `head` does
        return 0
    except OSError as error:
        if error.filename is None and error.strerror is None:
            raise
        where = f" ({error.filename})" if error.filename else ""
        return _refuse(f"{error.strerror}{where}; free space there or choose another folder")
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        return _refuse(error.format_message())  # the command line itself is wrong


def _refuse(sentence: str) -> int:
    print(f"error: {sentence}", file=sys.stderr)
    return BAD_INPUT


def _interrupted() -> int:
    print("\ninterrupted, all that was finished is kept: run the same command to go on",
          file=sys.stderr)  # fmt: skip
    return INTERRUPTED


def _complete(kind: str) -> Callable[[str], list[str]]:
    """Completes the last name of a comma list."""

    def complete(incomplete: str) -> list[str]:
        from bench.listing import groups, names

        before, comma, last = incomplete.rpartition(",")
        known = [*names(kind), *groups(kind)]
        return [before + comma + name for name in known if name.startswith(last)]

    return complete


def _complete_list(context: typer.Context, incomplete: str) -> list[str]:
    from bench.listing import KINDS, names

    kind = KINDS.get(context.params.get("kind") or "", "")
    return [name for name in names(kind) if name.startswith(incomplete)] if kind else []


def _complete_target(incomplete: str) -> list[str]:
    from encoders import exports

    return [name for name in exports.names() if name.startswith(incomplete)]


def _complete_kind(incomplete: str) -> list[str]:
    from bench.listing import KINDS

    return [kind for kind in KINDS if kind.startswith(incomplete)]


def _complete_executor(incomplete: str) -> list[str]:
    from bench import executors

    return [name for name in executors.NAMES if name.startswith(incomplete)]


def _complete_figure(incomplete: str) -> list[str]:
    return [name for name in [*reports.names(), "all"] if name.startswith(incomplete)]


Model = Annotated[
    str,
    typer.Option(
        help="builtin, random:SHAPE[@SEED], a checkpoint (hf:ORG/NAME, torchaudio:BUNDLE, "
        "s3prl:FILE, melhubert:FILE, dphubert:FILE), or a folder with spec.json and "
        "model.safetensors.",
        autocompletion=_complete("model"),
    ),
]
Methods = Annotated[
    str,
    typer.Option(
        help="all, or a comma list: head-pruning[scope=model],low-rank+head-pruning.",
        autocompletion=_complete("method"),
    ),
]
Tasks = Annotated[
    str,
    typer.Option(
        help="Groups and names: quick, superb (its ten), all, none or a comma list.",
        autocompletion=_complete("task"),
    ),
]
Profilers = Annotated[
    str, typer.Option(help="all, none or a comma list.", autocompletion=_complete("profiler"))
]
Preset = Annotated[
    str | None,
    typer.Option(
        help="How methods train: quick (for minutes), paper (as published), untrained (not at "
        "all). By default quick, and untrained for random:SHAPE."
    ),
]
Data = Annotated[
    str, typer.Option(help="builtin, or audio: a LibriSpeech root, any folder, a CSV manifest.")
]
Subset = Annotated[str | None, typer.Option(help="Part of LibriSpeech, such as test-other.")]
Device = Annotated[str, typer.Option(help="Where models are measured: cpu, cuda or cuda:N.")]
Threads = Annotated[int, typer.Option(min=1, help="Of the CPU while it is measured.")]
Dtype = Annotated[
    str | None,
    typer.Option(help="float32, float16 or bfloat16; by default what the model is stored in."),
]
Compile = Annotated[bool, typer.Option("--compile", help="Measure through torch.compile.")]
Tf32 = Annotated[bool, typer.Option("--tf32", help="TF32 for products of float32 on CUDA.")]
Attention = Annotated[
    str, typer.Option(help="Attention kernel: auto, math, flash, efficient or cudnn.")
]
Engine = Annotated[
    str,
    typer.Option(
        "--runtime",
        help="torch, or onnxruntime: the model as it is exported, on CPUs; --against stays in "
        "torch.",
    ),
]
Graphs = Annotated[bool, typer.Option("--cuda-graphs", help="Replay a CUDA graph per length.")]
CacheLimit = Annotated[
    str | None,
    typer.Option(
        help="Disk for the hidden states that tasks read, such as 8GB, or 0 for none; by default "
        "4GB, and none on the built-in corpus."
    ),
]
CacheDtype = Annotated[
    str, typer.Option(help="float32, or float16 for half the size: of hidden states of frames.")
]
Tracker = Annotated[
    str | None,
    typer.Option(
        help="Who hears of trainings beside log.csv: tensorboard, wandb, mlflow; a comma list."
    ),
]
ModelArgument = Annotated[
    str,
    typer.Argument(
        help="builtin, random:SHAPE[@SEED], a checkpoint such as hf:ORG/NAME, or a folder.",
        autocompletion=_complete("model"),
    ),
]


@app.command()
def sweep(
    model: Model = "builtin",
    methods: Methods = "all",
    rates: Annotated[
        str, typer.Option(help="first:last[:step] or a comma list; fractions to remove.")
    ] = "0.1:0.9",
    seeds: Annotated[str, typer.Option(help="Comma list; scores are reported by seed.")] = "0",
    data: Data = "builtin",
    subset: Subset = None,
    tasks: Tasks = "quick",
    task_data: Annotated[str, typer.Option(help="Labelled audio that tasks are run on.")] = (
        "builtin"
    ),
    lexicon: Annotated[
        str | None,
        typer.Option(help="Lines of WORD PH OH N: phones for the texts of --task-data."),
    ] = None,
    profilers: Profilers = "params,macs,latency",
    preset: Preset = None,
    device: Device = "cpu",
    threads: Threads = 1,
    dtype: Dtype = None,
    compile_: Compile = False,
    tf32: Tf32 = False,
    attention: Attention = "auto",
    cuda_graphs: Graphs = False,
    cache_limit: CacheLimit = None,
    cache_dtype: CacheDtype = "float32",
    tracker: Tracker = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; by default one per model and data.")
    ] = None,
    executor: Annotated[
        str,
        typer.Option(
            help="Where the work is done: local (this machine), ray (a cluster's nodes) or slurm.",
            autocompletion=_complete_executor,
        ),
    ] = "local",
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Processes side by side; by default one per GPU, or as many as the cores are "
            "enough for.",
        ),
    ] = None,
    processes_per_track: Annotated[
        int,
        typer.Option(
            min=1,
            help="Processes that train a track together, each on a GPU or threads of its own; an "
            "update takes as many times the speech, so the models are others.",
        ),
    ] = 1,
    address: Annotated[
        str | None,
        typer.Option(
            help="Of a Ray cluster: auto or HOST:PORT; by default RAY_ADDRESS, else this machine."
        ),
    ] = None,
    time_limit: Annotated[
        str | None,
        typer.Option(help="For each section, such as 90s, 30m or 2h; longer ones have failed."),
    ] = None,
    partition: Annotated[str | None, typer.Option(help="Of SLURM.")] = None,
    gpus: Annotated[int, typer.Option(min=0, help="Of each job of SLURM.")] = 0,
    cpus: Annotated[int, typer.Option(min=1, help="Of each job of SLURM.")] = 1,
    memory: Annotated[
        str | None, typer.Option(help="Of each job of SLURM or Ray, such as 16GB.")
    ] = None,
    time: Annotated[
        str,
        typer.Option(help="Of each job of SLURM; one that runs out of it goes on in another."),
    ] = "4:00:00",
    max_parallel: Annotated[
        int, typer.Option(min=1, help="Jobs of SLURM that may run at once.")
    ] = 256,
    slurm: Annotated[
        list[str] | None,
        typer.Option(help="Any other option of sbatch, such as account=speech; repeatable."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try again what failed or was unsupported.")
    ] = False,
) -> int:
    """Compress a model by many methods and rates, measure and score each, draw the trade-off.

    Interrupt it whenever you like: the same command goes on from there.
    """
    from bench import run_sweep
    from bench.executors.slurm import Resources
    from bench.jobs import Source
    from core.runtime import Runtime

    runtime = Runtime(device, threads, dtype, compile_, tf32, attention, cuda_graphs)
    request = run_sweep.request(
        model=model, methods=methods, rates=rates, seeds=seeds, source=Source(data, subset),
        tasks=tasks, task_source=Source(task_data, lexicon=lexicon), profilers=profilers,
        preset=preset, runtime=runtime, cache_limit=cache_limit, cache_dtype=cache_dtype,
        trackers=tracker, time_limit=time_limit, processes=processes_per_track,
    )  # fmt: skip
    folder = out or run_sweep.default_folder(request)
    if dry_run:
        print(run_sweep.preview(request, folder, workers))
        return 0
    resources = Resources(
        partition, gpus, cpus, memory, time, max_parallel, tuple(slurm or ())
    )  # fmt: skip
    if executor == "slurm":
        run_sweep.submit(request, folder, resources, workers, retry_failed)
        return 0
    if resources != Resources(memory=memory if executor == "ray" else None):
        raise InputError("--partition, --gpus and the like are of --executor slurm; add it")
    where = run_sweep.executor(executor, runtime, workers, address, memory, processes_per_track)
    try:
        return FAILED if run_sweep.execute(request, folder, where, retry_failed) else 0
    except KeyboardInterrupt:
        return _interrupted()


@app.command()
def status(
    run: Annotated[Path, typer.Argument(help="Folder of a run, also of one that is at work.")],
    watch: Annotated[
        bool, typer.Option("--watch", help="Look again until nobody is at work.")
    ] = False,
) -> None:
    """Show how far a run is: what is done, in work, failed and why, and how long the rest takes."""
    from bench import status as telling
    from results.store import RunFolder

    folder = RunFolder.existing(run)
    if watch:
        with suppress(KeyboardInterrupt):
            telling.watch(folder)
    else:
        print(telling.as_text(telling.look(folder)))


@app.command()
def collect(
    run: Annotated[Path, typer.Argument(help="Folder of a run that jobs have written into.")],
) -> int:
    """Finish what several jobs have made: the table, the leaderboard, the figure, what failed."""
    from bench import collect as finishing
    from results.store import RunFolder

    return FAILED if finishing.collect(RunFolder.existing(run)) else 0


@app.command()
def merge(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs, of one model and data.")],
    out: Annotated[Path, typer.Option(help="Folder of the run that has all of it.")],
    timings: Annotated[
        Path | None,
        typer.Option(help="The only run whose timings are taken, where devices differ."),
    ] = None,
) -> int:
    """Join runs of several machines. Where they differ the first one's stays (exit code 1)."""
    from bench import merge as joining

    return FAILED if joining.execute(runs, out, timings) else 0


@app.command()
def compress(
    model: ModelArgument,
    method: Annotated[
        str, typer.Option(help="A method expression.", autocompletion=_complete("method"))
    ],
    rate: Annotated[str, typer.Option(help="The fraction to remove, between 0 and 1.")],
    out: Annotated[Path, typer.Option(help="Folder for the compressed model.")],
    preset: Preset = None,
    seed: int = 0,
    data: Data = "builtin",
    subset: Subset = None,
    tracker: Tracker = None,
) -> None:
    """Compress a model once and save it. Interrupted while it trains, it goes on.

    Under `accelerate launch -m bench compress ...` or torchrun all processes train together.
    """
    from bench.outputs import check_folder
    from bench.rates import parse_rates
    from bench.run_sweep import usual_preset
    from core.method import parse_methods
    from encoders.tracking import read_trackers

    chosen, amounts = parse_methods(method, preset or usual_preset(model)), parse_rates(rate)
    if len(chosen) != 1 or len(amounts) != 1:
        raise InputError("compress takes one method and one rate; use sweep for several")
    check_folder(out)
    heard = read_trackers(tracker)
    from bench import compress as making

    print(making.compress(model, chosen[0], amounts[0], out, seed, data, subset, heard))


Licence = Annotated[
    str | None,
    typer.Option(help="Of the source's weights, as the hub names it; by default what is known."),
]


@app.command()
def export(
    model: ModelArgument,
    to: Annotated[
        str,
        typer.Option(
            help="onnx, torchscript, torch-export, huggingface or s3prl.",
            autocompletion=_complete_target,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for what is exported.")],
    licence: Licence = None,
) -> int:
    """Write a model for elsewhere, and check that it gives the same states without this package."""
    from bench.outputs import check_folder
    from encoders import exports

    exports.check(to)
    check_folder(out)
    from bench import export as exporting

    try:
        for line in exporting.export(model, to, out, licence):
            print(line, flush=True)
    except exporting.Differs as error:
        print(f"error: {error}; nothing is saved", file=sys.stderr)
        return FAILED
    return 0


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="Folder of a saved model.")],
) -> int:
    """Reload a saved model and compare its hidden states with those it had (exit code 1)."""
    from bench import export as exporting

    told, same = exporting.verify(folder)
    print(told)
    return 0 if same else FAILED


@app.command()
def card(
    folder: Annotated[Path, typer.Argument(help="Folder of a saved model, also within a run.")],
    licence: Licence = None,
) -> None:
    """Write a model's card anew, with all that its run measured."""
    from bench import export as exporting

    print(exporting.describe(folder, licence))


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(help="Folder of a saved or an exported model.")],
    to: Annotated[str, typer.Argument(help="Where on the Hugging Face hub: hf:USER/NAME.")],
    licence: Licence = None,
    private: Annotated[bool, typer.Option("--private", help="For yourself alone.")] = False,
) -> None:
    """Upload a model to the Hugging Face hub, with its card."""
    from bench import export as exporting

    print(exporting.push(folder, to, licence, private))


@app.command()
def adapt(
    model: ModelArgument,
    task: Annotated[str, typer.Option(help="ks, ic or sid.", autocompletion=_complete("task"))],
    out: Annotated[Path, typer.Option(help="Folder for the adapted model.")],
    data: Data = "builtin",
    seed: int = 0,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training utterances.")] = 5,
    head_rate: Annotated[float, typer.Option(help="Learning rate of the task's head.")] = 0.05,
    lambda_rate: Annotated[float, typer.Option(help="Learning rate of lambda.")] = 0.05,
) -> None:
    """Learn the frame period of an ofa-sequence model that serves a task best."""
    from bench.outputs import check_folder
    from core import plugins

    plugins.check("task", task)
    check_folder(out)
    from bench import adapt as learning

    print(learning.adapt(model, task, out, data, seed, epochs, (head_rate, lambda_rate)))


@app.command()
def finetune(
    model: Annotated[
        str, typer.Argument(help="Folder of a run, or a model: builtin, random:SHAPE, a folder.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for records, logs and finetune.csv.")],
    task: Annotated[
        str,
        typer.Option(help="A comma list: ks, sid, asr, pr ...", autocompletion=_complete("task")),
    ] = "ks,sid,asr",
    methods: Annotated[
        str | None, typer.Option(help="Of a run: a comma list of its methods, by default all.")
    ] = None,
    rates: Annotated[
        str | None, typer.Option(help="Of a run: first:last[:step] or a comma list.")
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Comma list; by default each model's own.")
    ] = None,
    data: Annotated[str, typer.Option(help="Labelled audio, as --task-data of sweep.")] = "builtin",
    steps: Annotated[int, typer.Option(min=1, help="Updates, of either way.")] = 150,
    lr: Annotated[
        float, typer.Option(help="Peak learning rate of the encoder; 1e-5 to 1e-4 at base size.")
    ] = 1e-3,
    head_lr: Annotated[float, typer.Option(help="Peak learning rate of the head.")] = 1e-3,
    batch_seconds: Annotated[float, typer.Option(help="Audio of a batch.")] = 24.0,
    precision: Annotated[str, typer.Option(help="no, bf16 or fp16: of activations.")] = "bf16",
    tracker: Tracker = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes side by side; by default one per core.")
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try again what failed or was unsupported.")
    ] = False,
) -> int:
    """Fine-tune models on tasks, beside training the head alone. Interrupted, it goes on.

    Both ways begin with the task's own head and take as many updates on the same utterances.
    """
    from bench import finetune as tuning

    wanted = tuning.request(
        model, task, methods, rates, seeds, data, out,
        (steps, head_lr, lr, batch_seconds, precision), tracker,
    )  # fmt: skip
    try:
        return FAILED if tuning.execute(wanted, workers, retry_failed) else 0
    except KeyboardInterrupt:
        return _interrupted()


@app.command()
def profile(
    model: ModelArgument,
    workload: Annotated[
        str | None,
        typer.Option(
            help="superb32, seconds:N or corpus; by default corpus where --data or --subset is "
            "given, else superb32."
        ),
    ] = None,
    data: Data = "builtin",
    subset: Subset = None,
    profilers: Profilers = "params,macs,latency,memory",
    against: Annotated[
        str | None, typer.Option(help="A model that is timed in turns with it, for speed-ups.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Timed passes at least.")] = 5,
    device: Device = "cpu",
    threads: Threads = 1,
    dtype: Dtype = None,
    compile_: Compile = False,
    tf32: Tf32 = False,
    attention: Attention = "auto",
    cuda_graphs: Graphs = False,
    engine: Engine = "torch",
    verify: Annotated[
        bool, typer.Option("--verify", help="Measure twice and show by how much it differs.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One object: values by metric, details by profiler.")
    ] = False,
) -> None:
    """Measure what running a model costs."""
    from bench import profile as measuring
    from bench.jobs import Source
    from bench.profile_report import as_text, compared
    from core import plugins
    from core.runtime import Runtime

    runtime = Runtime(device, threads, dtype, compile_, tf32, attention, cuda_graphs, engine)
    workload = workload or ("corpus" if subset or data != "builtin" else "superb32")
    request = measuring.Request(model, workload, Source(data, subset), runtime, repeats, against)
    chosen = plugins.select("profiler", profilers)
    if verify:
        print(compared(*measuring.verify(request, chosen)))
        return
    found = measuring.profile(request, chosen)
    if as_json:
        print(json.dumps({"values": found.values, "unavailable": found.unavailable,
                          "details": found.details}, indent=1))  # fmt: skip
    else:
        print(as_text(found))


@app.command("compare-runtimes")
def compare_runtimes(
    models: Annotated[
        str,
        typer.Option(help="A comma list of models.", autocompletion=_complete("model")),
    ] = "random:hubert_base,random:wavlm_base",
    runtimes: Annotated[
        str, typer.Option(help="Beside ours: torchaudio, transformers and s3prl, a comma list.")
    ] = "ours,torchaudio,transformers,s3prl",
    data: Data = "builtin",
    subset: Subset = None,
    repeats: Annotated[int, typer.Option(min=1, help="Timed passes.")] = 5,
    device: Device = "cpu",
    threads: Threads = 1,
    dtype: Dtype = None,
    compile_: Compile = False,
    tf32: Tf32 = False,
    attention: Attention = "auto",
    cuda_graphs: Graphs = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for runtimes.csv and runtimes.json.")
    ] = None,
) -> None:
    """Time our encoder beside other libraries', with the same weights and the same audio."""
    from bench.outputs import check_folder
    from core.runtime import Runtime

    runtime = Runtime(device, threads, dtype, compile_, tf32, attention, cuda_graphs)
    if out:
        check_folder(out)
    from bench import compare_runtimes as comparing
    from bench.jobs import Source

    source = Source(data, subset)
    request = comparing.request(models, runtimes, source, runtime, repeats)
    rows = []
    print(comparing.HEADER)
    for row in comparing.compare(request):
        print(comparing.as_line(row), flush=True)
        rows.append(row)
        if out:
            comparing.write(rows, request, out)


@app.command()
def pretrain(
    out: Annotated[Path, typer.Option(help="Folder for the model; made when all is done.")],
    utterances: Annotated[int, typer.Option(min=50, help="Synthetic utterances of 3 s.")] = 8000,
    steps: Annotated[
        tuple[int, int], typer.Option(help="Updates of the first and of the second round.")
    ] = (6000, 24000),
    seed: int = 0,
    tracker: Tracker = None,
) -> None:
    """Make the built-in model again, from synthetic speech alone. Interrupted, it goes on."""
    from bench.outputs import check_folder
    from bench.progress import Training

    if min(steps) < 1:
        raise InputError(f"steps {steps[0]} {steps[1]}: expected two numbers from 1 up")
    check_folder(out)
    from encoders.pretrain import Recipe
    from encoders.pretrain import pretrain as run
    from encoders.tracking import read_trackers

    recipe, heard = Recipe(utterances=utterances, steps=steps, seed=seed), read_trackers(tracker)
    with Training() as progress:
        run(out, recipe, progress.report, heard)
    print(f"saved in {out}; sweep it with: bench sweep --model {out}")


@app.command()
def plot(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Folders of runs; none with --published.")
    ] = None,
    figure: Annotated[
        str,
        typer.Option(
            help=f"{', '.join(reports.names())}, or all that there is data for.",
            autocompletion=_complete_figure,
        ),
    ] = "pareto",
    x: Annotated[
        str | None,
        typer.Option(
            help="pareto, tasks: params (default), macs, latency or any metric; a panel for each "
            "in a comma list."
        ),
    ] = None,
    y: Annotated[
        str | None, typer.Option(help="pareto: superb_s (default), a task or any metric.")
    ] = None,
    rates: Annotated[
        str | None,
        typer.Option(help="layers, probes: the rates to show; by default the middle one."),
    ] = None,
    anchors: Annotated[
        str | None,
        typer.Option(help="pareto: superb_s by official scores, leaderboard or wang2023."),
    ] = None,
    published: Annotated[
        bool, typer.Option("--published", help="pareto: published models too, or alone.")
    ] = False,
    methods: Annotated[
        str | None, typer.Option(help="A comma list: the methods to show, by default all.")
    ] = None,
    style: Annotated[str, typer.Option(help="paper, or slides: 16:9 in larger letters.")] = "paper",
    out: Annotated[
        Path | None, typer.Option(help="File: .png, .pdf or .svg; a folder for all figures.")
    ] = None,
    formats: Annotated[
        str | None, typer.Option("--format", help="Comma list; by default what --out ends in.")
    ] = None,
) -> int:
    """Draw a figure of one or more runs, and write what it shows as CSV beside it."""
    from bench import plotting

    given = {"x": x, "y": y, "rates": rates, "anchors": anchors, "published": published or None}
    drawn = plotting.plot(runs or [], figure, given, out, formats, methods, style)
    return 0 if drawn else FAILED


@app.command()
def leaderboard(
    out: Annotated[Path, typer.Option(help="The file to write: .csv, .md or .tex.")],
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Folders of runs; none with --published.")
    ] = None,
    anchors: Annotated[
        str,
        typer.Option(help="Of superb_s: quick, or of official scores leaderboard or wang2023."),
    ] = "quick",
    published: Annotated[
        bool, typer.Option("--published", help="List published models too, or alone.")
    ] = False,
) -> None:
    """Write the points of one or more runs into one table."""
    from results.leaderboard import write

    frame = write(runs or [], out, anchors, published)
    print(f"{len(frame)} points in {out}")
    if frame["random_weights"].any():
        print("note: models with random weights are among them; their scores mean nothing")


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs.")],
    out: Annotated[Path, typer.Option(help="The .html file to write.")] = Path("report.html"),
) -> None:
    """Write one or more runs as a page to look around in: one file, no network."""
    from reports.html import write

    print(f"{write(runs, out)} points in {out}")


@app.command()
def select(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    max_params: Annotated[str | None, typer.Option(help="Parameters at most, such as 30M.")] = None,
    max_macs: Annotated[
        str | None, typer.Option(help="MACs over the 32 SUPERB utterances at most: 800G.")
    ] = None,
    max_latency: Annotated[
        str | None, typer.Option(help="Median latency at most, such as 50ms.")
    ] = None,
    max_memory: Annotated[str | None, typer.Option(help="Peak memory at most: 1.5GB.")] = None,
    min_score: Annotated[str | None, typer.Option(help="superb_s at least.")] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(help="A condition on a task or any column, such as 'pr<=20'; repeatable."),
    ] = None,
    best: Annotated[int, typer.Option(min=1, help="How many to show.")] = 5,
) -> int:
    """Show the best models of a run within limits, or the nearest misses (exit code 1)."""
    from rich.console import Console

    from bench import choosing

    wanted = {"max_params": max_params, "max_macs": max_macs, "max_latency": max_latency,
              "max_memory": max_memory, "min_score": min_score}  # fmt: skip
    shown, found = choosing.select(run, wanted, task or [], best)
    Console().print(shown)
    return 0 if found else FAILED


@app.command()
def analyse(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs.")],
    x: Annotated[str, typer.Option(help="A cost: params, macs, latency or any metric.")] = "params",
    y: Annotated[str, typer.Option(help="superb_s, a task or any metric.")] = "superb_s",
    at: Annotated[
        list[str] | None, typer.Option(help="Read the score at this cost, 0.5M say; repeatable.")
    ] = None,
    at_score: Annotated[
        list[str] | None, typer.Option(help="Read the cost at this score; repeatable.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="CSV of all points with who dominates or ties them.")
    ] = None,
) -> None:
    """Show the numbers behind the curves: hypervolume, readings (~ interpolated), who wins."""
    from bench import choosing

    print(choosing.analyse(runs, x, y, at or [], at_score or [], out))


@app.command()
def compare(
    before: Annotated[Path, typer.Argument(help="Folder of a run, or its leaderboard.csv.")],
    after: Annotated[Path, typer.Argument(help="Of the run that is held against it.")],
    fail_on_regression: Annotated[
        str | None, typer.Option(help="Exit code 1 where something is worse by more: 1%.")
    ] = None,
) -> int:
    """Say what got better, what got worse and what is noise between two runs."""
    from rich.console import Console

    from bench import choosing

    shown, worse = choosing.compare(before, after, fail_on_regression)
    Console().print(shown)
    return FAILED if worse else 0


@app.command("superb-s")
def superb_s(
    file: Annotated[Path, typer.Argument(help="CSV with the columns of results/published.")],
    anchors: Annotated[str, typer.Option(help="leaderboard or wang2023.")] = "leaderboard",
) -> None:
    """Score published SUPERB results."""
    from rich.console import Console

    from results.summary import render_scores
    from results.superb import score_file

    Console().print(render_scores(score_file(file, anchors)))


superb = typer.Typer(
    invoke_without_command=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(superb, name="superb")


@superb.callback()
def superb_(
    context: typer.Context,
    model: Model = "builtin",
    task: Annotated[
        str, typer.Option(help="all, or a comma list: pr,asr,ks,qbe,sid,sv,sd,ic,sf,er.")
    ] = "all",
    data_root: Annotated[
        str | None, typer.Option(help="The folder that holds the corpora; docs/superb.md.")
    ] = None,
    lr: Annotated[
        float | None, typer.Option(help="Learning rate; by default the recipe's own.")
    ] = None,
    lr_grid: Annotated[
        str | None, typer.Option(help="Comma list; the best on dev is tested: 1e-5,1e-4,1e-3.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Updates; by default the recipe's own.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="As s3prl's --seed.")] = 1337,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda or cuda:N; by default cuda where there is one.")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read audio.")] = 4,
    override: Annotated[
        list[str] | None,
        typer.Option(help="Another value of a recipe's setting, KEY=VALUE; repeatable."),
    ] = None,
    s3prl_root: Annotated[
        Path | None, typer.Option(help="A git checkout of s3prl, run in place of the package.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for records and checkpoints.")] = None,
) -> int:
    """Train and test s3prl's official SUPERB recipes on a model. Interrupted, it goes on."""
    if context.invoked_subcommand is not None:
        return 0
    from bench import superb as official

    if lr is not None and lr_grid is not None:
        raise InputError("--lr and --lr-grid exclude each other; give one of them")
    rates = lr_grid if lr is None else str(lr)
    request = official.request(
        model, task, data_root, out, rates, steps, seed, device, workers,
        s3prl_root, override or [],
    )  # fmt: skip
    failed = 0
    try:
        for section in official.run(request, lambda begun: print(begun, flush=True)):
            print(official.as_line(section), flush=True)
            failed += section.status != "done"
    except KeyboardInterrupt:
        return _interrupted()
    return FAILED if failed else 0


@superb.command()
def gather(
    folder: Annotated[Path, typer.Argument(help="Folder of bench superb, or of s3prl's runs.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the tables; by default the same one.")
    ] = None,
) -> None:
    """Collect finished runs, also those of s3prl itself, into tables with superb_s."""
    from bench import superb_table as table
    from bench.outputs import check_folder

    check_folder(out or folder)
    runs = table.gather(folder)
    table.write(runs, out or folder)
    print(table.as_text(runs))


@app.command("list")
def list_(
    kind: Annotated[
        str,
        typer.Argument(help="methods, models, tasks or profilers.", autocompletion=_complete_kind),
    ],
    name: Annotated[
        str | None, typer.Argument(help="Tell all about one.", autocompletion=_complete_list)
    ] = None,
) -> None:
    """List what there is to choose from."""
    from bench import listing

    print(listing.details(kind, name) if name else listing.overview(kind))


@app.command()
def doctor() -> None:
    """Show what is installed, what is missing and why, and what this machine can do."""
    from bench.doctor import examine

    for finding in examine():
        print(f"{finding.mark:<4}{finding.name:<24} {finding.state:<32} {finding.about}".rstrip())
