"""Plans cut into calls: acyclic, complete, few, within memory; and the same values however they are cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nums_core.ops.taskgraph import AxisArgs, Family, Kernel, ListArgs
from nums_core.runtime import partition as partition_module
from nums_core.runtime.cluster import Cluster
from nums_core.runtime.executors.local import LocalExecutor
from nums_core.runtime.partition import DRIVER, partition, phases, row_args
from nums_core.testing.loopback import LoopbackExecutor
from nums_core.testing.sketch import Sketch, plan_by_hand

MIB = 2**20


@st.composite
def cases(draw, workers=st.integers(1, 4)):
    """A random program on arrays of 6 blocks, placed at random, with random outputs kept or given."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_workers = draw(workers)
    s = Sketch()
    chunks = ((3,) * 6,)
    made = [s.view(0, chunks), s.view(1, chunks)]
    for _ in range(draw(st.integers(1, 8))):
        a, b = rng.choice(made), rng.choice(made)
        op = rng.choice(["add", "maximum", "negative", "shuffle"])
        if op == "shuffle":
            first = s.apply("add", int(a), int(b))
            ids = np.stack([s.builder.ids(int(a)), rng.permutation(s.builder.ids(int(b)))], axis=1)
            made.append(s._add(s.builder.families[first].kernel, chunks, "f8", ids, label="shuffle"))
        else:
            made.append(s.apply(str(op), int(a)) if op == "negative" else s.apply(str(op), int(a), int(b)))
    tasks = made[2:]
    outputs = [int(f) for f in rng.choice(tasks, draw(st.integers(1, 3)))]
    keep = rng.integers(0, 2, len(outputs)).astype(bool).tolist()
    place = rng.integers(0, n_workers, s.builder.n_tasks)
    return s, outputs, keep, place, n_workers


def check(plan, made):
    """Every call has what it reads, from calls before it or from the driver."""
    g = plan.graph
    done: set[tuple[int, int]] = set()  # (worker, block) pairs that exist
    arrived = set()
    for f in g.families:
        if f.kernel.name == "held":
            done |= {(int(plan.worker[b]), b) for b in range(f.start, f.stop)}
    ran = []
    for k, call in enumerate(made.calls):
        part, ids = made.parts[call.worker], made.ids[call.worker]
        step = part.steps[call.step]
        assert len(step.imports) == len(call.imports) and len(step.exports) == len(call.exports)
        for number, local in zip(call.imports, step.imports, strict=True):
            bundle = made.bundles[number]
            assert k in bundle.readers and (bundle.source == DRIVER or bundle.source < k)
            assert bundle.source == DRIVER or number in arrived
            assert ids[local].tolist() == bundle.blocks.tolist()
            done |= {(call.worker, b) for b in bundle.blocks.tolist()}
        for t in ids[part.plan.order[step.start:step.stop]].tolist():
            assert all((call.worker, b) in done for b in g.inputs(t).tolist())
            done.add((call.worker, t))
            ran.append(t)
        for number, local in zip(call.exports, step.exports, strict=True):
            assert made.bundles[number].source == k and ids[local].tolist() == made.bundles[number].blocks.tolist()
            assert all((call.worker, b) in done for b in made.bundles[number].blocks.tolist())
            arrived.add(number)
        assert ids[step.results].tolist() == call.results.tolist()
    assert sorted(ran) == np.flatnonzero(~g.is_leaf).tolist()


@settings(max_examples=150, deadline=None)
@given(cases(), st.integers(1, 5))
def test_calls_are_in_order_and_complete(case, windows):
    s, outputs, keep, place, n = case
    plan, wanted = s.plan(Cluster.regular(n), outputs, keep, place)
    check(plan, partition(plan, wanted))
    check(plan, partition_module._Draft(plan, wanted).cut(windows))


@settings(max_examples=60, deadline=None)
@given(cases(), st.booleans())
def test_values_do_not_depend_on_the_cut(case, spill):
    s, outputs, keep, place, n = case
    executor = LoopbackExecutor(n, memory_bytes=100 if spill else 2**30)
    x, y = np.random.default_rng(0).normal(size=(2, 18))
    plan, wanted = s.plan(executor.cluster, outputs, keep, place)
    got, report = executor.run(plan, [x, y], wanted)
    alone, wanted = s.plan(Cluster.single(1, 2**30), outputs)
    want, _ = LocalExecutor(1, 2**30).run(alone, [x, y], wanted)
    for a, b, k in zip(got, want, keep, strict=True):
        np.testing.assert_array_equal(np.concatenate(executor.fetch(a)) if k else a, b)
    assert report.bytes_moved == plan.bytes_moved


