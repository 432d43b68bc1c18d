"""Positions of blocks: the reference's example, balance, contiguity, nesting."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nums_core.errors import ConfigError
from nums_core.ops import tree
from nums_core.runtime.cluster import Cluster
from nums_core.scheduler.layout import Layout, factorise, runs

from .graphs import clusters


def test_cyclic_goes_to_nodes_first():
    """2 nodes of 2 workers: n0w0, n1w0, n0w1, n1w1."""
    at = Layout(Cluster.regular(2, 2), "cyclic").workers((4,))
    assert at.tolist() == [0, 2, 1, 3]


def test_cyclic_with_a_worker_grid_is_that_of_nums():
    layout = Layout(Cluster.regular(16), "cyclic", (4, 4))
    at = layout.workers((8, 8)).reshape(8, 8)
    i, j = np.indices((8, 8))
    assert (at == i % 4 * 4 + j % 4).all()
    assert layout.workers((8, 1)).tolist() == [i % 4 * 4 for i in range(8)]
    assert layout.workers((6,)).tolist() == [i % 4 * 4 for i in range(6)]
    three = layout.workers((8, 8, 2)).reshape(8, 8, 2)
    assert (three == at[..., None]).all()


@pytest.mark.parametrize("grid, n, shape", [
    ((16, 16), 16, (4, 4)), ((48, 1), 16, (16, 1)), ((1, 48), 16, (1, 16)), ((8, 8), 4, (2, 2)), ((), 4, ()),
    ((100, 10), 6, (6, 1)), ((10, 10, 10), 8, (2, 2, 2)),
])
def test_factorise(grid, n, shape):
    assert factorise(grid, n) == shape


@pytest.mark.parametrize("workers", [1, 2, 4, 16])
@pytest.mark.parametrize("n", [16, 17, 33, 100])
def test_packed_runs_are_ranges_of_the_reduction_tree(n, workers):
    at = Layout(Cluster.regular(workers)).workers((n,))
    edges = tree.bounds(n, workers.bit_length() - 1)
    assert [int(np.searchsorted(at, w)) for w in range(workers)] == edges[:-1].tolist()


@given(st.integers(1, 300), st.integers(1, 40))
def test_runs_are_even_and_prefer_borders_of_the_tree(g, workers):
    counts = np.bincount(runs(g, workers), minlength=workers)
    assert counts.sum() == g and counts.max() <= -(-g // workers)
    assert counts.min() >= 1 or g < workers
    assert (np.diff(runs(g, workers)) >= 0).all()


def test_what_is_left_over_goes_to_whole_ranges():
    """16 blocks on 3 workers: runs of 4, 6, 6 end at a quarter and at five eighths of the tree."""
    assert np.bincount(runs(16, 3)).tolist() == [4, 6, 6]


def test_packed_node_owns_a_tile():
    """4 nodes of 4 workers on 16 x 16 blocks: a node has an 8 x 8 tile, a worker 4 x 4."""
    at = Layout(Cluster.regular(4, 4)).workers((16, 16)).reshape(16, 16)
    node = at // 4
    assert (node[:8, :8] == 0).all() and (node[:8, 8:] == 1).all() and (node[8:, 8:] == 3).all()
    assert (at[:4, :4] == 0).all() and len(np.unique(at)) == 16


@given(clusters(), st.lists(st.integers(0, 9), max_size=3).map(tuple), st.sampled_from(["packed", "cyclic"]))
def test_workers_exist_and_are_used_evenly(cluster, grid, kind):
    at = Layout(cluster, kind).workers(grid)
    count = int(np.prod(grid))
    assert len(at) == count
    if count:
        assert at.min() >= 0 and at.max() < cluster.n_workers
        assert np.bincount(at).max() <= 2 * -(-count // cluster.n_workers) + 1


def test_poor_factorisations_are_dealt_out():
    """7 workers on 4 x 4 blocks: a 7 x 1 grid would leave three idle."""
    assert len(np.unique(Layout(Cluster.regular(7)).workers((4, 4)))) == 7


def test_first_block_is_on_the_first_worker():
    for grid in [(), (1,), (1, 1), (5,), (3, 3), (64, 64)]:
        for kind in "packed", "cyclic":
            assert Layout(Cluster.regular(4, 4), kind).workers(grid)[0] == 0


def test_errors_name_a_way_out():
    with pytest.raises(ConfigError, match="'packed', 'cyclic'"):
        Layout(Cluster.regular(2), "diagonal")
    with pytest.raises(ConfigError, match="must be as many"):
        Layout(Cluster.regular(4), "cyclic", (3, 2))
