"""Reductions: NumPy is the oracle, for values, dtypes, shapes and errors."""

from __future__ import annotations

import itertools
import warnings

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nums_core.array as np
from nums_core.errors import DTypeError, KernelError, ShapeError

RNG = numpy.random.default_rng(7)
GRIDS = {
    "one block": ((6, 8), (6, 8)),
    "even": ((6, 8), (3, 4)),
    "uneven": ((7, 9), (3, 4)),
    "size-1 axis": ((1, 9), (1, 2)),
    "one axis": ((11,), (4,)),
    "three axes": ((4, 5, 6), (3, 2, 4)),
    "0-d": ((), ()),
    "empty": ((0, 5), (0, 2)),
    "empty kept": ((5, 0), (2, 0)),
}
DTYPES = ["?", "i1", "u1", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8", "c16"]
WITH_DTYPE = ["sum", "prod", "nansum", "nanprod", "mean", "nanmean"]
SAME = ["max", "min", "nanmax", "nanmin", "any", "all", "ptp"]
SPREAD = ["var", "std", "nanvar", "nanstd"]
ARG = ["argmax", "argmin", "nanargmax", "nanargmin"]
AXES = [{"axis": None}, {"axis": 0}, {"axis": 1}]
NAN = [n for n in (*WITH_DTYPE, *SAME, *SPREAD, *ARG) if n.startswith("nan")]


def values(shape, dtype):
    dtype = numpy.dtype(dtype)
    if dtype.kind == "?" or dtype.kind == "b":
        return RNG.random(shape) < 0.7
    if dtype.kind in "iu":
        return RNG.integers(1, 5, shape).astype(dtype)
    x = RNG.uniform(0.5, 1.5, shape)
    return (x + 1j * RNG.uniform(0.5, 1.5, shape)).astype(dtype) if dtype.kind == "c" else x.astype(dtype)


def tolerance(dtype):
    dtype = numpy.dtype(dtype)
    return {2: 4e-3, 4: 1e-5}.get(dtype.itemsize if dtype.kind == "f" else dtype.itemsize // 2, 1e-10)


def agree(result, expected, like="f8"):
    agree_values(result.compute(), expected, like)
    assert result.shape == numpy.shape(expected) and result.dtype == numpy.asarray(expected).dtype


def agree_values(got, expected, like):
    expected = numpy.asarray(expected)
    assert numpy.shape(got) == expected.shape and numpy.asarray(got).dtype == expected.dtype
    if expected.dtype.kind in "fc":
        numpy.testing.assert_allclose(got, expected, rtol=tolerance(like), atol=tolerance(like))
    else:
        numpy.testing.assert_array_equal(got, expected)


def both(name, x, chunks, *calls, **kwargs):
    """The same calls of NumPy and of nums_core (together): results that agree, or errors of one class."""
    made, expected = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for call in [c | kwargs for c in calls or [{}]]:
            try:
                right = getattr(numpy, name)(x, **call)
            except (ValueError, TypeError) as error:
                kind = ValueError if isinstance(error, ValueError) else TypeError
                with pytest.raises(kind):
                    getattr(np, name)(np.from_array(x, chunks), **call).compute()
                continue
            made.append(getattr(np, name)(np.from_array(x, chunks), **call))
            expected.append(right)
    for lazy, got, right in zip(made, np.compute(*made), expected, strict=True):
        assert lazy.shape == numpy.shape(right) and lazy.dtype == numpy.asarray(right).dtype
        agree_values(got, right, x.dtype)


def axes_of(ndim):
    return [None, *range(ndim), -1, *itertools.combinations(range(ndim), 2)][:6] if ndim else [None]


# -- op x dtype x grid ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", [*WITH_DTYPE, *SAME, *SPREAD, "count_nonzero"])
def test_every_grid_and_axis(name, grid):
    shape, chunks = GRIDS[grid]
    both(name, values(shape, "f8"), chunks,
         *({"axis": axis, "keepdims": keep} for axis in axes_of(len(shape)) for keep in (False, True)))


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", ARG)
def test_arg_every_grid_and_axis(name, grid):
    shape, chunks = GRIDS[grid]
    x = RNG.integers(0, 4, shape).astype(float)  # with ties: the first wins
    axes = [None, *range(len(shape)), -1][:4] if shape else [None]
    both(name, x, chunks, *({"axis": axis, "keepdims": keep} for axis in axes for keep in (False, True)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*WITH_DTYPE, *SAME, *SPREAD, *ARG, "count_nonzero"])
def test_every_dtype(name, dtype):
    both(name, values((7, 9), dtype), (3, 4), *AXES)


@pytest.mark.parametrize("name", NAN + ["max", "min", "sum", "mean", "argmax", "argmin", "any", "all", "std"])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "c16"])
def test_nan(name, dtype):
    x = values((7, 9), dtype)
    x[2, 3] = x[2, 5] = x[6, 1] = numpy.nan
    both(name, x, (3, 4), *AXES)


