"""Sums of products: which are joined, into what, and that the values stay."""

import numpy as np
import pytest

import nums_core.array as nc
from nums_core.expr.lower import lower
from nums_core.expr.node import postorder
from nums_core.expr.optimise import optimise
from nums_core.expr.rules import sums
from nums_core.nn.train import after
from nums_core.runtime.cluster import Cluster
from nums_core.scheduler import make_plan
from nums_core.session import structure

ROWS, COLUMNS = 6, 5


def pair(inner, blocks, seed=0, rows=ROWS):
    """Two kept matrices whose inner axis is cut into `blocks`."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(rows, inner)), rng.normal(size=(inner, COLUMNS))
    width = -(-inner // blocks)
    return nc.asarray(a).rechunk((rows, width)).persist(), nc.asarray(b).rechunk((width, COLUMNS)).persist()


def products(*arrays):
    return [n for n in postorder(sums.join([x.expr for x in arrays])) if n.op == "contract"]


@pytest.mark.parametrize("blocks", [2, 4])
def test_terms_of_one_sum_become_one_product(blocks):
    (a, b), (c, d), (e, f) = pair(8, blocks), pair(8, blocks, 1), pair(16, blocks, 2)
    rest = nc.ones((ROWS, COLUMNS)).persist()
    x = a @ b + (rest + c @ d) + e @ f
    (product,) = products(x)
    assert product.args[0].grid == (1, 3 * blocks) and product.args[1].grid == (3 * blocks, 1)
    # The blocks of the terms at one place follow one another.
    assert product.args[0].chunks[1] == (8 // blocks, 8 // blocks, 16 // blocks) * blocks
    expected = a.compute() @ b.compute() + 1 + c.compute() @ d.compute() + e.compute() @ f.compute()
    np.testing.assert_allclose(x.compute(), expected, rtol=1e-12)


@pytest.mark.parametrize("k", [2, 4, 8])
def test_a_sum_crosses_once_between_workers(k):
    terms = [pair(4 * k, k, seed) for seed in range(3)]
    for a, b in terms:
        a.expr.params[0].data.home[:] = b.expr.params[0].data.home[:] = np.arange(k)
    x = sum((a @ b for a, b in terms[1:]), start=terms[0][0] @ terms[0][1])
    _, sources = structure([x.expr])
    plan = make_plan(lower(optimise([x.expr]), {s: i for i, s in enumerate(sources)}), Cluster.regular(k))
    plan.validate()
    assert plan.bytes_moved == (k - 1) * ROWS * COLUMNS * 8


def test_what_is_left_apart():
    (a, b), (c, d) = pair(8, 2), pair(8, 2, 1)
    uncut, other = pair(8, 1, 2), pair(12, 3, 3)
    assert len(products(a @ b + uncut[0] @ uncut[1])) == 2
    assert len(products(a @ b + other[0] @ other[1])) == 2
    assert len(products(a @ b - c @ d)) == 2
    shared = a @ b
    assert len(products(shared + c @ d, shared * 2)) == 2  # read by others too
    inner = shared * 3 + c @ d
    assert len(products(inner)) == 2  # one of them is no term of the sum
    late = after(c, shared[:1, :1])  # a part of a batch that is to wait for the one before it
    assert len(products(a @ b + late @ d)) == 2


def test_one_sum_in_two_places():
    """A sum that two results read is one sum, joined once; the results around it are sums of their own."""
    (a, b), (c, d), (e, f) = pair(8, 2), pair(8, 2, 1), pair(8, 2, 2)
    both = a @ b + c @ d
    left, right = both + e @ f, both * 2
    assert len(products(left, right)) == 2
    values = [x.compute() for x in (a, b, c, d, e, f)]
    expected = values[0] @ values[1] + values[2] @ values[3]
    made = nc.compute(left, right)
    np.testing.assert_allclose(made[0], expected + values[4] @ values[5], rtol=1e-12)
    np.testing.assert_allclose(made[1], 2 * expected, rtol=1e-12)
