"""What runs in a worker process: making models and measuring them, section by section.

Each section is written the moment it is known, so that an interruption loses only the one in work.
Whatever goes wrong within a section becomes that section's reason; only a disk that takes no more
ends the job.
"""

from __future__ import annotations

import errno
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cache, lru_cache
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, ClassVar

from bench import cards, environment, logs
from core import memory, plugins
from core.errors import Diverged, InputError, Unsupported
from core.method import Method
from core.metric import Metric
from core.point import DENSE, FBANK, RANDOM, REFERENCES, Point
from core.record import Section
from core.runtime import Runtime
from core.spec import ModelSpec
from encoders import store, together, zoo
from encoders.corpora import Corpus, open_corpus
from encoders.hidden_cache import Cache, hidden_folder
from encoders.tracking import Tracking
from results.store import RunFolder

if TYPE_CHECKING:
    from bench.executors._base import Say
    from encoders.model import Encoder
    from tasks._base import Outcome

#: A sweep times a model at least so long; beside the dense model as long again.
TIMED_SECONDS = 0.3

#: Seeds of the random encoders count from here, so that none of them is the model `random:SHAPE`.
RANDOM_SEED = 1000

#: What a disk says that takes no more.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


@dataclass(frozen=True)
class Started:
    """A section is in work, in this environment."""

    key: str
    section: str
    environment: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Finished:
    """A section is written."""

    key: str
    section: Section


@dataclass(frozen=True)
class Trained:
    """How far a training of a track is: updates done of how many, and the means of its losses."""

    key: str
    training: str
    step: int
    total: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class Told:
    """A sentence for the user."""

    line: str


@dataclass(frozen=True)
class Source:
    """A corpus as the user named it; it is opened where it is needed."""

    text: str
    subset: str | None = None
    lexicon: str | None = None

    def open(self) -> Corpus:
        """The corpus; the files are looked at once per process.

        Raises:
            InputError: there is no such data, or it cannot be read.
        """
        return _open(self.text, self.subset, self.lexicon)


_open = cache(open_corpus)


@dataclass(frozen=True)
class Job:
    """Sections of some points to be made. todo: (point key, section name) -> fingerprint.

    time_limit: seconds for each section; the process that takes longer ends. processes: that do it
    together.
    """

    run_path: Path
    points: tuple[Point, ...]
    todo: Mapping[tuple[str, str], str]
    time_limit: float | None = field(default=None, kw_only=True)
    processes: int = field(default=1, kw_only=True)
    exclusive: ClassVar[bool] = False

    def without(self, finished: set[tuple[str, str]]) -> Job | None:
        """The job that is left when these sections are there, None where nothing is."""
        todo = {which: fp for which, fp in self.todo.items() if which not in finished}
        keys = {key for key, _ in todo}
        points = tuple(point for point in self.points if point.key in keys)
        return replace(self, points=points, todo=todo) if todo else None

    def run(self, say: Say) -> None:
        raise NotImplementedError

    @contextmanager
    def section(self, say: Say, key: str, name: str) -> Iterator[Section]:
        """The section to be filled in; it is written afterwards, whatever became of it.

        Raises:
            InputError: it cannot be written.
            RuntimeError: one of several processes cannot go on; the sweep writes of it.
        """
        here, run = environment.here(), RunFolder(self.run_path)
        say(Started(key, name, here))
        section = Section(name, "done", self.todo[key, name], environment=here)
        start = perf_counter()
        with _alarm(self.time_limit), logs.kept(run.log(key, name)):
            try:
                yield section
            except Unsupported as error:
                section.status, section.reason = "unsupported", str(error)
            except Exception as error:
                _refuse_full_disk(error, self.run_path)
                mark_failed(section, error)
                if self.processes > 1:
                    raise _last_words(section) from error
        section.seconds = round(perf_counter() - start, 3)
        log = run.log(key, section.name)
        if logs.settle(run.log(key, name), log):
            section.details["log"] = str(log.relative_to(self.run_path))
        run.write_section(key, section)
        say(Finished(key, section))


@contextmanager
def _alarm(seconds: float | None) -> Iterator[None]:
    """End the process when so much time has passed; the kernel does, whatever hangs."""
    if seconds is None:
        yield
        return
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


