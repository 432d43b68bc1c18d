"""Scans and differences: NumPy is the oracle."""

from __future__ import annotations

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nums_core.array as np
from nums_core.array import scans
from nums_core.errors import DTypeError, ShapeError
from nums_core.runtime.devices import scan

RNG = numpy.random.default_rng(11)
GRIDS = {
    "one block": ((6, 8), (6, 8)),
    "even": ((6, 8), (3, 4)),
    "uneven": ((7, 9), (3, 4)),
    "size-1 axis": ((1, 9), (1, 2)),
    "one axis": ((11,), (4,)),
    "three axes": ((4, 5, 6), (3, 2, 4)),
    "empty": ((0, 5), (0, 2)),
}
CUMULATIVE = ["cumsum", "cumprod", "nancumsum", "nancumprod"]
ACCUMULATES = ["add", "multiply", "maximum", "minimum", "fmax", "fmin", "logical_or", "logical_and", "bitwise_or",
               "bitwise_and", "bitwise_xor"]


def agree(result, expected, rtol=1e-10):
    got, expected = numpy.asarray(result.compute()), numpy.asarray(expected)
    assert got.shape == expected.shape == result.shape
    assert got.dtype == expected.dtype == result.dtype
    if expected.dtype.kind in "fc":
        numpy.testing.assert_allclose(got, expected, rtol=rtol, atol=rtol)
    else:
        numpy.testing.assert_array_equal(got, expected)


# -- op x dtype x grid ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", CUMULATIVE)
def test_every_grid_and_axis(name, grid):
    shape, chunks = GRIDS[grid]
    x = RNG.uniform(0.5, 1.5, shape)
    for axis in [None, *range(len(shape)), -1]:
        agree(getattr(np, name)(np.from_array(x, chunks), axis=axis), getattr(numpy, name)(x, axis=axis))


@pytest.mark.parametrize("dtype", ["?", "i1", "u1", "i4", "u4", "i8", "f2", "f4", "f8", "c8", "c16", ">f8"])
@pytest.mark.parametrize("name", CUMULATIVE)
def test_every_dtype(name, dtype):
    x = RNG.integers(0, 3, (9, 7)).astype(dtype)
    for axis in (0, 1):
        agree(getattr(np, name)(np.from_array(x, (4, 3)), axis=axis), getattr(numpy, name)(x, axis=axis), 1e-3)


@pytest.mark.parametrize("name", ACCUMULATES)
def test_accumulate(name):
    x = RNG.integers(-3, 9, (7, 9))
    for axis in (0, 1, -1):
        agree(getattr(np, name).accumulate(np.from_array(x, (3, 4)), axis=axis),
              getattr(numpy, name).accumulate(x, axis=axis))


@pytest.mark.parametrize("name", ["maximum", "minimum", "fmax", "fmin", "add"])
def test_nan_spreads_as_in_numpy(name):
    x = RNG.normal(size=30)
    x[[7, 20]] = numpy.nan
    agree(getattr(np, name).accumulate(np.from_array(x, 4)), getattr(numpy, name).accumulate(x))


@pytest.mark.parametrize("name", ["nancumsum", "nancumprod"])
def test_nan_counts_as_nothing(name):
    x = RNG.normal(size=(20, 6))
    x[RNG.random((20, 6)) < 0.4] = numpy.nan
    for axis in (None, 0, 1):
        agree(getattr(np, name)(np.from_array(x, (7, 4)), axis=axis), getattr(numpy, name)(x, axis=axis))


def test_durations_and_dates():
    x = RNG.integers(0, 9, 20).astype("m8[s]")
    agree(np.cumsum(np.from_array(x, 6)), numpy.cumsum(x))
    dates = RNG.integers(0, 99, 20).astype("M8[D]")
    agree(np.maximum.accumulate(np.from_array(dates, 6)), numpy.maximum.accumulate(dates))
    agree(np.diff(np.from_array(dates, 6)), numpy.diff(dates))


@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "c8"])
def test_dtype_argument(dtype):
    x = RNG.integers(0, 9, (7, 9)).astype("f4")
    agree(np.cumsum(np.from_array(x, (3, 4)), axis=0, dtype=dtype), numpy.cumsum(x, axis=0, dtype=dtype), 1e-6)


