"""A persisted array with a copy on disk: its history ends there, and lost blocks come from it."""

from __future__ import annotations

import gc
import os

import numpy as np
import pytest

import nums_core
import nums_core.array as nc
from nums_core import config
from nums_core.errors import KernelError, WorkerLostError
from nums_core.testing.loopback import LoopbackExecutor

zarr = pytest.importorskip("zarr")
X = np.random.default_rng(0).normal(size=(60, 7))


@pytest.fixture
def executor():
    made = LoopbackExecutor(3)
    with nums_core.init(executor=made):
        yield made


def kill(executor, *workers):
    gc.collect()
    for w in workers:
        executor.die(w)


def origin(x):
    return x.expr.params[0].data.origin


def test_lost_blocks_are_read_from_the_store(executor, tmp_path):
    path = tmp_path / "x.zarr"
    x = (nc.asarray(X, chunks=((20, 20, 15, 5), (4, 3))) * 2).checkpoint(path)
    assert x.chunks == ((20, 20, 15, 5), (4, 3)) and origin(x).making.depth == 0
    np.testing.assert_array_equal(zarr.open_array(path)[:], X * 2)
    y = (x + 1).persist()
    for victims in ((1,), (0, 1, 2)):
        kill(executor, *victims)
        np.testing.assert_array_equal(y.compute(), X * 2 + 1)
        np.testing.assert_array_equal(x.compute(), X * 2)


def test_an_array_that_is_persisted_already_keeps_its_blocks(executor, tmp_path):
    x = nc.asarray(X, chunks=20).persist()
    y = (x * 3).persist()  # made before the checkpoint, and restored through it
    again = nc.checkpoint(x, str(tmp_path / "x.zarr"))
    assert again is x
    del x, again
    kill(executor, 2)
    np.testing.assert_array_equal(y.compute(), X * 3)


def test_a_loop_with_checkpoints_is_never_too_long(executor, tmp_path):
    x, want = nc.asarray(X, chunks=20).persist(), X
    with config.set(lineage_depth=4):
        for k in range(12):
            x, want = (x + 1.0).persist(), want + 1.0
            if k % 3 == 2:
                x = x.checkpoint(tmp_path / "x.zarr", overwrite=True)
            assert origin(x).making is not None
        x, want = (x + 1.0).persist(), want + 1.0
        kill(executor, 0)
        np.testing.assert_array_equal(x.compute(), want)
    assert os.listdir(tmp_path) == ["x.zarr"]


@pytest.mark.parametrize(("spoil", "said"), [(lambda p: nc.ones(60, chunks=20).checkpoint(p, overwrite=True), "another array"),
                                             (lambda p: os.rename(p, f"{p}.away"), "is not there")])
def test_a_store_that_holds_something_else_is_not_believed(executor, tmp_path, spoil, said):
    path = tmp_path / "x.zarr"
    x = nc.asarray(X, chunks=20).checkpoint(path)
    spoil(path)
    kill(executor, 1)
    with pytest.raises(nums_core.errors.CheckpointError, match=f"{said} now; keep a checkpoint as long as"):
        x.compute()


def test_a_checkpoint_is_not_written_over_by_accident(executor, tmp_path):
    path = tmp_path / "x.zarr"
    nc.ones(5).checkpoint(path)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        nc.ones(6).checkpoint(path)
    assert zarr.open_array(path).shape == (5,)


def _bad(block):
    raise ValueError("bad block")


def test_no_half_checkpoint_is_left(executor, tmp_path):
    path = tmp_path / "x.zarr"
    nc.asarray(X, chunks=20).checkpoint(path)
    with pytest.raises(KernelError):
        nc.asarray(X, chunks=20).map_blocks(_bad, dtype=float).checkpoint(path, overwrite=True)
    assert os.listdir(tmp_path) == ["x.zarr"]
    np.testing.assert_array_equal(zarr.open_array(path)[:], X)


@pytest.mark.parametrize("x", [np.array(3.5), np.zeros((0, 3)), np.arange(5, dtype="i2"), np.arange(4.0) + 1j])
def test_odd_arrays(executor, tmp_path, x):
    y = nc.asarray(x).checkpoint(tmp_path / "x.zarr")
    kill(executor, 0, 1, 2)
    got = np.asarray(y.compute())
    np.testing.assert_array_equal(got, x)
    assert got.dtype == x.dtype and got.shape == x.shape


def test_local_threads_write_it_too(tmp_path):
    x = nc.asarray(X, chunks=20).checkpoint(tmp_path / "x.zarr")
    np.testing.assert_array_equal((x + 1).compute(), X + 1)
    np.testing.assert_array_equal(nc.from_zarr(tmp_path / "x.zarr").compute(), X)


def test_a_worker_that_dies_while_the_checkpoint_is_written(executor, tmp_path):
    x = nc.asarray(X, chunks=20).persist()
    executor.schedule(lambda call, *_: [1] if call == 1 else [])
    x = x.checkpoint(tmp_path / "x.zarr")
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "x.zarr")[:], X)
    np.testing.assert_array_equal(x.compute(), X)


def test_what_a_lost_array_was_made_from_is_named(executor):
    with config.set(lineage_bytes=0):
        x = nc.asarray(X.copy(), chunks=20)
        y = (x + 1).persist()
        del x
        kill(executor, 1)
        with pytest.raises(WorkerLostError, match=r"a copy on disk: x = x\.checkpoint\(path\)"):
            y.compute()


def test_random_arrays_come_back_alike(executor):
    x = nc.random.default_rng(3).normal(size=(40, 5), chunks=(10, 5)).persist()
    before = x.compute()
    kill(executor, 0, 2)
    np.testing.assert_array_equal(x.compute(), before)
