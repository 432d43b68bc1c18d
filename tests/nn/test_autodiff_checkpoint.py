"""checkpoint: equal gradients, more flop, less memory between the passes."""

from __future__ import annotations

import numpy as np
import pytest

import nums_core as nc
import nums_core.array as na
from nums_core import session
from nums_core.expr.node import postorder
from nums_core.expr.optimise import optimise
from nums_core.nn.autodiff import checkpoint, grad, value_and_grad
from nums_core.testing.gradients import check_grad

RNG = np.random.default_rng(0)
LAYERS, ROWS, WIDTH = 12, 64, 8


def block(w, x):
    return x + na.tanh(na.tanh(na.tanh(x @ w) + 1) * 2) @ w.T


def loss(wrap, ws, x):
    for w in ws:
        x = wrap(block)(w, x)
    return (x * x).mean()


@pytest.fixture
def ws():
    return [na.asarray(RNG.normal(size=(WIDTH, 4 * WIDTH)) / 6) for _ in range(LAYERS)]


@pytest.fixture
def x():
    return na.asarray(RNG.normal(size=(ROWS, WIDTH)))


def as_is(f):
    return f


def test_gradients_are_the_same_to_the_bit(ws, x):
    plain, again = (nc.compute(value_and_grad(lambda ws, x, wrap=wrap: loss(wrap, ws, x), (0, 1))(ws, x))[0]
                    for wrap in (as_is, checkpoint))
    assert plain[0] == again[0]
    for a, b in zip([*plain[1][0], plain[1][1]], [*again[1][0], again[1][1]], strict=True):
        assert (a == b).all()


def test_memory_is_saved_and_flop_are_paid(ws, x):
    plans = []
    with nc.init(threads=1, memory="200KiB") as here:  # little memory: the planner looks for the order that needs least
        for wrap in (as_is, checkpoint):
            value, g = value_and_grad(lambda ws, wrap=wrap: loss(wrap, ws, x))(ws)
            plans.append(here.explain([value.expr, *[a.expr for a in g]]))
    (plain, again), inputs = plans, (LAYERS * WIDTH * 4 * WIDTH + ROWS * WIDTH) * 8
    made = [p.prediction.peak_bytes.max() - inputs for p in (plain, again)]
    assert made[1] < 0.5 * made[0], made
    assert 1.05 < again.graph.flop.sum() / plain.graph.flop.sum() < 1.5


def test_nothing_is_left_of_it_without_a_derivative(ws, x):
    marked, plain = (optimise([loss(wrap, ws, x).expr])[0] for wrap in (checkpoint, as_is))
    assert marked is plain


def test_the_second_pass_waits_for_the_cotangent(ws, x):
    g = grad(lambda ws: loss(checkpoint, ws, x))(ws)
    nodes = list(postorder([a.expr for a in g]))
    waits = [n for n in nodes if n.op == "barrier.after"]
    assert len(waits) == LAYERS + 1  # what each block gets; of the first, whose operands are all sources, the weights too
    assert sum(n.args[0].shape == (ROWS, WIDTH) for n in waits) == LAYERS
    assert sum(n.op == "ewise" and n.params[0] == "tanh" for n in nodes) == 2 * 3 * LAYERS


def test_trees_closures_and_other_results():
    w, b, x = (na.asarray(RNG.normal(size=s)) for s in ((3, 3), (3,), (4, 3)))

    def f(w, b, x):
        scale = na.exp(b)  # made outside, read inside
        inner = checkpoint(lambda p, x, *, k: {"y": na.tanh(x @ p["w"]) * scale, "x": x, "k": k})
        made = inner({"w": w}, x * 2, k=3)
        return made["y"] * made["x"] * made["k"] + made["y"].sum()
    check_grad(f, w, b, x)


def test_within_one_another():
    x = na.asarray(RNG.normal(size=(4, 3)))
    inner = checkpoint(lambda x: na.sin(x) * x)
    outer = checkpoint(lambda x: inner(inner(x) + 1) * 2)
    check_grad(lambda x: outer(x * 1.5), x)


def test_blocks_and_jit():
    x, w = na.asarray(RNG.normal(size=(8, 6))).rechunk((3, 2)), na.asarray(RNG.normal(size=(6, 6))).rechunk((3, 6))
    f = lambda wrap: grad(lambda w: (wrap(lambda w, x: na.tanh(x @ w))(w, x * 2)**2).sum())
    want = f(as_is)(w).compute()
    np.testing.assert_allclose(nc.jit(f(checkpoint))(w).compute(), want, rtol=1e-12)


@pytest.mark.ray
def test_workers_make_the_same_bits(ray_executor):
    x, w = na.asarray(RNG.normal(size=(40, 16))).rechunk((10, 16)), na.asarray(RNG.normal(size=(16, 16))).rechunk((8, 16))
    ids = na.asarray(RNG.integers(0, 40, 30)).rechunk(15)

    def loss(w, x):
        return (checkpoint(lambda w, x: na.tanh(x @ w))(w, 2 * x[ids])**2).mean()

    def both():
        value, (gw, gx) = value_and_grad(loss, (0, 1))(w, x)
        return nc.compute(value, gw, gx)
    here, before = both(), session.current()
    try:
        session._session = session.Session(ray_executor)
        there = both()
    finally:
        session._session = before
    for a, b in zip(here, there, strict=True):
        assert (a == b).all()


def test_a_function_of_no_arrays_passes_through():
    assert checkpoint(lambda a: a + 1)(2) == 3
