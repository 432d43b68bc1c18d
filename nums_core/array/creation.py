"""Making arrays: from data, filled, ranges, and arrays of positions. Nothing is computed or allocated here.

Every function takes `chunks` (as `Array.rechunk` does), and NumPy's `dtype`, `order` and `like`, dask's `name` and `meta`,
and the array API's `device`. Blocks lie in C order, in the memory of this machine's processors, whatever the last ones say.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from nums_core.array import array as _array
from nums_core.array.array import Array, as_expr, from_array, known_expr
from nums_core.errors import MissingBackendError
from nums_core.expr import build
from nums_core.expr.grid import Chunks, normalize
from nums_core.expr.node import Const

_OPTIONS = frozenset({"order", "like", "meta", "name", "device", "subok", "backend", "inline_array", "asarray"})


def check_options(function: str, options: dict[str, Any]) -> None:
    """Refuse keywords that mean nothing, and devices that are not there."""
    unknown = next((k for k in options if k not in _OPTIONS), None)
    if unknown is not None:
        raise TypeError(f"{function}() got an unexpected keyword argument {unknown!r}; it takes chunks and dtype, and "
                        f"accepts {', '.join(sorted(_OPTIONS))}")
    if options.get("device") not in (None, "cpu"):
        raise MissingBackendError(f"device {options['device']!r} is not available; arrays of this session live on 'cpu'")


def shape_of(shape: Any) -> tuple[int, ...]:
    """A shape argument as a tuple, with NumPy's errors."""
    if isinstance(shape, Iterable) and getattr(shape, "shape", None) != ():
        out = tuple(operator.index(n) for n in shape)
    else:
        out = (operator.index(shape),)
    if any(n < 0 for n in out):
        raise ValueError(f"negative dimensions are not allowed; the shape given is {out}")
    return out


# -- from data --------------------------------------------------------------------------------------------------------

def array(obj: Any, dtype: Any = None, *, copy: bool | None = True, ndmin: int = 0, chunks: Any = "auto",
          **options: Any) -> Array:
    """An array with its own copy of `obj`; `asarray` and `from_array` do not copy.

    Parameters
    ----------
    obj : array-like, or nested lists that may hold Arrays
    copy : True (default), None (only if needed) or False (never; raises where it is needed)
    ndmin : int
        Axes of extent 1 are put in front until there are that many.
    chunks : see `Array.rechunk`
    """
    check_options("array", options)
    x = asarray(obj, dtype, copy=copy, chunks=chunks)
    return x[(None,) * (ndmin - x.ndim)] if x.ndim < ndmin else x


def asarray(a: Any, dtype: Any = None, *, copy: bool | None = None, chunks: Any = "auto", **options: Any) -> Array:
    """`a` as an Array. A NumPy array is not copied: do not change it before results are computed.

    Raises
    ------
    ValueError
        `copy=False` where a copy or a conversion is needed.
    """
    check_options("asarray", options)
    if copy is False and (not isinstance(a, (Array, np.ndarray)) or (dtype is not None and a.dtype != np.dtype(dtype))):
        raise ValueError("Unable to avoid copy while creating an array as requested; use copy=None, or pass an array "
                         "that has the dtype already")
    if copy and isinstance(a, np.ndarray):
        a = a.copy()
    if isinstance(a, Array) and not (isinstance(chunks, str) and chunks == "auto"):
        a = a.rechunk(chunks)
    return _array.asarray(a, dtype, chunks=chunks) if not isinstance(a, Array) else _array.asarray(Array(a.expr), dtype)


asanyarray = asarray


def ascontiguousarray(a: Any, dtype: Any = None, **options: Any) -> Array:
    """`a` as an Array of at least one axis; memory order is the blocks' own business."""
    return array(a, dtype, copy=None, ndmin=1, **options)


asfortranarray = ascontiguousarray


def asarray_chkfinite(a: Any, dtype: Any = None, order: Any = None) -> Array:
    """`asarray`, after computing whether all elements are finite.

    Raises
    ------
    ValueError
        There are NaN or infinities.
    """
    from nums_core.array import all, isfinite

    x = asarray(a, dtype)
    if x.dtype.kind in "fc" and not bool(all(isfinite(x))):
        raise ValueError("array must not contain infs or NaNs; replace them, as with nan_to_num(x)")
    return x


def copy(a: Any, order: str = "K", subok: bool = False) -> Array:
    """An array with its own copy of the data of `a`."""
    return array(a)


