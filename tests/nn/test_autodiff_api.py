"""grad, value_and_grad, vjp, stop_gradient on trees of arguments; jit; errors that say the way out."""

from __future__ import annotations

from collections import namedtuple

import numpy as np
import pytest

import nums_core as nc
import nums_core.array as na
from nums_core import session
from nums_core.errors import DTypeError, ShapeError
from nums_core.expr.node import postorder
from nums_core.nn.autodiff import grad, stop_gradient, value_and_grad, vjp
from nums_core.testing.gradients import check_grad

Layer = namedtuple("Layer", "w b")
RNG = np.random.default_rng(3)


def arrays(*shapes, dtype="f8"):
    return [na.asarray(RNG.normal(size=s).astype(dtype)) for s in shapes]


def mlp(params, x):
    for w, b in params["layers"]:
        x = na.tanh(x @ w + b)
    return (x * params["scale"]).sum(1)


def model():
    return {"layers": [Layer(*arrays((4, 5), (5,))), Layer(*arrays((5, 3), (3,)))], "scale": na.asarray(0.5), "nothing": None}


def test_gradient_has_the_structure_of_its_argument():
    params, (x,) = model(), arrays((6, 4))
    g = grad(lambda p, x: mlp(p, x).sum())(params, x)
    assert type(g["layers"][1]) is Layer
    assert g["layers"][0].w.shape == (4, 5)
    assert g["scale"].shape == ()
    assert g["nothing"] is None
    check_grad(mlp, params, x)


def test_argnums_and_values():
    x, y = arrays((3,), (3,))
    f = lambda x, y: (x * y * y).sum()
    value, (gy, gx) = value_and_grad(f, (1, 0))(x, y)
    (only,) = (grad(f, -1)(x, y),)
    got = nc.compute(value, gy, gx, only)
    x, y = nc.compute(x, y)
    for made, want in zip(got, ((x * y * y).sum(), 2 * x * y, y * y, 2 * x * y), strict=True):
        np.testing.assert_allclose(made, want)


def test_equal_arguments_stay_apart():
    (x,) = arrays((3,))
    gx, gy = grad(lambda x, y: (x * y * y).sum(), (0, 1))(x, x)
    np.testing.assert_allclose(gx.compute(), x.compute()**2)
    np.testing.assert_allclose(gy.compute(), 2 * x.compute()**2)


def test_aux_comes_along():
    (x,) = arrays((3,))
    f = lambda x: ((x * x).sum(), {"doubled": 2 * x, "name": "aux", "none": None})
    (value, aux), g = value_and_grad(f, has_aux=True)(x)
    np.testing.assert_allclose(aux["doubled"].compute(), 2 * x.compute())
    assert (aux["name"], aux["none"]) == ("aux", None)
    g, aux = grad(f, has_aux=True)(x)
    np.testing.assert_allclose(g.compute(), 2 * x.compute())
    assert aux["name"] == "aux"
    assert value.shape == ()


def test_no_dependence_gives_zeros():
    x = na.ones((4, 2), dtype="f4", chunks=(2, 2))
    for f in (lambda x: na.asarray(3.0), lambda x: 3.0, lambda x: stop_gradient(x).sum(), lambda x: (x > 0).sum() * 1.0):
        g = grad(f)(x)
        assert (g.shape, g.dtype, g.chunks) == (x.shape, x.dtype, x.chunks)
        assert not g.compute().any()


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "c8"])
def test_gradients_have_dtype_and_grid_of_their_arrays(dtype):
    x = na.asarray(RNG.normal(size=(4, 6)).astype(dtype)).rechunk((4, 3))
    w = na.asarray(RNG.normal(size=(6, 2)))
    g = grad(lambda x: abs(na.exp(x) @ w).sum())(x)
    assert (g.dtype, g.chunks) == (x.dtype, x.chunks)
    assert g.compute().dtype == np.dtype(dtype)


def test_stop_gradient_of_a_tree():
    (x,) = arrays((3,))
    held = lambda x: stop_gradient({"a": x, "b": [x * 2, "text"]})
    g = grad(lambda x: (x * held(x)["a"] * held(x)["b"][0]).sum())(x)
    np.testing.assert_allclose(g.compute(), 2 * x.compute()**2)
    assert stop_gradient(x).compute().tolist() == x.compute().tolist()


def test_third_order():
    check_grad(lambda x: na.sin(x) * x, na.asarray(np.array([0.3, 1.2])), order=3, rtol=1e-4)


def test_a_gradient_within_a_function():
    (x,) = arrays((3,))
    inner = lambda x, s: grad(lambda y: (s * y**3).sum())(x)
    got = grad(lambda x: inner(x, x[0]).sum())(x).compute()
    v = x.compute()
    want = 6 * v[0] * v
    want[0] += 3 * (v**2).sum()
    np.testing.assert_allclose(got, want)


