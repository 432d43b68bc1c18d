"""The simulator: closed forms on small plans, agreement with the estimate, and conservation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nums_core.ops.taskgraph import LEAF, GraphBuilder, Kernel
from nums_core.runtime.cluster import Cluster, Link, Worker
from nums_core.scheduler import make_plan
from nums_core.scheduler.load import account
from nums_core.scheduler.moves import Moves, list_moves
from nums_core.scheduler.simulate import simulate, task_seconds

from .graphs import clusters, gemm, leaf, random_graph, xty

NEAR = 1e-5  # a task takes some microseconds beside its work


def independent(n, flop=2e10, size=8.0):
    b = GraphBuilder()
    f = b.add(Kernel("random"), (n,), np.zeros((n, 0)), out_bytes=size, flop=flop)
    return b.build((f,))


@pytest.mark.parametrize("threads, seconds", [(1, 6), (2, 3), (4, 2), (6, 1), (9, 1)])
def test_independent_tasks_fill_the_threads(threads, seconds):
    plan = make_plan(independent(6), Cluster((Worker(0, threads),)))
    assert simulate(plan).seconds == pytest.approx(seconds, rel=NEAR)
    assert simulate(plan).busy_s.tolist() == pytest.approx([6], rel=NEAR)


def test_a_task_takes_memory_and_arithmetic():
    b = GraphBuilder()
    x = leaf(b, 0, (1,), 5e9)
    f = b.add(Kernel("map"), (1,), x.reshape(-1, 1), out_bytes=5e9, flop=1.0)
    cluster = Cluster((Worker(0, 1, flop_per_s=1e9, memory_bytes_per_s=5e9),))
    assert simulate(make_plan(b.build((f,)), cluster)).seconds == pytest.approx(2, rel=NEAR)
    slow = make_plan(independent(1, 4e9), cluster)
    assert task_seconds(slow.graph, slow.worker, cluster).tolist() == pytest.approx([4], rel=NEAR)


def test_unlike_workers_take_their_own_time():
    cluster = Cluster((Worker(0, 1, flop_per_s=2e9), Worker(1, 1, flop_per_s=1e9)))
    p = simulate(make_plan(independent(2, 2e9), cluster))
    assert p.busy_s.tolist() == pytest.approx([1, 2], rel=NEAR) and p.seconds == pytest.approx(2, rel=NEAR)


@pytest.mark.parametrize("nodes, per_node, wire", [(2, 1, 0.5 + 2), (1, 2, 0.25 + 1)])
def test_a_move_takes_latency_and_bandwidth(nodes, per_node, wire):
    """One operand is fetched, then one task runs."""
    b = GraphBuilder()
    x, y = leaf(b, 0, (1,), 4.0, home=0), leaf(b, 1, (1,), 4.0, home=1)
    f = b.add(Kernel("add"), (1,), np.stack([x, y], 1), out_bytes=0.0, flop=2e10)
    cluster = Cluster.regular(nodes, per_node, network=Link(0.5, 2.0), local=Link(0.25, 4.0))
    plan = make_plan(b.build((f,)), cluster)
    assert simulate(plan).seconds == pytest.approx(wire + 1, rel=NEAR)
    assert simulate(plan).bytes_in.tolist() == [4, 0] and simulate(plan).bytes_out.tolist() == [0, 4]


def test_a_port_passes_one_block_at_a_time():
    """Three blocks into one node take three times as long; into three nodes (relayed) log2 of it."""
    b = GraphBuilder()
    x = b.ids(b.add(Kernel("leaf", (0,)), (4,), np.zeros((4, 0)), out_bytes=2.0, role=LEAF))
    f = b.add(Kernel("add"), (1,), x.reshape(1, 4), out_bytes=0.0)
    cluster = Cluster.regular(4, network=Link(0.0, 2.0))
    assert simulate(make_plan(b.build((f,)), cluster)).seconds == pytest.approx(3, rel=NEAR)
    b = GraphBuilder()
    v = leaf(b, 0, (1,), 2.0)
    f = b.add(Kernel("copy"), (4,), np.repeat(v, 4).reshape(4, 1), out_bytes=0.0)
    assert simulate(make_plan(b.build((f,)), cluster)).seconds == pytest.approx(2, rel=NEAR)


def test_memory_is_freed_on_last_use():
    """A chain of ten on one worker holds two blocks at a time."""
    b = GraphBuilder()
    x = b.ids(b.add(Kernel("random"), (1,), np.zeros((1, 0)), out_bytes=1.0))
    for _ in range(10):
        f = b.add(Kernel("map"), (1,), x.reshape(1, 1), out_bytes=1.0, flop=1.0)
        x = b.ids(f)
    plan = make_plan(b.build((f,)), Cluster.single(4, 2**30))
    assert simulate(plan).peak_bytes.tolist() == [2] == simulate(plan, exact=False).peak_bytes.tolist()


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32 - 1), clusters())
def test_replay_runs_every_plan(seed, cluster):
    plan = make_plan(random_graph(seed, cluster.n_workers), cluster)
    exact, rough = simulate(plan), simulate(plan, exact=False)
    seconds = task_seconds(plan.graph, plan.worker, cluster)
    assert exact.busy_s == pytest.approx(rough.busy_s)
    assert exact.busy_s.sum() == pytest.approx(seconds.sum())
    assert rough.seconds <= exact.seconds * (1 + 1e-9), "the estimate is a lower bound"
    assert exact.bytes_in.tolist() == rough.bytes_in.tolist()
    leaves = np.bincount(plan.worker[plan.graph.is_leaf], plan.graph.out_bytes[plan.graph.is_leaf], cluster.n_workers)
    assert (exact.peak_bytes >= leaves - 1e-9).all()
    assert exact.peak_bytes.sum() <= plan.graph.out_bytes.sum() + exact.bytes_in.sum() + 1e-9


def test_one_thread_replays_the_plan_order():
    """On one worker of one thread the two simulators see the same memory."""
    for graph in (xty(20), gemm(4, computed=True), *[random_graph(s, 1) for s in range(30)]):
        plan = make_plan(graph, Cluster.single(1, 2**30))
        assert simulate(plan).peak_bytes == pytest.approx(simulate(plan, exact=False).peak_bytes)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), clusters())
def test_relays_send_no_more_than_the_maker_would(seed, cluster):
    plan = make_plan(random_graph(seed, cluster.n_workers), cluster)
    star = list_moves(plan.graph, plan.worker, cluster, "first")
    tree = list_moves(plan.graph, plan.worker, cluster, "relay")
    a, b = (account(plan.graph, plan.worker, m, cluster) for m in (star, tree))
    assert a.moved == b.moved and (a.mem == b.mem).all()
    assert b.into.sum() <= a.into.sum() + 1e-9, "relays cross the network no more often"
    assert b.out.sum() == pytest.approx(b.into.sum())


def test_loads_of_no_moves():
    graph = xty(1)
    loads = account(graph, np.zeros(graph.n_tasks, np.int32), Moves.none(), Cluster.regular(2))
    assert loads.mem.tolist() == [graph.out_bytes.sum(), 0] and loads.F == graph.out_bytes.sum()
