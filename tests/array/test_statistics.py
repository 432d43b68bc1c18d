"""Averages, covariance, moments, equality and reductions by the user's functions: NumPy is the oracle."""

from __future__ import annotations

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nums_core.array as np
from nums_core.errors import DTypeError, KernelError, ShapeError

RNG = numpy.random.default_rng(23)
X = RNG.normal(size=(17, 6))
CHUNKS = [(17, 6), (5, 4), (1, 6), (17, 1)]


def agree(result, expected, rtol=1e-10):
    got, expected = numpy.asarray(result.compute()), numpy.asarray(expected)
    assert got.shape == expected.shape == result.shape
    assert got.dtype == expected.dtype == result.dtype
    numpy.testing.assert_allclose(got, expected, rtol=rtol, atol=rtol)


# -- average, ptp, moment ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("chunks", CHUNKS)
def test_average(chunks):
    a = np.from_array(X, chunks)
    for axis in (None, 0, 1, (0, 1)):
        agree(np.average(a, axis), numpy.average(X, axis))
        agree(np.average(a, axis, weights=X**2), numpy.average(X, axis, weights=X**2))
    agree(np.average(a, 1, weights=np.from_array(numpy.arange(6), 4)), numpy.average(X, 1, weights=numpy.arange(6)))
    agree(np.average(a, 0, keepdims=True, weights=numpy.arange(17)),
          numpy.average(X, 0, keepdims=True, weights=numpy.arange(17)))


@pytest.mark.parametrize("weights", [None, numpy.arange(6) + 0.5])
def test_average_returns_the_weights(weights):
    ours = np.average(np.from_array(X, 5), 1, weights=weights, returned=True)
    for got, expected in zip(ours, numpy.average(X, 1, weights=weights, returned=True), strict=True):
        agree(got, expected)


@pytest.mark.parametrize("dtype", ["?", "i4", "f4", "c8"])
def test_average_of_every_dtype(dtype):
    x = RNG.integers(0, 3, (5, 6)).astype(dtype)
    agree(np.average(np.from_array(x, 4), 1, weights=[1, 2, 3, 1, 2, 3]), numpy.average(x, 1, weights=[1, 2, 3, 1, 2, 3]),
          1e-5)


def test_average_with_weights_that_do_not_fit():
    with pytest.raises(TypeError, match="Axis must be specified"):
        np.average(np.from_array(X, 5), weights=[1, 2])
    with pytest.raises(ShapeError, match="consistent with shape of a along specified axis"):
        np.average(np.from_array(X, 5), 1, weights=[1, 2])


def test_ptp_of_unsigned_and_booleans():
    x = RNG.integers(0, 200, (5, 6)).astype("u1")
    agree(np.ptp(np.from_array(x, 4), axis=0), numpy.ptp(x, axis=0))
    with pytest.raises(TypeError, match="boolean subtract"):
        np.ptp(numpy.array([True, False]))


@pytest.mark.parametrize("order", range(6))
def test_moment(order):
    for axis in (None, 0, 1):
        mean = X.mean(axis=axis, keepdims=True)
        n = X.size if axis is None else X.shape[axis]
        agree(np.moment(np.from_array(X, (5, 4)), order, axis=axis), ((X - mean) ** order).mean(axis=axis), 1e-9)
        agree(np.from_array(X, 5).moment(order, axis=axis, ddof=1), ((X - mean) ** order).sum(axis=axis) / (n - 1)
              if order > 1 else ((X - mean) ** order).mean(axis=axis), 1e-9)


def test_moment_of_data_far_from_zero():
    x = RNG.normal(size=1000) + 1e6
    agree(np.moment(np.from_array(x, 300), 4), ((x - x.mean()) ** 4).mean(), 1e-6)
    with pytest.raises(ValueError, match="Order must be an integer >= 0"):
        np.moment(x, -1)


# -- covariance -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("rowvar", [True, False])
def test_cov_and_corrcoef(chunks, rowvar):
    a = np.from_array(X, chunks)
    agree(np.cov(a, rowvar=rowvar), numpy.cov(X, rowvar=rowvar))
    agree(np.corrcoef(a, rowvar=rowvar), numpy.corrcoef(X, rowvar=rowvar))


@pytest.mark.parametrize("options", [{"bias": True}, {"ddof": 0}, {"ddof": 3}, {"fweights": [1, 2, 3, 1, 2, 3]},
                                     {"aweights": [0.5, 1, 2, 1, 0.1, 1]}, {"dtype": "f4"},
                                     {"fweights": [1, 2, 3, 1, 2, 3], "aweights": [0.5, 1, 2, 1, 0.1, 1], "ddof": 1}])
def test_cov_options(options):
    agree(np.cov(np.from_array(X, (5, 4)), **options), numpy.cov(X, **options), 1e-5 if "dtype" in options else 1e-10)


