"""Evenly spaced values, and windows made from them, with NumPy's rounding."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from nums_core.array import elementwise
from nums_core.array.array import Array
from nums_core.array.creation import asarray, check_options
from nums_core.expr import build
from nums_core.expr.grid import normalize
from nums_core.expr.node import Const


def arange(start: Any = None, stop: Any = None, step: Any = None, dtype: Any = None, *, chunks: Any = "auto",
           **options: Any) -> Array:
    """Evenly spaced values in [start, stop), `step` apart: start + i * step, with NumPy's rounding.

    Datetimes and timedeltas work as in NumPy.
    """
    check_options("arange", options)
    if start is None and stop is None:
        raise TypeError("arange() requires stop to be specified; write arange(n) or arange(start, stop)")
    start, stop, step = (_plain(v) for v in (start, stop, step))
    if stop is None:
        start, stop = (np.zeros((), np.asarray(start).dtype)[()] if np.asarray(start).dtype.kind == "m" else 0), start
    start = 0 if start is None else start
    if step is not None and step == 0:
        raise ZeroDivisionError("division by zero: arange() needs a step other than 0")
    kinds = [np.asarray(v).dtype for v in (start, stop, step) if v is not None]
    if np.dtype(dtype).kind in "mM" or any(k.kind in "mM" for k in kinds):
        return _time_range(start, stop, step, dtype, chunks)
    step = 1 if step is None else step
    dtype = np.dtype(dtype) if dtype is not None else np.result_type(np.int_, *kinds)
    n = max(math.ceil((stop - start) / step), 0)
    first, second = np.asarray(start).astype(dtype)[()], np.asarray(start + step).astype(dtype)[()]
    wide = np.dtype(np.float32) if dtype == np.float16 else dtype
    delta = wide.type(second) - wide.type(first) if dtype.kind != "b" else int(second) - int(first)
    return _range("creation.arange", (Const(first, dtype), Const(delta, None), dtype.str), n, dtype, chunks)


def _plain(v: Any) -> Any:
    """A bound as a scalar; an Array is computed."""
    return np.asarray(v)[()] if isinstance(v, (Array, np.ndarray)) else v


def _time_range(start: Any, stop: Any, step: Any, dtype: Any, chunks: Any) -> Array:
    """Datetimes and timedeltas count in the finest unit of what is given, or in that of `dtype`."""
    moment = any(isinstance(v, (str, np.datetime64)) for v in (start, stop)) or np.dtype(dtype).kind == "M"
    given = [np.asarray(v, "M8" if isinstance(v, str) else None) for v in (start, stop, step) if v is not None]
    if dtype is None or np.datetime_data(dtype)[0] == "generic":
        span = np.result_type(*(v.dtype.str.replace("M8", "m8") for v in given if v.dtype.kind in "mM"))
    else:
        span = np.dtype(np.dtype(dtype).str.replace("M8", "m8"))
    dtype = np.dtype(span.str.replace("m8", "M8")) if moment else span
    first, last = (np.asarray(v).astype(dtype).astype(np.int64).item() for v in (start, stop))
    if moment and not isinstance(stop, (str, np.datetime64)):
        last += first  # a timedelta or a number counts from the start
    by = 1 if step is None else np.asarray(step).astype(span).astype(np.int64).item()
    n = max(-((first - last) // by), 0)
    return _range("creation.arange", (Const(first, np.int64), Const(by, np.int64), dtype.str), n, dtype, chunks)


def _range(kernel: str, params: tuple[Any, ...], n: int, dtype: np.dtype, chunks: Any) -> Array:
    return Array(build.create(kernel, params, (n,), dtype, normalize(chunks, (n,), dtype)))


def linspace(start: Any, stop: Any, num: int = 50, endpoint: bool = True, retstep: bool = False, dtype: Any = None,
             axis: int = 0, *, chunks: Any = "auto", **options: Any) -> Any:
    """`num` evenly spaced values from `start` to `stop`, with NumPy's rounding.

    Parameters
    ----------
    start, stop : scalars, or arrays that broadcast; each pair makes one line along `axis`
    endpoint : bool
        Whether `stop` is the last value.
    retstep : bool
        Also return the distance between values.
    """
    check_options("linspace", options)
    num = operator.index(num)
    if num < 0:
        raise ValueError(f"Number of samples, {num}, must be non-negative.")
    lazy = isinstance(start, Array) or isinstance(stop, Array)
    if not lazy and not np.ndim(start) and not np.ndim(stop):
        made, step = _linspace_scalar(start, stop, num, endpoint, dtype, chunks)
    else:
        made, step = _linspace_lines(start, stop, num, endpoint, dtype, axis, chunks)
    return (made, step) if retstep else made


def _linspace_scalar(start: Any, stop: Any, num: int, endpoint: bool, dtype: Any, chunks: Any) -> tuple[Array, Any]:
    first = np.linspace(start, stop, 1)
    calc = first.dtype
    dtype = np.dtype(dtype) if dtype is not None else calc
    div = num - 1 if endpoint else num
    begin, end = np.asarray(start), np.asarray(stop)
    with np.errstate(all="ignore"):
        delta = np.subtract(end, begin, dtype=calc)[()]
        step = delta / div if div > 0 else None
    last = Const(end, None) if endpoint and num > 1 else None
    params = (Const(begin, None), Const(delta, None), None if step is None else Const(step, None), div, last, num,
              calc.str, dtype.str)
    return _range("creation.linspace", params, num, dtype, chunks), np.nan if step is None else step


def _linspace_lines(start: Any, stop: Any, num: int, endpoint: bool, dtype: Any, axis: int,
                    chunks: Any) -> tuple[Array, Any]:
    start, stop = asarray(start), asarray(stop)
    calc = np.result_type(start.dtype, stop.dtype, float if start.dtype.kind not in "fc" and stop.dtype.kind not in "fc"
                          else start.dtype)
    if calc.kind not in "fc":
        calc = np.dtype(float)
    delta = elementwise.subtract(stop, start, dtype=calc)
    div = num - 1 if endpoint else num
    index = _upright(arange(num, dtype=calc), delta.ndim)
    if div > 0:
        step: Any = delta / div
        y = elementwise.where(step == 0, index / div * delta, index * step)
    else:
        step, y = np.nan, index * delta
    y = y + start
    if endpoint and num > 1:
        y = elementwise.where(index == num - 1, stop.astype(y.dtype), y)
    if dtype is not None:
        y = (elementwise.floor(y) if np.dtype(dtype).kind in "iu" else y).astype(dtype)
    y = _first_to(y, axis)
    return (y if isinstance(chunks, str) and chunks == "auto" else y.rechunk(chunks)), step


def _upright(line: Array, ndim: int) -> Array:
    """A line along the first axis, with `ndim` axes of extent 1 behind it."""
    n = line.shape[0]
    return Array(build.axes(line.expr, (0, *(None,) * ndim), (n, *(1,) * ndim)))


def _first_to(x: Array, axis: int) -> Array:
    (axis,) = build.normalize_axes(axis, x.ndim)
    return Array(build.transpose(x.expr, (*range(1, axis + 1), 0, *range(axis + 1, x.ndim))))


def logspace(start: Any, stop: Any, num: int = 50, endpoint: bool = True, base: Any = 10.0, dtype: Any = None,
             axis: int = 0, *, chunks: Any = "auto", **options: Any) -> Array:
    """`base` to the power of `linspace(start, stop, num)`."""
    if not isinstance(base, Array) and np.ndim(base):
        base = asarray(base)
    if isinstance(base, Array) and base.ndim:
        start, stop = (v + 0 * base for v in (asarray(start), asarray(stop)))
        base = base[(slice(None),) * (axis % (base.ndim + 1)) + (None,)]
    y = elementwise.power(base, linspace(start, stop, num, endpoint, axis=axis, chunks=chunks, **options))
    return y if dtype is None else y.astype(dtype)


def geomspace(start: Any, stop: Any, num: int = 50, endpoint: bool = True, dtype: Any = None, axis: int = 0, *,
              chunks: Any = "auto", **options: Any) -> Array:
    """`num` values from `start` to `stop` with a constant ratio.

    Raises
    ------
    ValueError
        An end is zero.
    """
    start, stop = np.asarray(start), np.asarray(stop)
    if (start == 0).any() or (stop == 0).any():
        raise ValueError("Geometric sequence cannot include zero; start from a small number of the sign you mean")
    calc = np.result_type(start, stop, float(num), np.zeros((), dtype))
    start, stop = np.broadcast_arrays(start.astype(calc), stop.astype(calc))
    sign = np.sign(start)
    first, last = start / sign, stop / sign
    y = logspace(np.log10(first), np.log10(last), num, endpoint, dtype=calc, **options)
    index = _upright(arange(num), start.ndim)
    y = elementwise.where(index == 0, first[()], y)
    if endpoint and num > 1:
        y = elementwise.where(index == num - 1, last[()], y)
    y = _first_to(y * sign[()], axis).astype(calc if dtype is None else dtype)
    return y if isinstance(chunks, str) and chunks == "auto" else y.rechunk(chunks)


def vander(x: Any, N: int | None = None, increasing: bool = False) -> Array:  # noqa: N803
    """Powers of the elements of `x` as columns: x**(N-1), ..., x, 1 (the other way round if `increasing`).

    Powers are taken directly, not by running products, so the last bits may differ from NumPy's.
    """
    x = asarray(x)
    if x.ndim != 1:
        raise ValueError(f"x must be a one-dimensional array or sequence; it has shape {x.shape}: use x.ravel()")
    n = x.shape[0] if N is None else operator.index(N)
    powers = np.arange(n) if increasing else np.arange(n)[::-1]
    dtype = np.promote_types(x.dtype, int)
    return elementwise.power(x.astype(dtype)[:, None], asarray(powers.astype(int))[None, :]).astype(dtype)


# -- windows ----------------------------------------------------------------------------------------------------------

def _window(M: int) -> tuple[int, Array]:  # noqa: N803
    """The number of points, and 1-M, 3-M, .., M-1: the points of a window, doubled."""
    n = operator.index(M) if not isinstance(M, float) else int(M)
    return n, arange(1.0 - n, float(n), 2.0)


def bartlett(M: int) -> Array:  # noqa: N803
    """The triangular window of M points that ends in zeros."""
    m, n = _window(M)
    if m <= 1:
        return arange(m) * 0.0 + 1.0
    return elementwise.where(elementwise.less_equal(n, 0), 1 + n / (m - 1), 1 - n / (m - 1))


def blackman(M: int) -> Array:  # noqa: N803
    """The Blackman window of M points: 0.42 + 0.5 cos t + 0.08 cos 2t."""
    m, n = _window(M)
    if m <= 1:
        return arange(m) * 0.0 + 1.0
    return 0.42 + 0.5 * elementwise.cos(np.pi * n / (m - 1)) + 0.08 * elementwise.cos(2.0 * np.pi * n / (m - 1))


def hanning(M: int) -> Array:  # noqa: N803
    """The Hann window of M points: 0.5 + 0.5 cos t."""
    m, n = _window(M)
    return arange(m) * 0.0 + 1.0 if m <= 1 else 0.5 + 0.5 * elementwise.cos(np.pi * n / (m - 1))


def hamming(M: int) -> Array:  # noqa: N803
    """The Hamming window of M points: 0.54 + 0.46 cos t."""
    m, n = _window(M)
    return arange(m) * 0.0 + 1.0 if m <= 1 else 0.54 + 0.46 * elementwise.cos(np.pi * n / (m - 1))


def kaiser(M: int, beta: float) -> Array:  # noqa: N803
    """The Kaiser window of M points: I0(beta sqrt(1 - t^2)) / I0(beta)."""
    m = int(M)
    if m <= 1:
        return arange(m) * 0.0 + 1.0
    alpha = (m - 1) / 2.0
    n = arange(0.0, float(m))
    return elementwise.i0(beta * elementwise.sqrt(1 - ((n - alpha) / alpha) ** 2.0)) / np.i0(float(beta))


__all__ = ["arange", "bartlett", "blackman", "geomspace", "hamming", "hanning", "kaiser", "linspace", "logspace", "vander"]
