"""A cluster that runs the pieces of sweeps while its nodes fail: a discrete-event simulation.

Times are in seconds. The same seed is the same history. A piece trains, and writes a checkpoint
after each `interval` of it; then it measures, section by section. What a node that fails was doing
goes on elsewhere from the last checkpoint or section, ahead of what has not begun. When all pieces
of a run have ended, one more times its models on a node that does nothing else.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count


@dataclass(frozen=True)
class Cluster:
    """What pieces run on.

    mtbf: of a node, which then takes `repair`. restart: until a piece that was started works, or is
    known to be lost and works again. save: to write a checkpoint. starts: pieces that the
    scheduler starts in a second. held: jobs that it holds at once. limit: how long a
    piece may run before it is put into the line again. longest_first: of what waits; else as
    submitted.
    """

    nodes: int
    gpus: int = 8
    mtbf: float = math.inf
    repair: float = 0.0
    restart: float = 0.0
    save: float = 0.0
    starts: float = math.inf
    held: float = math.inf
    limit: float = math.inf
    longest_first: bool = False


@dataclass
class Piece:
    """Work for one GPU, or for a whole node where it is `alone`; what is left of it."""

    run: int
    train: float
    measure: float = 0.0
    section: float = math.inf
    interval: float = math.inf
    alone: bool = False

    def lasts(self, cluster: Cluster) -> float:
        """From when it works to its end."""
        return self._trains(cluster) + self.measure

    def _trains(self, cluster: Cluster) -> float:
        saves = math.ceil(self.train / self.interval) - 1 if self.train else 0
        return self.train + max(0, saves) * cluster.save

    def cut(self, worked: float, cluster: Cluster) -> tuple[float, float]:
        """Leave what is not kept after so long: seconds kept, and seconds that checkpoints took."""
        trains = self._trains(cluster)
        if worked < trains:
            cycles = worked // (self.interval + cluster.save)
            kept = cycles * self.interval if cycles else 0.0
            self.train -= kept
            return kept, cycles * cluster.save
        measured = min(self.measure, worked - trains)
        kept = measured // self.section * self.section if self.section < math.inf else 0.0
        trained, self.train = self.train, 0.0
        self.measure -= kept
        return trained + kept, trains - trained


@dataclass
class Outcome:
    """GPU-seconds by what they were spent on, and what happened.

    useful + saving + starting + lost + reserved are those of pieces; reserved: of the other GPUs of
    a node while one is timed. spans: (node, begin, end, alone) of all that ran.
    """

    makespan: float = 0.0
    useful: float = 0.0
    saving: float = 0.0
    starting: float = 0.0
    lost: float = 0.0
    reserved: float = 0.0
    failures: int = 0
    requeues: int = 0
    most_held: int = 0
    trained_until: float = 0.0
    spans: list[tuple[int, float, float, bool]] = field(default_factory=list)


@dataclass
class _Running:
    piece: Piece
    node: int
    works: float  # from when on


class Simulation:
    """One history of a cluster. pieces: of every run, the one that is `alone` last."""

    def __init__(self, cluster: Cluster, runs: Sequence[Sequence[Piece]], seed: int = 0) -> None:
        self.cluster, self.random = cluster, random.Random(seed)
        self.now, self.told = 0.0, Outcome()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._free = [0] * cluster.nodes
        self._times_given = [0] * cluster.nodes  # a slot of an earlier time is void
        self._slots: deque[tuple[int, int]] = deque()
        self._up = [True] * cluster.nodes
        self._drained: dict[int, Piece] = {}  # by the node that is kept for it
        self._running: dict[int, _Running] = {}
        self._waiting: deque[Piece] = deque()
        self._timings: deque[Piece] = deque()
        self._outside = deque(runs)
        self._left = {pieces[0].run: len(pieces) for pieces in runs}
        self._last = {pieces[0].run: pieces[-1] for pieces in runs if pieces[-1].alone}
        self._held = 0
        self._next_start = 0.0

    def go(self) -> Outcome:
        for node in range(self.cluster.nodes):
            self._give(node, self.cluster.gpus)
            self._await_failure(node)
        self._admit()
        while any(self._left.values()):
            self.now, _, happen = heapq.heappop(self._events)
            happen()
        self.told.makespan = self.now
        return self.told

    def _at(self, time: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, next(self._order), happen))

    def _admit(self) -> None:
        """Submit runs whole, while the scheduler takes them, then start what can be."""
        while self._outside and self._held + len(self._outside[0]) <= self.cluster.held:
            pieces = self._outside.popleft()
            self._held += len(pieces)
            self._waiting.extend(piece for piece in pieces if not piece.alone)
            if self.cluster.longest_first:
                self._waiting = deque(sorted(self._waiting, key=lambda p: -p.train - p.measure))
        if not self._held and self._outside:
            raise ValueError(f"a run has more pieces than the {self.cluster.held} that are held")
        self.told.most_held = max(self.told.most_held, self._held)
        self._start()

    def _start(self) -> None:
        while self._timings and (node := self._node_to_drain()) is not None:
            self._drained[node] = self._timings.popleft()
        for node in list(self._drained):
            if self._up[node] and self._free[node] == self.cluster.gpus:
                self._begin(self._drained.pop(node), node)
                self._take_all(node)
        while self._waiting and self._slots:
            node, time = self._slots.popleft()
            if time == self._times_given[node] and node not in self._drained:
                self._free[node] -= 1
                self._begin(self._waiting.popleft(), node)

    def _give(self, node: int, gpus: int) -> None:
        self._free[node] += gpus
        self._slots.extend([(node, self._times_given[node])] * gpus)

    def _take_all(self, node: int) -> None:
        self._free[node] = 0
        self._times_given[node] += 1

    def _node_to_drain(self) -> int | None:
        """The node that is nearest to doing nothing, of those that are not kept already."""
        taken = {running.node for running in self._running.values() if running.piece.alone}
        taken |= self._drained.keys()
        others = [n for n in range(self.cluster.nodes) if self._up[n] and n not in taken]
        return max(others, key=lambda n: self._free[n], default=None)

    def _begin(self, piece: Piece, node: int) -> None:
        begin = max(self.now, self._next_start)
        self._next_start = begin + 1 / self.cluster.starts
        works, name = begin + self.cluster.restart, next(self._order)
        self._running[name] = _Running(piece, node, works)
        end, limit = works + piece.lasts(self.cluster), begin + self.cluster.limit
        self._at(min(end, limit), lambda: self._end(name) if end <= limit else self._cut(name))

    def _cut(self, name: int) -> None:
        """A piece that has run for as long as it may keeps its place in the line."""
        if name in self._running:
            running = self._running.pop(name)
            self._give(running.node, self.cluster.gpus if running.piece.alone else 1)
            self._requeue(running)
            self._start()

    def _end(self, name: int) -> None:
        if name not in self._running:
            return  # its node failed meanwhile
        running = self._running.pop(name)
        piece = running.piece
        self._account(running, piece.train + piece.measure, piece.lasts(self.cluster) - piece.train
                      - piece.measure, 0.0)  # fmt: skip
        self._give(running.node, self.cluster.gpus if piece.alone else 1)
        self._held -= 1
        self._left[piece.run] -= 1
        if not piece.alone:
            self.told.trained_until = self.now
        if self._left[piece.run] == 1 and piece.run in self._last:
            self._timings.append(self._last.pop(piece.run))
        self._admit()

    def _account(self, running: _Running, useful: float, saving: float, lost: float) -> None:
        told, piece = self.told, running.piece
        begin = running.works - self.cluster.restart
        told.useful += useful
        told.saving += saving
        told.lost += lost
        told.starting += self.now - begin - useful - saving - lost
        if piece.alone:
            told.reserved += (self.cluster.gpus - 1) * (self.now - begin)
        told.spans.append((running.node, begin, self.now, piece.alone))

    def _await_failure(self, node: int) -> None:
        if self.cluster.mtbf < math.inf:
            lives = self.random.expovariate(1 / self.cluster.mtbf)
            self._at(self.now + lives, lambda: self._fail(node))

    def _fail(self, node: int) -> None:
        self.told.failures += 1
        self._up[node] = False
        self._take_all(node)
        for name in [n for n, running in self._running.items() if running.node == node]:
            self._requeue(self._running.pop(name))
        if node in self._drained:
            self._timings.appendleft(self._drained.pop(node))
        self._at(self.now + self.cluster.repair, lambda: self._mend(node))
        self._start()

    def _requeue(self, running: _Running) -> None:
        self.told.requeues += 1
        worked = self.now - running.works
        kept, saving = running.piece.cut(worked, self.cluster) if worked > 0 else (0.0, 0.0)
        self._account(running, kept, saving, max(0.0, worked) - kept - saving)
        (self._timings if running.piece.alone else self._waiting).appendleft(running.piece)

    def _mend(self, node: int) -> None:
        self._up[node] = True
        self._give(node, self.cluster.gpus)
        self._await_failure(node)
        self._start()
