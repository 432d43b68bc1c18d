"""2.5D products: bytes by the formula, and never worse than without."""

import numpy as np
import pytest

from nums_core.runtime.cluster import Cluster
from nums_core.scheduler import layers, make_plan
from nums_core.scheduler.layout import Layout
from nums_core.scheduler.policies import Problem

from .graphs import column_sums, gemm, outer, run_distributed, xty


def layered_problem(g, k, memory_bytes=2**40, order="fixed"):
    return Problem(gemm(g), Layout(Cluster.regular(k, memory_bytes=memory_bytes)), order)


def own_blocks(g, workers):
    """Operand blocks of a square product that each worker reads and the layout gave to it; `workers` (g, g, g) is i, j, l."""
    at = Layout(Cluster.regular(int(workers.max()) + 1)).workers((g, g)).reshape(g, g)
    own = 0
    for w in range(int(workers.max()) + 1):
        i, j, l = np.nonzero(workers == w)  # noqa: E741
        own += sum(int(at[p] == w) for p in {*zip(i.tolist(), l.tolist(), strict=True)})
        own += sum(int(at[p] == w) for p in {*zip(l.tolist(), j.tolist(), strict=True)})
    return own


@pytest.mark.parametrize("g, k, c", [(16, 64, 4), (8, 8, 2), (16, 256, 4), (16, 16, 4), (8, 64, 4)])
def test_bytes_are_those_of_the_formula(g, k, c):
    """k = c r^2 workers: 2 (g/r) (g/c) operand blocks into each, less what it has, and c - 1 partials of each block."""
    r = round((k / c) ** 0.5)
    product = layers.find(gemm(g), 3)
    coordinates, table = layers.worker_grid(Layout(Cluster.regular(k)).workers((g, g)).reshape(g, g), k)
    m = tuple(n // r for n in table.shape)
    workers = layers.place(product, coordinates, table, m).reshape(g, g, g)
    problem = layered_problem(g, k)
    problem.layered = {2: workers.reshape(-1)}
    from nums_core.scheduler.portfolio import choose

    best, _ = choose(problem, "2.5d")
    assert (np.bincount(workers.reshape(-1)) == g**3 // k).all(), "work is shared evenly"
    assert best.loads.moved == k * 2 * (g // r) * (g // c) - own_blocks(g, workers) + (c - 1) * g * g
    assert best.loads.into.max() <= 2 * (g // r) * (g // c) + (g // r)**2


@pytest.mark.parametrize("g, k", [(16, 64), (16, 256)])
def test_layers_win_where_workers_are_many(g, k):
    plan = make_plan(gemm(g), Cluster.regular(k, memory_bytes=2**40))
    r = round(k ** 0.5)
    assert plan.policy == "2.5d" and plan.bytes_moved < 2 * g * g * (r - 1)
    assert plan.scores["2.5d"] <= plan.scores["owner"]
    plan.validate()
    run_distributed(plan)


def test_too_little_memory_for_copies():
    """Two panels and a tile fit, the operands of several layers do not."""
    assert layered_problem(16, 64).layered
    assert not layered_problem(16, 64, memory_bytes=40).layered
    assert "2.5d" not in make_plan(gemm(16), Cluster.regular(64, memory_bytes=40)).scores


def test_fixed_order_takes_layers_that_are_ranges_of_the_tree():
    product = layers.find(gemm(9), 3)
    assert layers.best_merge(product, (9, 9), 2**40, powers=False) is not None
    assert layers.best_merge(product, (9, 9), 2**40, powers=True) is None


@pytest.mark.parametrize("g, k, n", [(6, 12, 12), (8, 36, 4), (12, 18, 9), (10, 24, 8)])
@pytest.mark.parametrize("order", ["fixed", "local"])
def test_never_worse_and_sound(g, k, n, order):
    graph = gemm(g, n)
    cluster = Cluster.regular(k, memory_bytes=2**40)
    plan = make_plan(graph, cluster, reduction_order=order)
    assert plan.scores[plan.policy] <= min(plan.scores.values())
    alone = make_plan(graph, cluster, reduction_order=order, policy="2.5d")
    alone.validate()
    run_distributed(alone)


@pytest.mark.parametrize("graph", [xty(16), outer(8), column_sums(6, 4)], ids=["one block", "no sum", "one operand"])
def test_products_without_layers(graph):
    assert not Problem(graph, Layout(Cluster.regular(16, memory_bytes=2**40))).layered