@pytest.mark.parametrize("name", ["cumulative_sum", "cumulative_prod"])
@pytest.mark.parametrize("include", [False, True])
def test_array_api_scans(name, include):
    x = RNG.uniform(0.5, 1.5, (7, 9))
    for axis in (0, 1):
        agree(getattr(np, name)(np.from_array(x, (3, 4)), axis=axis, include_initial=include),
              getattr(numpy, name)(x, axis=axis, include_initial=include))
    agree(getattr(np, name)(np.from_array(x[0], 4), include_initial=include),
          getattr(numpy, name)(x[0], include_initial=include))
    with pytest.raises(ValueError, match="``axis`` argument is required"):
        getattr(np, name)(np.from_array(x, 4))


def test_out_and_methods():
    x = RNG.normal(size=(7, 9))
    a = np.from_array(x, (3, 4))
    out = numpy.empty((7, 9))
    assert np.cumsum(a, axis=0, out=out) is out
    numpy.testing.assert_allclose(out, x.cumsum(axis=0))
    agree(a.cumsum(axis=1), x.cumsum(axis=1))
    agree(a.cumprod(), x.cumprod())
    agree(np.cumsum(a, axis=0, method="blelloch"), x.cumsum(axis=0))
    agree(np.cumsum([1, 2, 3]), numpy.cumsum([1, 2, 3]))
    with pytest.raises(ShapeError, match="leave it out"):
        np.cumsum(a, axis=0, out=numpy.empty(3))


def test_of_a_selection():
    x = numpy.arange(21.0)
    a = np.from_array(x, 4)
    for least in (3, 12, 19.5, 100):  # blocks may be empty
        agree(np.cumsum(a[a > least]), numpy.cumsum(x[x > least]))
        agree(np.maximum.accumulate(a[a > least]), numpy.maximum.accumulate(x[x > least]))


# -- errors -----------------------------------------------------------------------------------------------------------

def test_errors_at_the_line_that_makes_them():
    a = np.from_array(numpy.ones((2, 3)), 2)
    with pytest.raises(numpy.exceptions.AxisError, match="axis 2 is out of bounds for array of dimension 2"):
        np.cumsum(a, axis=2)
    with pytest.raises(DTypeError, match="cast first"):
        np.cumsum(numpy.array(["a", "b"]))
    with pytest.raises(TypeError, match="those with accumulate are add, multiply, maximum"):
        scans.accumulate("subtract", a)
    with pytest.raises(TypeError, match="cannot accumulate on a scalar"):
        np.add.accumulate(np.from_array(numpy.array(1.0), ()))
    with pytest.raises(TypeError, match="integer"):
        np.cumsum(a, axis=(0, 1))


# -- the plan, and the tiles ------------------------------------------------------------------------------------------

def test_the_plan_reads_the_last_block_once():
    plan = np.cumsum(np.from_array(numpy.ones(40), 10)).explain()
    count = {f.label: f.count for f in plan.graph.families if f.role != "leaf"}
    assert count == {"scan.total": 3, "scan.prefix": 1, "scan": 4}
    uncut = np.cumsum(np.from_array(numpy.ones((40, 3)), (10, 3)), axis=1).explain()
    assert {f.label: f.count for f in uncut.graph.families if f.role != "leaf"} == {"scan": 4}


@pytest.mark.parametrize("tile", [256, 1 << 15])
@pytest.mark.parametrize("shape", [(3000,), (70_000,), (3000, 3), (3, 3000), (50, 40), (5, 1500), (40, 1500), (20, 30, 25),
                                   (2, 9000), (300, 6)], ids=str)
