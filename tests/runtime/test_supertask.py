"""Segments: convex, complete, and every block freed exactly when nobody needs it any more."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nums_core.ops.taskgraph import LEAF, AxisArgs, GraphBuilder, Kernel
from nums_core.runtime.cluster import Cluster
from nums_core.runtime.plan import Plan
from nums_core.runtime.supertask import TaskTable, cut, cut_run, edges_of, estimated_seconds, useful_threads


@st.composite
def plans(draw):
    """A random graph on one worker, in a random topological order."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    builder = GraphBuilder()
    builder.add(Kernel("view", (0,)), (3,), np.zeros((3, 0)), out_bytes=8.0, role=LEAF,
                args=AxisArgs(((slice(0, 1),) * 3,)))
    for _ in range(draw(st.integers(1, 12))):
        count = int(rng.integers(1, 6))
        counts = rng.integers(1, 4, count)
        builder.add(Kernel("identity"), (count,), rng.integers(0, builder.n_tasks, counts.sum()), counts=counts,
                    out_bytes=rng.integers(1, 10**7, count).astype(float), flop=0.0)
    outputs = tuple(np.unique(rng.integers(1, len(builder.families), 2)).tolist())
    graph = builder.build(outputs)
    graph.validate()
    none = np.zeros(0, np.int32)
    return Plan(graph, Cluster.single(2, 2**30), np.zeros(graph.n_tasks, np.int32), random_order(graph, rng),
                none.astype(np.int64), none, none)


def random_order(graph, rng):
    waits = np.diff(graph.in_ptr).copy()
    readers = [[] for _ in range(graph.n_tasks)]
    for b, t in zip(graph.in_idx.tolist(), graph.consumer_of_edge.tolist(), strict=True):
        readers[b].append(t)
    ready, order = np.flatnonzero(waits == 0).tolist(), []
    while ready:
        t = ready.pop(int(rng.integers(len(ready))))
        order.append(t)
        for r in readers[t]:
            waits[r] -= 1
            if waits[r] == 0:
                ready.append(r)
    return np.array(order)


@settings(max_examples=150, deadline=None)
@given(plans(), st.integers(1, 4))
def test_segments_are_convex_and_complete(plan, threads):
    g = plan.graph
    segments = cut(plan, estimated_seconds(plan), threads)
    assert sorted(t for run in segments.tasks for t in run) == np.flatnonzero(~g.is_leaf).tolist()
    if threads == 1:
        assert [t for run in segments.tasks for t in run] == [t for t in plan.order.tolist() if not g.is_leaf[t]]
    place = {t: i for i, t in enumerate(t for run in segments.tasks for t in run)}
    assert all(g.is_leaf[b] or place[b] < i for t, i in place.items() for b in g.inputs(t).tolist())
    of = {t: s for s, run in enumerate(segments.tasks) for t in run}
    for t, s in of.items():  # no edge leads back to an earlier segment: a path that leaves cannot return
        for b in g.inputs(t).tolist():
            assert g.is_leaf[b] or of[b] <= s
    crossing = {(of[b], of[t]) for t in of for b in g.inputs(t).tolist() if b in of and of[b] != of[t]}
    assert {(s, d) for s, after in enumerate(segments.after) for d in after} == crossing
    assert segments.n_before == [sum(d == k for _, d in crossing) for k in range(len(segments.tasks))]


def test_a_segment_follows_one_chain():
    """Chains side by side, one task of each in turn: a segment of several would make each wait for the others."""
    builder = GraphBuilder()
    builder.add(Kernel("view", (0,)), (4,), np.zeros((4, 0)), out_bytes=8.0, role=LEAF,
                args=AxisArgs(((slice(0, 1),) * 4,)))
    for k in range(30):
        builder.add(Kernel("identity"), (4,), np.arange(4 * k, 4 * k + 4)[:, None], out_bytes=np.full(4, 1e6), flop=0.0)
    graph = builder.build((30,))
    none = np.zeros(0, np.int32)
    plan = Plan(graph, Cluster.single(2, 2**30), np.zeros(graph.n_tasks, np.int32), np.arange(graph.n_tasks),
                none.astype(np.int64), none, none)
    segments = cut(plan, estimated_seconds(plan), 2)
    assert len(segments.tasks) > 8 and max(map(len, segments.tasks)) > 1
    assert all(len({t % 4 for t in run}) == 1 for run in segments.tasks)


