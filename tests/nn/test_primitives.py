"""Primitives: grids, several results, derivatives, errors, being sent elsewhere."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import nums_core as nc
import nums_core.array as na
from nums_core.errors import NoDerivativeError, ShapeError
from nums_core.expr.node import postorder
from nums_core.nn.autodiff import grad
from nums_core.nn.primitives import Primitive, primitive
from nums_core.testing.gradients import check_grad

RNG = np.random.default_rng(4)
X = na.asarray(RNG.normal(size=(6, 4, 5))).rechunk((2, 2, 5))


@primitive(label="double", flop=1.0)
def double(x, *, by=2.0):
    return x * by


@double.defbackward
def _double_backward(call, g):
    return [double.bind([g], call.labels, [(g.shape, g.dtype)], **call.static)]


def _normalise(x, *, eps):
    """x / norm of each row, and the norm."""
    norm = np.sqrt((x * x).sum(-1, keepdims=True) + eps)
    return x / norm, norm


def _normalise_backward(call, g, g_norm):
    (x,), (y, norm) = call.args, call.outs
    out = 0 * x
    if g is not None:
        out = out + (g - y * (g * y).sum(-1, keepdims=True)) / norm
    if g_norm is not None:
        out = out + g_norm * y
    return [out]


normalise = primitive(_normalise, backward=_normalise_backward, n_out=2, label="normalise",
                      flop=lambda shape, eps: 3.0 * np.prod(shape))


def normalised(x):
    *lead, _ = x.shape
    return normalise.bind([x], "abc->abc,ab1", [(x.shape, x.dtype), ((*lead, 1), x.dtype)], eps=1e-9)


def test_blocks_run_by_themselves_along_labels_that_results_have():
    y = double.bind([X], "abc->abc", [(X.shape, X.dtype)], by=3.0)
    assert y.chunks == X.chunks
    assert (y.compute() == 3 * X.compute()).all()


def test_reduced_labels_are_put_in_one_block():
    x = X.rechunk((2, 2, 2))
    y, norm = normalised(x)
    assert y.chunks == norm.chunks[:2] + ((5,),) == X.chunks
    want = np.linalg.norm(X.compute(), axis=-1, keepdims=True)
    got = nc.compute(y, norm)
    np.testing.assert_allclose(got[1], want)
    np.testing.assert_allclose(got[0], X.compute() / want)
    assert sum(n.op == "map" for n in postorder([y.expr, norm.expr])) == 1


@pytest.mark.parametrize("labels, chunks", [("aBc->aBc", ((2, 2, 2), (4,), (2, 2, 1))), ("abc->aBC", ((2, 2, 2), (4,), (5,))),
                                            ("ABC->abc", ((6,), (4,), (5,)))])
def test_upper_case_is_not_cut(labels, chunks):
    assert double.bind([X.rechunk((2, 2, 2))], labels, [(X.shape, X.dtype)]).chunks == chunks


def test_arguments_are_cut_alike_and_new_labels_are_whole():
    made = primitive(lambda a, b, scale: np.einsum("ij,jk->ik", a, b)[:, :, None].repeat(2, 2) * scale)
    a, b = na.asarray(RNG.normal(size=(6, 4))).rechunk((4, 2)), na.asarray(RNG.normal(size=(4, 3))).rechunk((3, 1))
    y = made.bind([a, b, na.asarray(np.full((1, 1, 1), 2.0))], "ij,jk,111->ikn", [((6, 3, 2), "f8")])
    assert y.chunks == ((4, 2), (1, 1, 1), (2,))
    np.testing.assert_allclose(y.compute()[..., 1], 2 * a.compute() @ b.compute())


def test_no_axes_at_all():
    total = primitive(lambda x: x.sum())
    assert total.bind([X], "abc->", [((), "f8")]).compute() == pytest.approx(X.compute().sum())


def test_equal_calls_are_one():
    a, b, c = (double.bind([X], "abc->abc", [(X.shape, X.dtype)], by=k) for k in (3.0, 3.0, 3))
    assert a.expr is b.expr is not c.expr


def test_derivatives_by_own_rules_to_second_order():
    check_grad(normalised, X)
    check_grad(lambda x: normalised(x)[0], X)
    check_grad(lambda x: normalised(x)[1], X)
    check_grad(lambda x: double.bind([x], "abc->abc", [(x.shape, x.dtype)], by=3.0)**2, X)


def test_a_primitive_without_a_rule_has_no_derivative():
    alone = primitive(lambda x: x + 1, label="alone")
    with pytest.raises(NoDerivativeError, match=r"alone has no backward rule.*primitive\(backward=\.\.\.\)"):
        grad(lambda x: alone.bind([x], "abc->abc", [(x.shape, x.dtype)]).sum())(X)


def test_a_rule_is_checked():
    few = primitive(lambda x: x + 1, label="few", backward=lambda call, g: [])
    with pytest.raises(TypeError, match="few returned 0 cotangents for 1 arguments"):
        grad(lambda x: few.bind([x], "abc->abc", [(x.shape, x.dtype)]).sum())(X)
    wrong = primitive(lambda x: x + 1, label="wrong", backward=lambda call, g: [g[0]])
    with pytest.raises(ShapeError, match="sum over what was broadcast"):
        grad(lambda x: (wrong.bind([x * 1], "abc->abc", [(x.shape, x.dtype)])).sum())(X)


def test_memory_of_several_results_is_planned():
    y, norm = normalised(X.rechunk((6, 4, 5)))
    graph = (y * norm).explain().graph
    (family,) = [f for f in graph.families if f.label == "normalise"]
    assert graph.out_bytes[family.start] == pytest.approx((6 * 4 * 5 + 6 * 4) * 8, rel=0.1)
    assert graph.flop[family.start] == pytest.approx(3 * 6 * 4 * 5)


def test_primitives_and_their_plans_can_be_sent():
    assert pickle.loads(pickle.dumps(double)) is double
    assert pickle.loads(pickle.dumps(normalise)).forward is _normalise
    again = pickle.loads(pickle.dumps(Primitive(_normalise, n_out=2)))
    assert (again.forward, again.n_out) == (_normalise, 2)


@pytest.mark.parametrize("labels, outs, remedy", [
    ("abc", [((6, 4, 5), "f8")], "ab,bc->ac"), ("ab->ab", [((6, 4), "f8")], "one letter an axis"),
    ("abc->ab", [((6, 5), "f8")], "label 'b'.*extents 4 and 5"), ("aac->ac", [((6, 5), "f8")], "a label of its own"),
    ("abc->abc,ab", [((6, 4, 5), "f8"), ((6, 4), "f8")], "extent 1"), ("ab1->ab1", [((6, 4, 1), "f8")], "label '1'.*extents 1 and 5"),
    ("abc->abc,abc", [((6, 4, 5), "f8")] * 2, "n_out=1")])
def test_labels_that_do_not_fit(labels, outs, remedy):
    with pytest.raises(ShapeError, match=remedy):
        double.bind([X], labels, outs)


def test_results_that_are_not_as_declared():
    two = primitive(lambda x: x, n_out=2, label="two")
    y, _ = two.bind([X], "abc->abc,abc", [(X.shape, "f8")] * 2)
    with pytest.raises(ValueError, match="return a tuple of 2 arrays"):
        y.compute()
