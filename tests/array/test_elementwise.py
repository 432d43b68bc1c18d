"""Every row of the elementwise table against NumPy: dtypes, values, and what is refused."""

from __future__ import annotations

import datetime
import itertools
import operator
import pickle
import warnings

import numpy as np
import pytest

import nums_core.array as nc
from nums_core.array.ufunc import Ufunc
from nums_core.errors import DTypeError, KernelError, ShapeError
from nums_core.ops.elementwise import ELEMENTWISE, UFUNCS
from nums_core.testing.oracle import check
from nums_core.testing.strategies import values

DTYPES = ["?", "i1", "u1", "i4", "i8", "u8", "f2", "f4", "f8", "c8", "c16", "M8[D]", "m8[s]", "U3", "S2"]
GRIDS = [(3, 4), (2, 3)]


def sample(dtype, shape=(3, 4), seed=0):
    dtype = np.dtype(dtype)
    if dtype.kind in "mMUS":
        made = np.random.default_rng(seed).integers(0, 99, shape).astype(dtype)
        if dtype.kind in "mM":
            made[0, 0] = "NaT"
        return made
    return values(shape, dtype, seed)


def attempt(function):
    """What a call returns, or the exception it raises."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            return function()
        except (TypeError, ValueError, OverflowError) as error:
            return error


def agree(lazily, with_numpy):
    """Both return the same, or both raise the same kind of error (ours may come while computing)."""
    want = attempt(with_numpy)
    if isinstance(want, Exception):
        kind = TypeError if isinstance(want, TypeError) else type(want)
        with pytest.raises((kind, KernelError)):
            made = lazily()
            for part in made if isinstance(made, tuple) else (made,):
                part.compute()
        return
    made = lazily()
    if not isinstance(want, tuple):
        made, want = (made,), (want,)
    # NumPy's complex loops round differently on strided memory: no bits are promised there.
    for m, w in zip(made, want, strict=True):
        check(m, w, rtol=1e-6 if np.asarray(w).dtype.kind == "c" else None)


# -- ufuncs on arrays -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", sorted(UFUNCS))
def test_every_ufunc_on_every_dtype(name):
    f, ours = UFUNCS[name], getattr(nc, name)
    for dtypes in itertools.product(DTYPES, repeat=f.nin) if f.nin == 1 else zip(DTYPES, DTYPES[3:] + DTYPES[:3], strict=True):
        arrays = [sample(d, seed=k) for k, d in enumerate(dtypes)]
        agree(lambda: ours(*(nc.asarray(a, chunks=(2, 3)) for a in arrays)), lambda: f(*arrays))
    if f.nin == 2:
        for d in DTYPES:
            arrays = [sample(d, seed=k) for k in range(2)]
            agree(lambda: ours(*(nc.asarray(a, chunks=(2, 3)) for a in arrays)), lambda: f(*arrays))


@pytest.mark.parametrize("name", ["add", "multiply", "power", "less", "equal", "maximum", "divide", "bitwise_and", "copysign"])
@pytest.mark.parametrize("scalar", [2, 300, -1, 2.5, 1e10, 1j, True, np.int16(3), np.float32(2), "abc",
                                    np.datetime64("2020-01-01"), np.timedelta64(3, "h")], ids=repr)
def test_scalars_are_weak_where_numpys_are(name, scalar):
    f, ours = UFUNCS[name], getattr(nc, name)
    for d in DTYPES:
        a = sample(d)
        agree(lambda: ours(nc.asarray(a, chunks=2), scalar), lambda: f(a, scalar))
        agree(lambda: ours(scalar, nc.asarray(a, chunks=2)), lambda: f(scalar, a))


@pytest.mark.parametrize("shapes", [((3, 4), (4,)), ((3, 1), (1, 4)), ((1,), (3, 4)), ((), (5,)), ((0, 4), (4,)), ((0,), (1,)),
                                    ((2, 1, 3), (4, 1)), ((), ())], ids=str)
def test_broadcasting(shapes):
    a, b = (values(s, "f8", k) for k, s in enumerate(shapes))
    with np.errstate(all="ignore"):
        check(nc.asarray(a, chunks=2) - nc.asarray(b, chunks=3), a - b)
        check(nc.where(nc.asarray(a, chunks=2) > 0, b, a), np.where(a > 0, b, a))


def test_shapes_that_do_not_fit():
    with pytest.raises(ShapeError, match=r"could not be broadcast together with shapes \(3,\) \(4,\) .*add an axis"):
        nc.ones(3) + nc.ones(4)


def test_grids_that_do_not_match():
    a, b = np.arange(12.0), np.arange(12.0)[::-1]
    check(nc.asarray(a, chunks=5) * nc.asarray(b, chunks=(1, 11)), a * b)


# -- integers that do not fit -----------------------------------------------------------------------------------------

def test_python_integers_out_of_range():
    x = nc.asarray(np.arange(5, dtype="u1"), chunks=2)
    with pytest.raises(OverflowError, match="out of bounds for uint8"):
        x + 300
    with pytest.raises(OverflowError, match="out of bounds for uint8"):
        nc.where(x > 2, x, -1)
    for y in (300, -1, 10**30, -10**30):
        for f in (operator.lt, operator.le, operator.eq, operator.ne, operator.gt, operator.ge):
            check(f(x, y), f(np.arange(5, dtype="u1"), y))
            check(f(y, x), f(y, np.arange(5, dtype="u1")))


def test_negative_powers_of_integers():
    with pytest.raises(ValueError, match=r"x.astype\(float\)"):
        nc.arange(4) ** -1
    check(nc.arange(1, 4) ** -1.0, np.arange(1, 4) ** -1.0)


def test_dates_and_durations_of_python():
    days = np.arange("2020-01-01", "2020-01-05", dtype="M8[D]")
    x = nc.asarray(days, chunks=3)
    check(x + datetime.timedelta(hours=2), days + np.timedelta64(7200 * 10**6, "us"))
    check(x - datetime.date(2020, 1, 1), days - np.datetime64("2020-01-01"))
    check(x > datetime.date(2020, 1, 2), days > np.datetime64("2020-01-02"))


def test_text():
    words = np.array(["a", "bc", "def"])
    x = nc.asarray(words, chunks=2)
    check(x == "bc", words == "bc")
    check("bc" < x, "bc" < words)
    check(x + "!", np.add(words, "!"))


# -- keywords ---------------------------------------------------------------------------------------------------------

KEYWORDS = [{}, {"dtype": "f4"}, {"dtype": "i8"}, {"dtype": "c16"}, {"dtype": "i8", "casting": "unsafe"}, {"casting": "no"},
            {"dtype": "f8", "casting": "safe"}, {"signature": "dd->d"}, {"signature": (None, None, "f4")}]


@pytest.mark.parametrize("keywords", KEYWORDS, ids=str)
@pytest.mark.parametrize("name", ["add", "less", "divide", "floor_divide"])
def test_dtype_casting_and_signature(name, keywords):
    f, ours = UFUNCS[name], getattr(nc, name)
    for d in ("i4", "f4", "u1", "f8"):
        a, b = sample(d), sample(d, seed=1)
        agree(lambda: ours(nc.asarray(a, chunks=2), nc.asarray(b, chunks=3), **keywords), lambda: f(a, b, **keywords))
        agree(lambda: ours(nc.asarray(a, chunks=2), 2, **keywords), lambda: f(a, 2, **keywords))


@pytest.mark.parametrize("kind", ["f4", "f8", "i8", "u1"])
@pytest.mark.parametrize("name", ["add", "sqrt", "less"])
@pytest.mark.parametrize("masked", [False, True])
def test_out_and_where(name, kind, masked):
    f, ours = UFUNCS[name], getattr(nc, name)
    a = [np.abs(sample("f4", seed=k)) for k in range(f.nin)]
    mask = sample("?") if masked else True
    results = [np.ones((3, 4), kind) for _ in range(3)]
    with np.errstate(all="ignore"):
        want = attempt(lambda: f(*a, out=results[0], where=mask))
    lazily = [nc.asarray(x, chunks=(2, 3)) for x in a]
    target = nc.asarray(results[2], chunks=2)
    if isinstance(want, Exception):
        for out in (results[1], target):
            with pytest.raises(DTypeError, match=r"give out= a wider dtype"):
                ours(*lazily, out=out, where=mask)
        return
    assert ours(*lazily, out=results[1], where=mask) is results[1]
    np.testing.assert_array_equal(results[1], results[0])
    assert ours(*lazily, out=(target,), where=mask) is target
    check(target, results[0])


def test_out_may_be_larger_and_must_fit():
    out = np.zeros((2, 3))
    nc.add(nc.arange(3), 1.0, out=out)
    np.testing.assert_array_equal(out, [[1, 2, 3]] * 2)
    for bad in (np.zeros(4), nc.zeros(1)):
        with pytest.raises(ShapeError, match="broadcast"):
            nc.add(nc.arange(3), 1.0, out=bad)
    with pytest.raises(TypeError, match="return arrays must be of ArrayType"):
        nc.add(nc.arange(3), 1, out=[0, 0, 0])
    with pytest.raises(DTypeError, match="mask != 0"):
        nc.add(nc.arange(3), 1, where=np.array([1, 0, 1]))


def test_where_without_out_is_zero():
    check(nc.add(nc.arange(4, chunks=3), 1, where=np.array([True, False, True, False])), [1, 0, 3, 0])


def test_two_results():
    a = np.array([1.5, -2.25, np.inf])
    for made, want in zip(nc.modf(nc.asarray(a, chunks=2)), np.modf(a), strict=True):
        check(made, want)
    first = np.empty(3)
    made = nc.modf(nc.asarray(a), out=(first, None))
    np.testing.assert_array_equal(first, np.modf(a)[0])
    check(made[1], np.modf(a)[1])
    with pytest.raises(TypeError, match="one entry, array or None"):
        nc.modf(nc.asarray(a), out=first)


def test_positional_results():
    out = nc.zeros(3)
    assert nc.add(nc.arange(3.0), 1, out) is out
    check(out, [1.0, 2, 3])
    with pytest.raises(TypeError, match="give it once"):
        nc.add(nc.arange(3), 1, out, out=out)
    with pytest.raises(TypeError, match="positional arguments"):
        nc.add(nc.arange(3))
    with pytest.raises(TypeError, match="colour"):
        nc.add(nc.arange(3), 1, colour="red")


def test_numbers_alone_are_computed_at_once():
    assert nc.sin(0.5) == np.sin(0.5)
    assert isinstance(nc.add(1, np.float32(2)), np.float32)


# -- methods ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["add", "multiply", "maximum", "logical_and", "subtract", "hypot", "gcd", "logaddexp",
                                  "bitwise_xor", "logical_xor", "power", "fmin"])
def test_reduce_accumulate_reduceat_outer(name):
    f, ours = UFUNCS[name], getattr(nc, name)
    for d in ("i8", "f8", "?"):
        a = np.abs(sample(d, (4, 5))) if d != "?" else sample(d, (4, 5))
        a = np.where(np.isfinite(a), a, 1).astype(d)
        x = nc.asarray(a, chunks=(2, 3))
        for axis, keepdims in itertools.product((0, -1, None, (0, 1)), (False, True)):
            agree_close(lambda: ours.reduce(x, axis=axis, keepdims=keepdims), lambda: f.reduce(a, axis=axis, keepdims=keepdims))
        for axis in (0, 1):
            agree_close(lambda: ours.accumulate(x, axis=axis), lambda: f.accumulate(a, axis=axis))
            agree_close(lambda: ours.reduceat(x, [0, 2, 1], axis=axis), lambda: f.reduceat(a, [0, 2, 1], axis=axis))
        agree_close(lambda: ours.outer(x, a[0]), lambda: f.outer(a, a[0]))


def agree_close(lazily, with_numpy):
    want = attempt(with_numpy)
    if isinstance(want, Exception):
        with pytest.raises((TypeError if isinstance(want, TypeError) else type(want), KernelError)):
            lazily().compute()
    else:
        check(lazily(), want, rtol=1e-12)


def test_at_changes_repeated_elements_again():
    x = nc.zeros(4, chunks=3)
    kept = x + 0
    nc.add.at(x, [1, 1, 2], 5)
    check(x, [0.0, 10, 5, 0])
    check(kept, np.zeros(4))


def test_methods_of_functions_of_one_operand():
    for method in ("reduce", "accumulate"):
        with pytest.raises(ValueError, match="only supported for binary functions"):
            getattr(nc.sin, method)(nc.ones(3))
    with pytest.raises(IndexError, match="out-of-bounds"):
        nc.add.reduceat(nc.ones(3), [5])


def test_ufuncs_travel():
    assert isinstance(pickle.loads(pickle.dumps(nc.add)), Ufunc)
    assert (nc.add.nin, nc.add.nout, repr(nc.add)) == (2, 1, "<ufunc 'add'>")
    assert nc.add.__doc__.startswith("`numpy.add`")


# -- functions that are no ufuncs -------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["real", "imag", "angle", "i0", "sinc", "nan_to_num", "iscomplex", "isposinf", "isneginf",
                                  "fix", "round", "around"])
def test_functions_on_every_dtype(name):
    for d in DTYPES:
        if name == "iscomplex" and d in ("M8[D]", "U3", "S2", "m8[s]"):
            continue
        a = sample(d)
        agree(lambda: getattr(nc, name)(nc.asarray(a, chunks=(2, 3))), lambda: getattr(np, name)(a))


@pytest.mark.parametrize("d", DTYPES)
def test_clip_round_and_isclose(d):
    a, b = sample(d), sample(d, seed=1)
    x = nc.asarray(a, chunks=(2, 3))
    for low, high in ((1, 3), (None, 2), (0, None), (-1, 300), (1.5, 2.5), (None, None), (3, 1), (np.ones(4, int), 3)):
        agree(lambda: nc.clip(x, low, high), lambda: np.clip(a, low, high))
    for decimals in (-1, 0, 2):
        agree(lambda: nc.round(x, decimals), lambda: np.round(a, decimals))
    agree(lambda: nc.isclose(x, b), lambda: np.isclose(a, b))
    agree(lambda: nc.isclose(x, 2, equal_nan=True), lambda: np.isclose(a, 2, equal_nan=True))


def test_replacing_nan():
    a = np.array([np.nan, np.inf, -np.inf, 1])
    x = nc.asarray(a, chunks=3)
    check(nc.nan_to_num(x, nan=7, posinf=1, neginf=-1), np.nan_to_num(a, nan=7, posinf=1, neginf=-1))
    check(nc.nan_to_num(x, nan=-0.0), np.nan_to_num(a, nan=-0.0))
    check(nc.nan_to_num(x, nan=0.0), np.nan_to_num(a, nan=0.0))


def test_where_of_one_argument_is_nonzero():
    a = np.array([0, 3, 0, 4])
    (made,), (want,) = nc.where(nc.asarray(a, chunks=3)), np.where(a)
    check(made, want)
    with pytest.raises(ValueError, match="either both or neither"):
        nc.where(nc.asarray(a), 1)


def test_casts():
    for d, e in itertools.product(DTYPES[:11], DTYPES[:11]):
        a = np.nan_to_num(sample(d)) if np.dtype(d).kind == "f" else sample(d)
        for casting in ("safe", "same_kind"):
            agree(lambda: nc.asarray(a, chunks=2).astype(e, casting=casting), lambda: a.astype(e, casting=casting))
    with pytest.warns(np.exceptions.ComplexWarning, match=r"x.real"):
        check(nc.asarray([1 + 2j]).astype(float), [1.0])
    with pytest.raises(DTypeError, match="casting='unsafe'"):
        nc.asarray([1.5]).astype(int, casting="safe")


def test_strided_blocks_of_a_result():
    """NumPy 2.4 gets these wrong when it writes to strided memory; blocks of a result are strided."""
    for name, d in itertools.product(("negative", "isnan", "isinf", "isfinite", "signbit"), ("i4", "f4", "f8", "i8")):
        a = np.arange(-6, 6).reshape(3, 4).astype(d)
        for chunks in ((3, 1), (2, 3), (1, 4)):
            check(getattr(nc, name)(nc.asarray(a, chunks=chunks)), getattr(np, name)(a))
            check(getattr(nc, name)(nc.asarray(a.T, chunks=chunks)), getattr(np, name)(a.T))


def test_floating_point_warnings_stay_silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(1 / nc.asarray(np.array([0.0, 1.0])), [np.inf, 1.0])


def test_frompyfunc():
    f = nc.frompyfunc(lambda a, b: a * 10 + b, 2, 1)
    made = f(nc.arange(4, chunks=3), 2)
    assert made.dtype == object
    assert made.compute().tolist() == [2, 12, 22, 32]
    check(made.astype(float) + 1, np.arange(4) * 10.0 + 3)
    whole, rest = nc.frompyfunc(divmod, 2, 2)(nc.arange(5, chunks=2), 2)
    check(whole.astype(int), [0, 0, 1, 1, 2])
    check(rest.astype(int), [0, 1, 0, 1, 0])
    with pytest.raises(TypeError, match="takes 2"):
        f(1)


def test_fields_of_records():
    data = np.array([(1, 2.5), (3, 4.5)], dtype=[("a", "i4"), ("b", "f8")])
    x = nc.asarray(data, chunks=1)
    check(x["a"], data["a"])
    check(x["b"] * 2, data["b"] * 2)
    check(x[["a"]], data[["a"]])
    check(x, data)
    wide = np.zeros(3, dtype=[("m", "f4", (2, 2)), ("n", "i2")])
    check(nc.asarray(wide, chunks=2)["m"], wide["m"])


# -- operators --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("op", [operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod,
                                operator.pow, operator.lt, operator.le, operator.eq, operator.ne, operator.gt, operator.ge,
                                divmod], ids=lambda f: f.__name__)
def test_operators(op):
    a, b = np.array([1.5, -2, 3]), np.array([2.0, 3, -1])
    for left, right in ((a, b), (a, 2), (2, b)):
        with np.errstate(all="ignore"):
            want = op(left, right)
        made = op(*(nc.asarray(v, chunks=2) if isinstance(v, np.ndarray) else v for v in (left, right)))
        for m, w in zip(made, want, strict=True) if isinstance(want, tuple) else [(made, want)]:
            check(m, w)
        mixed = op(left, nc.asarray(right, chunks=2)) if isinstance(right, np.ndarray) else made
        for m, w in zip(mixed, want, strict=True) if isinstance(want, tuple) else [(mixed, want)]:
            check(m, w)


@pytest.mark.parametrize("op", [operator.and_, operator.or_, operator.xor, operator.lshift, operator.rshift])
def test_bits(op):
    a, b = np.array([5, 6, 7]), np.array([1, 2, 3])
    check(op(nc.asarray(a, chunks=2), nc.asarray(b, chunks=3)), op(a, b))
    check(op(3, nc.asarray(b)), op(3, b))
    check(~nc.asarray(a), ~a)


@pytest.mark.parametrize("op", [operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.ifloordiv,
                                operator.imod, operator.ipow])
def test_in_place(op):
    a = np.array([1.5, 2, 3])
    x = before = nc.asarray(a.copy(), chunks=2)
    kept = x + 0
    x = op(x, 2)
    want = op(a.copy(), 2)
    assert x is before
    check(x, want)
    check(kept, a)


def test_in_place_keeps_dtype_and_shape():
    x = nc.arange(3)
    with pytest.raises(TypeError, match="Cannot cast"):
        x += 1.5
    with pytest.raises(ValueError, match="non-broadcastable"):
        x += nc.ones((2, 3), int)
    with pytest.raises(TypeError):
        x + object()


def test_every_row_has_a_public_function():
    hidden = {"cast", "user", "searchsorted"} | {n for n in ELEMENTWISE if "." in n}
    assert not [n for n in ELEMENTWISE if n not in hidden and not hasattr(nc, n)]
