"""Spilling in the simulator: what BudgetStore does, and placements that fit."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nums_core.ops.taskgraph import REDUCE, GraphBuilder, Kernel
from nums_core.runtime.cluster import Cluster, Worker
from nums_core.runtime.executors.local import LocalExecutor
from nums_core.scheduler import make_plan
from nums_core.scheduler.liveness import Liveness
from nums_core.scheduler.moves import Moves
from nums_core.scheduler.simulate import simulate
from nums_core.scheduler.spill import spilled
from nums_core.testing.sketch import Sketch

from .graphs import SUM, leaf, random_graph


def forth_and_back(n, block=4096):
    """n blocks are made, then read in turn from both ends: all are alive at once."""
    s = Sketch()
    v = s.apply("add", s.view(0, ((block,) * n,)), 1.0)
    ids = s.builder.ids(v)
    w = s._add(s.builder.families[s.apply("add", v, v)].kernel, s.chunks[v], "f8", np.stack([ids, ids[::-1]], axis=1))
    return s, s.reduce("sum", w, (0,))


@pytest.mark.parametrize("blocks", [6, 10, 16])
def test_bytes_are_those_that_the_executor_spills(blocks):
    executor = LocalExecutor(1, blocks * 4096 * 8)
    s, total = forth_and_back(24)
    plan, outputs = s.plan(executor.cluster, [total])
    _, report = executor.run(plan, [np.ones(24 * 4096)], outputs)
    executor.close()
    expected = simulate(plan).spilled_bytes.sum()
    assert report.spilled_bytes > 0
    assert expected == pytest.approx(report.spilled_bytes + report.unspilled_bytes, rel=0.03)  # ties fall either way


def test_the_disk_takes_time():
    s, total = forth_and_back(24)
    memory_bytes = 10 * 4096 * 8
    slow = Worker(0, 1, memory_bytes, disk_bytes_per_s=1e6)
    plan, _ = s.plan(Cluster((slow,)), [total])
    roomy = dataclasses.replace(plan, cluster=Cluster((Worker(0),)))
    waited = simulate(plan).seconds - simulate(roomy).seconds
    assert simulate(roomy).spilled_bytes.sum() == 0
    assert waited == pytest.approx(simulate(plan).spilled_bytes.sum() / 1e6)
    assert simulate(plan, exact=False).seconds == pytest.approx(simulate(plan).seconds)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.2, 1.0))
def test_never_less_than_what_does_not_fit(seed, share):
    graph = random_graph(seed, 1)
    worker, order = np.zeros(graph.n_tasks, np.int32), np.arange(graph.n_tasks)
    roomy = Cluster.single(1, 2**40)
    live = Liveness(graph, worker, roomy, Moves.none())
    peaks = live.peaks(order)
    budget = float((peaks - live.held)[0]) * share
    cluster = Cluster.single(1, budget)  # type: ignore[arg-type]
    spill = spilled(live, cluster, order, peaks)
    if not spill.refused:
        assert spill.written[0] >= (peaks - live.held)[0] - budget
        assert spill.written[0] <= graph.out_bytes.sum()
        assert (spill.read <= spill.written * graph.n_tasks).all()
        assert spill.seconds.sum() == pytest.approx(spill.bytes.sum() / cluster.workers[0].disk_bytes_per_s)
    assert not spilled(live, roomy, order, peaks).costs


def _asked(plan, cluster):
    """Bytes through the disk of worker 0, where the results stay."""
    return simulate(dataclasses.replace(plan, cluster=cluster), keep=True).spilled_bytes[0]


def lopsided(large_units, n=16, unit=2.0**20):
    """Large blocks on worker 0 meet small ones on worker 1; what they make is needed again once it was summed up."""
    b = GraphBuilder()
    large, small = leaf(b, 0, (n,), large_units * unit, home=0), leaf(b, 1, (n,), unit, home=1)
    made = b.ids(b.add(Kernel("join"), (n,), np.stack([large, small], 1), out_bytes=2 * unit))
    total = b.ids(b.add(SUM, (1,), made.reshape(1, n), out_bytes=2 * unit, role=REDUCE))
    ends = b.add(Kernel("ends"), (n,), np.stack([made, np.repeat(total, n)], 1), out_bytes=8.0)
    return b.build((ends,))


def test_a_placement_that_fits_is_preferred_to_the_best_by_F():  # noqa: N802
    """By F all is made beside the large blocks, 32 MiB; half of it on each worker fits."""
    graph, made = lopsided(16), slice(32, 48)
    roomy = make_plan(graph, Cluster.regular(2))
    tight = Cluster(tuple(Worker(n, memory_bytes=25 * 2**20, disk_bytes_per_s=2e7) for n in range(2)))
    plan = make_plan(graph, tight)
    plan.validate()
    assert (roomy.worker[made] == 0).all() and _asked(roomy, tight) > 0
    assert np.bincount(plan.worker[made]).tolist() == [8, 8] and not plan.prediction.spilled_bytes.any()
    assert plan.scores[plan.policy] > min(plan.scores.values())


def test_a_placement_that_a_task_does_not_fit_is_refused():
    """The disk is free of charge here, yet no task could run beside a large result on worker 0."""
    graph = lopsided(16)
    tight = Cluster((Worker(0, memory_bytes=2**20, disk_bytes_per_s=1e30), Worker(1, disk_bytes_per_s=1e30)))
    assert (make_plan(graph, Cluster.regular(2)).worker[32:48] == 0).all()
    assert (make_plan(graph, tight).worker[32:48] == 1).all()


def test_ordinary_plans_are_as_before():
    for seed in range(20):
        graph = random_graph(seed, 4)
        a, b = (make_plan(graph, Cluster.regular(4, memory_bytes=m)) for m in (2**33, 2**50))
        assert (a.worker == b.worker).all() and (a.order == b.order).all() and a.policy == b.policy