def test_every_path_through_tiles(shape, tile, monkeypatch):
    monkeypatch.setattr(scan, "TILE_ELEMS", tile)
    monkeypatch.setattr(scan, "LONG", 64)
    monkeypatch.setattr(scan, "WIDE", 128)
    x = RNG.integers(-5, 9, shape).astype(float)  # sums are exact
    for layout in (x, numpy.asfortranarray(x), x[::-1], x.astype("i4")):
        for axis in range(len(shape)):
            one = numpy.cumsum(layout, axis=axis)
            run = scan.KERNELS["cumulative"]("add", axis, one.dtype.str, one.dtype.str, False, None)
            at = tuple(int(i == axis) for i in range(len(shape)))
            numpy.testing.assert_array_equal(run(at, [layout]), one)
            carry = numpy.full([1 if i == axis else n for i, n in enumerate(shape)], 100, one.dtype)
            numpy.testing.assert_array_equal(run(at, [layout, (carry,)]), one + 100)
            out = numpy.empty(shape[::-1], one.dtype).T
            assert run(at, [layout], out) is out
            numpy.testing.assert_array_equal(out, one)


def test_long_sums_lose_no_digits():
    x = numpy.full(300_000, 0.1, "f4")
    got = np.cumsum(np.from_array(x, 70_000)).compute()
    exact = 0.1 * numpy.arange(1, 300_001)
    assert numpy.abs(got / exact - 1).max() < numpy.abs(numpy.cumsum(x) / exact - 1).max() / 50
    half = np.cumsum(np.from_array(numpy.ones(5000, "f2"), 700)).compute()
    assert half[-1] == 5000 and half.dtype == "f2"


# -- functions of the user --------------------------------------------------------------------------------------------

def test_cumreduction():
    x = RNG.normal(size=(9, 5))
    a = np.from_array(x, (4, 2))
    for preop in (None, numpy.sum):
        agree(np.cumreduction(numpy.cumsum, numpy.add, 0, a, axis=0, preop=preop), x.cumsum(axis=0))
    agree(np.cumreduction(numpy.cumsum, numpy.add, 0, a, axis=1, dtype="f4", preop=numpy.sum),
          x.cumsum(axis=1, dtype="f4"), 1e-5)
    agree(np.cumreduction(numpy.cumprod, numpy.multiply, 1, a), x.cumprod())


# -- differences ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_diff(grid, n):
    shape, chunks = GRIDS[grid]
    for x in (RNG.integers(0, 9, shape), RNG.random(shape) < 0.5):
        for axis in range(len(shape)):
            agree(np.diff(np.from_array(x, chunks), n, axis=axis), numpy.diff(x, n, axis=axis))


def test_diff_with_edges():
    x = RNG.normal(size=(6, 8))
    a = np.from_array(x, (3, 4))
    agree(np.diff(a, prepend=0.0, append=1.0), numpy.diff(x, prepend=0.0, append=1.0))
    agree(np.diff(a, axis=0, prepend=x[:2]), numpy.diff(x, axis=0, prepend=x[:2]))
    with pytest.raises(ShapeError, match="dimensions except for the concatenation axis"):
        np.diff(a, prepend=numpy.ones((2, 2)))
    with pytest.raises(ValueError, match="order must be non-negative"):
        np.diff(a, -1)


def test_ediff1d():
    x = RNG.normal(size=(3, 5))
    a = np.from_array(x, (2, 2))
    agree(np.ediff1d(a), numpy.ediff1d(x))
    agree(np.ediff1d(a, to_end=[1, 2], to_begin=5), numpy.ediff1d(x, to_end=[1, 2], to_begin=5))
    with pytest.raises(TypeError, match="`to_end` must be compatible"):
        np.ediff1d(numpy.array([1, 2, 4]), to_end=0.5)


# -- invariants -------------------------------------------------------------------------------------------------------

@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-99, 99), min_size=1, max_size=60), st.integers(1, 20))
def test_diff_undoes_cumsum(numbers, size):
    x = numpy.array(numbers)
    sums = np.cumulative_sum(np.from_array(x, size), include_initial=True)
    agree(np.diff(sums), x)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=3), st.data())
def test_chunks_do_not_matter(shape, data):
    x = RNG.integers(-9, 9, shape)
    chunks = tuple(data.draw(st.integers(1, n)) for n in shape)
    axis = data.draw(st.sampled_from([None, *range(len(shape))]))
    agree(np.cumsum(np.from_array(x, chunks), axis=axis), numpy.cumsum(x, axis=axis))
