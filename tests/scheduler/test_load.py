"""Loads: counted step by step by the search, and at once by `account`, they are the same."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nums_core.runtime.cluster import Cluster, Link
from nums_core.scheduler.layout import Layout
from nums_core.scheduler.load import account, price_inside_node
from nums_core.scheduler.lshs import search
from nums_core.scheduler.moves import list_moves

from .graphs import clusters, outer, random_graph


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), clusters(), st.integers(0, 9))
def test_incremental_loads_are_those_of_the_whole_graph(seed, cluster, search_seed):
    graph = random_graph(seed, cluster.n_workers, reductions=False)
    found = search(graph, Layout(cluster), seed=search_seed)
    whole = account(graph, found.worker, list_moves(graph, found.worker, cluster, "first"), cluster)
    for a, b in zip(found.loads, whole, strict=True):
        assert a == pytest.approx(b)


def test_objective_is_the_sum_of_three_maxima():
    cluster = Cluster.regular(4)
    graph = outer(4)
    worker = np.arange(graph.n_tasks, dtype=np.int32) % 4
    loads = account(graph, worker, list_moves(graph, worker, cluster), cluster)
    assert loads.F == loads.mem.max() + loads.into.max() + loads.out.max()
    assert loads.into.sum() == loads.out.sum() == loads.moved


def test_price_inside_a_node_follows_from_the_links():
    assert price_inside_node(Cluster.regular(2, 2)) == 0.25
    slow = Cluster.regular(2, 2, network=Link(0, 10.0), local=Link(0, 1.0))
    assert price_inside_node(slow) == 1, "a node is never dearer than the network"
    graph = outer(2)
    worker = np.array([0, 1, 0, 1, 0, 1, 0, 1], np.int32)  # two workers of one node
    moves = list_moves(graph, worker, Cluster.regular(2, 2))
    loads = account(graph, worker, moves, Cluster.regular(2, 2))
    assert loads.into.sum() == 0.25 * loads.moved