@pytest.mark.parametrize("name", ["nanmax", "nanmin", "nanmean", "nanvar", "nanstd", "nansum", "nanprod"])
def test_slices_of_nan_alone(name):
    x = numpy.array([[1.0, numpy.nan], [3.0, numpy.nan], [5.0, numpy.nan]])
    both(name, x, (2, 1), axis=0)


@pytest.mark.parametrize("name", ["nanargmax", "nanargmin"])
def test_arg_of_nan_alone(name):
    x = np.from_array(numpy.array([[1.0, numpy.nan], [3.0, numpy.nan]]), 1)
    with pytest.raises(ValueError, match="All-NaN slice encountered; drop or fill") as caught:
        getattr(np, name)(x, axis=0).compute()
    assert isinstance(caught.value, KernelError)


@pytest.mark.parametrize("name", ["sum", "prod", "mean", "nansum", "nanmean"])
@pytest.mark.parametrize("dtype", ["i4", "f4", "f8", "c8", int, float])
def test_dtype_argument(name, dtype):
    x = values((7, 9), "f4")
    both(name, x, (3, 4), axis=0, dtype=dtype)


@pytest.mark.parametrize("name", SPREAD)
@pytest.mark.parametrize("options", [{"ddof": 1}, {"ddof": 1.5}, {"ddof": 9}, {"dtype": "f4"}, {"dtype": "f8"}])
def test_spread_options(name, options):
    x = values((7, 9), "f8")
    got = getattr(np, name)(np.from_array(x, (3, 4)), axis=0, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        agree(got, getattr(numpy, name)(x, axis=0, **options), "f4")


def test_correction_is_ddof():
    x = values((7, 9), "f8")
    agree(np.var(np.from_array(x, 4), correction=1), numpy.var(x, ddof=1))
    with pytest.raises(ValueError, match="can't be provided simultaneously"):
        np.var(np.from_array(x, 4), ddof=1, correction=1)


def test_mean_that_is_known():
    x = values((7, 9), "f8")
    mean = x.mean(axis=0, keepdims=True)
    agree(np.std(np.from_array(x, 4), axis=0, mean=mean), numpy.std(x, axis=0, mean=mean))


# -- dates and times --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["max", "min", "nanmax", "nanmin", "argmax", "argmin"])
@pytest.mark.parametrize("dtype", ["M8[s]", "m8[ms]"])
def test_order_of_times(name, dtype):
    x = RNG.integers(0, 100, 20).astype(dtype)
    both(name, x, 6)
    x[7] = "NaT"
    both(name, x, 6)


@pytest.mark.parametrize("name", ["sum", "mean", "nansum"])
def test_durations(name):
    both(name, RNG.integers(0, 100, (5, 6)).astype("m8[s]"), (2, 4), axis=1)


@pytest.mark.parametrize("name", ["sum", "prod", "mean", "var"])
def test_dates_cannot_be_added(name):
    with pytest.raises(TypeError, match=r"cast first, as in x\.astype\(float\)"):
        getattr(np, name)(np.from_array(numpy.zeros(3, "M8[s]"), 2))


def test_strings():
    x = numpy.array(["b", "", "c", "a"])
    both("argmax", x, 2)
    both("any", x, 2)
    both("count_nonzero", x, 2)
    both("max", x, 2)
    both("sum", x, 2)


# -- where, initial, out ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["sum", "prod", "any", "all", "mean", "var", "std", "nansum", "nanmean", "nanvar",
                                  "nanstd"])
def test_where(name):
    x = values((7, 9), "f8")
    x[1, 2] = numpy.nan if name.startswith("nan") else 1
    for mask in (x > 1, x[:1] > 0.7, RNG.random((7, 1)) < 0.6):
        both(name, x, (3, 4), *AXES, where=mask)


@pytest.mark.parametrize("name", ["max", "min", "nanmax", "nanmin"])
def test_where_needs_initial(name):
    x = values((7, 9), "f8")
    both(name, x, (3, 4), axis=0, where=x > 1, initial=1.25)
    with pytest.raises(ValueError, match="has to specify 'initial'"):
        getattr(np, name)(np.from_array(x, 4), where=x > 1)


