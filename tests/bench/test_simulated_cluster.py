"""The simulation against closed forms."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from simulated_cluster import Cluster, Outcome, Piece, Simulation

DAY = 86400.0


def simulate(cluster: Cluster, runs: list[list[Piece]], seed: int = 0) -> Outcome:
    return Simulation(cluster, runs, seed).go()


def lone(train: float, interval: float) -> list[list[Piece]]:
    """One run of one piece that only trains."""
    return [[Piece(0, train, interval=interval)]]


def drawn(pieces: int, seed: int = 0) -> list[Piece]:
    draw = random.Random(seed)
    return [
        Piece(0, draw.uniform(100, 5000), draw.uniform(0, 900), 30.0, 900.0) for _ in range(pieces)
    ]


def mixed(runs: int, pieces: int = 200) -> list[list[Piece]]:
    """Runs that end with a timing."""
    return [
        [*(replace(piece, run=run) for piece in drawn(pieces, run)),
         Piece(run, 0.0, 4000.0, 5.0, alone=True)]
        for run in range(runs)
    ]  # fmt: skip


def test_equal_pieces_go_in_rounds():
    told = simulate(Cluster(nodes=3, gpus=4), [[Piece(0, 100.0) for _ in range(25)]])
    assert told.makespan == 300  # 25 over 12 GPUs: three rounds
    assert told.useful == 2500


@pytest.mark.parametrize("seed", range(5))
def test_without_failures_the_makespan_is_within_the_bounds_of_list_scheduling(seed):
    pieces = drawn(300, seed)
    work = [piece.train + piece.measure for piece in pieces]
    told = simulate(Cluster(nodes=5, gpus=8), [pieces])
    assert max(sum(work) / 40, max(work)) <= told.makespan <= sum(work) / 40 + max(work)
    assert told.useful == pytest.approx(sum(work))


def test_a_failure_loses_half_an_interval_on_average():
    cluster = Cluster(nodes=1, gpus=1, mtbf=50_000)
    told = simulate(cluster, lone(2e8, 600))
    assert told.failures == pytest.approx(2e8 / 50_000, rel=0.05)
    assert told.lost / told.requeues == pytest.approx(300, rel=0.05)


def test_a_failure_loses_half_a_section_on_average():
    cluster = Cluster(nodes=1, gpus=1, mtbf=50_000)
    told = simulate(cluster, [[Piece(0, 0.0, 2e8, 200.0)]])
    assert told.lost / told.requeues == pytest.approx(100, rel=0.05)


@pytest.mark.parametrize("interval", [300.0, 1000.0, 5000.0, 20_000.0])
def test_the_time_of_a_training_is_dalys(interval):
    """M exp(R/M) (exp((interval + save)/M) - 1) for each interval of work."""
    mtbf, save, restart, work = 20_000.0, 25.0, 120.0, 1.5e8
    cluster = Cluster(1, 1, mtbf, 0.0, restart, save)
    exact = mtbf * math.exp(restart / mtbf) * math.expm1((interval + save) / mtbf)
    told = simulate(cluster, lone(work, interval))
    assert told.makespan == pytest.approx(exact * work / interval, rel=0.03)


def test_the_best_interval_is_youngs():
    mtbf, save = 50_000.0, 20.0
    young = math.sqrt(2 * save * mtbf)  # 1414 s
    intervals = [young * 1.3**power for power in range(-5, 6)]
    cluster = Cluster(1, 1, mtbf, save=save)
    spans = {interval: simulate(cluster, lone(1e8, interval)).makespan for interval in intervals}
    assert young / 1.7 <= min(spans, key=spans.__getitem__) <= young * 1.7
    assert spans[intervals[0]] > spans[young] < spans[intervals[-1]]


def test_every_second_of_a_gpu_is_accounted_for():
    cluster = Cluster(4, 8, DAY / 2, 3600.0, 60.0, 5.0, 10.0)
    runs = mixed(3)
    work = sum(piece.train + piece.measure for run in runs for piece in run)
    told = simulate(cluster, runs)
    assert told.failures > 3
    assert told.useful == pytest.approx(work)
    spent = told.useful + told.saving + told.starting + told.lost + told.reserved
    busy = sum((end - begin) * (8 if alone else 1) for _, begin, end, alone in told.spans)
    assert spent == pytest.approx(busy)
    assert busy <= told.makespan * 32
    assert told == simulate(cluster, mixed(3))  # the same history


def test_nothing_else_runs_on_a_node_while_it_is_timed():
    runs = mixed(6, 60)
    told = simulate(Cluster(3, 8, DAY, 600.0), runs)
    timed = [span for span in told.spans if span[3]]
    assert len(timed) >= 6
    for node, begin, end, _ in timed:
        others = [s for s in told.spans if s[0] == node and not s[3]]
        assert all(s[2] <= begin or s[1] >= end for s in others)


def test_the_scheduler_is_never_given_more_than_it_holds():
    runs = [[Piece(run, 50.0) for _ in range(40)] for run in range(10)]
    told = simulate(Cluster(2, 8, held=100), runs)
    assert 80 <= told.most_held <= 100
    assert told.makespan >= 10 * 40 * 50 / 16
    with pytest.raises(ValueError, match="more pieces than"):
        simulate(Cluster(2, 8, held=30), [[Piece(0, 1.0) for _ in range(40)]])


def test_the_scheduler_starts_so_many_a_second():
    told = simulate(Cluster(100, 8, starts=10.0), [[Piece(0, 5.0) for _ in range(800)]])
    assert told.makespan == pytest.approx(799 / 10 + 5)


def test_a_piece_that_runs_out_of_time_goes_on():
    """Each try works 80 of its 100 s and keeps 70 of them; the last one ends sooner."""
    cluster = Cluster(1, 1, restart=20.0, limit=100.0)
    told = simulate(cluster, [[Piece(0, 250.0, interval=35.0)]])
    assert told.requeues == 3
    assert told.lost == 30
    assert told.makespan == 3 * 100 + 20 + (250 - 3 * 70)
