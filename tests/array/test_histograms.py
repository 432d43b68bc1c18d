"""bincount and histograms: NumPy is the oracle, bin for bin."""

from __future__ import annotations

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nums_core.array as np
from nums_core.errors import DTypeError, ShapeError

RNG = numpy.random.default_rng(31)
X = RNG.normal(size=(40, 30))
N = RNG.integers(0, 20, 100)


def same(result, expected):
    got, expected = numpy.asarray(result.compute()), numpy.asarray(expected)
    assert got.shape == expected.shape and got.dtype == expected.dtype == result.dtype
    numpy.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


# -- bincount ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("size", [100, 13, 1])
def test_bincount(size):
    a = np.from_array(N, size)
    same(np.bincount(a), numpy.bincount(N))
    same(np.bincount(a, minlength=50), numpy.bincount(N, minlength=50))
    same(np.bincount(a, weights=N * 0.5), numpy.bincount(N, weights=N * 0.5))
    same(np.bincount(a, np.from_array(N * 0.5, 9)), numpy.bincount(N, N * 0.5))


def test_bincount_has_a_size_that_depends_on_data():
    counts = np.bincount(np.from_array(N, 13))
    assert numpy.isnan(counts.expr.shape[0]) and counts.shape == (N.max() + 1,)


def test_bincount_of_few():
    same(np.bincount(np.from_array(numpy.zeros(0, int), 1)), numpy.bincount(numpy.zeros(0, int)))
    same(np.bincount(numpy.array([True, False, True])), numpy.bincount([True, False, True]))


def test_bincount_refuses():
    with pytest.raises(ValueError, match=r"use x.ravel\(\)"):
        np.bincount(numpy.ones((2, 2), int))
    with pytest.raises(DTypeError, match=r"use x.astype\(int\)"):
        np.bincount(numpy.ones(2))
    with pytest.raises(ShapeError, match="don't have the same length"):
        np.bincount(numpy.ones(2, int), weights=[1, 2, 3])
    with pytest.raises(ValueError, match="must not be negative"):
        np.bincount(numpy.ones(2, int), minlength=-1)
    with pytest.raises(ValueError, match="no negative elements"):
        np.bincount(numpy.array([1, -1])).compute()


# -- histogram --------------------------------------------------------------------------------------------------------

BINS = [{}, {"bins": 7}, {"bins": 7, "range": (-1, 2)}, {"bins": [-2, -1, 0, 3]}, {"density": True},
        {"bins": [0.0, 0.5, 4.0], "density": True}]


@pytest.mark.parametrize("options", BINS, ids=str)
@pytest.mark.parametrize("chunks", [(40, 30), (11, 7), (1, 30)])
def test_histogram(options, chunks):
    for got, expected in zip(np.histogram(np.from_array(X, chunks), **options), numpy.histogram(X, **options), strict=True):
        same(got, expected)


@pytest.mark.parametrize("options", BINS, ids=str)
@pytest.mark.parametrize("dtype", ["?", "u1", "i4", "i8", "f2", "f4"])
def test_histogram_of_every_dtype(options, dtype):
    x = (numpy.abs(X[:9]) * 3).astype(dtype)
    for got, expected in zip(np.histogram(np.from_array(x, (5, 8)), **options),
                             numpy.histogram(x.astype("u1") if dtype == "?" else x, **options), strict=True):
        same(got, expected)


@pytest.mark.parametrize("dtype", ["f8", "f4", "i4", "c16"])
def test_histogram_of_weights(dtype):
    w = (RNG.random((40, 30)) * 9).astype(dtype)
    for bins in (5, [-2.0, 0.0, 0.1, 3.0]):
        got, _ = np.histogram(np.from_array(X, (11, 7)), bins, weights=np.from_array(w, (7, 11)))
        expected, _ = numpy.histogram(X, bins, weights=w)
        assert got.dtype == expected.dtype
        numpy.testing.assert_allclose(got.compute(), expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["sqrt", "sturges", "rice", "scott", "doane", "fd", "auto"])
