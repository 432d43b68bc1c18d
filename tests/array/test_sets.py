"""Distinct elements and set operations: NumPy is the oracle, one bucket or many."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nums_core.array as nc
from nums_core import config

DTYPES = ["f8", "i8", "u1", "?", "c16", "U3", "M8[D]"]
GRIDS = [(103, 10), (64, 64), (0, 1), (1, 1), (5, 1)]


@pytest.fixture(params=["one bucket", "many buckets"])
def limit(request):
    with config.set(block_bytes="16MiB" if request.param == "one bucket" else 64):
        yield request.param


def values(shape, dtype, seed=0):
    x = np.random.default_rng(seed).integers(0, 30, shape).astype("i8").astype(dtype)
    if x.dtype.kind in "fc":
        x.reshape(-1)[::9] = np.nan
    if x.dtype.kind == "c":
        x.reshape(-1)[::11] = complex(1, np.nan)
    if x.dtype.kind == "M":
        x.reshape(-1)[::9] = np.datetime64("NaT")
    return x


def agree(results, expected):
    results, expected = (r if isinstance(r, tuple) else (r,) for r in (results, expected))
    assert len(results) == len(expected)
    for r, e in zip(results, expected, strict=True):
        np.testing.assert_array_equal(r.compute(), e, strict=True)
        assert r.shape == e.shape and r.dtype == e.dtype


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n, chunks", GRIDS)
def test_unique(limit, n, chunks, dtype):
    v = values(n, dtype)
    x = nc.from_array(v, chunks=chunks)
    agree(nc.unique(x), np.unique(v))
    agree(nc.unique(x, True, True, True), np.unique(v, True, True, True))
    agree(nc.unique(x, return_counts=True), np.unique(v, return_counts=True))


@pytest.mark.parametrize("flags", list(itertools.product([False, True], repeat=3)))
def test_unique_of_several_axes(limit, flags):
    v = values((7, 5, 4), "i8")
    agree(nc.unique(nc.from_array(v, chunks=(3, 2, 4)), *flags), np.unique(v, *flags))


@pytest.mark.parametrize("dtype", ["f8", "i8", "M8[D]"])
def test_unique_with_nan_apart(limit, dtype):
    v = values(50, dtype)
    x = nc.from_array(v, chunks=8)
    agree(nc.unique(x, return_index=True, return_counts=True, equal_nan=False),
          np.unique(v, return_index=True, return_counts=True, equal_nan=False))
    for name in ("unique_all", "unique_counts", "unique_inverse"):
        ours, theirs = getattr(nc, name)(x), getattr(np, name)(v)
        assert ours._fields == theirs._fields
        if name == "unique_inverse":  # NumPy numbers the NaN in no particular order here
            agree(ours.values, theirs.values)
            np.testing.assert_array_equal(ours.values.compute()[ours.inverse_indices.compute()], v)
        else:
            agree(tuple(ours), tuple(theirs))
    if dtype != "M8[D]":  # NumPy makes NaT one after all, when asked for values alone
        agree(nc.unique_values(x), np.unique(v, equal_nan=False))


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("flags", [(False, False, False), (True, False, True), (True, True, True)])
def test_unique_slices(axis, flags):
    v = values((30, 3, 2), "i8") % 2
    agree(nc.unique(nc.from_array(v, chunks=(7, 2, 1)), *flags, axis=axis), np.unique(v, *flags, axis=axis))


def test_unique_takes_anything():
    agree(nc.unique([3, 1, 3]), np.array([1, 3]))
    agree(nc.unique(5), np.array([5]))
    x = nc.arange(20, chunks=6)
    agree(nc.unique(x[x % 3 == 0] // 2), np.unique(np.arange(0, 20, 3) // 2))
    assert nc.unique(x).chunks == ((pytest.approx(np.nan, nan_ok=True),),)
    with pytest.raises(np.exceptions.AxisError, match="out of bounds"):
        nc.unique(x, axis=1)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=60), st.integers(1, 20), st.sampled_from([8, 10**6]))
def test_any_cut_gives_numpys(items, size, block_bytes):
    v = np.array(items, np.int64)
    with config.set(block_bytes=block_bytes):
        agree(nc.unique(nc.from_array(v, chunks=size), True, True, True), np.unique(v, True, True, True))


def test_few_values_move_little():
    x = nc.from_array(np.arange(100_000) % 7, chunks=10_000)
    with config.set(block_bytes=1000):
        assert nc.compute(*nc.unique(x, return_counts=True))[1].sum() == 100_000
    assert nc.last_report().n_tasks < 250


@pytest.mark.parametrize("name", ["union1d", "intersect1d", "setdiff1d", "setxor1d", "isin"])
@pytest.mark.parametrize("dtypes", [("i8", "i8"), ("f8", "f8"), ("u1", "i8"), ("U3", "U3")])
def test_set_operations(limit, name, dtypes):
    a, b = values((5, 8), dtypes[0]), values(33, dtypes[1], 1)
    got = getattr(nc, name)(nc.from_array(a, chunks=3), nc.from_array(b, chunks=5))
    expected = getattr(np, name)(a, b)
    if a.dtype.kind == "f" and name != "isin":  # one NaN here, as in unique; NumPy tells NaN apart in some of these
        expected, got = expected[~np.isnan(expected)], nc.from_array(got.compute()[~np.isnan(got.compute())])
    agree(got, expected)


def test_set_operations_with_options(limit):
    a, b = np.array([5, 1, 9, 3]), np.array([3, 4, 5, 8])
    x, y = nc.from_array(a, chunks=2), nc.from_array(b, chunks=3)
    agree(nc.intersect1d(x, y, return_indices=True), np.intersect1d(a, b, return_indices=True))
    agree(nc.setdiff1d(x, y, assume_unique=True), np.setdiff1d(a, b, assume_unique=True))
    agree(nc.isin(x, y, invert=True), np.isin(a, b, invert=True))
    agree(nc.isin(x, [3], assume_unique=True, kind="sort"), np.isin(a, [3]))
    agree(nc.isin(x, []), np.isin(a, []))
    agree(nc.setxor1d(x, []), np.setxor1d(a, []))
    agree(nc.setdiff1d(np.array([1, 2], "i4"), [1]), np.setdiff1d(np.array([1, 2], "i4"), [1]))
