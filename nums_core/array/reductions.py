"""Reductions with NumPy's signatures, dtypes and errors, lazily on blocks.

Each is one pass over memory: the elementwise operations before it are fused with it, tile by tile, and reductions of
the same array that are computed together share the pass. Every function takes dask's `split_every`, and does not need
it. NumPy itself says what the result's dtype is and what is wrong with the arguments: the same call on one element.
"""

from __future__ import annotations

import functools
import operator
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from nums_core.array.array import Array, _apply, as_expr, known_expr
from nums_core.errors import DTypeError, ShapeError
from nums_core.expr import build
from nums_core.expr.grid import known
from nums_core.expr.node import Expr

_NONE: Any = np._NoValue


class Fold(NamedTuple):
    """A reduction by one ufunc; `neutral` is what masked elements become, if the ufunc has such a number."""

    ufunc: np.ufunc
    neutral: Any


FOLDS = {
    "sum": Fold(np.add, 0),
    "prod": Fold(np.multiply, 1),
    "max": Fold(np.maximum, None),
    "min": Fold(np.minimum, None),
    "fmax": Fold(np.fmax, None),
    "fmin": Fold(np.fmin, None),
    "any": Fold(np.logical_or, False),
    "all": Fold(np.logical_and, True),
    "bitwise_or": Fold(np.bitwise_or, 0),
    "bitwise_and": Fold(np.bitwise_and, -1),
    "bitwise_xor": Fold(np.bitwise_xor, 0),
}


# -- what NumPy would say ---------------------------------------------------------------------------------------------

def result_of(function: Callable[..., Any], x: Expr, axis: Any, empty: bool = True, **kwargs: Any) -> np.dtype:
    """Dtype of `function(x, axis=axis, **kwargs)`, asked of NumPy on at most one element an axis; its errors, with a
    way out. With `empty` false, axes without elements are asked as if they had one."""
    shape = tuple(0 if n == 0 and empty else 1 for n in x.shape)
    axis = tuple(axis) if isinstance(axis, list) else axis
    return _ask(function, x.dtype, shape, axis, tuple(sorted(kwargs.items())))


@functools.lru_cache(maxsize=1024, typed=True)
def _ask(function: Callable[..., Any], dtype: np.dtype, shape: tuple[int, ...], axis: Any, kwargs: Any) -> np.dtype:
    options = {k: np.ones(shape, bool) if k == "where" else np.zeros((), dtype)[()] if k == "initial" else v
               for k, v in kwargs}
    try:
        with np.errstate(all="ignore"):
            return np.asarray(function(np.zeros(shape, dtype), axis=axis, **options)).dtype
    except np.exceptions.AxisError:
        raise
    except ValueError as error:
        if 0 in shape:
            raise ValueError(f"{error}; its shape has an extent of 0 on a reduced axis: reduce other axes, or give "
                             "initial= where the function takes it") from None
        raise
    except TypeError as error:
        if "cannot be interpreted as an integer" in str(error):  # the axis
            raise
        raise DTypeError(f"{error}; cast first, as in x.astype(float)") from None


def _flag(keepdims: Any) -> bool:
    return keepdims is not _NONE and bool(keepdims)


def _axis_of(x: Expr, axis: Any) -> Any:
    """NumPy takes axis 0 and -1 of a 0-d array for None."""
    return None if not x.ndim and axis in (0, -1, (0,), (-1,)) else axis


def _accumulator(dtype: Any) -> np.dtype:
    """What a sum of `dtype` is carried in: float16 has too few digits."""
    dtype = np.dtype(dtype)
    return np.dtype(np.float32) if dtype == np.float16 else dtype.newbyteorder("=")


def _carried_in(dtype: np.dtype) -> dict[str, Any]:
    """As an option of a reduction; a ufunc takes no unit of time, and needs none."""
    return {"dtype": _accumulator(dtype).str} if dtype.kind != "m" else {}


def into(out: Any, made: Array) -> Any:
    """`made`, or `out` with its values, cast as NumPy's reductions cast them."""
    if out is None or out is _NONE:
        return made
    if isinstance(out, tuple) and len(out) == 1:
        (out,) = out
    shape = out.expr.shape if isinstance(out, Array) else np.shape(out)
    if shape != made.expr.shape:
        raise ShapeError(f"output parameter has shape {shape} but the result has shape {made.expr.shape}; give out= "
                         "the result's shape, or leave it out")
    if isinstance(out, Array):
        out._expr = build.cast(made.expr, out.dtype)
    else:
        np.copyto(out, made.compute(), casting="unsafe")
    return out


def _masked(x: Expr, where: Any, filling: Any) -> Expr:
    """`x` with `filling`, in its dtype, where `where` is false."""
    made = _apply("where", where, Array(x), np.asarray(filling).astype(x.dtype)[()]).expr
    if made.shape != x.shape and known(x.chunks):
        raise ShapeError(f"non-broadcastable operand with shape {x.shape} doesn't match the broadcast shape "
                         f"{made.shape}; where= must fit the array, as in numpy.broadcast_to(where, {x.shape})")
    return made


