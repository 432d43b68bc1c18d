"""Functions with core dimensions, on blocks."""

from __future__ import annotations

import numpy as np
import pytest

import nums_core.array as nc
from nums_core.errors import ShapeError
from nums_core.testing.oracle import check

G = np.random.default_rng(0).normal(size=(4, 5, 6))


@pytest.fixture(params=[(4, 5, 6), (2, 5, 3), (1, 2, 4), ((1, 3), (5,), (2, 4))], ids=str)
def g(request):
    return nc.asarray(G, chunks=request.param)


def _mean(a):
    return a.mean(-1)


def test_one_result(g):
    check(nc.apply_gufunc(_mean, "(i)->()", g), G.mean(-1), rtol=1e-12)
    check(nc.apply_gufunc(lambda a: a[..., ::-1], "(i)->(i)", g), G[..., ::-1])
    check(nc.apply_gufunc(lambda a: np.linalg.svd(a, compute_uv=False), "(i,j)->(i)", g), np.linalg.svd(G, compute_uv=False), rtol=1e-9)


def test_several_results(g):
    m, s = nc.apply_gufunc(lambda a: (a.mean(-1), a.std(-1)), "(i)->(),()", g)
    check(m, G.mean(-1), rtol=1e-12)
    check(s, G.std(-1), rtol=1e-12)
    low, both = nc.apply_gufunc(lambda a: (a.min(-1), np.stack([a.min(-1), a.max(-1)], -1)), "(i)->(),(k)", g,
                                output_sizes={"k": 2}, output_dtypes=[float, float])
    check(low, G.min(-1))
    check(both, np.stack([G.min(-1), G.max(-1)], -1))
    (only,) = nc.apply_gufunc(lambda a: (a.sum(-1),), "(i)->(),", g)
    check(only, G.sum(-1), rtol=1e-12)


def test_several_operands(g):
    h = nc.asarray(G.swapaxes(1, 2), chunks=3)
    check(nc.apply_gufunc(np.matmul, "(i,j),(j,k)->(i,k)", g, h), G @ G.swapaxes(1, 2), rtol=1e-12)
    check(nc.apply_gufunc(lambda a, b: (a * b).sum(-1), "(i),(i)->()", g, G[0]), (G * G[0]).sum(-1), rtol=1e-12)
    check(nc.apply_gufunc(lambda a, b: a + b, "(),()->()", g, 3), G + 3)


def test_axes(g):
    check(nc.apply_gufunc(_mean, "(i)->()", g, axis=0), G.mean(0), rtol=1e-12)
    check(nc.apply_gufunc(_mean, "(i)->()", g, axis=1, keepdims=True), G.mean(1, keepdims=True), rtol=1e-12)
    check(nc.apply_gufunc(_mean, "(i)->()", g, keepdims=True), G.mean(-1, keepdims=True), rtol=1e-12)
    check(nc.apply_gufunc(lambda a: a[..., ::-1], "(i)->(i)", g, axes=[(1,), (0,)]), np.moveaxis(G[:, ::-1], 1, 0))


def test_vectorized(g):
    check(nc.apply_gufunc(lambda a: a.sum(), "(i)->()", g, vectorize=True, output_dtypes=float), G.sum(-1), rtol=1e-12)


def test_decorated(g):
    @nc.as_gufunc("(i)->()", output_dtypes=float)
    def middle(a):
        """The mean."""
        return a.mean(-1)
    check(middle(g), G.mean(-1), rtol=1e-12)
    assert "The mean." in middle.__doc__
    with pytest.raises(TypeError, match="as_gufunc takes"):
        nc.as_gufunc("(i)->()", colour=1)
    check(nc.gufunc(_mean, signature="(i)->()")(g), G.mean(-1), rtol=1e-12)


def test_refusals(g):
    with pytest.raises(ValueError, match="Not a valid gufunc signature"):
        nc.apply_gufunc(_mean, "(i->()", g)
    with pytest.raises(ValueError, match="requires 2 arguments"):
        nc.apply_gufunc(_mean, "(i),(i)->()", g)
    with pytest.raises(ValueError, match="output_sizes="):
        nc.apply_gufunc(lambda a: a[..., :2], "(i)->(k)", g)
    with pytest.raises(ShapeError, match="core dimensions must agree"):
        nc.apply_gufunc(np.add, "(i),(i)->(i)", g, np.ones(4))
    with pytest.raises(ValueError, match="output_dtypes"):
        nc.apply_gufunc(lambda a: a.nothing, "(i)->()", g)
    with pytest.raises(ValueError, match="Only one of"):
        nc.apply_gufunc(_mean, "(i)->()", g, axis=0, axes=[(0,), ()])


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_apply_along_axis(g, axis):
    for f in (np.cumsum, np.ptp, lambda line: np.outer(line, line)[:2, :2]):
        check(nc.apply_along_axis(f, axis, g), np.apply_along_axis(f, axis, G))
    check(nc.apply_along_axis(lambda line, k: line.sum() * k, axis, g, 2), np.apply_along_axis(lambda line: line.sum() * 2, axis, G))


def test_apply_over_axes(g):
    check(nc.apply_over_axes(nc.sum, g, [0, 2]), np.apply_over_axes(np.sum, G, [0, 2]), rtol=1e-12)
    check(nc.apply_over_axes(nc.max, g, 1), np.apply_over_axes(np.max, G, 1))
    with pytest.raises(ValueError, match="keep the axis or drop it"):
        nc.apply_over_axes(lambda a, axis: a[0, 0], g, 0)


def test_vectorize(g):
    check(nc.vectorize(lambda a, b: a if a > b else b)(g, 0.5), np.maximum(G, 0.5))
    check(nc.vectorize(lambda a: int(a > 0), otypes=["i4"])(g), (G > 0).astype("i4"))
    check(nc.vectorize(lambda a: a.sum(), signature="(n)->()")(g), np.vectorize(lambda a: a.sum(), signature="(n)->()")(G))
