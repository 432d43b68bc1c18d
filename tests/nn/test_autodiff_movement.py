"""Derivatives of what moves elements: for linear operations L the adjoint, <L x, g> = <x, L' g>, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nums_core as nc
import nums_core.array as na
from nums_core.expr.node import postorder
from nums_core.nn.autodiff import grad, vjp
from nums_core.testing.gradients import check_grad

RNG = np.random.default_rng(2)
X = na.asarray(RNG.normal(size=(5, 4))).rechunk((3, 2))
TWICE = np.array([0, 2, 2, 4, 2])
AT = na.asarray(np.array([-1, 2, 2, 1]))


def put(index, value):
    def f(x):
        y = x * 1.0
        y[index(x) if callable(index) else index] = value(x)
        return y * x
    return f


def put_along(x):
    y = x * 1.0
    na.put_along_axis(y, na.asarray(np.array([[1], [0], [2], [3], [1]])), 2.0, 1)
    return y


@pytest.mark.parametrize("f", [
    lambda x: x[1:4, ::2], lambda x: x[::-1, 1], lambda x: x[3:0:-2], lambda x: x[2], lambda x: x[1:1], lambda x: x.rechunk((2, 4)) * x,
    lambda x: x.T, lambda x: x.reshape(2, 10), lambda x: x.ravel()[::3], lambda x: na.broadcast_to(x[:, None], (5, 3, 4)),
    lambda x: na.squeeze(x[:, None]), lambda x: na.concatenate([x, x * x, x[:2]], 0), lambda x: na.stack([x, x * x], 1),
    lambda x: na.pad(x, 1), lambda x: na.roll(x, 2, 0), lambda x: na.tile(x, (2, 1)), lambda x: na.repeat(x, 3, axis=0),
    lambda x: na.diagonal(x), lambda x: na.tril(x) @ x.T, lambda x: na.diag(x[0]), lambda x: na.flip(x), lambda x: x.blocks[[1, 1], 0],
    lambda x: na.take(x, TWICE, axis=0), lambda x: x[[3, 1]], lambda x: x[TWICE, [0, 1, 1, 3, 2]], lambda x: x[TWICE[:, None], [0, 1]],
    lambda x: x[AT], lambda x: x[:, AT], lambda x: x[x > 0], lambda x: x[(x > 0).any(1)],
    lambda x: na.take_along_axis(x, na.argsort(x, axis=1)[:, :3], 1), lambda x: na.sort(x, axis=0), lambda x: na.sort(x[0]),
    lambda x: na.partition(x, 2, axis=0)[2], lambda x: na.sort(x, axis=None, descending=True), lambda x: na.compress([1, 0, 1], x, axis=0)],
)
def test_movements(f):
    check_grad(lambda x: f(x * x + x)**2, X)


@pytest.mark.parametrize("f", [
    put(slice(1, 4, 2), lambda x: 2 * x[0]), put((slice(None), 1), lambda x: x[:, 0]**2), put(0, lambda x: 3.0),
    put(([0, 3], [1, 1]), lambda x: x[:2, 0]), put(np.array([0, 2, 2, 4, 2]), lambda x: x * x), put(AT, lambda x: (x * x)[:4]),
    put(lambda x: x > 0, lambda x: (x * x)[x > 0]), put(lambda x: x > 0.5, lambda x: 1.5)])
def test_assignments(f):
    check_grad(f, X)


@pytest.mark.parametrize("f", [
    lambda x: na.median(x, axis=0), lambda x: na.quantile(x, [0.1, 0.5, 1.0], axis=1), lambda x: na.percentile(x, 30),
    lambda x: na.median(x, axis=(0, 1), keepdims=True)])
def test_quantiles(f):
    check_grad(lambda x: f(x * x)**2, X)


def test_long_lines_are_sorted_in_samples():
    x = na.asarray(RNG.permutation(24) / 7.0).rechunk(5)
    with nc.config.set(block_bytes=64):
        y = na.sort(x)
        assert any(n.op == "sort.sort" for n in postorder([y.expr]))
        check_grad(lambda x: na.sort(x)**2 * na.arange(24), x)
        check_grad(lambda x: na.median(x)**2, x)


# -- adjoints ---------------------------------------------------------------------------------------------------------

@st.composite
def slices(draw, n):
    a, b = (draw(st.one_of(st.none(), st.integers(-n - 1, n + 1))) for _ in range(2))
    return slice(a, b, draw(st.sampled_from([None, 1, 2, 3, -1, -2])))


@settings(max_examples=40, deadline=None)
@given(data=st.data(), shape=st.tuples(st.integers(1, 6), st.integers(1, 6)), seed=st.integers(0, 99))
def test_adjoint_of_any_indexing(data, shape, seed):
    rng = np.random.default_rng(seed)
    x = rng.integers(-9, 9, shape).astype(float)
    index = [data.draw(slices(n)) for n in shape]
    if data.draw(st.booleans()):
        axis = data.draw(st.integers(0, 1))
        index[axis] = rng.integers(-shape[axis], shape[axis], data.draw(st.integers(1, 8)))
    wanted = x[tuple(index)]
    g = rng.integers(-9, 9, wanted.shape).astype(float)
    out, pullback = vjp(lambda a: a[tuple(index)], na.asarray(x).rechunk(tuple(max(n // 2, 1) for n in shape)))
    back = pullback(na.asarray(g))[0]
    expected = np.zeros(shape)
    np.add.at(expected, tuple(index), g)
    assert back.shape == shape
    assert nc.compute(out, back)[1].tolist() == expected.tolist()


def test_rows_looked_up_often_add_up_whatever_the_grid():
    table, ids = RNG.normal(size=(40, 6)).astype("f4"), RNG.integers(0, 40, (7, 30))
    g = RNG.normal(size=(7, 30, 6)).astype("f4")
    expected = np.zeros_like(table, dtype=float)
    np.add.at(expected, ids, g.astype(float))
    made = []
    for grid in ((40, 6), (11, 4)):
        for where in (na.asarray(ids), ids):
            _, pullback = vjp(lambda t, where=where: t[where], na.asarray(table).rechunk(grid))
            made.append(pullback(na.asarray(g).rechunk((3, 10, 6)))[0].compute())
    np.testing.assert_allclose(made[0], expected, rtol=1e-5, atol=1e-5)
    assert made[0].dtype == np.float32
    assert all((m == made[0]).all() for m in made[1:])


# -- what is built ----------------------------------------------------------------------------------------------------

def gradient_nodes(f, x):
    return list(postorder([grad(f)(x).expr]))


def test_slices_of_one_array_go_into_the_same_zeros():
    x = na.asarray(RNG.normal(size=(16, 8))).rechunk((4, 8))
    nodes = gradient_nodes(lambda x: sum((x[i] * (i + 1.0)).sum() for i in range(16)), x)
    assert sum(n.op == "index.put_region" for n in nodes) == 16
    assert not any(n.op == "ewise" and n.params[0] == "add" for n in nodes)


def test_many_contributions_are_added_in_a_balanced_tree():
    x = na.asarray(RNG.normal(size=3))
    nodes = gradient_nodes(lambda x: na.stack([na.sin(x * float(i)) for i in range(64)]).sum(), x)
    depth = {}
    for n in nodes:
        added = n.op == "ewise" and n.params[0] == "add"
        depth[id(n)] = max((depth[id(a)] for a in n.args), default=0) + added
    assert max(depth.values()) == 6


def test_overlapping_slices_add_up():
    x = na.asarray(np.arange(6.0))
    made = grad(lambda x: (x[:4] + 10 * x[1:5] + 100 * x[2:]).sum())(x)
    assert made.compute().tolist() == [1, 11, 111, 111, 110, 100]
