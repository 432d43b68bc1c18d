"""Whole plans: what every plan must be, drawn by hypothesis, and the figures that policies promise."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nums_core.errors import ConfigError
from nums_core.ops.taskgraph import LEAF, REDUCE, GraphBuilder, Kernel
from nums_core.runtime.cluster import Cluster, Worker
from nums_core.scheduler import make_plan
from nums_core.scheduler.layout import Layout
from nums_core.scheduler.portfolio import POLICIES, SEARCH_TASKS
from nums_core.scheduler.shares import held_bytes, shares

from .graphs import (
    aligned,
    clusters,
    column_sums,
    flat,
    gemm,
    outer,
    random_graph,
    results,
    run_distributed,
    value_of,
    xty,
)

seeds = st.integers(0, 2**32 - 1)
ORDERS, LAYOUTS = ["fixed", "local"], ["packed", "cyclic"]


@settings(max_examples=150, deadline=None)
@given(seeds, clusters(), st.sampled_from(LAYOUTS), st.sampled_from(ORDERS), st.sampled_from(POLICIES))
def test_any_plan_is_sound(seed, cluster, layout, reduction_order, policy):
    graph = random_graph(seed, cluster.n_workers)
    plan = make_plan(graph, cluster, policy=policy, layout=layout, reduction_order=reduction_order)
    plan.validate()
    run_distributed(plan)
    # The same results, combined along the same tree (fixed), or at least the same partials combined (local).
    same = (lambda v: v) if reduction_order == "fixed" or cluster.n_workers == 1 else flat
    got = results(plan.graph, value_of(plan.graph, plan.order.tolist()))
    want = results(graph, value_of(graph))
    assert [list(map(same, r)) for r in got] == [list(map(same, r)) for r in want]
    # Every root at its layout worker, every leaf where it is.
    positions = Layout(cluster, layout, shares=shares(cluster, held_bytes(graph)))
    for f in plan.graph.outputs:
        family = plan.graph.families[f]
        assert (plan.worker[family.start:family.stop] == positions.workers(family.grid)).all()
    fixed = plan.graph.home >= 0
    assert (plan.worker[fixed] == plan.graph.home[fixed]).all()
    # Books balance.
    p = plan.prediction
    assert p.bytes_in.sum() == p.bytes_out.sum() == plan.bytes_moved
    assert plan.graph.flop.sum() == pytest.approx(graph.flop.sum())
    assert all(plan.scores[plan.policy] <= F for F in plan.scores.values())


@settings(max_examples=30, deadline=None)
@given(seeds, clusters())
def test_a_worker_gets_no_more_than_its_tasks_need(seed, cluster):
    plan = make_plan(random_graph(seed, cluster.n_workers), cluster)
    g = plan.graph
    needed = {(b, int(plan.worker[t])) for t in range(g.n_tasks) for b in g.inputs(t).tolist()
              if plan.worker[b] != plan.worker[t]}
    assert needed == set(zip(plan.move_block.tolist(), plan.move_dst.tolist(), strict=True))


@pytest.mark.parametrize("policy", POLICIES)
def test_aligned_elementwise_moves_nothing(policy):
    plan = make_plan(aligned(), Cluster.regular(4, 2), policy=policy)
    assert plan.bytes_moved == 0 and plan.policy == "aligned"


@pytest.mark.parametrize("k", [2, 4, 8, 16])
@pytest.mark.parametrize("n", [16, 48, 50, 64])
def test_xty_fixed_moves_k_minus_1_partials_on_a_power_of_two(n, k):
    assert make_plan(xty(n), Cluster.regular(k)).bytes_moved == (k - 1) * 256


@pytest.mark.parametrize("k", range(1, 17))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_xty_local_moves_k_minus_1_partials(k, layout):
    plan = make_plan(xty(48), Cluster.regular(k), layout=layout, reduction_order="local")
    assert plan.bytes_moved == (k - 1) * 256


@pytest.mark.parametrize("name, dtype, exact", [
    ("max", "<i8", True), ("sum", "<i4", True), ("any", "|b1", True), ("max", "<f8", False), ("sum", "<f8", False),
    ("sum", None, False), ("moments", "<f8", False),
])
def test_exact_reductions_need_not_keep_to_the_tree(name, dtype, exact):
    """48 partials on 3 workers: two cross, or the six that the fixed tree needs."""
    b = GraphBuilder()
    x = b.ids(b.add(Kernel("leaf", (0,)), (48,), np.zeros((48, 0)), out_bytes=8.0, role=LEAF))
    r = b.add(Kernel("tree", ((name, (0,), ()), ((), dtype))), (1,), x.reshape(1, 48), out_bytes=8.0, role=REDUCE)
    assert make_plan(b.build((r,)), Cluster.regular(3)).bytes_moved == (16 if exact else 48)


def test_xty_on_nodes_of_several_workers_crosses_the_network_once_a_node():
    for order in ORDERS:
        plan = make_plan(xty(64), Cluster.regular(4, 4), reduction_order=order)
        node = plan.cluster.node_of
        assert len(plan.move_block) == 15
        assert (node[plan.move_src] != node[plan.move_dst]).sum() == 3


@pytest.mark.parametrize("r, g", [(2, 4), (2, 8), (4, 8), (4, 16)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_square_gemm_moves_what_owner_computes_does(r, g, layout):
    """2 (g/r) (g - g/r) blocks into each of r x r nodes: SUMMA's volume."""
    plan = make_plan(gemm(g), Cluster.regular(r * r), layout=layout)
    assert plan.policy == "owner"
    assert plan.prediction.bytes_in.max() == 2 * (g // r) * (g - g // r)
    assert plan.bytes_moved == 2 * (g // r) * (g - g // r) * r * r


def test_square_gemm_in_waves():
    """Beyond the size of the task-by-task search the same policy wins."""
    graph = gemm(16)
    assert graph.n_tasks > SEARCH_TASKS
    plan = make_plan(graph, Cluster.regular(16))
    assert plan.policy == "owner" and "lshs" in plan.scores and plan.bytes_moved == 1536


def test_portfolio_is_no_worse_than_any_policy_alone():
    for graph in (gemm(4), outer(8), gemm(6, 2)):
        cluster = Cluster.regular(2, 2)
        F = {p: min(make_plan(graph, cluster, policy=p).scores.values()) for p in POLICIES}
        assert F["portfolio"] == min(F.values())


def test_broadcast_is_relayed():
    """One block wanted on 16 nodes: 15 moves, of which its maker sends log2(16)."""
    b = GraphBuilder()
    x = b.ids(b.add(Kernel("leaf", (0,)), (64,), np.zeros((64, 0)), out_bytes=100.0, role=LEAF))
    v = b.add(Kernel("leaf", (1,)), (1,), np.zeros((1, 0)), out_bytes=1.0, role=LEAF)
    f = b.add(Kernel("mul"), (64,), np.stack([x, np.full(64, b.ids(v)[0])], 1), out_bytes=100.0)
    plan = make_plan(b.build((f,)), Cluster.regular(16))
    assert plan.prediction.bytes_out.tolist()[0] == 4 and plan.prediction.bytes_out.sum() == 15
    run_distributed(plan)


def test_broadcast_crosses_the_network_once_a_node():
    b = GraphBuilder()
    x = b.ids(b.add(Kernel("leaf", (0,)), (64,), np.zeros((64, 0)), out_bytes=100.0, role=LEAF))
    v = b.add(Kernel("leaf", (1,)), (1,), np.zeros((1, 0)), out_bytes=1.0, role=LEAF, home=6)
    f = b.add(Kernel("mul"), (64,), np.stack([x, np.full(64, b.ids(v)[0])], 1), out_bytes=100.0)
    plan = make_plan(b.build((f,)), Cluster.regular(4, 4))
    node = plan.cluster.node_of
    assert len(plan.move_block) == 15 and (node[plan.move_src] != node[plan.move_dst]).sum() == 3
    run_distributed(plan)


_PRINT_PLAN = """
import hashlib
from nums_core.runtime.cluster import Cluster
from nums_core.scheduler import make_plan
from tests.scheduler.graphs import gemm, random_graph
h = hashlib.sha256()
for seed, graph in enumerate([gemm(4), gemm(3, 5), *[random_graph(s, 6) for s in range(20)]]):
    for policy in "portfolio", "lshs", "beam", "2.5d":
        plan = make_plan(graph, Cluster.regular(3, 2), seed=seed, policy=policy)
        for a in (plan.worker, plan.order, plan.move_block, plan.move_src, plan.move_dst):
            h.update(a.tobytes())
        h.update(repr((plan.policy, plan.scores)).encode())
print(h.hexdigest())
"""


def test_same_seed_same_plan_in_any_process():
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    digests = {subprocess.run([sys.executable, "-c", _PRINT_PLAN], capture_output=True, text=True, check=True, cwd=root,
                              env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": root}).stdout
               for seed in ("0", "1", "12345")}
    assert len(digests) == 1


def test_empty_graph():
    for cluster in (Cluster.regular(1), Cluster.regular(3)):
        plan = make_plan(GraphBuilder().build(()), cluster)
        plan.validate()
        assert plan.graph.n_tasks == 0 and plan.bytes_moved == 0 and plan.prediction.seconds == 0


def test_families_without_blocks():
    b = GraphBuilder()
    x = b.add(Kernel("leaf", (0,)), (0, 3), np.zeros((0, 0)), out_bytes=1.0, role=LEAF)
    m = b.add(Kernel("map"), (0, 3), b.ids(x).reshape(-1, 1), out_bytes=1.0)
    r = b.add(Kernel("tree", ("sum", None)), (0,), np.zeros(0), counts=np.zeros(0, np.int64), out_bytes=1.0, role=REDUCE)
    for cluster in (Cluster.regular(1), Cluster.regular(3)):
        make_plan(b.build((m, r)), cluster).validate()


@pytest.mark.parametrize("cluster", [Cluster.single(2, 2**30), Cluster.regular(3, 2)], ids=["one", "six"])
def test_single_task(cluster):
    b = GraphBuilder()
    f = b.add(Kernel("random"), (), np.zeros((1, 0)), out_bytes=8.0, flop=1e9)
    plan = make_plan(b.build((f,)), cluster)
    plan.validate()
    assert plan.worker.tolist() == [0] and plan.prediction.peak_bytes[0] == 8
    assert plan.prediction.seconds == pytest.approx(1e9 / cluster.workers[0].flop_per_s, rel=1e-3)


def test_unlike_workers_and_nodes():
    cluster = Cluster((Worker(0, 4, 2**30, 1e10), Worker(1, 1, 2**28, 1e9), Worker(1, 1, 2**28, 1e9), Worker(3, 2)))
    for graph in (gemm(4), xty(20), column_sums(6, 4)):
        plan = make_plan(graph, cluster)
        plan.validate()
        run_distributed(plan)


def test_plans_are_pickled():
    plan = make_plan(gemm(4), Cluster.regular(2, 2))
    copy = pickle.loads(pickle.dumps(plan))
    copy.validate()
    assert copy.text() == plan.text() and (copy.order == plan.order).all()


def test_text_tells_policy_and_scores():
    text = make_plan(gemm(4), Cluster.regular(2, 2)).text()
    assert "policy owner" in text and "portfolio F: owner" in text


def test_inner_tasks_of_a_reduction():
    plan = make_plan(xty(16), Cluster.regular(4))
    inner = [f for f in plan.graph.families if f.label.endswith(".combine")]
    assert inner and all(f.kernel == Kernel("tree", ("sum", None)) and f.role == "task" for f in inner)
    assert plan.graph.families[-1].kernel == Kernel("tree", ("sum", "finish"))
    assert all(f.role != REDUCE for f in plan.graph.families)


@pytest.mark.parametrize("options, remedy", [
    ({"policy": "ownr"}, "did you mean 'owner'"), ({"policy": "??"}, "the policies are portfolio, lshs"),
    ({"layout": "dense"}, "'packed', 'cyclic'"), ({"reduction_order": "any"}, "'fixed', 'local'"),
])
def test_unknown_options(options, remedy):
    with pytest.raises(ConfigError, match=remedy):
        make_plan(gemm(2), Cluster.regular(2), **options)
