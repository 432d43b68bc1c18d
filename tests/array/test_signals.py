"""Derivatives, integrals, convolutions, phases, and polynomials against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import nums_core.array as nc
from nums_core.errors import ShapeError
from nums_core.testing.oracle import check

RNG = np.random.default_rng(0)
F = RNG.normal(size=(7, 9))
GRIDS = [(7, 9), (3, 4), (1, 1), ((1, 6), (8, 1))]


@pytest.mark.parametrize("chunks", GRIDS, ids=str)
@pytest.mark.parametrize("edge_order", [1, 2])
@pytest.mark.parametrize("spacing", [(), (0.5,), (0.5, 2.0), (np.arange(7) ** 1.5, 1.0), (np.arange(7.0) * 2, np.sort(RNG.random(9)))],
                         ids=lambda s: str(len(s)))
def test_gradient(chunks, edge_order, spacing):
    x = nc.asarray(F, chunks=chunks)
    made, want = nc.gradient(x, *spacing, edge_order=edge_order), np.gradient(F, *spacing, edge_order=edge_order)
    for m, w in zip(made, want, strict=True):
        assert m.chunks == x.chunks
        check(m, w)


def test_gradient_along_some_axes():
    x = nc.asarray(F, chunks=(3, 4))
    check(nc.gradient(x, axis=1), np.gradient(F, axis=1))
    check(nc.gradient(x, nc.arange(9) ** 2, axis=-1), np.gradient(F, np.arange(9) ** 2, axis=-1))
    for m, w in zip(nc.gradient(x, 1.0, 2.0, axis=(1, 0)), np.gradient(F, 1.0, 2.0, axis=(1, 0)), strict=True):
        check(m, w)
    check(np.gradient(nc.arange(6, chunks=4)), np.gradient(np.arange(6)))


@pytest.mark.parametrize("args, options, error, text", [
    ((1.0, 2.0, 3.0), {}, TypeError, "one for each"), ((np.ones(3), 1.0), {}, ValueError, "match the length"),
    ((np.ones((2, 2)), 1.0), {}, ValueError, "scalars or 1d"), ((), {"edge_order": 3}, ValueError, "use 1 or 2"),
    ((), {"axis": (0, 0)}, ValueError, "name each axis once")])
def test_gradient_refusals(args, options, error, text):
    with pytest.raises(error, match=text):
        nc.gradient(nc.asarray(F), *args, **options)
    with pytest.raises(ValueError, match=r"edge_order \+ 1"):
        nc.gradient(nc.ones((1, 5)))


@pytest.mark.parametrize("chunks", GRIDS, ids=str)
@pytest.mark.parametrize("axis", [0, -1])
def test_trapezoid(chunks, axis):
    x = nc.asarray(F, chunks=chunks)
    places = np.sort(RNG.random(F.shape[axis]))
    for options in ({}, {"dx": 0.5}, {"x": places}, {"x": np.sort(RNG.random(F.shape), axis=axis)}):
        check(nc.trapezoid(x, axis=axis, **options), np.trapezoid(F, axis=axis, **options), rtol=1e-12)


@pytest.mark.parametrize("data, options", [(np.cumsum(RNG.random(40) * 5) % (2 * np.pi), {}), (F * 9, {"axis": 0}),
                                           (np.array([0, 7, 1, 6, 2]), {"period": 8}), (F * 9, {"discont": 4.0})])
def test_unwrap(data, options):
    chunks = 3
    check(nc.unwrap(nc.asarray(data, chunks=chunks), **options), np.unwrap(data, **options), rtol=1e-12)


@pytest.mark.parametrize("n, m", [(1, 1), (7, 1), (7, 3), (7, 4), (3, 7), (7, 7), (40, 20)])
@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize("name", ["convolve", "correlate"])
@pytest.mark.parametrize("chunks", [2, 5, -1])
def test_convolutions(n, m, mode, name, chunks):
    a, v = RNG.integers(-5, 5, n), RNG.integers(-5, 5, m)
    check(getattr(nc, name)(nc.asarray(a, chunks=chunks), v, mode), getattr(np, name)(a, v, mode))
    z = a + 1j * a[::-1]
    check(getattr(nc, name)(nc.asarray(z, chunks=chunks), nc.asarray(v * 1j, chunks=2), mode), getattr(np, name)(z, v * 1j, mode))


def test_convolution_refusals():
    with pytest.raises(ShapeError, match="apply_along_axis"):
        nc.convolve(nc.ones((2, 2)), [1])
    with pytest.raises(ValueError, match="mode must be"):
        nc.convolve([1, 2], [1], mode="wide")
    with pytest.raises(ValueError, match="cannot be empty"):
        nc.convolve([1, 2], [])


def test_polynomials():
    x = np.linspace(-1, 2, 20)
    y = 3 * x**2 - x + 0.5
    lazy = nc.asarray(x, chunks=6)
    check(nc.polyval([3, -1, 0.5], lazy), np.polyval([3, -1, 0.5], x))
    check(nc.polyfit(lazy, y, 2), np.array([3, -1, 0.5]), rtol=1e-9)
    check(nc.polyfit(lazy, nc.asarray(np.stack([y, x], 1), chunks=7), 2), np.polyfit(x, np.stack([y, x], 1), 2), rtol=1e-9)
    w = np.linspace(1, 2, 20)
    check(nc.polyfit(lazy, np.sin(x), 3, w=w), np.polyfit(x, np.sin(x), 3, w=w), rtol=1e-9)
    check(nc.roots([1, -3, 2]), np.roots([1, -3, 2]))
    check(nc.polymul(nc.asarray([1, 2]), [3, 4]), np.polymul([1, 2], [3, 4]))
    quotient, rest = nc.polydiv([1, 2, 3], [1, 1])
    check(quotient, np.polydiv([1, 2, 3], [1, 1])[0])
    check(rest, np.polydiv([1, 2, 3], [1, 1])[1])
    with pytest.raises(ValueError, match="polyval"):
        nc.polyfit(lazy, y, 2, full=True)