def frombuffer(buffer: Any, dtype: Any = float, count: int = -1, offset: int = 0, *, chunks: Any = "auto",
               **options: Any) -> Array:
    """A buffer seen as a 1-D array; it is not copied."""
    check_options("frombuffer", options)
    return from_array(np.frombuffer(buffer, dtype, count, offset), chunks)


def fromiter(iterable: Iterable[Any], dtype: Any, count: int = -1, *, chunks: Any = "auto", **options: Any) -> Array:
    """A 1-D array of what an iterable yields; it is consumed at once."""
    check_options("fromiter", options)
    return from_array(np.fromiter(iterable, dtype, count), chunks)


def fromstring(string: str, dtype: Any = float, count: int = -1, *, sep: str, chunks: Any = "auto",
               **options: Any) -> Array:
    """A 1-D array of the numbers written in a text."""
    check_options("fromstring", options)
    return from_array(np.fromstring(string, dtype, count, sep=sep), chunks)


def from_dlpack(x: Any, /, *, device: Any = None, copy: bool | None = None, chunks: Any = "auto") -> Array:
    """An array over the memory of any object with `__dlpack__`; not copied unless `copy` is true."""
    check_options("from_dlpack", {"device": device})
    values = x if isinstance(x, Array) else np.from_dlpack(x)
    return asarray(values, copy=copy, chunks=chunks)


def from_delayed(value: Any, shape: Any, dtype: Any = None, meta: Any = None, name: Any = None) -> Array:
    """An array of one block that a function without arguments makes when it is needed.

    Parameters
    ----------
    value : callable, or an object with `compute()` such as `dask.delayed`
    shape : tuple of int; NaN where an extent is not known
    dtype : dtype
    """
    dtype = np.dtype(dtype if dtype is not None else getattr(meta, "dtype", float))
    shape = tuple(shape) if isinstance(shape, Iterable) else (shape,)
    make = _Delayed(value) if hasattr(value, "compute") else value
    return Array(build.blockmap(make, (), (), tuple(range(len(shape))), shape, dtype, tuple((n,) for n in shape)))