@pytest.mark.parametrize("name", ["sum", "prod", "max", "min", "nansum"])
def test_initial(name):
    for x in (values((7, 9), "f8"), values((7, 9), "i4"), numpy.zeros((0, 3))):
        both(name, x, (3, 4), axis=0, initial=3)


def test_mask_of_the_wrong_shape():
    with pytest.raises(ShapeError, match=r"numpy.broadcast_to\(where, \(3, 1\)\)"):
        np.sum(np.ones((3, 1)), where=numpy.ones((3, 4), bool))


def test_out():
    x = values((7, 9), "f8")
    target = np.zeros(9, dtype="f4")
    assert np.sum(np.from_array(x, 4), axis=0, out=target) is target
    agree(target, x.sum(axis=0).astype("f4"), "f4")
    plain = numpy.zeros(7)
    np.mean(np.from_array(x, 4), axis=1, out=plain)
    numpy.testing.assert_allclose(plain, x.mean(axis=1))
    with pytest.raises(ShapeError, match="give out= the result's shape"):
        np.max(np.from_array(x, 4), axis=0, out=numpy.zeros(3))


def test_ufunc_reduce():
    x = values((7, 9), "i4")
    for ufunc in ("add", "multiply", "maximum", "minimum", "logical_or", "logical_and", "bitwise_or", "bitwise_and",
                  "bitwise_xor", "fmax", "fmin"):
        agree(getattr(np, ufunc).reduce(np.from_array(x, (3, 4))), getattr(numpy, ufunc).reduce(x))
    agree(np.add.reduce(np.from_array(x, 4), axis=None, dtype="f4", initial=2), numpy.add.reduce(x, None, "f4", initial=2))
    agree(np.maximum.reduce(np.from_array(x, 4), axis=1, dtype="f8"), numpy.maximum.reduce(x, 1, "f8"))


def test_methods_and_names():
    x = values((7, 9), "f8")
    a = np.from_array(x, (3, 4))
    for name in ("sum", "prod", "max", "min", "any", "all", "mean", "var", "std", "argmax", "argmin"):
        agree(getattr(a, name)(axis=1), getattr(x, name)(axis=1))
        agree(getattr(a, name)(), getattr(x, name)())
    assert np.amax is np.max and np.amin is np.min
    assert np.sum.__name__ == "sum" and "numpy.sum" in np.sum.__doc__
    agree(np.sum(a, split_every=4), x.sum())
    agree(np.sum([[1, 2], [3, 4]], axis=0), numpy.array([4, 6]))


# -- errors at the line that makes them -------------------------------------------------------------------------------

@pytest.mark.parametrize("name", [*WITH_DTYPE, *SAME, *SPREAD, *ARG, "count_nonzero"])
def test_axis_out_of_range(name):
    with pytest.raises(numpy.exceptions.AxisError, match="axis 5 is out of bounds for array of dimension 2"):
        getattr(np, name)(np.ones((2, 3)), axis=5)


@pytest.mark.parametrize("name", ["max", "min", "argmax", "nanargmin"])
def test_nothing_to_choose_from(name):
    with pytest.raises(ValueError, match="give initial= where the function takes it"):
        getattr(np, name)(np.ones((0, 3)), axis=0)


def test_axis_twice_and_axis_that_is_none():
    with pytest.raises(ValueError, match="duplicate value in 'axis'"):
        np.sum(np.ones((2, 3)), axis=(0, 0))
    with pytest.raises(TypeError, match="integer"):
        np.argmax(np.ones((2, 3)), axis=(0, 1))
    with pytest.raises(TypeError, match="integer"):
        np.sum(np.ones((2, 3)), axis=0.5)


def test_mean_of_nothing_warns():
    with pytest.warns(RuntimeWarning, match="Mean of empty slice"):
        result = np.mean(np.ones((0, 3)), axis=0)
    assert numpy.isnan(result.compute()).all()
    with pytest.warns(RuntimeWarning, match="Degrees of freedom"):
        np.var(np.ones((0, 3)), axis=0)


def test_no_sum_of_text():
    with pytest.raises(DTypeError, match="cast first"):
        np.sum(numpy.array(["a", "b"]))


