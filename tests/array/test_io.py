"""Files: what is written can be read, by NumPy too; nothing half-written stands under its name."""

from __future__ import annotations

import importlib.util
import io
import os
import pickle
import threading

import numpy as np
import pytest

import nums_core.array as nc
from nums_core.array import stores
from nums_core.errors import KernelError, MissingBackendError, ShapeError
from nums_core.testing.oracle import check

X = np.random.default_rng(0).normal(size=(7, 9))


@pytest.fixture(params=[(7, 9), (3, 4), (1, 9)], ids=str)
def x(request):
    return nc.asarray(X, chunks=request.param) + 0


def broken():
    def fails(b):
        raise ArithmeticError("on purpose")
    return nc.map_blocks(fails, nc.asarray(X, chunks=3), dtype=float)


# -- .npy -------------------------------------------------------------------------------------------------------------

def test_npy(x, tmp_path):
    nc.save(tmp_path / "x", x)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), X)
    back = nc.load(tmp_path / "x.npy", chunks=(2, 5))
    assert back.chunks == ((2, 2, 2, 1), (5, 4))
    check(back, X)
    check(back[2:5, ::2] * 2, X[2:5, ::2] * 2)
    np.save(tmp_path / "y.npy", x)  # NumPy's own function comes here
    check(nc.load(tmp_path / "y.npy"), X)


@pytest.mark.parametrize("data", [np.float32(3), np.ones((0, 3)), np.array(["a", "bc"]), np.zeros(2, [("a", "i4")]),
                                  np.array(["2020-01-01"], "M8[D]"), np.asfortranarray(X)], ids=lambda d: str(d.dtype))
def test_npy_of_any_kind(data, tmp_path):
    nc.save(tmp_path / "x.npy", data)
    check(nc.load(tmp_path / "x.npy"), data)


def test_npy_in_memory():
    f = io.BytesIO()
    nc.save(f, nc.arange(5))
    f.seek(0)
    check(nc.load(f), np.arange(5))


def test_fortran_order_is_read(tmp_path):
    np.save(tmp_path / "f.npy", np.asfortranarray(X))
    check(nc.load(tmp_path / "f.npy", chunks=3), X)


def test_files_travel_by_name(tmp_path):
    np.save(tmp_path / "x.npy", X)
    source = nc.load(tmp_path / "x.npy").expr.params[0].data
    assert len(pickle.dumps(source)) < 1000


def test_a_failed_write_leaves_nothing(tmp_path):
    np.save(tmp_path / "x.npy", X)
    with pytest.raises(KernelError, match="on purpose"):
        nc.save(tmp_path / "x.npy", broken())
    assert os.listdir(tmp_path) == ["x.npy"]
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), X)


def test_archives_and_text(tmp_path):
    x = nc.asarray(X, chunks=3)
    nc.savez(tmp_path / "a.npz", x, twice=x * 2)
    nc.savez_compressed(tmp_path / "c.npz", twice=x * 2)
    with nc.load(tmp_path / "a.npz") as found:
        np.testing.assert_array_equal(found["arr_0"], X)
        np.testing.assert_array_equal(found["twice"], X * 2)
    nc.savetxt(tmp_path / "x.txt", x)
    check(nc.loadtxt(tmp_path / "x.txt"), X)
    check(nc.genfromtxt(tmp_path / "x.txt", chunks=2), X)


def test_raw_bytes(tmp_path):
    X.tofile(tmp_path / "x.bin")
    check(nc.fromfile(tmp_path / "x.bin", chunks=10), X.ravel())
    check(nc.fromfile(tmp_path / "x.bin", count=5, offset=16), X.ravel()[2:7])
    (tmp_path / "t.txt").write_text("1 2 3")
    check(nc.fromfile(tmp_path / "t.txt", sep=" "), [1.0, 2, 3])


# -- stacks -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("axis", [0, 1, -1])
def test_stacks(x, axis, tmp_path):
    nc.to_npy_stack(tmp_path / "s", x, axis=axis)
    back = nc.from_npy_stack(tmp_path / "s")
    assert back.chunks[axis] == x.chunks[axis]
    check(back, X)
    assert sorted(os.listdir(tmp_path)) == ["s"]


def test_stacks_are_dasks(tmp_path):
    da = pytest.importorskip("dask.array")
    nc.to_npy_stack(str(tmp_path / "ours"), nc.asarray(X, chunks=3))
    np.testing.assert_array_equal(da.from_npy_stack(str(tmp_path / "ours")).compute(), X)
    da.to_npy_stack(str(tmp_path / "theirs"), da.from_array(X, chunks=(3, 9)))
    check(nc.from_npy_stack(tmp_path / "theirs"), X)


def test_stacks_are_read_with_care(tmp_path):
    os.makedirs(tmp_path / "s")
    with open(tmp_path / "s" / "info", "wb") as f:
        pickle.dump({"chunks": print}, f)
    with pytest.raises(pickle.UnpicklingError, match="not be safe"):
        nc.from_npy_stack(tmp_path / "s")


# -- store ------------------------------------------------------------------------------------------------------------

def test_store(x):
    target = np.zeros_like(X)
    assert nc.store(x, target) is None
    np.testing.assert_array_equal(target, X)
    a, b = np.zeros_like(X), np.zeros((20, 20))
    nc.store([x, x * 2], [a, b], regions=[None, (slice(3, 10), slice(5, 14))], lock=False)
    np.testing.assert_array_equal(a, X)
    np.testing.assert_array_equal(b[3:10, 5:14], X * 2)
    assert b.sum() == pytest.approx((X * 2).sum())


