"""Files are opened again where they are read; everything else is pickled."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from nums_core.runtime.sources import HDF5Dataset, MappedFile, mapped, portable


@pytest.fixture
def file(tmp_path):
    array = np.memmap(tmp_path / "x.bin", "f8", "w+", offset=24, shape=(30, 20))
    array[:] = np.arange(600.0).reshape(30, 20)
    array.flush()
    return array


@pytest.mark.parametrize("view", [lambda x: x, lambda x: x[3:], lambda x: x[::2, ::-1].T, np.asarray,
                                  lambda x: np.asarray(x)[4:7, 2], lambda x: x.view("i8"), lambda x: x[5:][2:]])
def test_views_of_a_mapped_file(file, view):
    x = view(file)
    data = pickle.dumps(portable(x))
    assert len(data) < 1000
    got = pickle.loads(data)
    np.testing.assert_array_equal(got[...], x)
    np.testing.assert_array_equal(got[1:3], x[1:3])
    assert type(got[1:3]) is np.ndarray


def test_npy_files(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(12).reshape(3, 4))
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert isinstance(portable(x), MappedFile)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(portable(x[1:])))[:], np.arange(4, 12).reshape(2, 4))


def test_what_differs_from_its_file_is_not_read_from_it(tmp_path, file):
    private = np.memmap(tmp_path / "x.bin", "f8", "c", offset=24, shape=(30, 20))
    private[0] = -1
    assert mapped(private) is None and portable(private) is private
    grown = file + 1
    assert portable(grown) is grown


def test_anything_else_is_itself():
    x = np.ones(3)
    assert portable(x) is x and portable([1]) == [1]


def test_hdf5(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.h5", "w") as f:
        f["a/b"] = np.arange(10.0)
    with h5py.File(tmp_path / "x.h5", "r") as f:
        source = portable(f["a/b"])
        assert isinstance(source, HDF5Dataset)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(source))[2:5], [2.0, 3.0, 4.0])