class _Delayed:
    """Calls `compute()` of an object of another library, when the block is needed."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self) -> Any:
        return self.value.compute()


# -- filled -----------------------------------------------------------------------------------------------------------

def full(shape: Any, fill_value: Any, dtype: Any = None, *, chunks: Any = "auto", **options: Any) -> Array:
    """An array of one value.

    Parameters
    ----------
    fill_value : scalar, or an array that broadcasts to `shape`
    dtype : dtype, optional
        Of the value, if not given.
    """
    check_options("full", options)
    shape = shape_of(shape)
    if not isinstance(fill_value, Array):
        fill_value = np.asarray(fill_value)
    dtype = np.dtype(dtype if dtype is not None else fill_value.dtype)
    chunks = normalize(chunks, shape, dtype)
    if isinstance(fill_value, Array) or fill_value.ndim:
        return Array(build.rechunk(build.broadcast_to(build.cast(as_expr(fill_value), dtype), shape), chunks))
    return Array(build.full(fill_value.astype(dtype) if dtype.names is None else fill_value, shape, dtype, chunks))


def zeros(shape: Any, dtype: Any = float, *, chunks: Any = "auto", **options: Any) -> Array:
    """An array of zeros."""
    check_options("zeros", options)
    return _filled(np.zeros, shape, dtype, chunks)


def ones(shape: Any, dtype: Any = float, *, chunks: Any = "auto", **options: Any) -> Array:
    """An array of ones."""
    check_options("ones", options)
    return _filled(np.ones, shape, dtype, chunks)


def empty(shape: Any, dtype: Any = float, *, chunks: Any = "auto", **options: Any) -> Array:
    """An array of zeros: a lazy array has no old memory to show, and the same program should give the same bits."""
    check_options("empty", options)
    return _filled(np.zeros, shape, dtype, chunks)


def _filled(maker: Callable[..., Any], shape: Any, dtype: Any, chunks: Any) -> Array:
    shape, dtype = shape_of(shape), np.dtype(dtype)
    return Array(build.full(maker((), dtype)[()], shape, dtype, normalize(chunks, shape, dtype)))


def full_like(a: Any, fill_value: Any, dtype: Any = None, *, shape: Any = None, chunks: Any = None,
              **options: Any) -> Array:
    """An array of one value with the shape, chunks and dtype of `a`, where no other is given."""
    check_options("full_like", options)
    e = known_expr(a)
    dtype = np.dtype(dtype if dtype is not None else e.dtype)
    chunks = _like_chunks(e, shape, chunks)
    return full(e.shape if shape is None else shape, fill_value, dtype, chunks=chunks)


def _like_chunks(e: Any, shape: Any, chunks: Any) -> Any:
    if chunks is not None:
        return chunks
    return e.chunks if shape is None or shape_of(shape) == e.shape else "auto"


def zeros_like(a: Any, dtype: Any = None, *, shape: Any = None, chunks: Any = None, **options: Any) -> Array:
    """An array of zeros with the shape, chunks and dtype of `a`, where no other is given."""
    return full_like(a, np.zeros((), dtype if dtype is not None else as_expr(a).dtype)[()], dtype, shape=shape,
                     chunks=chunks, **options)


def ones_like(a: Any, dtype: Any = None, *, shape: Any = None, chunks: Any = None, **options: Any) -> Array:
    """An array of ones with the shape, chunks and dtype of `a`, where no other is given."""
    return full_like(a, np.ones((), dtype if dtype is not None else as_expr(a).dtype)[()], dtype, shape=shape,
                     chunks=chunks, **options)


empty_like = zeros_like


# -- ranges -----------------------------------------------------------------------------------------------------------

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
    from nums_core.array import elementwise

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
    from nums_core.array import elementwise

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
    from nums_core.array import elementwise

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


# -- diagonals --------------------------------------------------------------------------------------------------------

def eye(N: int, M: Any = None, k: int = 0, dtype: Any = float, *, chunks: Any = "auto", **options: Any) -> Array:  # noqa: N803
    """Ones on the k-th diagonal of an N x M matrix (square if M is not given)."""
    check_options("eye", options)
    shape = shape_of((N, N if M is None else M))
    dtype = np.dtype(dtype)
    return Array(build.create("eye", (operator.index(k), dtype.str), shape, dtype, normalize(chunks, shape, dtype)))


def identity(n: int, dtype: Any = float, *, chunks: Any = "auto", **options: Any) -> Array:
    """The n x n matrix with ones on its diagonal."""
    return eye(n, dtype=dtype, chunks=chunks, **options)


def tri(N: int, M: int | None = None, k: int = 0, dtype: Any = float, *, chunks: Any = "auto",  # noqa: N803
        **options: Any) -> Array:
    """Ones at and below the k-th diagonal of an N x M matrix."""
    check_options("tri", options)
    shape, dtype = shape_of((N, N if M is None else M)), np.dtype(dtype)
    return Array(build.create("creation.tri", (operator.index(k), dtype.str), shape, dtype,
                              normalize(chunks, shape, dtype)))


def vander(x: Any, N: int | None = None, increasing: bool = False) -> Array:  # noqa: N803
    """Powers of the elements of `x` as columns: x**(N-1), ..., x, 1 (the other way round if `increasing`).

    Powers are taken directly, not by running products, so the last bits may differ from NumPy's.
    """
    from nums_core.array import elementwise

    x = asarray(x)
    if x.ndim != 1:
        raise ValueError(f"x must be a one-dimensional array or sequence; it has shape {x.shape}: use x.ravel()")
    n = x.shape[0] if N is None else operator.index(N)
    powers = np.arange(n) if increasing else np.arange(n)[::-1]
    dtype = np.promote_types(x.dtype, int)
    return elementwise.power(x.astype(dtype)[:, None], asarray(powers.astype(int))[None, :]).astype(dtype)


# -- positions --------------------------------------------------------------------------------------------------------

def _index(axis: int, shape: tuple[int, ...], dtype: Any, chunks: Chunks) -> Array:
    """The position along `axis` of every element."""
    return Array(build.create("index", (axis, np.dtype(dtype).str), shape, dtype, chunks))


def indices(dimensions: Any, dtype: Any = int, sparse: bool = False, *, chunks: Any = "auto") -> Any:
    """Positions along every axis: shape (ndim, *dimensions), or with `sparse` a tuple of arrays that broadcast."""
    shape, dtype = shape_of(dimensions), np.dtype(dtype)
    if sparse:
        return tuple(_mesh(arange(n, dtype=dtype).expr, k, shape, (), True) for k, n in enumerate(shape))
    cut = normalize(chunks, shape, dtype)
    if not shape:
        return zeros((0,), dtype)
    parts = [build.axes(_index(k, shape, dtype, cut).expr, (None, *range(len(shape))), (1, *shape))
             for k in range(len(shape))]
    return Array(build.concatenate(parts, 0))


def fromfunction(function: Callable[..., Any], shape: Any = None, dtype: Any = float, *, chunks: Any = "auto",
                 **kwargs: Any) -> Array:
    """`function(i, j, ...)` of the positions of the elements, called once a block with arrays of the block's shape.

    Parameters
    ----------
    function : callable
        Elementwise: it sees one block of positions at a time.
    shape : int or tuple of int
    dtype : dtype
        Of the positions, as in NumPy; the result's is found by calling `function` once on a single position.
    """
    from nums_core.array import blocks

    if shape is None:
        raise TypeError("fromfunction() needs the shape of the result; write fromfunction(f, shape=(3, 4))")
    shape = shape_of(shape)
    cut = normalize(chunks, shape, dtype)
    return blocks.map_blocks(_Filling(function), *[_index(k, shape, dtype, cut) for k in range(len(shape))], **kwargs)


class _Filling:
    """A function whose scalar results fill the block."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *blocks: np.ndarray, **kwargs: Any) -> Any:
        made = np.asanyarray(self.function(*blocks, **kwargs))
        return made if made.ndim else np.broadcast_to(made, blocks[0].shape if blocks else ())


