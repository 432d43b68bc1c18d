"""NumPy's protocols: ufuncs, functions, the array API, DLPack, pickling, and what Python asks of an array."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import nums_core.array as nc
from nums_core import config
from nums_core.array import interop
from nums_core.errors import ImplicitComputeError
from nums_core.testing.oracle import check

X = np.arange(12.0).reshape(3, 4)


@pytest.fixture
def x():
    return nc.asarray(X, chunks=(2, 3))


# -- ufuncs -----------------------------------------------------------------------------------------------------------

def test_numpys_ufuncs_stay_lazy(x):
    for made, want in ((np.sin(x), np.sin(X)), (np.add(X, x), X + X), (np.multiply.outer(x, X[0]), np.multiply.outer(X, X[0])),
                       (X + x, X + X), (X @ x.T, X @ X.T), (np.float64(2) * x, 2 * X)):
        assert isinstance(made, nc.Array)
        check(made, want)


def test_methods_of_numpys_ufuncs(x):
    check(np.add.reduce(x, axis=1), X.sum(1))
    check(np.multiply.accumulate(x, axis=0), np.multiply.accumulate(X, axis=0))
    check(np.add.reduceat(x, [0, 2], axis=1), np.add.reduceat(X, [0, 2], axis=1))
    y = nc.asarray(X.copy())
    np.add.at(y, ([0, 0], [1, 1]), 5)
    check(y[0, 1], 11.0)


def test_out_may_be_numpys_or_ours(x):
    out = np.zeros_like(X)
    assert np.exp(x, out=out) is out
    np.testing.assert_array_equal(out, np.exp(X))
    lazy = nc.zeros((3, 4))
    assert np.exp(X, out=lazy) is lazy
    check(lazy, np.exp(X))
    check(np.add(x, 1, where=X > 4, out=nc.zeros((3, 4))), np.where(X > 4, X + 1, 0))


def test_ufuncs_of_other_libraries(x):
    special = pytest.importorskip("scipy.special")
    check(special.expit(x), special.expit(X))
    first, second = special.sici(x)
    check(first, special.sici(X)[0])
    check(second, special.sici(X)[1])
    check(special.expit(x, out=nc.zeros((3, 4))), special.expit(X))
    f = np.frompyfunc(lambda a: a + 1, 1, 1)
    assert f(x).compute().tolist() == (X + 1).tolist()


def test_generalized_ufuncs(x):
    for made, want in ((np.matmul(x, X.T), X @ X.T), (np.vecdot(x, X), np.vecdot(X, X))):
        assert isinstance(made, nc.Array)
        check(made, want)


class Foreign:
    __array_ufunc__ = None


class Greedy:
    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        return "mine"

    def __array_function__(self, func, types, args, kwargs):
        return "mine"


def test_other_types_get_their_turn(x):
    assert np.add(x, Greedy()) == "mine"
    assert np.concatenate([x, Greedy()]) == "mine"
    with pytest.raises(TypeError):
        x + Foreign()


# -- functions --------------------------------------------------------------------------------------------------------

def test_numpys_functions_stay_lazy(x):
    for made, want in ((np.sum(x, axis=0), X.sum(0)), (np.concatenate([x, X]), np.concatenate([X, X])),
                       (np.where(x > 3, x, 0), np.where(X > 3, X, 0)), (np.transpose(x), X.T), (np.clip(x, 1, 5), np.clip(X, 1, 5)),
                       (np.full_like(x, 3), np.full_like(X, 3)), (np.stack([x, x]), np.stack([X, X])), (np.linalg.norm(x), None),
                       (np.einsum("ij,kj->ik", x, x), X @ X.T), (np.cumsum(x, axis=1), X.cumsum(1)), (np.round(x), X)):
        assert isinstance(made, nc.Array)
        check(made, np.linalg.norm(X) if want is None else want, rtol=1e-12)


def test_what_numpy_alone_has_is_computed(x):
    made = np.fft.fft(x)
    assert not isinstance(made, nc.Array)
    np.testing.assert_allclose(made, np.fft.fft(X))
    np.testing.assert_allclose(np.polyval(x[0], 2), np.polyval(X[0], 2))
    with config.set(implicit_compute=False), pytest.raises(ImplicitComputeError, match=r"fft has no lazy version.*x.compute\(\)"):
        np.fft.fft(x)


def test_facts_need_no_values(x):
    with config.set(implicit_compute=False):
        assert np.shape(x) == (3, 4)
        assert np.ndim(x) == 2
        assert np.size(x) == 12
        assert np.result_type(x, np.float32) == np.float64
        assert np.can_cast(x, np.float32) is False
        assert np.iscomplexobj(x) is False
        assert np.shares_memory(x, X) is False
        assert np.common_type(x) is np.float64


def test_functions_with_wrong_arguments_raise(x):
    with pytest.raises(TypeError):
        np.sum(x, colour="red")
    with pytest.raises(ValueError, match="broadcast"):
        np.add(x, np.ones(5))


# -- the array API ----------------------------------------------------------------------------------------------------

def test_namespace(x):
    assert x.__array_namespace__() is nc
    assert x.__array_namespace__(api_version="2024.12") is nc
    with pytest.raises(ValueError, match=r"2024\.12"):
        x.__array_namespace__(api_version="1999.01")
    assert nc.__array_api_version__ == "2024.12"


def test_namespace_info():
    info = nc.__array_namespace_info__()
    assert info.capabilities()["data-dependent shapes"]
    assert info.default_device() == "cpu"
    assert info.devices() == ["cpu"]
    assert info.default_dtypes()["real floating"] == np.float64
    assert set(info.dtypes(kind="unsigned integer")) == {"uint8", "uint16", "uint32", "uint64"}
    assert len(info.dtypes()) == 13


# Names of the standard that are functions; each is in the namespace (tests/array/test_namespace.py has all of them).
def test_functions_written_for_the_standard(x):
    xp = x.__array_namespace__()
    y = xp.permute_dims(xp.astype(x, xp.float32), (1, 0))
    check(xp.sum(xp.pow(y, xp.asarray(2, dtype=xp.float32)), axis=0), (X.T.astype("f4") ** 2).sum(0))
    assert xp.isdtype(y.dtype, "real floating")
    assert xp.finfo(y).bits == 32
    assert xp.iinfo(xp.int8).max == 127


# -- Python's own -----------------------------------------------------------------------------------------------------

def test_pickling_and_copies(x):
    y = pickle.loads(pickle.dumps(x + 1))
    assert y.chunks == x.chunks
    check(y, X + 1)
    for made in (copy.copy(x), copy.deepcopy(x), x.copy(), np.copy(x)):
        made[0] = 0
        check(x, X)


def test_values_that_python_asks_for():
    one = nc.asarray([3])
    assert (bool(one > 2), int(one), float(one), complex(one), one.item()) == (True, 3, 3.0, 3 + 0j, 3)
    assert [10, 20, 30, 40][nc.asarray(3)] == 40
    assert nc.asarray([[1, 2]]).tolist() == [[1, 2]]
    assert 3 in nc.arange(5)
    assert [int(v) for v in nc.arange(3)] == [0, 1, 2]
    assert len(nc.ones((4, 2))) == 4
    with pytest.raises(ValueError, match=r"a.any\(\) or a.all\(\)"):
        bool(nc.ones(2))
    with pytest.raises(TypeError, match="length-1"):
        float(nc.ones(2))
    with pytest.raises(TypeError, match="unsized"):
        len(nc.asarray(1))
    with pytest.raises(TypeError, match="0-d"):
        iter(nc.asarray(1))


def test_computing_unasked_can_be_turned_off(x):
    asks = [bool, float, int, np.asarray, lambda a: a.item(), lambda a: a.tolist(), lambda a: [1][a.astype(int)],
            lambda a: 3.0 in a]
    with config.set(implicit_compute=False):
        for ask in asks:
            with pytest.raises(ImplicitComputeError, match=r"call .compute\(\)"):
                ask(x[0, 0])
        assert float(x[0, 0].compute()) == 0.0


def test_conversion_to_numpy(x):
    check(np.asarray(x), X)
    check(np.asarray(x, dtype="f4"), X.astype("f4"))
    check(np.array(x), X)
    with pytest.raises(ValueError, match=r"x.compute\(\)"):
        np.asarray(x, copy=False)


def test_no_dask_graph(x):
    """xarray takes whatever has a dask graph for dask's, and then finds two chunk managers."""
    assert not hasattr(x, "__dask_graph__")


def test_devices(x):
    assert x.device == "cpu"
    assert x.to_device("cpu") is x


def test_find_does_not_find_itself():
    assert interop.find(np.broadcast_shapes) is None
    assert interop.find(np.sum) is nc.sum
    assert interop.find(len) is None
