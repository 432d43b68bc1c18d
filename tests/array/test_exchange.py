"""Arrays from and for dask.array."""

from __future__ import annotations

import numpy as np
import pytest

import nums_core
import nums_core.array as nc
from nums_core.errors import DTypeError, UnknownSizeError

da = pytest.importorskip("dask.array")
X = np.random.default_rng(0).normal(size=(30, 20))


def test_there_and_back():
    x = nc.from_array(X, chunks=((10, 20), (7, 13))) * 2
    there = x.to_dask()
    assert isinstance(there, da.Array) and there.chunks == x.chunks and there.dtype == x.dtype
    np.testing.assert_array_equal((there + 1).compute(), X * 2 + 1)
    back = nc.from_dask(there.T)
    assert back.chunks == ((7, 13), (10, 20))
    np.testing.assert_array_equal((back - 1).compute(), X.T * 2 - 1)


@pytest.mark.parametrize("x", [nc.asarray(3.0), nc.zeros((0, 4)), nc.arange(10, chunks=3)[::2]], ids=["0-d", "empty", "sliced"])
def test_shapes(x):
    there = x.to_dask()
    assert there.shape == x.shape
    np.testing.assert_array_equal(there.compute(), x.compute())
    np.testing.assert_array_equal(nc.from_dask(there).compute(), x.compute())


def test_only_the_chunks_that_are_needed_are_computed():
    ran = []
    lazy = da.from_array(X, chunks=10).map_blocks(lambda b: ran.append(b.shape) or b + 1, dtype="f8", meta=np.empty((0, 0)))
    x = nc.from_dask(lazy)
    assert ran == []
    np.testing.assert_array_equal(x[:10, :10].compute(), X[:10, :10] + 1)
    assert ran == [(10, 10)]


def test_sizes_that_depend_on_data():
    x = nc.from_array(X, chunks=10)
    np.testing.assert_array_equal(x[x > 0].to_dask().compute(), x[x > 0].compute())
    lazy = da.from_array(X, chunks=10)
    with pytest.raises(UnknownSizeError, match=r"x\.compute_chunk_sizes\(\)"):
        nc.from_dask(lazy[lazy > 0])


def test_what_is_not_dasks():
    with pytest.raises(DTypeError, match=r"takes a dask\.array\.Array, got ndarray"):
        nc.from_dask(X)


@pytest.mark.dask
def test_on_dasks_workers(dask_client):
    with nums_core.init(dask=dask_client):
        x = nc.from_array(X, chunks=10) + 1
        there = x.to_dask()
        assert len(dask_client.futures_of(there)) == 6  # nothing came here
        np.testing.assert_array_equal((there * 2).compute(), (X + 1) * 2)
        back = nc.from_dask((there * 2).persist())
        np.testing.assert_array_equal(back.sum(axis=0).compute(), ((X + 1) * 2).sum(axis=0))