# -- by one ufunc -----------------------------------------------------------------------------------------------------

def by_name(name: str, array: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = False,
            initial: Any = _NONE, where: Any = True, split_every: Any = None) -> Array:
    """The reduction `name` of `FOLDS` with all keywords of `ufunc.reduce`."""
    ufunc, neutral = FOLDS[name]
    x, wanted = as_expr(array), np.dtype(dtype) if dtype is not None else None
    axis = _axis_of(x, axis)
    options: dict[str, Any] = {} if wanted is None else {"dtype": wanted}
    if initial is not _NONE and initial is not None:
        options["initial"] = initial if isinstance(initial, (bool, int, float, complex)) else np.asarray(initial)[()]
    given = dict.fromkeys(options.keys() & {"initial"}, True) | ({"where": True} if where is not True else {})
    result = result_of(ufunc.reduce, x, axis, **(options | given))
    if where is not True:
        x = _masked(x, where, neutral if neutral is not None else initial)
    kw: dict[str, Any] = {}
    if name in ("sum", "prod"):
        kw |= _carried_in(result)
    elif wanted is not None and name not in ("any", "all"):
        x = build.cast(x, wanted)
    if neutral is None and "initial" in options:
        kw["initial"] = np.asarray(options["initial"]).astype(x.dtype)[()]
    made = Array(build.reduce(name, x, axis, _flag(keepdims), tuple(sorted(kw.items())), result))
    if neutral is not None and "initial" in options:
        made = Array(build.cast(_apply(ufunc.__name__, made, options["initial"]).expr, result))
    return into(out, made)


def _typed(name: str, fill: Any = None) -> Callable[..., Array]:
    """The public function of a fold whose result's dtype may be chosen. `fill` takes the place of NaN."""
    def function(a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = False,
                 initial: Any = _NONE, where: Any = True, split_every: Any = None) -> Array:
        if fill is not None:
            a = _without_nan(a, fill)
        return by_name(name, a, axis, dtype, out, keepdims, initial, where)
    return _named(function, name if fill is None else f"nan{name}")


def _untyped(name: str, public: str) -> Callable[..., Array]:
    """The public function of a fold whose result has its operand's dtype, or is boolean."""
    def function(a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, initial: Any = _NONE,
                 where: Any = True, split_every: Any = None) -> Array:
        return by_name(name, a, axis, None, out, keepdims, initial, where)
    return _named(function, public)


def _named(function: Callable[..., Array], name: str) -> Callable[..., Array]:
    function.__name__ = function.__qualname__ = name
    function.__doc__ = (f"`numpy.{name}`, lazily on blocks: NumPy's keywords, dtype rules and errors.\n\n"
                        f"{(getattr(np, name).__doc__ or '').split(chr(10) * 2)[0].strip()}")
    return function


def _without_nan(a: Any, fill: Any) -> Any:
    x = as_expr(a)
    if x.dtype.kind not in "fc":
        return a
    return _apply("where", _apply("isnan", Array(x)), np.asarray(fill, x.dtype)[()], Array(x))


sum = _typed("sum")  # noqa: A001
prod = _typed("prod")
nansum = _typed("sum", fill=0)
nanprod = _typed("prod", fill=1)
max = _untyped("max", "max")  # noqa: A001
min = _untyped("min", "min")  # noqa: A001
amax, amin = max, min
nanmax = _untyped("fmax", "nanmax")
nanmin = _untyped("fmin", "nanmin")
any = _untyped("any", "any")  # noqa: A001
all = _untyped("all", "all")  # noqa: A001


def count_nonzero(a: Any, axis: Any = None, *, keepdims: Any = False, split_every: Any = None) -> Array:
    """How many elements are not zero (NaN counts), along `axis`."""
    x = as_expr(a)
    axis = _axis_of(x, axis)
    result = result_of(np.count_nonzero, x, axis)
    if x.dtype.kind in "iufc":
        x = build.elementwise("not_equal", [x, 0])
    return Array(build.reduce("count", x, axis, _flag(keepdims), (), result))


# -- argmax and argmin ------------------------------------------------------------------------------------------------

def _arg(name: str, skip_nan: bool = False) -> Callable[..., Array]:
    public = f"nan{name}" if skip_nan else name

    def function(a: Any, axis: Any = None, out: Any = None, *, keepdims: Any = False, split_every: Any = None) -> Array:
        x = known_expr(a)  # an index counts the elements before it
        axis = _axis_of(x, axis if axis is None else operator.index(axis))
        result_of(getattr(np, public), x, axis)
        kw: tuple[tuple[str, Any], ...] = (("shape", x.shape),)
        if skip_nan and x.dtype.kind in "fc":
            kw = (*kw, ("skip_nan", True))
        return into(out, Array(build.reduce(name, x, axis, _flag(keepdims), kw)))
    return _named(function, public)


argmax = _arg("argmax")
argmin = _arg("argmin")
nanargmax = _arg("argmax", skip_nan=True)
nanargmin = _arg("argmin", skip_nan=True)


# -- mean, var, std ---------------------------------------------------------------------------------------------------

