"""Arrays from data, filled arrays, identity and triangles."""

from __future__ import annotations

import numpy as np
import pytest

import nums_core.array as nc
from nums_core.errors import DTypeError, GridError, MissingBackendError
from nums_core.testing.oracle import check

SHAPES = [(), (0,), (1,), (7,), (4, 6), (3, 0, 2), (1, 5, 1)]
DTYPES = ["?", "i1", "u8", "f2", "f4", "c8", "U3", "M8[D]", "m8[s]"]


# -- from data --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("data", [3, 2.5, True, 1j, "ab", [1, 2], [[1.5], [2]], (), np.float32(2), np.datetime64("2020-01-01"),
                                  np.arange(12.0).reshape(3, 4), np.array(5)])
@pytest.mark.parametrize("make", [nc.array, nc.asarray, nc.asanyarray])
def test_from_anything(make, data):
    check(make(data), np.asarray(data))


def test_array_copies_and_asarray_does_not():
    data = np.zeros(3)
    copied, shared = nc.array(data), nc.asarray(data)
    data[0] = 5
    check(copied, [0.0, 0, 0])
    check(shared, [5.0, 0, 0])


def test_array_of_an_array_is_another_name():
    x = nc.asarray(np.arange(4))
    y = nc.array(x)
    y[0] = 9
    check(x, np.arange(4))


def test_lists_that_hold_arrays():
    x = nc.asarray([1, 2])
    check(nc.array([x, x + 1]), [[1, 2], [2, 3]])
    check(nc.asarray([[x[0], 7], [x[1], 8]]), [[1, 7], [2, 8]])


@pytest.mark.parametrize("ndmin", [0, 1, 2, 3])
def test_ndmin(ndmin):
    check(nc.array([1, 2], ndmin=ndmin), np.array([1, 2], ndmin=ndmin))


def test_dtype_and_chunks():
    x = nc.array(np.arange(6), dtype="f4", chunks=4)
    assert x.chunks == ((4, 2),)
    check(x, np.arange(6, dtype="f4"))
    assert nc.asarray(x, chunks=3).chunks == ((3, 3),)


def test_asarray_without_copying():
    data = np.arange(3)
    check(nc.asarray(data, copy=False), data)
    with pytest.raises(ValueError, match="use copy=None"):
        nc.asarray([1, 2], copy=False)
    with pytest.raises(ValueError, match="use copy=None"):
        nc.asarray(data, dtype="f4", copy=False)


def test_from_array_takes_what_reads_by_slices():
    class Lines:
        shape, dtype, chunks = (10, 3), np.dtype("f4"), (4, 3)

        def __getitem__(self, at):
            return np.arange(30, dtype="f4").reshape(10, 3)[at]

    x = nc.from_array(Lines())
    check(x[2:7], Lines()[2:7])
    with pytest.raises(DTypeError, match=r"numpy\.asarray first"):
        nc.from_array(object())


def test_sources_read_by_one_thread_at_a_time():
    import pickle
    import threading

    class Lines:
        shape, dtype, inside, most = (100,), np.dtype("i8"), 0, 0

        def __getitem__(self, at):
            self.inside += 1
            self.most = max(self.most, self.inside)
            threading.Event().wait(0.001)
            self.inside -= 1
            return np.arange(100)[at]

    source = Lines()
    check(nc.from_array(source, chunks=5, lock=True) + 1, np.arange(100) + 1)
    assert source.most == 1
    doubled = nc.from_array(source, chunks=50, getitem=lambda x, at: x[at] * 2)
    check(doubled, np.arange(100) * 2)
    guarded = nc.from_array(np.memmap.__new__(np.memmap, __file__, "u1", "r", 0, (3,)), chunks=2, lock=True).expr.params[0].data
    assert pickle.loads(pickle.dumps(guarded)).shape == (3,)


def test_arrays_that_change_their_shape():
    data = np.arange(6)
    assert nc.from_array(data).shape == (6,)
    data.shape = (2, 3)
    check(nc.from_array(data), data)


def test_what_is_array_like():
    pandas = pytest.importorskip("pandas")
    series = pandas.Series([1.5, 2.5, 3.5], index=[2, 1, 0])
    check(nc.asarray(series, chunks=2), [1.5, 2.5, 3.5])
    check(nc.asarray(pandas.DataFrame({"a": [1, 2], "b": [3, 4]})), [[1, 3], [2, 4]])
    masked = np.ma.masked_less([1, 2, 3], 2)
    with pytest.raises(DTypeError, match=r"x.filled\(numpy.nan\)"):
        nc.asarray(masked)
    check(nc.asarray(np.ma.asarray([1, 2])), [1, 2])


def test_objects_are_refused():
    with pytest.raises(DTypeError, match="convert to a numeric"):
        nc.asarray(np.array([1, "a"], dtype=object))


def test_buffers_iterables_and_text():
    check(nc.frombuffer(b"\x01\x02\x03", dtype="u1", offset=1), np.array([2, 3], "u1"))
    check(nc.fromiter(range(4), int), np.arange(4))
    check(nc.fromstring("1 2 3", sep=" "), np.array([1.0, 2, 3]))