# -- accuracy ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("offset", [0.0, 1e4, 1e8, 1e12])
@pytest.mark.parametrize("order", ["random", "sorted", "a step"])
def test_variance_of_ill_conditioned_data(offset, order):
    x = RNG.normal(size=(4000, 3)) + offset
    if order == "sorted":
        x = numpy.sort(x, axis=0)
    elif order == "a step":
        x[:7] = 0
    exact = x.astype(numpy.longdouble).var(axis=0)
    for chunks in ((4000, 3), (333, 2)):
        ours = np.var(np.from_array(x, chunks), axis=0).compute()
        error, theirs = (abs(v / exact - 1).max() for v in (ours, x.var(axis=0)))
        assert error <= 4 * theirs + 1e-15
        flat = np.var(np.from_array(x[:, 0].copy(), chunks[0])).compute()
        assert abs(flat / exact[0] - 1) <= 4 * theirs + 1e-15


def test_float32_and_float16_sums_keep_their_digits():
    x = numpy.full(300_000, 0.1, "f4")
    assert abs(np.sum(np.from_array(x, 70_000)).compute() / 30_000 - 1) < 1e-6
    y = numpy.full((5000, 3), 1.0, "f2")
    agree(np.sum(np.from_array(y, (700, 3)), axis=0), numpy.full(3, 5000, "f2"), "f2")
    agree(np.mean(np.from_array(y, (700, 3)), axis=0), numpy.ones(3, "f2"), "f2")


# -- sizes that depend on data ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["sum", "prod", "max", "min", "mean", "var", "std", "any", "all", "count_nonzero",
                                  "nanmax", "nansum", "nanmean", "argmax", "ptp"])
@pytest.mark.parametrize("least", [3.0, 12.0, 19.5])  # all blocks have some; the first have none; one element is left
def test_of_a_selection(name, least):
    x = numpy.arange(21.0)
    a = np.from_array(x, 4)
    agree(getattr(np, name)(a[a > least]), getattr(numpy, name)(x[x > least]))


def test_selections_are_not_resolved_first():
    a = np.from_array(numpy.arange(21.0), 4)
    chosen = a[a > 12]
    mean = np.mean(chosen)
    assert numpy.isnan(chosen.expr.shape[0]) and mean.compute() == 16.5
    assert numpy.isnan(chosen.expr.shape[0])


def test_of_an_empty_selection():
    a = np.from_array(numpy.arange(21.0), 4)
    nothing = a[a > 100]
    assert np.sum(nothing).compute() == 0
    assert numpy.isnan(np.mean(nothing).compute())
    assert np.max(nothing, initial=7).compute() == 7
    with pytest.raises(ValueError, match="zero-size array to reduction operation maximum"):
        np.max(nothing).compute()


def test_rows_of_a_selection():
    x = RNG.normal(size=(20, 6))
    a = np.from_array(x, (4, 3))
    kept = a[a[:, 0] > 0]
    expected = x[x[:, 0] > 0]
    for name in ("sum", "max", "mean", "std"):
        agree(getattr(np, name)(kept, axis=0), getattr(numpy, name)(expected, axis=0))
        agree(getattr(np, name)(kept, axis=1), getattr(numpy, name)(expected, axis=1))


# -- invariants -------------------------------------------------------------------------------------------------------

@st.composite
def arrays_in_blocks(draw):
    shape = tuple(draw(st.lists(st.integers(1, 7), min_size=1, max_size=3)))
    chunks = tuple(draw(st.integers(1, n)) for n in shape)
    axis = draw(st.sampled_from([None, *range(len(shape)), tuple(range(len(shape)))]))
    seed = draw(st.integers(0, 2**32 - 1))
    return numpy.random.default_rng(seed).integers(-9, 9, shape), chunks, axis


@settings(max_examples=60, deadline=None)
@given(arrays_in_blocks(), st.sampled_from(["sum", "max", "min", "any", "count_nonzero"]))
def test_chunks_do_not_matter(case, name):
    x, chunks, axis = case
    agree(getattr(np, name)(np.from_array(x, chunks), axis=axis), getattr(numpy, name)(x, axis=axis))


@settings(max_examples=40, deadline=None)
@given(arrays_in_blocks())
def test_arg_points_at_the_extreme(case):
    x, chunks, _ = case
    a = np.from_array(x, chunks)
    assert int(np.argmax(a)) == int(x.argmax())
    assert int(np.argmin(a)) == int(x.argmin())


@settings(max_examples=40, deadline=None)
@given(arrays_in_blocks())
def test_var_is_mean_square_less_squared_mean(case):
    x, chunks, axis = case
    a = np.from_array(x, chunks)
    expected = np.mean(a * a, axis=axis) - np.mean(a, axis=axis) ** 2
    numpy.testing.assert_allclose(np.var(a, axis=axis).compute(), expected.compute(), atol=1e-9)