@dataclass(frozen=True)
class Compress(Job):
    """Makes the models of one track: one method and seed, every rate that is missing.

    track: identifies what trainings of the track depend on; their checkpoints lie under it, so a
    job that was cut goes on from them. trackers: hear of the trainings.

    Of several processes each trains on batches of its own, and the first has all of the rest.
    """

    source: Source = field(kw_only=True)
    track: str = field(kw_only=True)
    trackers: tuple[str, ...] = ()

    def run(self, say: Say) -> None:
        if together.leads():
            self._lead(say)
        else:
            self._follow()

    def _lead(self, say: Say) -> None:
        left = list(self.points)
        diverged: Diverged | None = None
        while left:
            made = self._make(list(left), say)
            while left:
                point = left.pop(0)
                with self.section(say, point.key, "compress") as section:
                    if diverged:
                        raise diverged
                    try:
                        together.meet()
                        self._store(point, section, *next(made))
                    except Diverged as error:
                        diverged = error  # the rates to come would diverge in the same way
                        raise
                if section.status == "failed" and not diverged:
                    break  # a generator that raised is over; the other rates get a new one
        if not diverged:
            RunFolder(self.run_path).drop_checkpoints(self.track)

    def _follow(self) -> None:
        """Go the way of the process that leads, which waits for this one wherever they train."""
        made, run = self._make(list(self.points), lambda _: None), RunFolder(self.run_path)
        for point in self.points:
            together.meet()
            with logs.kept(run.log(point.key, "compress"), leads=False):
                try:
                    next(made)
                except Diverged:
                    return
                except Exception as error:
                    section = Section("compress", "failed", "")
                    mark_failed(section, error)
                    raise _last_words(section) from error

    def _make(self, points: list[Point], say: Say) -> Iterator[tuple[Encoder | Unsupported, float]]:
        """The encoder of each point in order, with the rate that was achieved."""
        first = points[0]
        if first.method in REFERENCES:
            yield _reference(first), 0.0
            return
        from compressors._base import Setting
        from compressors._chain import track_method

        def report(training: str, step: int, total: int, values: dict[str, float]) -> None:
            say(Trained(first.key, training, step, total, values))

        method = Method.parse(first.method)
        corpus = self.source.open() if method.uses_data else None
        rates = [point.rate for point in points]
        dense = store.load(first.model)
        folder = RunFolder(self.run_path).track_folder(self.track)
        tracking = Tracking(self.trackers, folder, f"{first.method}, seed {first.seed}")
        setting = Setting(corpus, first.seed, folder, report, tracking)
        for _, encoder, achieved in track_method(method, dense, rates, setting):
            yield encoder, achieved

    def _store(
        self, point: Point, section: Section, encoder: Encoder | Unsupported, achieved_rate: float
    ) -> None:
        if isinstance(encoder, Unsupported):
            raise encoder
        folder = RunFolder(self.run_path).model_folder(point.key)
        store.save(encoder, folder, cards.origin(point, achieved_rate))
        section.details["weights"] = store.fingerprint(folder)
        if self.processes > 1:
            section.details["processes"] = self.processes
        if numerics := sorted({layer.numeric for layer in encoder.spec.layers} - {"float"}):
            section.details["numeric"] = ", ".join(numerics)
        section.details |= _shape(encoder.spec)
        logs = RunFolder(self.run_path).track_folder(self.track).rglob("log.csv")
        if found := [str(log.relative_to(self.run_path)) for log in sorted(logs)]:
            section.details["training_logs"] = found
        if point.method not in REFERENCES:
            section.values["achieved_rate"] = achieved_rate
            section.metrics["achieved_rate"] = Metric(
                "achieved_rate", "", "higher", "fraction removed of what the method acts on"
            )


@dataclass(frozen=True)
class Evaluate(Job):
    """Measures one stored model: costs that need no quiet machine, then all tasks at once."""

    source: Source = field(kw_only=True)
    task_source: Source = field(kw_only=True)
    runtime: Runtime = field(kw_only=True)
    cache: Cache = field(kw_only=True)

    def run(self, say: Say) -> None:
        (point,) = self.points
        folder = RunFolder(self.run_path).model_folder(point.key)
        self._profile(say, point, folder)
        left = [name.removeprefix("task.") for _, name in self.todo if name.startswith("task.")]
        while left:
            self._score(say, point, folder, left)

    def _profile(self, say: Say, point: Point, folder: Path) -> None:
        """Measure all costs of one model; tasks load it anew, when this one is gone."""
        load = _loader()
        for _, name in self.todo:
            if name.startswith("profile."):
                with self.section(say, point.key, name) as section:
                    measure(section, load(folder), self.source.open(), folder, self.runtime)
                if section.status == "failed":
                    load = _loader()  # who knows what it left of the model

    def _score(self, say: Say, point: Point, folder: Path, left: list[str]) -> None:
        """Score tasks and take them off the list, until all are done or one fails."""
        outcomes = None
        while left:
            with self.section(say, point.key, f"task.{left[0]}") as section:
                if outcomes is None:
                    outcomes = self._outcomes(say, point.seed, folder, list(left))
                name, outcome = next(outcomes)
                section.name = f"task.{name}"
                section.fingerprint = self.todo[point.key, section.name]
                section.values, section.details = outcome.values, outcome.details
                section.metrics = _metrics("task", name, section.values)
                if outcome.reason:
                    raise Unsupported(outcome.reason)
            left.remove(section.name.removeprefix("task."))
            if section.status == "failed":
                return

    def _outcomes(
        self, say: Say, seed: int, folder: Path, names: list[str]
    ) -> Iterator[tuple[str, Outcome]]:
        """What comes of each task; hidden states that are on disk are in use meanwhile."""
        from tasks._features import Keeping
        from tasks._suite import score_tasks

        def tell(line: str) -> None:
            say(Told(line))

        corpus, encoder = self.task_source.open(), store.load(folder)
        with self.cache.open(folder, *numerics(self.runtime)) as shards:
            if self.cache.limit and shards is None:
                tell(f"hidden states are not kept, because {hidden_folder()} cannot be written")
            keeping = Keeping(shards, self.cache.dtype, tell=tell)
            running = encoder if self.runtime.usual else _placed(store.load(folder), self.runtime)
            yield from score_tasks(encoder, names, corpus, seed, keeping, running)


