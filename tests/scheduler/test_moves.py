"""Relays: every copy once, along a binomial tree over nodes and then inside them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nums_core.ops.taskgraph import GraphBuilder, Kernel
from nums_core.runtime.cluster import Cluster
from nums_core.scheduler.moves import Moves, list_moves

from .graphs import clusters, leaf


def broadcast(n_workers, maker):
    """One block made on `maker` and read on all workers, and the placement that says so."""
    b = GraphBuilder()
    v = leaf(b, 0, (1,), 1.0, home=maker)
    f = b.add(Kernel("copy"), (n_workers,), np.repeat(v, n_workers).reshape(-1, 1), out_bytes=0.0)
    return b.build((f,)), np.r_[maker, np.arange(n_workers)].astype(np.int32)


def hops(moves, maker):
    """Relays between the maker and each worker; every source must have its copy before it sends."""
    depth = {maker: 0}
    for src, dst in zip(moves.src.tolist(), moves.dst.tolist(), strict=True):
        assert dst not in depth
        depth[dst] = depth[src] + 1
    return depth


@given(clusters(6), st.integers(0, 99))
def test_everyone_gets_one_copy(cluster, maker):
    maker %= cluster.n_workers
    graph, worker = broadcast(cluster.n_workers, maker)
    moves = list_moves(graph, worker, cluster)
    assert sorted(hops(moves, maker)) == list(range(cluster.n_workers))
    node = cluster.node_of
    assert (node[moves.src] != node[moves.dst]).sum() == len(set(node.tolist())) - 1


@pytest.mark.parametrize("n", [2, 3, 4, 8, 9, 16, 100])
@pytest.mark.parametrize("maker", [0, 1])
def test_binomial_tree(n, maker):
    graph, worker = broadcast(n, maker)
    moves = list_moves(graph, worker, Cluster.regular(n))
    depth = hops(moves, maker)
    assert max(depth.values()) <= np.ceil(np.log2(n))
    assert (moves.src == maker).sum() == int(np.ceil(np.log2(n)))


def test_first_source_is_a_star():
    graph, worker = broadcast(8, 3)
    moves = list_moves(graph, worker, Cluster.regular(8), "first")
    assert (moves.src == 3).all() and len(moves.dst) == 7


@settings(deadline=None)
@given(clusters(), st.integers(0, 2**32 - 1))
def test_moves_are_the_distinct_needs(cluster, seed):
    rng = np.random.default_rng(seed)
    b = GraphBuilder()
    x = leaf(b, 0, (5,), 1.0)
    b.add(Kernel("map"), (20,), rng.choice(x, (20, 3)), out_bytes=1.0)
    graph = b.build((1,))
    worker = rng.integers(0, cluster.n_workers, graph.n_tasks).astype(np.int32)
    moves = list_moves(graph, worker, cluster)
    needs = {(int(i), int(worker[t])) for t in range(5, 25) for i in graph.inputs(t) if worker[i] != worker[t]}
    assert sorted(needs) == sorted(zip(moves.block.tolist(), moves.dst.tolist(), strict=True))
    assert (moves.src != moves.dst).all() and (np.diff(moves.block) >= 0).all()


def test_no_moves():
    graph, worker = broadcast(1, 0)
    assert [len(part) for part in list_moves(graph, worker, Cluster.regular(1))] == [0, 0, 0]
    assert Moves.none().block.dtype == np.int64
