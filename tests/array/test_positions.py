"""Coordinates, and index tricks in brackets."""

from __future__ import annotations

import numpy as np
import pytest

import nums_core.array as nc
from nums_core.testing.oracle import check


@pytest.mark.parametrize("shape", [(), (3,), (4, 3), (2, 0), (2, 3, 4)])
def test_indices(shape):
    check(nc.indices(shape, chunks=2), np.indices(shape))
    for made, want in zip(nc.indices(shape, "f4", sparse=True), np.indices(shape, "f4", sparse=True), strict=True):
        check(made, want)


@pytest.mark.parametrize("function, dtype", [(lambda i, j: i * j, int), (lambda i, j: i + j / 2, float),
                                             (lambda i, j: i == j, int)])
@pytest.mark.parametrize("chunks", ["auto", 2, (4, 1)])
def test_fromfunction(function, dtype, chunks):
    check(nc.fromfunction(function, (4, 5), dtype=dtype, chunks=chunks), np.fromfunction(function, (4, 5), dtype=dtype))


def test_fromfunction_of_a_constant_fills():
    check(nc.fromfunction(lambda i: 7, shape=(3,), dtype=int), np.full(3, 7))
    with pytest.raises(TypeError, match="shape"):
        nc.fromfunction(lambda i: i)


@pytest.mark.parametrize("count", [0, 1, 2, 3])
@pytest.mark.parametrize("options", [{}, {"indexing": "ij"}, {"sparse": True}, {"sparse": True, "indexing": "ij"}], ids=str)
def test_meshgrid(count, options):
    lines = [np.arange(k + 2.0) for k in range(count)]
    made = nc.meshgrid(*[nc.asarray(x, chunks=2) for x in lines], **options)
    want = np.meshgrid(*lines, **options)
    assert len(made) == len(want)
    for a, b in zip(made, want, strict=True):
        check(a, b)


def test_meshgrid_of_scalars_and_refusals():
    for a, b in zip(nc.meshgrid(1, [2, 3]), np.meshgrid(1, [2, 3]), strict=True):
        check(a, b)
    with pytest.raises(ValueError, match="'xy' and 'ij'"):
        nc.meshgrid([1], indexing="yx")
    with pytest.raises(TypeError, match="it takes copy, sparse"):
        nc.meshgrid([1], dense=True)


KEYS = [np.s_[0:3], np.s_[0:3, 0:2], np.s_[0:3:0.5, 0:2], np.s_[-1:1:5j], np.s_[:2, 1:9:4, 0:1:3j]]


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_mgrid_and_ogrid(key):
    check(nc.mgrid[key], np.mgrid[key])
    made, want = nc.ogrid[key], np.ogrid[key]
    if not isinstance(key, tuple):
        made, want = [made], [want]
    for a, b in zip(made, want, strict=True):
        check(a, b)


X = np.arange(3)


@pytest.mark.parametrize("key", [np.s_[1:4, 0, 4], np.s_[X, 0, X], np.s_[0:1:5j], np.s_["0,2", X, X], np.s_["1,2,0", X, X],
                                 np.s_["-1", X[None], X[None]], np.s_[1.5, X]], ids=str)
def test_r_(key):
    check(nc.r_[key], np.r_[key])


def test_r_and_c_of_lazy_arrays():
    x = nc.asarray(X, chunks=2)
    check(nc.r_[x, 5, 0:2], np.r_[X, 5, 0:2])
    check(nc.c_[x, x + 0.5], np.c_[X, X + 0.5])
    check(nc.c_[x[None], [[9, 9]]], np.c_[X[None], [[9, 9]]])
    with pytest.raises(ValueError, match="matrices"):
        nc.r_["c", x]


def test_ndenumerate():
    data = np.arange(6).reshape(2, 3)
    assert list(nc.ndenumerate(nc.asarray(data, chunks=1))) == list(np.ndenumerate(data))
