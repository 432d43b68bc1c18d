"""Policies on small cases worked out by hand."""

import numpy as np
import pytest

from nums_core.ops.taskgraph import LEAF, GraphBuilder, Kernel
from nums_core.runtime.cluster import Cluster
from nums_core.scheduler.layout import Layout
from nums_core.scheduler.policies import RULES, Problem, complete, operands

from .graphs import aligned, gemm, leaf, xty


def mixed():
    """Three tasks: operands (0, 1), (1, 1) and (2 of 8 bytes, 0, 1), then an output on worker 0."""
    b = GraphBuilder()
    x = b.ids(b.add(Kernel("leaf", (0,)), (3,), np.zeros((3, 0)), out_bytes=np.array([1.0, 4.0, 8.0]), role=LEAF,
                    home=np.array([0, 1, 2])))
    m = b.add(Kernel("map"), (3,), np.array([x[0], x[1], x[1], x[1], x[2], x[0], x[1]]), out_bytes=1.0,
              counts=np.array([2, 2, 3]))
    f = b.add(Kernel("join"), (1,), b.ids(m).reshape(1, 3), out_bytes=3.0)
    return Problem(b.build((f,)), Layout(Cluster.regular(3)))


@pytest.mark.parametrize("rule, workers", [
    ("a-stationary", [0, 1, 2]), ("b-stationary", [1, 1, 1]), ("largest", [1, 1, 2]), ("layout", [0, 1, 2]),
])
def test_rules_decide_where_operands_disagree(rule, workers):
    draft = complete(mixed(), RULES[rule])
    assert draft.place[3:6].tolist() == workers and draft.choices == [1]
    assert draft.place[6] == 0, "the output is at its layout worker"


def test_operands_of_uneven_tasks():
    problem = mixed()
    draft = complete(problem, RULES["largest"])
    ops = operands(problem, draft, 1)
    assert ops.first.tolist() == [0, 1, 2] and ops.apart.tolist() == [True, False, True]
    assert ops.rows.tolist() == [0, 0, 1, 1, 2, 2, 2]


def test_ties_of_the_largest_go_to_the_first():
    b = GraphBuilder()
    x, y = leaf(b, 0, (1,), 2.0, home=1), leaf(b, 1, (1,), 2.0, home=0)
    m = b.ids(b.add(Kernel("map"), (1,), np.stack([x, y], 1), out_bytes=1.0))
    f = b.add(Kernel("map"), (1,), m.reshape(1, 1), out_bytes=1.0)
    draft = complete(Problem(b.build((f,)), Layout(Cluster.regular(2))), RULES["largest"])
    assert draft.place.tolist() == [1, 0, 1, 0]


def test_owner_of_a_product_is_its_output_block():
    problem = Problem(gemm(4), Layout(Cluster.regular(4)))
    products, sums = problem.graph.families[2:4]
    owner = problem.owner
    assert (owner[products.start:products.stop].reshape(16, 4) == owner[sums.start:sums.stop][:, None]).all()


def test_owner_does_not_funnel_a_family_onto_one_worker():
    """The products of X^T Y serve one block, but there are many of them: each is owned where it would lie itself."""
    problem = Problem(xty(16), Layout(Cluster.regular(4)))
    products = problem.graph.families[2]
    assert np.bincount(problem.owner[products.start:products.stop]).tolist() == [4, 4, 4, 4]


def test_only_products_are_only_reduced():
    assert Problem(gemm(2), Layout(Cluster.regular(2))).only_reduced.tolist() == [False, False, True, False]
    assert not Problem(aligned(), Layout(Cluster.regular(2))).only_reduced.any()


@pytest.mark.parametrize("rule", RULES)
def test_no_rule_touches_aligned_work(rule):
    problem = Problem(aligned(), Layout(Cluster.regular(3, 2)))
    draft = complete(problem, RULES[rule])
    assert not draft.choices
    at = problem.layout.workers((12, 2))
    assert all((draft.place[f.start:f.stop] == at).all() for f in problem.graph.families)
