"""Tasks that no result needs are not run."""

from __future__ import annotations

import numpy as np
import pytest

import nums_core.array as nc
from nums_core.expr.cull import cull
from nums_core.testing.oracle import check

X = np.random.default_rng(0).normal(size=(8, 6))


def counted(x):
    calls = []

    def f(b):
        calls.append(b.shape)
        return b * 2
    return nc.map_blocks(f, x, dtype=float), calls


@pytest.mark.parametrize("index, blocks", [(np.s_[:2, :2], 1), (np.s_[:4], 6), (np.s_[3:5, 3:], 4), (np.s_[::-1], 12), (np.s_[7, 5], 1)],
                         ids=str)
def test_slices_of_a_users_function(index, blocks):
    made, calls = counted(nc.asarray(X, chunks=2))
    check(made[index], (X * 2)[index])
    assert len(calls) == blocks


def test_choices_that_are_no_box():
    made, calls = counted(nc.asarray(X, chunks=2))
    both = nc.compute(made[:2, :2], made[6:, 4:])
    np.testing.assert_array_equal(both[0], X[:2, :2] * 2)
    np.testing.assert_array_equal(both[1], X[6:, 4:] * 2)
    assert len(calls) == 2


def test_through_products_and_reductions():
    made, calls = counted(nc.asarray(X, chunks=(2, 6)))
    check((made @ X.T)[:2], (X * 2 @ X.T)[:2], rtol=1e-12)
    assert len(calls) == 1
    calls.clear()
    check(made.sum(axis=1)[4:6], (X * 2).sum(axis=1)[4:6], rtol=1e-12)
    assert len(calls) == 1


def test_blocks_held_from_before_stay_whole():
    held = nc.asarray(X, chunks=2).persist()
    check(nc.map_blocks(lambda b: b + 1, held, dtype=float)[:2, :2], X[:2, :2] + 1)


def test_a_graph_without_waste_is_the_same():
    graph = (nc.asarray(X, chunks=2) + 1).explain().graph
    assert cull(graph) is graph


def test_what_is_left_is_a_graph():
    made, _ = counted(nc.asarray(X, chunks=2))
    plan = nc.explain(made[:2, :2], made[6:, 4:], made.sum(axis=0)[:1])
    plan.graph.validate()
