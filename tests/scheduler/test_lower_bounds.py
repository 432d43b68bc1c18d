"""Bytes moved by real array expressions equal the least that any placement can move."""

import pytest

from bench import bounds
from nums_core.runtime.cluster import Cluster
from nums_core.scheduler import make_plan

WORKERS = [2, 3, 4, 5, 6, 7, 8, 12, 16]
BLOCKS = [16, 48, 50]


@pytest.mark.parametrize("case", bounds.CASES, ids=lambda c: c.name)
@pytest.mark.parametrize("order", ["fixed", "local"])
def test_bound_is_met(case, order):
    for n in BLOCKS:
        graph = case.graph(n)
        for k in WORKERS:
            if order == "local" or k & (k - 1) == 0:
                plan = make_plan(graph, Cluster.regular(k), reduction_order=order)
                assert plan.bytes_moved == case.least(k, bounds.SMALL), (n, k, plan.policy)


@pytest.mark.parametrize("order", ["fixed", "local"])
@pytest.mark.parametrize("n, r", [(16, 2), (32, 4), (48, 4)])
def test_outer_product(n, r, order):
    plan = make_plan(bounds.outer(n), Cluster.regular(r * r), reduction_order=order)
    assert plan.bytes_moved == bounds.outer_least(n, r)


@pytest.mark.parametrize("g, r", [(4, 2), (8, 2), (8, 4), (16, 4)])
def test_square_gemm(g, r):
    """2 (g/r) (g - g/r) blocks into each node, and LSHS is never better."""
    graph, cluster = bounds.gemm(g), Cluster.regular(r * r)
    plan = make_plan(graph, cluster)
    assert plan.bytes_moved == bounds.gemm_least(g, r)
    assert plan.prediction.bytes_in.max() == bounds.gemm_least(g, r) / (r * r)
    assert plan.bytes_moved <= make_plan(graph, cluster, policy="lshs").bytes_moved


def test_fixed_order_on_other_numbers_of_workers_moves_few_more():
    """Runs that are no ranges of the tree hold several of its ranges each."""
    case = next(c for c in bounds.CASES if c.name == "X^T Y")
    for n in BLOCKS:
        for k in (3, 5, 6, 7, 12):
            moved = make_plan(case.graph(n), Cluster.regular(k)).bytes_moved
            assert case.least(k, bounds.SMALL) <= moved <= 3 * case.least(k, bounds.SMALL), (n, k)