def test_dlpack_both_ways():
    data = np.arange(4.0)
    check(nc.from_dlpack(data), data)
    check(np.from_dlpack(nc.asarray(data) + 1), data + 1)
    assert nc.asarray(data).__dlpack_device__() == (1, 0)


def test_finite_check():
    check(nc.asarray_chkfinite([1, 2]), [1, 2])
    with pytest.raises(ValueError, match="nan_to_num"):
        nc.asarray_chkfinite([1, np.nan])


def test_contiguous_has_an_axis():
    check(nc.ascontiguousarray(3.0), np.ascontiguousarray(3.0))
    check(nc.require([1, 2], "f4", "C"), np.array([1, 2], "f4"))


def test_from_delayed():
    class Later:
        def compute(self):
            return np.arange(3)

    check(nc.from_delayed(Later(), (3,), int) + 1, np.arange(3) + 1)
    check(nc.from_delayed(lambda: np.ones((2, 2)), (2, 2)), np.ones((2, 2)))


# -- filled -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["zeros", "ones"])
def test_zeros_and_ones(name, shape, dtype):
    check(getattr(nc, name)(shape, dtype, chunks=2), getattr(np, name)(shape, dtype))


@pytest.mark.parametrize("shape", [3, np.int64(3), [3, 2], (np.int8(3),)])
def test_shapes_as_numpy_takes_them(shape):
    check(nc.zeros(shape), np.zeros(shape))


def test_empty_is_defined():
    check(nc.empty((2, 3), "i4"), np.zeros((2, 3), "i4"))


@pytest.mark.parametrize("value", [7, 2.5, True, 1 + 2j, "abc", np.float32(3), [1, 2, 3], np.datetime64("2020-01-01"), -0.0, np.nan])
def test_full(value):
    check(nc.full((2, 3), value, chunks=(1, 2)), np.full((2, 3), value))


def test_full_of_a_lazy_value():
    x = nc.arange(3)
    check(nc.full((2, 3), x.max()), np.full((2, 3), 2))
    check(nc.full((2, 3), x, "f4", chunks=1), np.full((2, 3), np.arange(3), "f4"))


def test_full_casts():
    check(nc.full(3, 2.7, int), np.full(3, 2.7, int))
    check(nc.full(3, 7, "f4"), np.full(3, 7, "f4"))


def test_structured():
    kind = [("a", "i4"), ("b", "f8")]
    check(nc.zeros(3, kind, chunks=2), np.zeros(3, kind))


@pytest.mark.parametrize("name", ["zeros_like", "ones_like", "empty_like"])
def test_like(name):
    x = nc.asarray(np.arange(6, dtype="f4").reshape(2, 3), chunks=(1, 2))
    made = getattr(nc, name)(x)
    assert made.chunks == x.chunks
    assert (made.dtype, made.shape) == (x.dtype, x.shape)
    made = getattr(nc, name)(x, dtype=int, shape=(4,), chunks=3)
    assert (made.dtype, made.chunks) == (int, ((3, 1),))
    check(nc.full_like(x, 2.5), np.full_like(np.zeros((2, 3), "f4"), 2.5))


def test_like_an_array_of_unknown_extent():
    x = nc.arange(10, chunks=4)
    check(nc.ones_like(x[x > 6]), np.ones(3, int))


@pytest.mark.parametrize("n, m, k", [(0, None, 0), (1, None, 0), (5, None, 1), (5, 7, -2), (4, 3, 9), (3, 0, 0)])
@pytest.mark.parametrize("name", ["eye", "tri"])
def test_eye_and_tri(name, n, m, k):
    check(getattr(nc, name)(n, m, k, chunks=2), getattr(np, name)(n, m, k))
    check(getattr(nc, name)(n, m, k, "i2", chunks=3), getattr(np, name)(n, m, k, "i2"))


def test_identity():
    check(nc.identity(4, "f4", chunks=3), np.identity(4, "f4"))


# -- what all of them refuse ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("make", [nc.zeros, nc.ones, nc.empty])
def test_refusals(make):
    with pytest.raises(ValueError, match="negative dimensions"):
        make(-1)
    with pytest.raises(TypeError):
        make(2.5)
    with pytest.raises(TypeError, match="it takes chunks and dtype"):
        make(2, colour="red")
    with pytest.raises(MissingBackendError, match="'cpu'"):
        make(2, device="tpu")
    with pytest.raises(GridError, match="must add up"):
        make(4, chunks=((2, 1),))


def test_keywords_of_numpy_dask_and_the_array_api_are_taken():
    x = nc.ones((2, 3), order="F", like=np.ones(1), name="x", meta=np.ones(0), device="cpu")
    check(x, np.ones((2, 3)))


def test_numpy_makes_ours_with_like():
    assert isinstance(np.ones(3, like=nc.arange(2)), nc.Array)
    assert isinstance(np.asarray([1], like=nc.arange(2)), nc.Array)
    assert isinstance(np.zeros_like(nc.arange(3)), nc.Array)