def numerics(runtime: Runtime) -> list[Any]:
    """What of a runtime hidden states depend on."""
    return [runtime.device.partition(":")[0], runtime.dtype, runtime.tf32]


def _placed(encoder: Encoder, runtime: Runtime) -> Encoder:
    """The encoder on the runtime's device in its numeric type; the process's TF32 follows too."""
    import torch

    from profilers._running import cast, check

    check(runtime)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = runtime.tf32
    return cast(encoder, runtime.dtype).to(runtime.device)


@dataclass(frozen=True)
class Time(Job):
    """Measures costs that need the machine to themselves, each model beside the dense one."""

    source: Source = field(kw_only=True)
    runtime: Runtime = field(kw_only=True)
    dense: Path = field(kw_only=True)
    exclusive: ClassVar[bool] = True

    def run(self, say: Say) -> None:
        reference, load = None, _loader()
        for key, name in self.todo:
            folder = RunFolder(self.run_path).model_folder(key)
            with self.section(say, key, name) as section:
                reference = reference or store.load(self.dense)
                encoder, corpus = load(folder), self.source.open()
                measure(section, encoder, corpus, folder, self.runtime, reference)
            if section.status == "failed":
                load = _loader()


def _loader() -> Callable[[Path], Encoder]:
    """Loads a model once for all that is measured of it in turn: profilers leave it as it was."""
    return lru_cache(maxsize=1)(store.load)


def measure(
    section: Section,
    encoder: Encoder,
    corpus: Corpus,
    folder: Path,
    runtime: Runtime,
    reference: Encoder | None = None,
) -> None:
    """Fill in the section `profile.NAME`, run on the corpus."""
    from encoders.workload import Workload
    from profilers._base import Setting

    name = section.name.removeprefix("profile.")
    workload = Workload.parse("corpus", corpus)
    setting = Setting(workload, reference, folder, runtime, min_seconds=TIMED_SECONDS)
    measured = plugins.load("profiler", name)().measure(encoder, setting)
    section.values, section.details = measured.values, measured.details
    section.metrics = _metrics("profiler", name, section.values)


def _metrics(kind: str, name: str, values: Mapping[str, float]) -> dict[str, Metric]:
    """What the values mean, by the plug-in's own declaration."""
    declared = plugins.card(kind, name).metrics
    return {metric.name: metric for metric in declared if metric.name in values}


def mark_failed(section: Section, error: Exception) -> None:
    """Keep the error's sentence as the reason, and the whole traceback in the details."""
    lines = "".join(traceback.format_exception_only(error)).strip().splitlines()
    section.status = "failed"
    said = isinstance(error, InputError | Diverged)
    section.reason = str(error) if said else lines[-1]
    if memory.ran_out(error):
        section.reason = f"{memory.shortage(error)}; {_LESS[section.name == 'compress']}"
    section.details["traceback"] = "".join(traceback.format_exception(error))


def _last_words(section: Section) -> RuntimeError:
    """Of a process that has to end with those that it trains with; the log gets the traceback."""
    print(section.details["traceback"], file=sys.stderr)
    return RuntimeError(section.reason)


#: How a measurement, and how the making of a model, does with less memory.
_LESS = (
    "fewer --workers leave more to each, or take a --device with more",
    "fewer --workers leave more to each; smaller batches of a training (options such as "
    "batch_seconds) would make another model",
)


def _shape(spec: ModelSpec) -> dict[str, Any]:
    """Of the spec what figures show: each layer's widths, which heads it kept, the shortening."""
    shape: dict[str, Any] = {}
    if spec.layers:
        shape["layers"] = [
            {"heads": len(own.heads), "qk": sum(own.qk), "vo": sum(own.vo), "ffn": own.ffn,
             "kept": list(own.heads)}
            for own in spec.layers
        ]  # fmt: skip
    if spec.shortening:
        shape["shortening"] = asdict(spec.shortening)
    return shape


def _reference(point: Point) -> Encoder:
    from encoders.model import build

    if point.method == DENSE:
        return store.load(point.model)
    if point.method == FBANK:
        return build(zoo.SPECS["fbank"](), seed=0)
    assert point.method == RANDOM
    return build(store.read_spec(point.model), seed=RANDOM_SEED + point.seed)


def _refuse_full_disk(error: Exception, folder: Path) -> None:
    """Raise InputError where the disk is at fault; safetensors tells so in words only."""
    full = isinstance(error, OSError) and error.errno in _FULL
    if full or any(f"os error {number}" in str(error) for number in _FULL):
        raise InputError(f"cannot write into {folder} ({error}); free space there") from error
