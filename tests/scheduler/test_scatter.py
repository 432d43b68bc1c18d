"""Large partial results are combined in pieces: same bits, less into the root's worker."""

import numpy as np
import pytest

import nums_core
import nums_core.array as nnp
from nums_core import config
from nums_core.ops.taskgraph import REDUCE, GraphBuilder, Kernel
from nums_core.runtime.cluster import Cluster
from nums_core.scheduler import make_plan, scatter
from nums_core.testing.loopback import LoopbackExecutor

from .graphs import leaf, run_distributed

MIB = 2.0**20


def total(n, partial=64 * MIB, name="sum", outputs=1):
    """`outputs` sums of n large partial results each."""
    b = GraphBuilder()
    x = leaf(b, 0, (n, outputs), 4 * partial)
    m = b.add(Kernel("map"), (n, outputs), x.reshape(-1, 1), out_bytes=partial)
    r = b.add(Kernel("tree", ((name, (), ()), ((), None))), (outputs,), b.ids(m).T, out_bytes=partial, role=REDUCE,
              flop=(n - 1) * partial)
    return b.build((r,))


@pytest.mark.parametrize("k", [4, 5, 8, 12, 16])
@pytest.mark.parametrize("order", ["fixed", "local"])
def test_bytes(k, order):
    """(k - 1) s in pieces, and all but the root's own piece to the root: 2 s (k - 1) / k into it, not log2(k) s."""
    s = 64 * MIB
    plan = make_plan(total(k), Cluster.regular(k), reduction_order=order)
    plan.validate()
    run_distributed(plan)
    p = plan.prediction
    assert p.bytes_in[0] == pytest.approx(2 * s * (k - 1) / k)
    assert p.bytes_in[1:] == pytest.approx(np.full(k - 1, s * (k - 1) / k))
    assert plan.bytes_moved == pytest.approx((k - 1) * s * (1 + 1 / k))


def test_seconds_are_fewer(monkeypatch):
    cluster = Cluster.regular(16)
    pieces = make_plan(total(16), cluster).prediction.seconds
    monkeypatch.setattr(scatter, "LARGE_BYTES", np.inf)
    assert pieces < 0.7 * make_plan(total(16), cluster).prediction.seconds


def test_inside_a_node_first():
    """4 nodes of 4 workers: what crosses the network is no more than the pieces of 4 partials, and the joining."""
    s = 64 * MIB
    plan = make_plan(total(16), Cluster.regular(4, 4))
    node = plan.cluster.node_of
    crosses = node[plan.move_src] != node[plan.move_dst]
    run_distributed(plan)
    assert plan.graph.out_bytes[plan.move_block][crosses].sum() == pytest.approx(3 * s + 3 / 4 * s)


@pytest.mark.parametrize("graph, k", [
    (total(16, MIB), 16), (total(16, name="moments"), 16), (total(16, outputs=9), 16), (total(2), 2), (total(80), 80),
], ids=["small", "not elementwise", "many outputs", "two workers", "too many workers"])
def test_whole_where_pieces_do_not_pay(graph, k):
    plan = make_plan(graph, Cluster.regular(k))
    assert not any(f.kernel.name.startswith("scatter") for f in plan.graph.families)


def on_five_workers(values, order, monkeypatch, in_pieces):
    """Reductions of `values` in blocks of 7 rows that five workers hold, and the kernels that were planned."""
    monkeypatch.setattr(scatter, "LARGE_BYTES", 0 if in_pieces else np.inf)
    monkeypatch.setattr(scatter, "GAIN", -1e9)
    with nums_core.init(executor=LoopbackExecutor(5)), config.set(reduction_order=order):
        x = nnp.asarray(values, chunks=(7, *values.shape[1:])).persist()
        made = [x.sum(axis=0), x.T @ x if x.ndim == 2 else x.prod(axis=0), x.max(axis=0)]
        kernels = {f.kernel.name for m in made for f in m.explain().graph.families}
        return [np.asarray(m.compute()) for m in made], kernels


@pytest.mark.parametrize("shape", [(200, 7), (40, 3, 5), (37, 2)])
@pytest.mark.parametrize("order", ["fixed", "local"])
def test_bits_are_those_of_the_tree(shape, order, monkeypatch):
    """Also where there are more pieces than elements along any axis."""
    values = np.random.default_rng(3).normal(size=shape)
    pieces, kernels = on_five_workers(values, order, monkeypatch, True)
    whole, plain = on_five_workers(values, order, monkeypatch, False)
    assert {"scatter.slice", "scatter.join"} <= kernels and not any(name.startswith("scatter") for name in plain)
    assert [p.tobytes() for p in pieces] == [w.tobytes() for w in whole]
    np.testing.assert_allclose(pieces[0], values.sum(axis=0))