@pytest.mark.parametrize("region", [np.s_[0:14:2], np.s_[6::-1, :], np.s_[1:8, [9, 8, 7, 6, 5, 4, 3, 2, 0]]], ids=str)
def test_store_in_strides_and_positions(x, region):
    target, want = np.zeros((14, 10)), np.zeros((14, 10))
    target, want = (target, want) if isinstance(region, tuple) and isinstance(region[1], list) else (target[:, :9], want[:, :9])
    nc.store(x, target, regions=region)
    want[region] = X
    np.testing.assert_array_equal(target, want)


def test_store_takes_locks_of_any_kind():
    class Counting:
        held = 0

        def acquire(self):
            self.held += 1

        def release(self):
            self.held += 100
    lock = Counting()
    nc.store(nc.arange(10, chunks=5), np.zeros(10), lock=lock)
    assert lock.held == 202


def test_store_later_and_read_back(x):
    target = np.zeros_like(X)
    later = nc.store(x, target, compute=False)
    assert not target.any()
    later.compute()
    np.testing.assert_array_equal(target, X)
    check(nc.store(x, np.zeros_like(X), return_stored=True) + 1, X + 1)
    check(nc.store(nc.asarray(3.0), np.zeros(()), return_stored=True), 3.0)


def test_store_holds_the_lock():
    class Target:
        shape, inside, most = (100,), 0, 0

        def __setitem__(self, at, value):
            self.inside += 1
            self.most = max(self.most, self.inside)
            threading.Event().wait(0.001)
            self.inside -= 1

    target = Target()
    nc.store(nc.arange(100, chunks=5), target)
    assert target.most == 1


def test_store_refusals(x):
    with pytest.raises(ShapeError, match="regions="):
        nc.store(x, np.zeros((2, 2)))
    with pytest.raises(ShapeError, match="they must be equal"):
        nc.store(x, np.zeros((9, 9)), regions=(slice(0, 3),))
    with pytest.raises(ValueError, match="one target for each source"):
        nc.store([x, x], [np.zeros_like(X)])
    with pytest.raises(ValueError, match="one region for each source"):
        nc.store([x, x], [np.zeros_like(X)] * 2, regions=[None])
    with pytest.raises(ValueError, match="All sources must be"):
        nc.store(X, np.zeros_like(X))


def test_store_from_another_process_writes_here(monkeypatch):
    from nums_core import session
    from nums_core.testing.loopback import LoopbackExecutor

    with session.use(LoopbackExecutor(workers=2)):
        target = np.zeros_like(X)
        nc.store(nc.asarray(X, chunks=(3, 4)) + 1, target)
        np.testing.assert_array_equal(target, X + 1)


# -- zarr and HDF5 ----------------------------------------------------------------------------------------------------

def test_missing_packages_are_named(tmp_path):
    with pytest.raises(MissingBackendError, match="pip install no_such_package"):
        stores.backend("no_such_package")
    for name, call in (("zarr", lambda: nc.to_zarr(nc.arange(3), str(tmp_path / "z"))),
                       ("h5py", lambda: nc.to_hdf5(tmp_path / "h", "/x", nc.arange(3)))):
        if importlib.util.find_spec(name) is None:
            with pytest.raises(MissingBackendError, match=f"pip install {name}"):
                call()


def test_zarr(x, tmp_path):
    zarr = pytest.importorskip("zarr")
    path = str(tmp_path / "x.zarr")
    nc.to_zarr(x, path)
    np.testing.assert_array_equal(zarr.open_array(path)[:], X)
    check(nc.from_zarr(path), X)
    check(nc.from_zarr(zarr.open_array(path), chunks=(2, 9)), X)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        nc.to_zarr(x, path)
    check(nc.to_zarr(x * 2, path, overwrite=True, return_stored=True), X * 2)
    with pytest.raises(KernelError):
        nc.to_zarr(broken(), str(tmp_path / "broken.zarr"))
    assert os.listdir(tmp_path) == ["x.zarr"]


def test_zarr_parts(tmp_path):
    zarr = pytest.importorskip("zarr")
    path = str(tmp_path / "g.zarr")
    nc.to_zarr(nc.asarray(X, chunks=((3, 4), 5)), path, component="a/b")
    check(nc.from_zarr(path, component="a/b"), X)
    target = zarr.create_array(str(tmp_path / "t.zarr"), shape=(10, 9), chunks=(4, 4), dtype="f8")
    nc.to_zarr(nc.asarray(X, chunks=3), target, region=(slice(2, 9),))
    np.testing.assert_array_equal(target[2:9], X)


def test_hdf5(x, tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "x.h5"
    nc.to_hdf5(path, "/x", x)
    nc.to_hdf5(path, {"/g/y": x * 2, "/z": nc.arange(5)}, compression="gzip")
    with h5py.File(path) as f:
        np.testing.assert_array_equal(f["x"][:], X)
        check(nc.from_array(f["g/y"]), X * 2)
    check(nc.from_hdf5(path, "/g/y", chunks=(2, 3))[1:5], (X * 2)[1:5])
    nc.to_hdf5(path, "/copy", nc.from_hdf5(path, "/x", chunks=2) + 1)
    check(nc.from_hdf5(path, "/copy"), X + 1)
    with pytest.raises(ValueError, match="to_hdf5"):
        nc.to_hdf5(path, x)