def meshgrid(*xi: Any, copy: bool = True, sparse: bool = False, indexing: str = "xy", **options: Any) -> tuple[Array, ...]:
    """Coordinate arrays from lines: result k runs along line k and is constant along the others.

    Parameters
    ----------
    sparse : bool
        Leave the constant axes at extent 1; they broadcast.
    indexing : "xy" (the first two axes are swapped) or "ij"
    """
    if options:
        raise TypeError(f"meshgrid() got an unexpected keyword argument {next(iter(options))!r}; it takes copy, sparse "
                        "and indexing")
    if indexing not in ("xy", "ij"):
        raise ValueError(f"Valid values for `indexing` are 'xy' and 'ij'; got {indexing!r}")
    lines = [known_expr(x) for x in xi]
    flat = [Array(e).ravel().expr if e.ndim != 1 else e for e in lines]
    order = list(range(len(flat)))
    if indexing == "xy" and len(flat) > 1:
        order[:2] = [1, 0]
    shape, chunks = tuple(flat[k].shape[0] for k in order), tuple(flat[k].chunks[0] for k in order)
    return tuple(_mesh(e, order.index(k), shape, chunks, sparse) for k, e in enumerate(flat))


def _mesh(line: Any, axis: int, shape: tuple[int, ...], chunks: Chunks, sparse: bool) -> Array:
    source = tuple(0 if i == axis else None for i in range(len(shape)))
    if sparse:
        return Array(build.axes(line, source, tuple(n if i == axis else 1 for i, n in enumerate(shape))))
    return Array(build.axes(line, source, shape, chunks))


class _Grid:
    """`mgrid[0:3, 0:2]` and `ogrid[...]`: coordinates written as slices; an imaginary step counts points."""

    def __init__(self, sparse: bool) -> None:
        self.sparse = sparse

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            return self._line(key)
        lines: Sequence[Array] = [self._line(s) for s in key]
        dtype = np.result_type(*(x.dtype for x in lines)) if lines else np.dtype(int)
        grids = meshgrid(*[x.astype(dtype) for x in lines], sparse=self.sparse, indexing="ij")
        if self.sparse:
            return grids
        return Array(build.concatenate([build.axes(g.expr, (None, *range(g.ndim)), (1, *g.shape)) for g in grids], 0))

    def _line(self, s: slice) -> Array:
        start, step = 0 if s.start is None else s.start, 1 if s.step is None else s.step
        if isinstance(step, (complex, np.complexfloating)):
            return linspace(start, s.stop, int(np.abs(step)))
        return arange(start, s.stop, step)


mgrid = _Grid(sparse=False)
ogrid = _Grid(sparse=True)

__all__ = [
    "arange", "array", "asanyarray", "asarray", "asarray_chkfinite", "ascontiguousarray", "asfortranarray", "copy",
    "empty", "empty_like", "eye", "from_delayed", "from_dlpack", "frombuffer", "fromfunction", "fromiter",
    "fromstring", "full", "full_like", "geomspace", "identity", "indices", "linspace", "logspace", "meshgrid", "mgrid",
    "ogrid", "ones", "ones_like", "tri", "vander", "zeros", "zeros_like",
]
