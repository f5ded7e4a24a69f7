"""What a sweep consists of, and what of it is there already. Imports no torch.

A section is done when its fingerprint is the one that would be written now. The fingerprint of a
measurement names the content of the model that is measured, not how that model came about: models
that are equal are measured once, and a method that changed without changing its models leaves the
measurements as they are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

from bench.jobs import RANDOM_SEED, Source, numerics
from core import plugins
from core.garbage import uncollected
from core.method import Method
from core.point import DENSE, FBANK, RANDOM, REFERENCES, Point, digest
from core.record import Record, Section
from core.runtime import Runtime
from encoders import store, zoo
from encoders.hidden_cache import Cache
from results.store import RunFolder

State = Literal["done", "missing", "stale", "failed", "unsupported"]


@dataclass(frozen=True)
class Request:
    """What the user asked for, checked: which points, and what is to be known of each.

    time_limit: seconds for each section, None for as long as it takes. processes: that make a
    track together, of a method that trains.
    """

    model: str
    methods: tuple[Method, ...]
    rates: tuple[float, ...]
    seeds: tuple[int, ...]
    source: Source
    tasks: tuple[str, ...]
    task_source: Source
    profilers: tuple[str, ...]
    runtime: Runtime = field(default_factory=Runtime)
    cache: Cache = field(default_factory=Cache)
    trackers: tuple[str, ...] = ()
    time_limit: float | None = None
    processes: int = 1

    def tracks(self) -> Iterator[tuple[Point, ...]]:
        """Points that are made together: a reference, or one method and seed at all rates.

        The references of a seed come first; the random encoder is there for its scores alone.
        """
        references = REFERENCES if self.tasks else (DENSE, FBANK)
        for seed in self.seeds:
            for reference in references:
                yield (self._point(reference, 0.0, seed),)
        for method in self.methods:
            for seed in self.seeds:
                yield tuple(self._point(str(method), rate, seed) for rate in self.rates)

    def _point(self, method: str, rate: float, seed: int) -> Point:
        where = f"{self.source.text}:{self.source.subset}" if self.source.subset else ""
        return Point(self.model, method, rate, seed, where or self.source.text)

    def sections(self, point: Point) -> list[str]:
        """The sections of that point, in the order in which they are made."""
        profiles = [f"profile.{name}" for name in self.profilers if point.method != RANDOM]
        return ["compress", *profiles, *(f"task.{name}" for name in self.tasks)]

    def together(self, method: str) -> int:
        """How many processes make a track of that method."""
        if self.processes == 1 or method in REFERENCES:
            return 1
        return self.processes if Method.parse(method).trains else 1

    @property
    def random_weights(self) -> bool:
        """Whether nobody trained the model, so that its scores mean nothing."""
        return self.model.startswith("random:")

    @cached_property
    def model_fingerprint(self) -> str:
        return store.fingerprint(self.model)

    @cached_property
    def data_fingerprint(self) -> str:
        return self.source.open().fingerprint

    @cached_property
    def task_fingerprint(self) -> str:
        return self.task_source.open().fingerprint

    @cached_property
    def columns(self) -> dict[str, Any]:
        return self.runtime.columns()


@dataclass
class Plan:
    """A request held against the records of a run, of whose sections it holds the brief form."""

    request: Request
    run: RunFolder
    records: dict[str, Record]
    _recipes: dict[str, str] = field(default_factory=dict)
    _tracks: dict[tuple[str, int], str] = field(default_factory=dict)
    _foreseen: dict[str, str | None] = field(default_factory=dict)
    _dense: dict[int, str] = field(default_factory=dict)

    @classmethod
    @uncollected()
    def of(cls, request: Request, folder: Path, keys: Collection[str] | None = None) -> Plan:
        """Read what there is of the request's points, or of those with these keys.

        Raises:
            InputError: a record is something else than what a sweep writes there.
        """
        run = RunFolder(folder)
        points = [point for track in request.tracks() for point in track]
        points = [point for point in points if keys is None or point.key in keys]
        records = {point.key: run.glance(point) for point in points}
        return cls(request, run, records)

    def section(self, key: str, name: str) -> Section | None:
        return self.records[key].sections.get(name)

    def pairs(self) -> Iterator[tuple[str, str]]:
        """(point key, section name) of everything that was asked for."""
        for key, record in self.records.items():
            for name in self.request.sections(record.point):
                yield key, name

    def state(self, key: str, name: str) -> State:
        """What is known of that section; one that waits for its model to be made is missing."""
        section = self.section(key, name)
        if name != "compress" and self.state(key, "compress") in ("failed", "unsupported"):
            return self.state(key, "compress")
        if section is None:
            return "missing"
        if self.fingerprint(key, name) != section.fingerprint:
            return "stale"
        return section.status

    def todo(self, retry_failed: bool = False) -> list[tuple[str, str]]:
        """What has to be made, models that are gone and are needed for a measurement included.

        retry_failed: also what was tried and did not come off, be it failed or unsupported.
        """
        wanted = {"missing", "stale"} | ({"failed", "unsupported"} if retry_failed else set())
        pairs = [pair for pair in self.pairs() if self.state(*pair) in wanted]
        needed = {key for key, _ in pairs}
        needed |= {self.dense(self.records[k].point) for k, name in pairs if exclusive(name)}
        gone = [(key, "compress") for key in self.records if key in needed and self._lacks(key)]
        return list(dict.fromkeys([*gone, *pairs]))

    def _lacks(self, key: str) -> bool:
        """Whether the model was made, and removed since."""
        made = self.state(key, "compress") == "done"
        return made and not (self.run.model_folder(key) / store.WEIGHTS).is_file()

    def weights(self, key: str) -> str | None:
        """What identifies the point's model by content, None where it is not made yet."""
        if self.state(key, "compress") != "done":
            return None
        section = self.section(key, "compress")
        return section.details["weights"] if section else None

    def fingerprint(self, key: str, name: str) -> str | None:
        """What the section depends on; None for a measurement whose model is not made yet."""
        point = self.records[key].point
        if name == "compress":
            if key not in self._recipes:
                self._recipes[key] = self._recipe(point)
            return self._recipes[key]
        weights = self.weights(key)
        kind, _, plugin = name.partition(".")
        if weights is None:
            return None
        if kind == "task":
            source = plugins.card("task", plugin).source_hash
            how = [*numerics(self.request.runtime), self.request.cache.dtype]
            return digest([weights, name, source, self.request.task_fingerprint, point.seed, how])
        card = plugins.card("profiler", plugin)
        compared = self.weights(self.dense(point)) if exclusive(name) else None
        data, columns = self.request.data_fingerprint, self.request.columns
        return digest([weights, name, card.source_hash, data, compared, columns])

    def dense(self, point: Point) -> str:
        """The key of the dense model that this point is compared with."""
        if point.seed not in self._dense:
            self._dense[point.seed] = Point(point.model, DENSE, 0.0, point.seed, point.data).key
        return self._dense[point.seed]

    def foreseen(self, key: str) -> str | None:
        """Why the point's method does not exist for the model; imports the method, so torch."""
        method = self.records[key].point.method
        if method not in self._foreseen:
            self._foreseen[method] = self._unsupported(method)
        return self._foreseen[method]

    def _unsupported(self, method: str) -> str | None:
        if method in REFERENCES:
            return None
        from compressors._chain import create

        return create(Method.parse(method).steps[0]).supports(store.read_spec(self.request.model))

    def _recipe(self, point: Point) -> str:
        """What the making of the point's model depends on."""
        if point.method == DENSE:
            return digest([self.request.model_fingerprint, DENSE])
        if point.method == FBANK:
            return digest([zoo.SPECS["fbank"]().canonical(), FBANK])
        if point.method == RANDOM:
            return digest(
                [store.read_spec(point.model).canonical(), RANDOM, RANDOM_SEED + point.seed]
            )
        return digest([self.track(point), point.rate])

    def track(self, point: Point) -> str:
        """What the models of the point's method and seed depend on at all rates."""
        made = point.method, point.seed
        if made not in self._tracks:
            self._tracks[made] = self._track(point)
        return self._tracks[made]

    def _track(self, point: Point) -> str:
        if point.method in REFERENCES:
            return digest([point.method, point.seed])
        method = Method.parse(point.method)
        sources = [plugins.card("method", step.name).source_hash for step in method.steps]
        data = self.request.data_fingerprint if method.uses_data else None
        made = [self.request.model_fingerprint, point.method, sources, point.seed, data]
        processes = self.request.together(point.method)
        return digest([*made, *([processes] if processes > 1 else [])])  # each hears other speech


@cache
def exclusive(name: str) -> bool:
    """Whether that section needs the machine to itself; no where its profiler is gone."""
    kind, _, plugin = name.partition(".")
    known = kind == "profile" and plugin in plugins.names("profiler")
    return known and bool(plugins.card("profiler", plugin).constants.get("exclusive"))
