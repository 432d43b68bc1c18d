"""Derivatives of reductions and scans."""

from __future__ import annotations

import numpy as np
import pytest

import nums_core.array as na
from nums_core.nn.autodiff import grad
from nums_core.testing.gradients import check_grad

RNG = np.random.default_rng(5)
X = na.asarray(RNG.normal(size=(5, 4))).rechunk((2, 3))
Z = na.asarray(RNG.normal(size=(4, 3)) + 1j * RNG.normal(size=(4, 3)))


def with_nan(x):
    return na.where(x > 1.0, np.nan, x)


@pytest.mark.parametrize("axis, keepdims", [(None, False), (0, True), ((0, 1), True), (-1, False)], ids=str)
@pytest.mark.parametrize("name", ["sum", "mean", "prod", "max", "min", "var", "std"])
def test_reductions(name, axis, keepdims):
    check_grad(lambda x: getattr(na, name)(x * x, axis=axis, keepdims=keepdims), X)


@pytest.mark.parametrize("f", [
    lambda x: x.var(0, ddof=1), lambda x: na.nanvar(with_nan(x), 1), lambda x: na.nanstd(with_nan(x)), lambda x: na.nanmean(with_nan(x), 0),
    lambda x: na.nansum(with_nan(x)), lambda x: na.nanmax(with_nan(x), 1), lambda x: na.max(x, initial=0.5) * x, lambda x: na.ptp(x, 1),
    lambda x: na.average(x, axis=0, weights=na.arange(1, 6)), lambda x: na.sum(x, axis=0, where=x > 0) * x, lambda x: na.linalg.norm(x),
    lambda x: na.cov(x), lambda x: na.fmax.reduce(x, axis=1), lambda x: na.topk(x, 2, axis=1)**2, lambda x: na.topk(x, -1, axis=0)**2,
    lambda x: x.mean(1, dtype="f8") * (x > 0).any(1) * x.argmax(1)])
def test_reductions_with_options(f):
    check_grad(f, X)


@pytest.mark.parametrize("f", [na.sum, na.mean, na.prod, na.var, na.std], ids=lambda f: f.__name__)
def test_reductions_of_complex_numbers(f):
    check_grad(lambda z: f(z, axis=0), Z)


def test_extremes_share_among_equals():
    x = na.asarray(np.array([[3.0, 3.0, 1.0], [0.0, 2.0, 1.0]]))
    assert grad(lambda x: x.max(1).sum())(x).compute().tolist() == [[0.5, 0.5, 0], [0, 1, 0]]
    assert grad(lambda x: na.maximum(x[0], x[1]).sum())(x).compute().tolist() == [[1, 1, 0.5], [0, 0, 0.5]]


@pytest.mark.parametrize("row, slope", [([2.0, 3.0, 4.0], [12, 8, 6]), ([0.0, 3.0, 4.0], [12, 0, 0]), ([0.0, 3.0, 0.0], [0, 0, 0])])
def test_product_with_zeros(row, slope):
    assert grad(na.prod)(na.asarray(np.array(row))).compute().tolist() == slope


def test_spread_of_equal_elements_has_slope_zero():
    assert grad(na.std)(na.ones(3)).compute().tolist() == [0, 0, 0]


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("f", [
    na.cumsum, na.cumprod, lambda x, axis: na.nancumsum(with_nan(x), axis=axis),
    lambda x, axis: na.cumulative_sum(x, axis=axis, include_initial=True),
    lambda x, axis: na.cumulative_prod(x, axis=axis, include_initial=True), lambda x, axis: na.maximum.accumulate(x, axis=axis),
    lambda x, axis: na.minimum.accumulate(x, axis=axis), lambda x, axis: na.diff(x * x, axis=axis)])
def test_scans(f, axis):
    check_grad(lambda x: f(x * x + 0.1 * x, axis=axis), X)


def test_running_product_with_a_zero_is_not_taken_for_a_number():
    assert np.isnan(grad(lambda x: na.cumprod(x).sum())(na.asarray(np.array([1.0, 0.0, 2.0]))).compute()[1])


def test_integer_results_end_the_derivative():
    made = grad(lambda x: ((x > 0).sum() + x.argmax() + na.count_nonzero(x)).astype(float) + x[0, 0])(X)
    assert made.compute().sum() == 1
