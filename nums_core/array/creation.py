"""Making arrays from data, and filled ones. Nothing is computed or allocated here.

Every function takes `chunks` (as `Array.rechunk` does), and NumPy's `dtype`, `order` and `like`, dask's `name` and `meta`,
and the array API's `device`. Blocks lie in C order, in the memory of this machine's processors, whatever the last ones say.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from nums_core.array import array as _array
from nums_core.array.array import Array, as_expr, from_array, known_expr
from nums_core.errors import MissingBackendError
from nums_core.expr import build
from nums_core.expr.grid import normalize

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
    if not isinstance(a, Array):
        return _array.asarray(a, dtype, chunks=chunks)
    if not (isinstance(chunks, str) and chunks == "auto"):
        a = a.rechunk(chunks)
    return _array.asarray(Array(a.expr) if copy else a, dtype)


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


def require(a: Any, dtype: Any = None, requirements: Any = None, *, like: Any = None) -> Array:
    """`a` as an Array of that dtype. Memory order and alignment are the blocks' own business."""
    return asarray(a, dtype)


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


# -- diagonals --------------------------------------------------------------------------------------------------------

def eye(N: int, M: Any = None, k: int = 0, dtype: Any = float, *, chunks: Any = "auto", **options: Any) -> Array:  # noqa: N803
    """Ones on the k-th diagonal of an N x M matrix (square if M is not given)."""
    check_options("eye", options)
    if isinstance(M, (str, tuple)):  # dask has the chunks there
        M, chunks = None, M  # noqa: N806
    shape = shape_of((N, N if M is None else M))
    dtype = np.dtype(dtype)
    return Array(build.create("eye", (operator.index(k), dtype.str), shape, dtype, normalize(chunks, shape, dtype)))


def identity(n: int, dtype: Any = float, *, chunks: Any = "auto", **options: Any) -> Array:
    """The n x n matrix with ones on its diagonal."""
    return eye(n, dtype=dtype, chunks=chunks, **options)


def tri(N: int, M: int | None = None, k: int = 0, dtype: Any = float, chunks: Any = "auto",  # noqa: N803
        **options: Any) -> Array:
    """Ones at and below the k-th diagonal of an N x M matrix."""
    check_options("tri", options)
    shape, dtype = shape_of((N, N if M is None else M)), np.dtype(dtype)
    return Array(build.create("creation.tri", (operator.index(k), dtype.str), shape, dtype,
                              normalize(chunks, shape, dtype)))

__all__ = [
    "array", "asanyarray", "asarray", "asarray_chkfinite", "ascontiguousarray", "asfortranarray", "copy", "empty",
    "empty_like", "eye", "from_delayed", "from_dlpack", "frombuffer", "fromiter", "fromstring", "full", "full_like",
    "identity", "ones", "ones_like", "require", "tri", "zeros", "zeros_like",
]