def _mean(name: str) -> Callable[..., Array]:
    skip_nan = name.startswith("nan")

    def function(a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = False, *,
                 where: Any = True, split_every: Any = None) -> Array:
        x = as_expr(a)
        axis = _axis_of(x, axis)
        result, keepdims = result_of(getattr(np, name), x, axis, empty=False, **_given(dtype)), _flag(keepdims)
        _warn_if_empty(x, axis, "Mean of empty slice")
        if where is not True:
            mask = _counted(x, where, skip_nan)
            total = sum(Array(x), axis, dtype or _inexact(x.dtype), keepdims=keepdims, where=mask)
            n = sum(mask, axis, keepdims=keepdims)
            made = Array(build.cast((total / _apply("where", n > 0, n, np.nan)).expr, result))
        else:
            made = Array(build.reduce("mean", x, axis, keepdims, _options(x, dtype, skip_nan), result))
        return into(out, made)
    return _named(function, name)


def _spread(name: str, what: str) -> Callable[..., Array]:
    skip_nan = name.startswith("nan")

    def function(a: Any, axis: Any = None, dtype: Any = None, out: Any = None, ddof: Any = 0, keepdims: Any = False, *,
                 where: Any = True, mean: Any = _NONE, correction: Any = _NONE, split_every: Any = None) -> Array:
        if correction is not _NONE:
            if ddof != 0:
                raise ValueError("ddof and correction can't be provided simultaneously.")
            ddof = correction
        x = as_expr(a)
        axis = _axis_of(x, axis)
        result, keepdims = result_of(getattr(np, name), x, axis, empty=False, **_given(dtype)), _flag(keepdims)
        _warn_if_empty(x, axis, "Degrees of freedom <= 0 for slice")
        if where is not True or mean is not _NONE:
            made = _spread_of(x, axis, dtype, ddof, keepdims, where, mean, skip_nan)
            made = Array(build.cast((_apply("sqrt", made) if what == "std" else made).expr, result))
        else:
            kw = tuple(sorted((*_options(x, dtype, skip_nan), ("what", what), ("ddof", ddof))))
            made = Array(build.reduce("moments", x, axis, keepdims, kw, result))
        return into(out, made)
    return _named(function, name)


def _spread_of(x: Expr, axis: Any, dtype: Any, ddof: Any, keepdims: bool, where: Any, middle: Any,
               skip_nan: bool) -> Array:
    """The variance by its definition, in two passes: of some elements, or around a mean that is given."""
    mask = _counted(x, where, skip_nan)
    n = sum(mask, axis, keepdims=True)
    values = Array(build.cast(x, np.dtype(dtype) if dtype is not None else _inexact(x.dtype)))
    if middle is _NONE:
        middle = sum(values, axis, keepdims=True, where=mask) / _apply("maximum", n, 1)
    apart = _apply("where", mask, values - middle, np.zeros((), values.dtype)[()])
    squares = _apply("multiply", apart, _apply("conjugate", apart)).real
    total = sum(squares, axis, keepdims=keepdims)
    free = sum(mask, axis, keepdims=keepdims) - ddof
    some = free > 0
    none = np.nan if skip_nan else _apply("where", total > 0, np.inf, np.nan)
    return _apply("where", some, total / _apply("where", some, free, 1), none)


def _counted(x: Expr, where: Any, skip_nan: bool) -> Array:
    """Boolean, shape of `x`: which elements count."""
    if not isinstance(where, Array):
        where = np.asarray(where, bool)
    number = Array(build.elementwise("equal", [x, x]))
    return _apply("logical_and", where, number if skip_nan else _apply("logical_or", number, True))


def _given(dtype: Any) -> dict[str, Any]:
    return {} if dtype is None else {"dtype": np.dtype(dtype)}


def _inexact(dtype: np.dtype) -> np.dtype:
    """What a mean of `dtype` is worked out in."""
    return _accumulator(dtype) if dtype.kind in "fcm" else np.dtype(float)


def _options(x: Expr, dtype: Any, skip_nan: bool) -> tuple[tuple[str, Any], ...]:
    kw = _carried_in(np.dtype(dtype) if dtype is not None else _inexact(x.dtype))
    return tuple(sorted((kw | ({"skip_nan": True} if skip_nan and x.dtype.kind in "fc" else {})).items()))


def _warn_if_empty(x: Expr, axis: Any, text: str) -> None:
    if 0 in x.shape and 0 in [x.shape[i] for i in build.normalize_axes(axis, x.ndim)]:
        warnings.warn(text, RuntimeWarning, stacklevel=3)


mean = _mean("mean")
nanmean = _mean("nanmean")
var = _spread("var", "var")
std = _spread("std", "std")
nanvar = _spread("nanvar", "var")
nanstd = _spread("nanstd", "std")


__all__ = [
    "all", "amax", "amin", "any", "argmax", "argmin", "count_nonzero", "max", "mean", "min", "nanargmax", "nanargmin",
    "nanmax", "nanmean", "nanmin", "nanprod", "nanstd", "nansum", "nanvar", "prod", "std", "sum", "var",
]
