"""Medians, quantiles, percentiles: NumPy is the oracle, for whole lines and for selection from cut ones."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nums_core.array as nc
from nums_core import config
from nums_core.runtime.devices.quantile import places

METHODS = ["inverted_cdf", "averaged_inverted_cdf", "closest_observation", "interpolated_inverted_cdf", "hazen", "weibull",
           "linear", "median_unbiased", "normal_unbiased", "lower", "higher", "midpoint", "nearest"]
QS = [0.5, 0, 1, [0.1, 0.25, 0.9], [[0.33, 0.66]], 0.125]


@pytest.fixture(params=["whole lines", "selection"])
def limit(request):
    with config.set(block_bytes="16MiB" if request.param == "whole lines" else 64):
        yield request.param


def values(shape, dtype="f8", nan=False):
    x = np.random.default_rng(0).normal(10, 5, shape).astype(dtype)
    if nan:
        x.reshape(-1)[::3] = np.nan
    return x


def agree(result, expected, rtol=0.0):
    expected = np.asarray(expected)
    assert result.shape == expected.shape and result.dtype == expected.dtype
    np.testing.assert_allclose(result.compute(), expected, rtol=rtol)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype, n, chunks", [("f8", 103, 23), ("i8", 64, 16), ("u1", 70, 30), ("f8", 2, 1), ("i8", 1, 1)])
def test_every_method(limit, method, dtype, n, chunks):
    v = values(n, dtype)
    x = nc.from_array(v, chunks=chunks)
    for q in QS:
        agree(nc.quantile(x, q, method=method), np.quantile(v, q, method=method))


def test_float32_is_not_widened_by_python_numbers(limit):
    v = values(100, "f4")
    x = nc.from_array(v, chunks=13)
    for q in (0.3, [0.3, 0.7], np.float64(0.3)):
        agree(nc.quantile(x, q), np.quantile(v, q), rtol=1e-6)
        agree(nc.percentile(x, np.multiply(q, 100) if np.ndim(q) else q * 100),
              np.percentile(v, np.multiply(q, 100) if np.ndim(q) else q * 100), rtol=1e-6)
    agree(nc.median(x), np.median(v))


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [0, 1, 2, -1, None, (0, 1), (0, 2), (2, 1)])
def test_axes(limit, axis, keepdims):
    v = values((6, 40, 3))
    x = nc.from_array(v, chunks=(4, 11, 2))
    kw = {"axis": axis, "keepdims": keepdims}
    agree(nc.median(x, **kw), np.median(v, **kw))
    for q in (0.6, [0.1, 0.6], [[0.1], [0.6]]):
        agree(nc.quantile(x, q, **kw), np.quantile(v, q, **kw))
        agree(nc.percentile(x, np.multiply(q, 100), **kw), np.percentile(v, np.multiply(q, 100), **kw))


@pytest.mark.parametrize("name", ["nanmedian", "median", "nanquantile", "quantile", "nanpercentile", "percentile"])
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_nan(limit, name, axis):
    v = values((40, 3), nan=True)
    v[:, 1] = np.nan
    q = [] if name.endswith("median") else [[20, 70]] if name.endswith("percentile") else [[0.2, 0.7]]
    with warnings.catch_warnings(action="ignore"):  # All-NaN slice; ours do not warn, as threads would
        expected = getattr(np, name)(v, *q, axis=axis)
    agree(getattr(nc, name)(nc.from_array(v, chunks=(9, 2)), *q, axis=axis), expected)


def test_nothing_but_nan(limit):
    assert np.isnan(nc.nanmedian(nc.full(20, np.nan, chunks=3)).compute())
    assert np.isnan(nc.median(nc.zeros(0)).compute())
    assert nc.quantile(nc.zeros((0, 3)), [0.5], axis=0).compute().shape == (1, 3)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=1, max_size=60), st.integers(1, 25), st.floats(0, 1),
       st.sampled_from(METHODS))
def test_any_cut_any_quantile(items, size, q, method):
    v = np.array(items, float)
    with config.set(block_bytes=8):
        agree(nc.quantile(nc.from_array(v, chunks=size), q, method=method), np.quantile(v, q, method=method), rtol=1e-15)
        agree(nc.median(nc.from_array(v, chunks=size)), np.median(v))


@pytest.mark.parametrize("method", METHODS)
def test_places_are_within_the_elements(method):
    for n in (1, 2, 5, 10):
        at = places(np.linspace(0, 1, 21), n, method)
        assert (at.lo >= 0).all() and (at.hi < n).all() and (at.hi - at.lo <= 1).all() and (at.gamma <= 1).all()


def test_selection_moves_a_block_a_quantile():
    x = nc.random.default_rng(0).random(40_000, chunks=2_000)
    with config.set(block_bytes=64):
        plan = nc.quantile(x, [0.25, 0.75]).explain()
    counts = {f.label: f.count for f in plan.graph.families}
    assert counts["sort.run"] == 20 and counts["quantile.window"] == 40 and counts["quantile.select"] == 2


def test_weights():
    v, w = values((5, 8)), np.random.default_rng(1).random(8)
    x = nc.from_array(v, chunks=3)
    for weights in (w, np.tile(w, (5, 1))):
        agree(nc.quantile(x, 0.4, axis=1, weights=weights, method="inverted_cdf"),
              np.quantile(v, 0.4, axis=1, weights=weights, method="inverted_cdf"))
    with pytest.raises(ValueError, match="broadcast them to the shape of a"):
        nc.quantile(x, 0.4, axis=0, weights=w, method="inverted_cdf")


def test_keywords():
    v = values(20)
    x = nc.from_array(v, chunks=6)
    agree(nc.percentile(x, [5, 50], interpolation="lower", internal_method="tdigest"),
          np.percentile(v, [5, 50], method="lower"))
    out = nc.zeros(2)
    assert nc.quantile(x, [0.5, 0.6], out=out) is out
    np.testing.assert_array_equal(out.compute(), np.quantile(v, [0.5, 0.6]))
    assert isinstance(nc.median(x).compute(), np.float64)


@pytest.mark.parametrize("call, error, message", [
    (lambda x: nc.quantile(x, 1.5), ValueError, r"range \[0, 1\]"),
    (lambda x: nc.percentile(x, 101), ValueError, r"range \[0, 100\]"),
    (lambda x: nc.quantile(x, 0.5, method="guess"), ValueError, "guess"),
    (lambda x: nc.quantile(x, 0.5, axis=3), np.exceptions.AxisError, "axis 3 is out of bounds"),
    (lambda x: nc.quantile(x * 1j, 0.5), TypeError, "real numbers"),
    (lambda x: nc.quantile(x, 0.5, colour=3), TypeError, "quantiles take q, axis"),
    (lambda x: nc.quantile(x, 0.5, weights=x), ValueError, "inverted_cdf"),
])
def test_mistakes_raise_at_once(call, error, message):
    with pytest.raises(error, match=message):
        call(nc.arange(12, chunks=5))