# -- vjp --------------------------------------------------------------------------------------------------------------

def test_vjp_of_a_tree():
    x, y, g = arrays((3,), (3,), (3,))
    ids = na.asarray(np.array([0, 2]))
    out, pullback = vjp(lambda x, y, ids: {"product": x * y, "picked": x[ids]}, x, y, ids)
    gx, gy, nothing = pullback({"product": g, "picked": na.asarray(np.array([10.0, 20.0]))})
    assert nothing is None
    assert set(out) == {"product", "picked"}
    np.testing.assert_allclose(gx.compute(), g.compute() * y.compute() + [10, 0, 20])
    np.testing.assert_allclose(gy.compute(), g.compute() * x.compute())
    np.testing.assert_allclose(out["product"].compute(), x.compute() * y.compute())


def test_vjp_checks_its_cotangent():
    _, pullback = vjp(lambda x: x * 2, na.ones(3))
    with pytest.raises(ShapeError, match="broadcast_to"):
        pullback(na.ones(4))
    with pytest.raises(ShapeError, match=r"tree\.map"):
        pullback((na.ones(3),))


# -- plans ------------------------------------------------------------------------------------------------------------

def test_jitted_training_step_lowers_the_loss_on_one_plan():
    x, y = (na.asarray(v) for v in (RNG.normal(size=(20, 4)), RNG.normal(size=20)))

    def step(w, x, y):
        loss, g = value_and_grad(lambda w: ((x @ w - y)**2).mean())(w)
        return loss, w - 0.1 * g
    run = nc.jit(step, donate=(0,))
    (w,) = nc.persist(na.zeros(4))
    losses = []
    for _ in range(5):
        loss, w = run(w, x, y)
        losses.append(float(loss))
    assert losses == sorted(losses, reverse=True)
    assert nc.last_report().plan_reused


def test_the_same_gradient_again_is_planned_once():
    x, y = arrays((3, 3), (3, 3))
    f = grad(lambda x: na.sin(x @ x).sum())
    f(x).compute()
    made = session.current().plans_made
    f(y).compute()
    assert session.current().plans_made == made


def test_values_may_be_asked_for_on_the_way():
    (x,) = arrays((5,))

    def f(x):
        positive = x[x > 0]
        scale = float(positive.sum())
        return (positive**2).sum() / len(positive) + scale * x[0]
    v = x.compute()
    n = (v > 0).sum()
    want = np.where(v > 0, 2 * v / n, 0)
    want[0] += v[v > 0].sum()
    np.testing.assert_allclose(grad(f)(x).compute(), want)


def test_persisted_and_jitted_parts_keep_their_derivative():
    (x,) = arrays((5,))
    square = nc.jit(lambda x: x * x)
    assert grad(lambda x: (square(x * 2) * x.persist()).sum())(x).compute() == pytest.approx(12 * x.compute()**2)
    assert x.persist().expr.op == "leaf"


def test_deep_functions_need_no_stack():
    def f(x):
        for k in range(1500):
            x = na.sin(x) if k % 2 else x * 1.001
        return x.sum()
    assert grad(f)(na.ones(2)).shape == (2,)


def test_the_derivative_grows_as_the_function_does():
    def chain(n):
        def f(x):
            for _ in range(n):
                x = na.tanh(x @ x) + x
            return x.sum()
        return sum(1 for _ in postorder([grad(f)(na.ones((2, 2))).expr]))
    assert chain(80) <= 2.1 * chain(40)


# -- errors -----------------------------------------------------------------------------------------------------------

X = na.ones((2, 3))


@pytest.mark.parametrize("call, error, remedy", [
    (lambda: grad(lambda x: x)(X), ShapeError, r"\.sum\(\) or \.mean\(\).*vjp"),
    (lambda: grad(lambda x: (x > 0).sum())(X), DTypeError, r"astype\('float32'\)"),
    (lambda: grad(lambda x: x.sum() * 1j)(X), DTypeError, r"\.real"),
    (lambda: grad(lambda x: "loss")(X), TypeError, "has_aux=True"),
    (lambda: grad(lambda x: x.sum(), has_aux=True)(X), TypeError, r"\(loss, extra\)"),
    (lambda: grad(lambda x: x.sum())(na.arange(3)), DTypeError, r"argument 0, which is of dtype int64.*astype"),
    (lambda: grad(lambda p: p["w"].sum())({"w": X, "ids": [na.arange(3)]}), DTypeError, r"'ids\.0'.*static"),
    (lambda: grad(lambda p: p[0].sum())([X, "name"]), DTypeError, "type str"),
    (lambda: grad(lambda x: x.sum(), 2)(X), ValueError, "1 positional argument.*by position"),
    (lambda: grad(lambda x: x.sum())(x=X), ValueError, "by position")])
def test_bad_calls(call, error, remedy):
    with pytest.raises(error, match=remedy):
        call()
