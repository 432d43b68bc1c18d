"""Orders are topological and leave little alive; peaks are counted by a plain loop, in units of one block."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nums_core.ops.taskgraph import REDUCE, GraphBuilder, Kernel
from nums_core.runtime.cluster import Cluster
from nums_core.scheduler import make_plan
from nums_core.scheduler import order as ordering
from nums_core.scheduler.moves import Moves, list_moves
from nums_core.scheduler.simulate import Liveness, simulate

from .graphs import aligned, clusters, column_sums, gemm, random_graph, xty

BLOCK = 8.0 * 2**20  # heavy, so that reductions are cut into pairs
ONE = Cluster.single(1, 2**30)


def slow_peaks(plan):
    """Bytes alive on each worker, task by task: copies from first to last local use, leaves all along."""
    g, n = plan.graph, plan.cluster.n_workers
    peaks = np.zeros(n)
    for w in range(n):
        mine = [t for t in plan.order.tolist() if plan.worker[t] == w]
        uses = {}
        for i, t in enumerate(mine):
            for b in g.inputs(t).tolist():
                uses.setdefault(b, []).append(i)
        held = sum(g.out_bytes[t] for t in mine if g.is_leaf[t])
        alive = np.zeros(len(mine) + 1)
        for i, t in enumerate(mine):
            if not g.is_leaf[t]:
                end = len(mine) if g.is_output[t] else max(uses.get(t, [i]))
                alive[i:end + 1] += g.out_bytes[t]
        for b, at in uses.items():
            if plan.worker[b] != w:
                alive[min(at):max(at) + 1] += g.out_bytes[b]
        peaks[w] = held + alive.max()
    return peaks


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), clusters())
def test_liveness_is_what_a_plain_loop_counts(seed, cluster):
    plan = make_plan(random_graph(seed, cluster.n_workers), cluster)
    assert simulate(plan, exact=False).peak_bytes == pytest.approx(slow_peaks(plan))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_every_candidate_is_topological(seed):
    plan = make_plan(random_graph(seed, 1), ONE)
    g = plan.graph
    few, ordering._FEW = ordering._FEW, 0
    try:
        orders = list(ordering.candidates(g))
    finally:
        ordering._FEW = few
    assert len(orders) >= 1
    for order in orders:
        position = np.argsort(order)
        assert (np.sort(order) == np.arange(g.n_tasks)).all()
        assert (position[g.in_idx] < position[g.consumer_of_edge]).all()


def test_wide_graphs_fall_back_to_a_plain_sort():
    keys = np.array([3, 1, 3, 1 << 20]), np.array([0, 5, 0, 2])
    packed = ordering._sorted_by(*keys)
    assert packed.tolist() == np.lexsort((np.arange(4), keys[1], keys[0])).tolist()


def peak(graph, memory=2**24):
    """Peak of the plan on one worker, in blocks."""
    return make_plan(graph, Cluster.single(1, memory)).prediction.peak_bytes[0] / BLOCK


def test_a_sum_keeps_log_n_partials():
    for n in (16, 64, 256):
        b = GraphBuilder()
        x = b.ids(b.add(Kernel("random"), (n,), np.zeros((n, 0)), out_bytes=BLOCK))
        f = b.add(Kernel("tree", ("sum", None)), (), x.reshape(1, n), out_bytes=BLOCK, role=REDUCE)
        assert peak(b.build((f,))) <= np.log2(n) + 2


def test_a_chain_keeps_its_output_and_one_block():
    b = GraphBuilder()
    x = b.ids(b.add(Kernel("random"), (50,), np.zeros((50, 0)), out_bytes=BLOCK))
    for _ in range(4):
        f = b.add(Kernel("map"), (50,), x.reshape(-1, 1), out_bytes=BLOCK)
        x = b.ids(f)
    assert peak(b.build((f,))) == 51


def test_a_product_keeps_one_operand_and_a_row():
    """C = A B, 8 x 8 computed blocks: B and C, a row of A, the partials of one block."""
    assert peak(gemm(8, size=BLOCK, computed=True)) <= 64 + 64 + 8


def test_several_statistics_read_an_array_once():
    """Two column sums of one computed array: by outputs 32 blocks of a column wait for the second sum."""
    assert peak(column_sums(32, 4, outputs=2, size=BLOCK)) < 8


def gram():
    """X^T X of 32 x 4 computed blocks, into light blocks."""
    b = GraphBuilder()
    x = b.ids(b.add(Kernel("random"), (32, 4), np.zeros((128, 0)), out_bytes=BLOCK))
    i, j, k = (a.ravel() for a in np.meshgrid(np.arange(4), np.arange(4), np.arange(32), indexing="ij"))
    m = b.add(Kernel("matmul"), (4, 4, 32), np.stack([x[k, i], x[k, j]], 1), out_bytes=BLOCK / 16)
    f = b.add(Kernel("tree", ("sum", None)), (4, 4), b.ids(m).reshape(16, 32), out_bytes=BLOCK / 16, role=REDUCE)
    return b.build((f,))


def test_a_gram_matrix_reads_rows_once():
    assert peak(gram()) < 16


def sum_of_product():
    """sum(A B) of 8 x 8 computed blocks."""
    b = GraphBuilder()
    x, y = (b.ids(b.add(Kernel("random"), (8, 8), np.zeros((64, 0)), out_bytes=BLOCK)) for _ in range(2))
    i, j, k = (a.ravel() for a in np.meshgrid(*[np.arange(8)] * 3, indexing="ij"))
    m = b.add(Kernel("matmul"), (8, 8, 8), np.stack([x[i, k], y[k, j]], 1), out_bytes=BLOCK)
    c = b.add(Kernel("tree", ("sum", None)), (8, 8), b.ids(m).reshape(64, 8), out_bytes=BLOCK, role=REDUCE)
    p = b.add(Kernel("map"), (8, 8), b.ids(c).reshape(-1, 1), out_bytes=8.0)
    f = b.add(Kernel("tree", ("sum", None)), (), b.ids(p).reshape(1, -1), out_bytes=8.0, role=REDUCE)
    return b.build((f,))


def test_the_sum_of_a_product_makes_one_block_after_the_other():
    assert peak(sum_of_product()) < 64 + 16


@pytest.mark.parametrize("graph", [
    gram(), sum_of_product(), gemm(8, size=BLOCK, computed=True), gemm(4, 12, size=BLOCK, computed=True),
    column_sums(32, 4, size=BLOCK), column_sums(32, 4, outputs=3, size=BLOCK),
], ids=["gram", "sum of product", "gemm", "deep gemm", "column sums", "three column sums"])
def test_on_a_par_with_a_task_by_task_search(graph):
    dask = pytest.importorskip("dask.order")
    plan = make_plan(graph, Cluster.single(1, 2**24))
    g = plan.graph
    keys = dask.order({f"t{t}": (sum, *(f"t{b}" for b in g.inputs(t))) for t in range(g.n_tasks)})
    theirs = np.argsort([keys[f"t{t}"] for t in range(g.n_tasks)])
    live = Liveness(g, plan.worker, plan.cluster, Moves.none())
    assert plan.prediction.peak_bytes[0] <= 1.05 * live.peaks(theirs)[0]


def test_order_is_compared_only_where_memory_matters():
    assert peak(gram(), 2**40) > 100 > peak(gram(), 2**24)


def test_owner_computes_peak_on_a_cluster():
    """Depth first: little more than a worker's leaves, its outputs, a panel of copies and one product."""
    plan = make_plan(gemm(8), Cluster.regular(16))
    live = Liveness(plan.graph, plan.worker, plan.cluster, list_moves(plan.graph, plan.worker, plan.cluster))
    assert plan.policy == "owner" and live.peaks(plan.order).max() <= 38


def test_leaves_are_always_held():
    graph = aligned(8, 1)
    p = make_plan(graph, ONE).prediction
    assert p.peak_bytes[0] == graph.out_bytes.sum()
    spread = make_plan(xty(8), Cluster.regular(4)).prediction
    assert (spread.peak_bytes >= 4 * 16000).all()
