"""Statistics and comparisons that are made of reductions: averages, covariance, moments, equality of arrays."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from nums_core.array import reductions
from nums_core.array.array import Array, _apply, as_expr, known_expr
from nums_core.errors import DTypeError, ShapeError
from nums_core.expr import build
from nums_core.expr.node import Expr


def ptp(a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, split_every: Any = None) -> Array:
    """Range of values, max - min, in one pass."""
    high, low = (f(a, axis=axis, keepdims=keepdims) for f in (reductions.max, reductions.min))
    return reductions.into(out, _apply("subtract", high, low))


def average(a: Any, axis: Any = None, weights: Any = None, returned: bool = False, *, keepdims: Any = False) -> Any:
    """Weighted mean: sum(a * w) / sum(w).

    Parameters
    ----------
    weights : array of the shape of `a`, or of its extents along `axis`
    returned : bool
        Also return the sum of the weights.

    Notes
    -----
    Weights that sum to zero give NaN or infinity when the result is computed (NumPy raises ZeroDivisionError).
    """
    x = as_expr(a)
    if weights is None:
        mean = reductions.mean(a, axis, keepdims=keepdims)
        if not returned:
            return mean
        n = math.prod(known_expr(a).shape[i] for i in build.normalize_axes(axis, x.ndim))
        return mean, Array(build.full(n, mean.shape, mean.dtype, mean.chunks))
    w = _weights(as_expr(weights), x, axis)
    dtype = np.result_type(x.dtype, w.dtype, np.float64 if x.dtype.kind in "iub" else x.dtype)
    scale = reductions.sum(w, axis, dtype, keepdims=keepdims)
    total = reductions.sum(_apply("multiply", Array(build.cast(x, dtype)), w), axis, dtype, keepdims=keepdims)
    return (total / scale, scale) if returned else total / scale


def _weights(w: Expr, x: Expr, axis: Any) -> Array:
    """Weights with the shape of `x`, broadcast along the axes they lack."""
    if w.shape == x.shape:
        return Array(w)
    if axis is None:
        raise TypeError("Axis must be specified when shapes of a and weights differ; give axis=, or weights of shape "
                        f"{x.shape}")
    which = tuple(int(i) % x.ndim for i in (axis if isinstance(axis, (tuple, list)) else (axis,)))
    if w.shape != tuple(x.shape[i] for i in which):
        raise ShapeError(f"Shape of weights must be consistent with shape of a along specified axis; weights of shape "
                         f"{w.shape}, the array has {tuple(x.shape[i] for i in which)} there")
    source = tuple(which.index(i) if i in which else None for i in range(x.ndim))
    return Array(build.axes(w, source, x.shape, tuple(
        w.chunks[s] if s is not None else x.chunks[i] for i, s in enumerate(source))))


def moment(a: Any, order: int, axis: Any = None, dtype: Any = None, keepdims: Any = False, ddof: Any = 0,
           split_every: Any = None, out: Any = None) -> Array:
    """Central moment: sum((a - mean)**order) / (n - ddof), in two passes so that no digits cancel.

    Raises
    ------
    ValueError
        `order` is negative or not an integer.
    """
    if not isinstance(order, (int, np.integer)) or order < 0:
        raise ValueError(f"Order must be an integer >= 0; got {order!r}")
    x = known_expr(a)
    work = np.dtype(dtype) if dtype is not None else np.result_type(x.dtype, np.float64 if x.dtype.kind in "iub" else x)
    n = math.prod(x.shape[i] for i in build.normalize_axes(axis, x.ndim))
    values = Array(build.cast(x, work))
    if order < 2:  # the moments of order 0 and 1 are constants
        flat = reductions.sum(values, axis, keepdims=keepdims)
        made = Array(build.full(1 - order, flat.shape, work, flat.chunks))
    else:
        apart = values - reductions.mean(values, axis, keepdims=True)
        made = reductions.sum(_apply("power", apart, order), axis, keepdims=keepdims) / np.asarray(n - ddof, work)[()]
    return reductions.into(out, made)


# -- covariance -------------------------------------------------------------------------------------------------------

def cov(m: Any, y: Any = None, rowvar: bool = True, bias: bool = False, ddof: int | None = None, fweights: Any = None,
        aweights: Any = None, *, dtype: Any = None) -> Array:
    """Covariance matrix of variables in rows (`rowvar`) or columns, as `numpy.cov`.

    One pass for the means and one for the products; nothing larger than a block is held besides the result.

    Parameters
    ----------
    m, y : arrays of one or two axes
        `y` adds variables.
    fweights, aweights : array, shape (observations,)
        How often each observation counts (integers), and how much. Those in NumPy arrays are checked at once.
    """
    if ddof is not None and ddof != int(ddof):
        raise ValueError("ddof must be integer")
    x = _variables(m, rowvar, "m")
    if y is not None:
        x = build.concatenate([x, _variables(y, rowvar or np.ndim(y) == 1, "y")], 0)
    x = build.cast(x, np.dtype(dtype) if dtype is not None else np.result_type(x.dtype, np.float64))
    ddof = int(ddof) if ddof is not None else int(not bias)
    w = _observation_weights(fweights, aweights, x.shape[1])
    values = Array(x)
    mean = average(values, axis=1, weights=w, keepdims=True)
    apart = values - mean
    other = apart if w is None else _apply("multiply", apart, w)
    if x.dtype.kind == "c":
        other = _apply("conjugate", other)
    product = build.contract(apart.expr, other.expr, "ij", "kj", "ik")
    made = _apply("divide", Array(product), _degrees(w, aweights, ddof, x.shape[1]))
    return made if x.shape[0] != 1 else Array(build.axes(made.expr, (), ()))


def _variables(m: Any, rowvar: bool, name: str) -> Expr:
    x = known_expr(m)
    if x.ndim > 2:
        raise ValueError(f"{name} has more than 2 dimensions; reshape it to (variables, observations)")
    if x.ndim < 2:
        return build.axes(x, (None, *range(x.ndim), *(None,) * (1 - x.ndim)), (1, x.shape[0] if x.ndim else 1))
    return x if rowvar or x.shape[0] == 1 else build.transpose(x, (1, 0))


def _observation_weights(fweights: Any, aweights: Any, n: int) -> Array | None:
    """The product of both weights, or None."""
    out = None
    for name, given in (("fweights", fweights), ("aweights", aweights)):
        if given is None:
            continue
        w = as_expr(given)
        if w.ndim > 1:
            raise RuntimeError(f"cannot handle multidimensional {name}; give one weight an observation")
        if w.shape != (n,):
            raise RuntimeError(f"incompatible numbers of samples and {name}: {n} observations, weights of {w.shape}")
        if not isinstance(given, Array) and np.any(np.asarray(given) < 0):
            raise ValueError(f"{name} cannot be negative")
        if name == "fweights" and w.dtype.kind not in "iub":
            if isinstance(given, Array) or np.any(np.asarray(given) != np.around(given)):
                raise TypeError("fweights must be integer; round them with .astype(int)")
            w = build.cast(w, np.dtype(int))
        out = Array(build.cast(w, np.dtype(float))) if out is None else out * Array(w)
    return out


def _degrees(w: Array | None, aweights: Any, ddof: int, n: int) -> Any:
    """What the sum of products is divided by."""
    if w is None:
        if n - ddof <= 0:
            warnings.warn("Degrees of freedom <= 0 for slice", RuntimeWarning, stacklevel=3)
        return float(n - ddof) if n > ddof else 0.0
    total = reductions.sum(w)
    if ddof == 0:
        return total
    if aweights is None:
        return total - ddof
    return total - ddof * reductions.sum(w * Array(as_expr(aweights))) / total


def corrcoef(x: Any, y: Any = None, rowvar: bool = True, *, dtype: Any = None) -> Array:
    """Correlation coefficients: cov[i, j] / sqrt(cov[i, i] cov[j, j]), limited to [-1, 1]."""
    c = cov(x, y, rowvar, dtype=dtype)
    if not c.ndim:
        return c / c
    deviation = _apply("sqrt", c.diagonal().real)
    column = Array(build.axes(deviation.expr, (0, None), (c.shape[0], 1)))
    r = c / column / deviation
    if r.dtype.kind != "c":
        return _clipped(r)
    return _clipped(r.real) + _clipped(r.imag) * np.asarray(1j, r.dtype)[()]


def _clipped(x: Array) -> Array:
    return _apply("minimum", _apply("maximum", x, -1), 1)


# -- equality ---------------------------------------------------------------------------------------------------------

def allclose(a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Array:
    """Whether all elements are close, as `isclose` has it: a 0-d boolean array, computed when its value is asked."""
    return reductions.all(_apply("isclose", a, b, kw=(("atol", atol), ("equal_nan", bool(equal_nan)), ("rtol", rtol))))


def array_equal(a1: Any, a2: Any, equal_nan: bool = False) -> Array:
    """Whether two arrays have the same shape and elements: a 0-d boolean array."""
    x, y = known_expr(a1), known_expr(a2)
    if x.shape != y.shape:
        return Array(build.full(False, (), bool, ()))
    same = _apply("equal", Array(x), Array(y))
    if equal_nan and x.dtype.kind in "fcmM" and y.dtype.kind in "fcmM":
        both = _apply("logical_and", *(_apply("not_equal", Array(e), Array(e)) for e in (x, y)))
        same = _apply("logical_or", same, both)
    return reductions.all(same)


def array_equiv(a1: Any, a2: Any) -> Array:
    """Whether two arrays have the same elements once broadcast: a 0-d boolean array."""
    x, y = known_expr(a1), known_expr(a2)
    try:
        build.broadcast_shape([x.shape, y.shape])
    except ShapeError:
        return Array(build.full(False, (), bool, ()))
    return reductions.all(_apply("equal", Array(x), Array(y)))


# -- functions of the user --------------------------------------------------------------------------------------------

class _Chunk:
    """A user's function as the first step of a reduction; its result is wrapped, for it may be of any type."""

    def __init__(self, function: Any, axes: tuple[int, ...]) -> None:
        self.function, self.axes = function, axes
        self.__name__ = getattr(function, "__name__", "chunk")

    def __call__(self, block: np.ndarray, weights: np.ndarray | None = None) -> tuple[Any]:
        if self.function is None:
            return (block,)
        more = {} if weights is None else {"weights": weights}
        return (self.function(block, axis=self.axes, keepdims=True, **more),)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Chunk) and (self.function, self.axes) == (other.function, other.axes)

    def __hash__(self) -> int:
        return hash((self.function, self.axes))