def test_cov_of_two_and_of_lines():
    x, y = X[:, 0], X[:, 1]
    agree(np.cov(np.from_array(x, 5), np.from_array(y, 7)), numpy.cov(x, y))
    agree(np.cov(np.from_array(x, 5)), numpy.cov(x))
    agree(np.corrcoef(np.from_array(x, 5)), numpy.corrcoef(x))
    agree(np.cov(np.from_array(X, 5), X + 1, rowvar=False), numpy.cov(X, X + 1, rowvar=False))
    z = X[:, :3] + 1j * X[:, 3:]
    agree(np.cov(np.from_array(z, 5)), numpy.cov(z))
    agree(np.corrcoef(np.from_array(z, 5)), numpy.corrcoef(z))


def test_cov_refuses():
    a = np.from_array(X, 5)
    with pytest.raises(ValueError, match="more than 2 dimensions"):
        np.cov(numpy.ones((2, 2, 2)))
    with pytest.raises(ValueError, match="ddof must be integer"):
        np.cov(a, ddof=0.5)
    with pytest.raises(RuntimeError, match="incompatible numbers of samples and fweights"):
        np.cov(a, fweights=[1, 2])
    with pytest.raises(ValueError, match="aweights cannot be negative"):
        np.cov(a, aweights=-numpy.ones(6))
    with pytest.raises(TypeError, match="fweights must be integer"):
        np.cov(a, fweights=numpy.full(6, 0.5))
    with pytest.warns(RuntimeWarning, match="Degrees of freedom"):
        np.cov(numpy.ones((3, 1)))


# -- equality ---------------------------------------------------------------------------------------------------------

def test_equality():
    a = np.from_array(X, 5)
    nan = numpy.where(X > 1, numpy.nan, X)
    cases = [(np.allclose(a, X + 1e-12), True), (np.allclose(a, X + 1), False), (np.allclose(a, X[:1]), False),
             (np.allclose(nan, nan), False), (np.allclose(nan, nan, equal_nan=True), True),
             (np.array_equal(a, X), True), (np.array_equal(a, X[:3]), False), (np.array_equal(nan, nan), False),
             (np.array_equal(np.from_array(nan, 5), nan, equal_nan=True), True),
             (np.array_equiv([1, 2], [[1, 2], [1, 2]]), True), (np.array_equiv([1, 2], [1, 2, 3]), False)]
    for lazy, expected in cases:
        assert lazy.shape == () and lazy.dtype == bool
        assert bool(lazy) is expected


def test_allclose_of_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match="could not be broadcast"):
        np.allclose(numpy.ones(3), numpy.ones(4))


# -- reduction by functions of the user -------------------------------------------------------------------------------

@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("axis", [None, 0, 1])
@pytest.mark.parametrize("keepdims", [False, True])
def test_reduction(chunks, axis, keepdims):
    a = np.from_array(X, chunks)
    for combine in (None, numpy.sum):
        agree(np.reduction(a, numpy.sum, numpy.sum, axis, keepdims, combine=combine, split_every=2),
              X.sum(axis=axis, keepdims=keepdims))


def means(block, axis, keepdims):
    return {"n": numpy.ones_like(block).sum(axis=axis, keepdims=keepdims), "sum": block.sum(axis=axis, keepdims=keepdims)}


def mean_of(parts, axis, keepdims):
    value = sum(p["sum"] for p in parts) / sum(p["n"] for p in parts)
    return value if keepdims else value.squeeze(axis)


def test_partial_results_of_any_type():
    got = np.reduction(np.from_array(X, (5, 4)), means, mean_of, axis=0, concatenate=False, dtype=float)
    agree(got, X.mean(axis=0))
    assert np.reduction(np.from_array(X, 5), means, mean_of, axis=0, concatenate=False).dtype == float


def test_reduction_with_weights():
    def weighted(block, axis, keepdims, weights):
        return (block * weights).sum(axis=axis, keepdims=keepdims)
    w = numpy.arange(6.0)
    agree(np.reduction(np.from_array(X, (5, 4)), weighted, numpy.sum, axis=1, weights=w), (X * w).sum(axis=1))


def test_reduction_without_a_first_step():
    agree(np.reduction(np.from_array(X, (5, 4)), None, numpy.max, axis=0), X.max(axis=0))


def test_reduction_refuses_and_fails_clearly():
    def broken(block, axis, keepdims):
        raise ZeroDivisionError("no")
    with pytest.raises(DTypeError, match=r"give it, as in reduction\(\.\.\., dtype=float\)"):
        np.reduction(np.from_array(X, 5), broken, numpy.sum)
    with pytest.raises(KernelError, match=r"written at .*test_statistics"):
        np.reduction(np.from_array(X, 5), broken, numpy.sum, dtype=float).compute()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_reduction_is_the_reduction(n, m, p, q, seed):
    x = numpy.random.default_rng(seed).integers(-9, 9, (n, m))
    a = np.from_array(x, (min(p, n), min(q, m)))
    assert bool(np.array_equal(np.reduction(a, numpy.max, numpy.max, axis=0), np.max(a, axis=0)))