@settings(max_examples=150, deadline=None)
@given(plans(), st.integers(1, 4), st.data())
def test_blocks_are_freed_once_and_not_too_early(plan, threads, data):
    """Replay the segments in any order that their edges allow."""
    g = plan.graph
    segments = cut(plan, estimated_seconds(plan), threads)
    alive, freed = set(np.flatnonzero(g.is_leaf).tolist()), set()
    readers, waits = dict(segments.readers), list(segments.n_before)
    ready = [s for s, n in enumerate(waits) if n == 0]
    while ready:
        s = ready.pop(data.draw(st.integers(0, len(ready) - 1)))
        for t, dying in zip(segments.tasks[s], segments.frees[s], strict=True):
            assert set(g.inputs(t).tolist()) <= alive
            alive.add(t)
            for b in dying:
                alive.remove(b)
                freed.add(b)
        for b in segments.reads[s]:
            readers[b] -= 1
            if readers[b] == 0 and not g.is_output[b]:
                alive.remove(b)
                freed.add(b)
        for d in segments.after[s]:
            waits[d] -= 1
            if waits[d] == 0:
                ready.append(d)
    unread_leaves = set(np.flatnonzero(g.is_leaf).tolist()) - set(g.in_idx.tolist())
    assert alive == set(np.flatnonzero(g.is_output).tolist()) | unread_leaves


@settings(max_examples=100, deadline=None)
@given(plans(), st.integers(1, 3), st.data())
def test_a_run_of_the_order_keeps_what_is_named(plan, threads, data):
    g = plan.graph
    tasks = plan.order[~g.is_leaf[plan.order]]
    a = data.draw(st.integers(0, len(tasks)))
    b = data.draw(st.integers(a, len(tasks)))
    keep = np.array(data.draw(st.lists(st.booleans(), min_size=g.n_tasks, max_size=g.n_tasks)))
    segments = cut_run(g, tasks[a:b], estimated_seconds(plan), threads, keep)
    assert sorted(t for run in segments.tasks for t in run) == sorted(tasks[a:b].tolist())
    assert not any(keep[x] for run in segments.frees for dying in run for x in dying)
    made = set(tasks[a:b].tolist())
    outside = {x for t in made for x in g.inputs(t).tolist()} - made
    assert outside <= set(segments.readers)


@settings(max_examples=50, deadline=None)
@given(plans(), st.data())
def test_edges_of_some_tasks(plan, data):
    g = plan.graph
    tasks = np.array(data.draw(st.lists(st.integers(0, g.n_tasks - 1), unique=True)), np.int64)
    blocks, place = edges_of(g, tasks)
    assert blocks.tolist() == [b for t in tasks for b in g.inputs(t).tolist()]
    assert place.tolist() == [k for k, t in enumerate(tasks) for _ in g.inputs(t)]


def test_small_work_is_not_shared_between_threads():
    assert useful_threads(np.full(10, 1e-6), 8) == 1
    assert useful_threads(np.full(100_000, 4e-6), 8) == 1
    assert useful_threads(np.full(100, 1e-3), 8) == 8
    # A few long tasks are worth threads, however many short ones stand beside them.
    assert useful_threads(np.array([1e-6] * 100_000 + [0.1] * 8), 8) == 8


def test_long_orders_are_cut_into_many_segments_for_several_threads():
    builder = GraphBuilder()
    builder.add(Kernel("full", (1.0, "f8")), (64,), np.zeros((64, 0)), out_bytes=1e6)
    graph = builder.build((0,))
    none = np.zeros(0, np.int32)
    plan = Plan(graph, Cluster.single(4, 2**30), np.zeros(64, np.int32), np.arange(64), none.astype(np.int64), none, none)
    assert len(cut(plan, estimated_seconds(plan), 4).tasks) >= 8


def test_a_kernel_is_compiled_once_for_all_its_tasks():
    builder = GraphBuilder()
    kernel = Kernel("full", (1.0, "f8"))
    for _ in range(2):
        builder.add(kernel, (3,), np.zeros((3, 0)), out_bytes=8.0, args=AxisArgs((((0, 1),) * 3,)))
    table = TaskTable(builder.build((0,)))
    assert len(set(map(id, table.functions))) == 1 and table.args == [((0, 1),)] * 6