def test_estimated_bins(name):
    for x, options in ((X, {}), (X, {"range": (-1.0, 1.5)}), (N, {}), (numpy.ones(9), {})):
        same(np.histogram_bin_edges(np.from_array(x, 9), name, **options), numpy.histogram_bin_edges(x, name, **options))


def test_histogram_with_lazy_edges_and_of_a_selection():
    a = np.from_array(X, (11, 7))
    same(np.histogram(a, np.from_array(numpy.array([-1.0, 0.0, 2.0]), 2))[0], numpy.histogram(X, [-1.0, 0.0, 2.0])[0])
    same(np.histogram(a[a > 0], 6)[0], numpy.histogram(X[X > 0], 6)[0])
    same(np.histogram(np.from_array(numpy.zeros(0), 1), 4)[1], numpy.histogram([], 4)[1])
    same(np.histogram(numpy.array(3.0), 4)[0], numpy.histogram(3.0, 4)[0])


def test_histogram_refuses():
    a = np.from_array(X, 11)
    with pytest.raises(ValueError, match="must be positive, when an integer"):
        np.histogram(a, 0)
    with pytest.raises(ValueError, match="must increase monotonically"):
        np.histogram(a, [1, 0])
    with pytest.raises(ValueError, match="max must be larger than min"):
        np.histogram(a, 3, (2, 1))
    with pytest.raises(ValueError, match="not a valid estimator for `bins`; choose one of auto"):
        np.histogram(a, "nonsense")
    with pytest.raises(TypeError, match="give the number of bins"):
        np.histogram(a, "sqrt", weights=X)
    with pytest.raises(ShapeError, match="weights should have the same shape as a"):
        np.histogram(a, 3, weights=X[:3])
    with pytest.raises(ValueError, match="is not finite"):
        np.histogram(np.from_array(numpy.array([1.0, numpy.nan]), 1))[0].compute()


# -- several dimensions -----------------------------------------------------------------------------------------------

def test_histogramdd():
    sample = RNG.normal(size=(500, 3))
    for options in ({"bins": (3, 4, 5)}, {"bins": 3}, {"bins": (3, [-1, 0, 1], 2), "density": True},
                    {"bins": 2, "range": [(-1, 1), None, (0, 2)]}, {"bins": 3, "weights": sample[:, 0] ** 2}):
        expected, edges = numpy.histogramdd(sample, **options)
        for given_as in (np.from_array(sample, (70, 2)), [np.from_array(sample[:, k].copy(), 90) for k in range(3)]):
            got, got_edges = np.histogramdd(given_as, **options)
            same(got, expected)
            for e, f in zip(got_edges, edges, strict=True):
                numpy.testing.assert_allclose(e.compute(), f)


def test_histogram2d():
    x, y = RNG.normal(size=(2, 200))
    for bins in (4, [3, 4], [-1.0, 0.0, 1.0, 2.0], [numpy.array([-1.0, 0.0, 1.0]), 3]):
        for got, expected in zip(np.histogram2d(np.from_array(x, 60), y, bins), numpy.histogram2d(x, y, bins), strict=True):
            numpy.testing.assert_allclose(got.compute(), expected)
    with pytest.raises(ValueError, match="dimension of bins must be equal"):
        np.histogramdd([x, y], bins=[1, 2, 3])
    with pytest.raises(ShapeError, match="they must all be the same"):
        np.histogramdd([x, y[:9]])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 30), max_size=80), st.integers(1, 20))
def test_counts_add_up(numbers, size):
    x = numpy.array(numbers, int)
    counts = np.bincount(np.from_array(x, size)).compute()
    assert counts.sum() == len(x)
    assert np.histogram(np.from_array(x, size), 5, (0, 30))[0].compute().sum() == len(x)