def reduction(x: Any, chunk: Any, aggregate: Any, axis: Any = None, keepdims: bool = False, dtype: Any = None,
              split_every: Any = None, combine: Any = None, name: Any = None, out: Any = None, concatenate: bool = True,
              output_size: int = 1, meta: Any = None, weights: Any = None) -> Array:
    """A reduction by functions of NumPy blocks, as in dask.

        chunk(block, axis=axes, keepdims=True)         each block to a partial result
        combine(partials, axis=axes, keepdims=True)    several partial results to one, in any grouping
        aggregate(partials, axis=axes, keepdims=...)   the last ones to the result

    Parameters
    ----------
    chunk : callable or None
        Gets `weights=` too, where weights are given.
    combine : callable, optional
        Without it all partial results go to `aggregate` at once.
    concatenate : bool
        Whether partial results are concatenated along the first reduced axis; otherwise functions get a list of them,
        which may be anything.
    output_size : int
        Extent of the reduced axes of the result, where they are kept.
    weights : array, optional
        Broadcast to `x`.

    Raises
    ------
    DTypeError
        Neither `dtype` nor `meta` is given, and the functions fail on an array of ones.
    """
    e = as_expr(x)
    axes = build.normalize_axes(axis, e.ndim)
    args = [e]
    if weights is not None:
        args.append(_broadcast(as_expr(weights), e))
    first = _Chunk(chunk, axes)
    if dtype is None:
        dtype = meta.dtype if hasattr(meta, "dtype") else _dtype_of(first, aggregate, args, concatenate)
    kw = (("aggregate", aggregate), ("combine", combine), ("concatenate", bool(concatenate)),
          ("keepdims", bool(keepdims)))
    shape = tuple(output_size if i in axes else n for i, n in enumerate(e.shape) if keepdims or i not in axes)
    chunks = tuple((output_size,) if i in axes else c for i, c in enumerate(e.chunks) if keepdims or i not in axes)
    params = (first, (), "user", axes, kw, (), 10.0)
    return reductions.into(out, Array(build.custom("reduction.map_reduce", args, params, shape, dtype, chunks)))


def _broadcast(w: Expr, x: Expr) -> Expr:
    """`w` with the shape and the grid of `x`."""
    back = x.ndim - w.ndim
    cut = tuple(w.chunks[i - back] if i >= back and w.shape[i - back] == n else c
                for i, (n, c) in enumerate(zip(x.shape, x.chunks, strict=True)))
    return build.rechunk(build.broadcast_to(w, x.shape, cut), x.chunks)


def _dtype_of(chunk: _Chunk, aggregate: Any, args: list[Expr], concatenate: bool) -> np.dtype:
    try:
        with np.errstate(all="ignore"):
            (state,) = chunk(*(np.ones((1,) * a.ndim, a.dtype) for a in args))
            return np.asarray(aggregate(state if concatenate else [state], axis=chunk.axes, keepdims=True)).dtype
    except Exception as error:
        raise DTypeError(f"the dtype of this reduction cannot be found by trying it on ones ({type(error).__name__}: "
                         f"{error}); give it, as in reduction(..., dtype=float)") from error


__all__ = ["allclose", "array_equal", "array_equiv", "average", "corrcoef", "cov", "moment", "ptp", "reduction"]