@settings(max_examples=100, deadline=None)
@given(cases())
def test_a_phase_is_the_most_changes_of_worker_on_a_path(case):
    s, outputs, keep, place, n = case
    plan, _ = s.plan(Cluster.regular(n), outputs, keep, place)
    g, window = plan.graph, np.arange(plan.graph.n_tasks) // 7
    got = phases(g, plan.worker, window)
    want = np.zeros(g.n_tasks, int)
    for t in range(g.n_tasks):
        for b in g.inputs(t).tolist():
            if not g.is_leaf[b] and window[b] == window[t]:
                want[t] = max(want[t], want[b] + (plan.worker[b] != plan.worker[t]))
    np.testing.assert_array_equal(got, want)


def test_a_block_for_many_readers_is_one_bundle():
    s = Sketch()
    big = s.call(np.negative, s.view(0, ((100_000,),)))
    chunks = ((100_000,) * 4,)
    w = s._add(Kernel("identity"), chunks, "f8", np.repeat(s.builder.ids(big), 4)[:, None])
    plan, wanted = s.plan(Cluster.regular(4), [w], place=np.array([0, 0, 0, 1, 2, 3]))
    made = partition(plan, wanted)
    (bundle,) = [b for b in made.bundles if b.source != DRIVER]
    assert len(bundle.readers) == 3


def test_small_blocks_are_bundled_by_reader():
    s = Sketch()
    v = s.apply("add", s.view(0, ((5,) * 40,)), 1.0)
    w = s.apply("add", v, 1.0)
    place = np.concatenate([np.zeros(80, int), np.arange(40) % 4])
    plan, wanted = s.plan(Cluster.regular(4), [w], place=place)
    assert len([b for b in partition(plan, wanted).bundles if b.source != DRIVER]) == 3


def test_large_results_leave_in_several_calls():
    s = Sketch()
    w = s.apply("add", s.view(0, ((2**21,) * 64,)), 1.0)
    plan, wanted = s.plan(Cluster.regular(1, memory_bytes=2**34), [w])
    calls = partition(plan, wanted).calls
    sizes = [plan.graph.out_bytes[c.results].sum() for c in calls]
    assert len(calls) >= 4 and max(sizes) <= 300 * MIB


def test_more_windows_where_memory_is_short():
    """All first blocks cross before any second one is made, unless the order is cut into windows."""
    n = 64
    s = Sketch()
    v = s.call(np.negative, s.view(0, ((MIB // 8,) * n,)))
    w = s.call(np.negative, v)
    total = s.reduce("sum", w, (0,))
    place = np.concatenate([np.zeros(2 * n, int), np.ones(n, int), np.ones(n + 1, int)])
    order = np.concatenate([np.arange(4 * n).reshape(4, n).T.reshape(-1), [4 * n]])
    graph = s.graph([total])
    large, small = [plan_by_hand(graph, Cluster.regular(2, memory_bytes=m * MIB), place, order) for m in (1000, 30)]
    few, many = partition(large, [_wanted()]), partition(small, [_wanted()])
    assert len(many.calls) > len(few.calls)
    assert few.parts[0].peak_bytes > 60 * MIB and many.parts[0].peak_bytes < 30 * MIB
    assert not any(p.over_budget for p in many.parts.values())


def _wanted():
    from nums_core.runtime.executors.base import Output

    return Output((), "<f8")


@pytest.mark.parametrize("args", [AxisArgs(((1, 2, 3), ("a", "b"))), ListArgs(tuple("uvwxyz"))])
def test_arguments_of_some_rows(args):
    f = Family(Kernel("x"), 0, (3, 2), args=args)
    every = list(args)
    rows = np.array([0, 3, 5])
    assert list(row_args(f, rows)) == [every[i] for i in rows]
    assert list(row_args(f, rows[:0])) == []


def test_arguments_of_a_grid_without_axes():
    assert list(row_args(Family(Kernel("x"), 0, (), args=AxisArgs(())), np.array([0]))) == [()]


def test_blocks_that_stay_count_to_the_end():
    """Keeping more than a worker's memory is spilled, not ignored."""
    s = Sketch()
    v = s.apply("add", s.view(0, ((500,) * 8,)), 1.0)
    made = partition(*s.plan(Cluster.regular(2, memory_bytes=10_000), [v], keep=True))
    assert [(p.peak_bytes, p.over_budget) for p in made.parts.values()] == [(20_000.0, True)] * 2
