"""Array: what the user holds. Shape, dtype, blocks; every operation adds an expression and computes nothing.

Values are computed by `compute()`, and where Python itself demands one: `float(x)`, `bool(x)`, `int(x)`, iteration,
`numpy.asarray(x)`. `config.set(implicit_compute=False)` turns those into errors.
"""

from __future__ import annotations

import datetime
import math
import numbers
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nums_core import config
from nums_core._util import format_bytes
from nums_core.errors import DTypeError, ImplicitComputeError, MissingBackendError
from nums_core.expr import build
from nums_core.expr import grid as grids
from nums_core.expr.node import Expr, Source, make

# What NumPy's operator `**`, unlike its function, does for these dtypes and Python numbers.
_POWERS = {("c", int, 2): "square", ("c", float, 2): "square", ("c", float, 0.5): "sqrt", ("c", int, -1): "reciprocal",
           ("b", int, 2): "square"}
Scalar = (numbers.Number, np.generic, bool)
_sources: weakref.WeakValueDictionary[int, Source] = weakref.WeakValueDictionary()


class Array:
    """A lazy array in blocks. Made by functions (`np.ones`, `np.from_array`, `x + 1`), never directly.

    NumPy's and dask.array's attributes and methods; arithmetic, comparison, indexing and NumPy's own functions work on
    it lazily. `x += 1` and `x[i] = v` give *this name* a new value: other arrays made from `x` before keep the old one.
    """

    __slots__ = ("__weakref__", "_expr")
    __array_priority__ = 11
    _expr: Expr

    def __init__(self, expr: Expr) -> None:
        self._expr = expr

    # -- what it is ---------------------------------------------------------------------------------------------------

    @property
    def expr(self) -> Expr:
        """The expression (for `nums_core` itself and for the curious)."""
        return self._expr

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents. Where they depend on data (`x[x > 0]`), the blocks are computed and kept first."""
        return _known(self).shape

    @property
    def chunks(self) -> grids.Chunks:
        """Extent of every block along every axis, as in dask."""
        return self._expr.chunks

    @chunks.setter
    def chunks(self, chunks: Any) -> None:
        raise TypeError(f"Can not set chunks directly; use x.rechunk({chunks}), which gives an array cut that way")

    @property
    def dtype(self) -> np.dtype:
        return self._expr.dtype

    @property
    def ndim(self) -> int:
        return self._expr.ndim

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def itemsize(self) -> int:
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.size * self.itemsize

    @property
    def numblocks(self) -> tuple[int, ...]:
        return self._expr.grid

    @property
    def npartitions(self) -> int:
        return math.prod(self._expr.grid)

    @property
    def chunksize(self) -> tuple[int, ...]:
        """Extents of the largest block."""
        return tuple(max(c) for c in self.chunks)

    @property
    def device(self) -> str:
        return "cpu"

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("len() of unsized object")
        return self.shape[0]

    def __hash__(self) -> int:
        return id(self)

    # -- computing ----------------------------------------------------------------------------------------------------

    def compute(self, **kwargs: Any) -> Any:
        """The values: a NumPy array (0-d results as NumPy scalars). Plans, then runs; see `last_report()`."""
        from nums_core.array.computing import compute

        return compute(self, **kwargs)[0]

    def persist(self, **kwargs: Any) -> Array:
        """The same array with its blocks computed and kept where they were made."""
        from nums_core.array.computing import persist

        return persist(self, **kwargs)[0]

    def checkpoint(self, path: Any, overwrite: bool = False) -> Array:
        """The same array persisted, with a copy in a zarr store; see `nums_core.array.checkpoint`."""
        from nums_core.array.stores import checkpoint

        return checkpoint(self, path, overwrite)

    def explain(self) -> Any:
        """The Plan that `compute()` would run: tasks, flop, bytes moved, peak bytes, predicted seconds."""
        from nums_core import session

        return session.current().explain([self._expr])

    def compute_chunk_sizes(self) -> Array:
        """Make extents that depend on data known; returns the array itself, as dask does."""
        _known(self)
        return self

    def rechunk(self, chunks: Any = "auto", **kwargs: Any) -> Array:
        """The same array cut into other blocks; `chunks` as in `from_array`."""
        e = _known(self)
        return Array(build.rechunk(e, grids.normalize(chunks, e.shape, e.dtype, e.chunks)))

    # -- Python asks for a value ---------------------------------------------------------------------------------------

    def _value(self, asked: str) -> Any:
        if not config.get().implicit_compute:
            raise ImplicitComputeError(f"{asked} needs the values of an array of shape {self._expr.shape}, and computing "
                                       "unasked is turned off; call .compute(), or config.set(implicit_compute=True)")
        return self.compute()

    def _scalar(self, asked: str) -> Any:
        if self.size != 1:
            if asked == "bool()":
                raise ValueError("The truth value of an array with more than one element is ambiguous. Use a.any() or "
                                 "a.all()" if self.size else
                                 "The truth value of an empty array is ambiguous. Use `array.size > 0` to check that an "
                                 "array is not empty.")
            raise TypeError("only length-1 arrays can be converted to Python scalars; index one element, or reduce")
        return np.asarray(self._value(asked)).reshape(())[()]

    def __bool__(self) -> bool:
        return bool(self._scalar("bool()"))

    def __int__(self) -> int:
        return int(self._scalar("int()"))

    def __float__(self) -> float:
        return float(self._scalar("float()"))

    def __complex__(self) -> complex:
        return complex(self._scalar("complex()"))

    def __index__(self) -> int:
        if self.dtype.kind not in "iub" or self.ndim:
            raise TypeError("only integer scalar arrays can be converted to a scalar index")
        return int(self._scalar("an index"))

    def item(self, *index: Any) -> Any:
        """One element as a Python scalar."""
        return np.asarray(self._value("item()")).item(*index)

    def tolist(self) -> Any:
        return np.asarray(self._value("tolist()")).tolist()

    def __iter__(self) -> Iterator[Any]:
        if not self.ndim:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    def __contains__(self, value: Any) -> bool:
        return bool((self == value).any())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("a lazy array cannot be viewed without computing it; use numpy.asarray(x) or x.compute()")
        values = np.asarray(self._value("numpy.asarray()"))
        return values if dtype is None else values.astype(dtype, copy=False)

    # -- NumPy and DLPack protocols -------------------------------------------------------------------------------------

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        from nums_core.array import interop

        return interop.array_ufunc(ufunc, method, inputs, kwargs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        from nums_core.array import interop

        return interop.array_function(func, types, args, kwargs)

    def __array_namespace__(self, *, api_version: str | None = None) -> Any:
        from nums_core.array import interop

        return interop.namespace(api_version)

    def __dlpack__(self, **kwargs: Any) -> Any:
        return np.asarray(self._value("DLPack")).__dlpack__(**kwargs)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    def __repr__(self) -> str:
        e = self._expr
        shape = ", ".join("?" if n != n else str(n) for n in e.shape)
        sizes = "" if not grids.known(e.chunks) else f", {format_bytes(math.prod(e.shape) * e.dtype.itemsize)}"
        return f"Array(shape=({shape}{',' if e.ndim == 1 else ''}), dtype={e.dtype}, blocks={e.grid}{sizes})"

    def _repr_html_(self) -> str:
        from nums_core.array import display

        return display.html(self)

    def __reduce__(self) -> Any:
        return _from_values, (np.asarray(self.compute()), self.chunks if grids.known(self.chunks) else "auto")

    def __copy__(self) -> Array:
        return Array(self._expr)

    def __deepcopy__(self, memo: Any) -> Array:
        return Array(self._expr)

    def copy(self, order: Any = None) -> Array:
        return Array(self._expr)

    # -- indexing -------------------------------------------------------------------------------------------------------

    def __getitem__(self, index: Any) -> Array:
        return _indexing.getitem(self, index)

    def __setitem__(self, index: Any, value: Any) -> None:
        self._expr = _assignment.setitem(self, index, value).expr

    # -- operators ------------------------------------------------------------------------------------------------------

    def __neg__(self) -> Array:
        return _apply("negative", self)

    def __pos__(self) -> Array:
        return _apply("positive", self)

    def __abs__(self) -> Array:
        return _apply("absolute", self)

    def __invert__(self) -> Array:
        return _apply("invert", self)

    def __add__(self, other: Any) -> Any:
        return _binary("add", self, other)

    def __radd__(self, other: Any) -> Any:
        return _binary("add", other, self)

    def __sub__(self, other: Any) -> Any:
        return _binary("subtract", self, other)

    def __rsub__(self, other: Any) -> Any:
        return _binary("subtract", other, self)

    def __mul__(self, other: Any) -> Any:
        return _binary("multiply", self, other)

    def __rmul__(self, other: Any) -> Any:
        return _binary("multiply", other, self)

    def __truediv__(self, other: Any) -> Any:
        return _binary("divide", self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return _binary("divide", other, self)

    def __floordiv__(self, other: Any) -> Any:
        return _binary("floor_divide", self, other)

    def __rfloordiv__(self, other: Any) -> Any:
        return _binary("floor_divide", other, self)

    def __mod__(self, other: Any) -> Any:
        return _binary("remainder", self, other)

    def __rmod__(self, other: Any) -> Any:
        return _binary("remainder", other, self)

    def __divmod__(self, other: Any) -> Any:
        return self // other, self % other

    def __rdivmod__(self, other: Any) -> Any:
        return other // self, other % self

    def __pow__(self, other: Any) -> Any:
        if type(other) in (int, float) and (self.dtype.kind, type(other), other) in _POWERS:
            return _apply(_POWERS[self.dtype.kind, type(other), other], self)
        return _binary("power", self, other)

    def __rpow__(self, other: Any) -> Any:
        return _binary("power", other, self)

    def __and__(self, other: Any) -> Any:
        return _binary("bitwise_and", self, other)

    def __rand__(self, other: Any) -> Any:
        return _binary("bitwise_and", other, self)

    def __or__(self, other: Any) -> Any:
        return _binary("bitwise_or", self, other)

    def __ror__(self, other: Any) -> Any:
        return _binary("bitwise_or", other, self)

    def __xor__(self, other: Any) -> Any:
        return _binary("bitwise_xor", self, other)

    def __rxor__(self, other: Any) -> Any:
        return _binary("bitwise_xor", other, self)

    def __lshift__(self, other: Any) -> Any:
        return _binary("left_shift", self, other)

    def __rlshift__(self, other: Any) -> Any:
        return _binary("left_shift", other, self)

    def __rshift__(self, other: Any) -> Any:
        return _binary("right_shift", self, other)

    def __rrshift__(self, other: Any) -> Any:
        return _binary("right_shift", other, self)

    def __lt__(self, other: Any) -> Any:
        return _binary("less", self, other)

    def __le__(self, other: Any) -> Any:
        return _binary("less_equal", self, other)

    def __gt__(self, other: Any) -> Any:
        return _binary("greater", self, other)

    def __ge__(self, other: Any) -> Any:
        return _binary("greater_equal", self, other)

    def __eq__(self, other: Any) -> Any:
        return _binary("equal", self, other)

    def __ne__(self, other: Any) -> Any:
        return _binary("not_equal", self, other)

    def __matmul__(self, other: Any) -> Any:
        return _products.matmul(self, other) if _operand(other) is not None else NotImplemented

    def __rmatmul__(self, other: Any) -> Any:
        return _products.matmul(other, self) if _operand(other) is not None else NotImplemented

    def __iadd__(self, other: Any) -> Array:
        return self._assign("add", other)

    def __isub__(self, other: Any) -> Array:
        return self._assign("subtract", other)

    def __imul__(self, other: Any) -> Array:
        return self._assign("multiply", other)

    def __itruediv__(self, other: Any) -> Array:
        return self._assign("divide", other)

    def __ifloordiv__(self, other: Any) -> Array:
        return self._assign("floor_divide", other)

    def __imod__(self, other: Any) -> Array:
        return self._assign("remainder", other)

    def __ipow__(self, other: Any) -> Array:
        return self._assign("power", other)

    def __iand__(self, other: Any) -> Array:
        return self._assign("bitwise_and", other)

    def __ior__(self, other: Any) -> Array:
        return self._assign("bitwise_or", other)

    def __ixor__(self, other: Any) -> Array:
        return self._assign("bitwise_xor", other)

    def __ilshift__(self, other: Any) -> Array:
        return self._assign("left_shift", other)

    def __irshift__(self, other: Any) -> Array:
        return self._assign("right_shift", other)

    def __imatmul__(self, other: Any) -> Array:
        self._expr = self.__matmul__(other).expr
        return self

    def _assign(self, name: str, other: Any) -> Array:
        """In-place arithmetic: the dtype and shape stay, as in NumPy."""
        made = _apply(name, self, other).expr
        if made.shape != self._expr.shape:
            raise ValueError(f"non-broadcastable output operand with shape {self._expr.shape} doesn't match the "
                             f"broadcast shape {made.shape}; write x = x {name} y instead")
        if not np.can_cast(made.dtype, self.dtype, "same_kind"):
            raise DTypeError(f"Cannot cast ufunc {name!r} output from {made.dtype!r} to {self.dtype!r} with casting rule "
                             "'same_kind'; write x = x + y (or the like) for a new array, or cast the operand")
        self._expr = build.cast(made, self.dtype)
        return self

    # -- methods: each is the function of the same name ------------------------------------------------------------------

    @property
    def T(self) -> Array:  # noqa: N802
        return _manipulation.transpose(self)

    @property
    def mT(self) -> Array:  # noqa: N802
        return _manipulation.matrix_transpose(self)

    @property
    def real(self) -> Array:
        return _elementwise.real(self)

    @property
    def imag(self) -> Array:
        return _elementwise.imag(self)

    @property
    def A(self) -> Any:  # noqa: N802
        return self.compute()

    def astype(self, dtype: Any, order: str = "K", casting: str = "unsafe", subok: bool = True,
               copy: bool = True) -> Array:
        """The array in another dtype; `casting` is checked by NumPy's rules."""
        return self if not copy and self.dtype == np.dtype(dtype) else _elementwise.astype(self, dtype, casting)

    def conj(self) -> Array:
        return _elementwise.conj(self)

    conjugate = conj

    def clip(self, min: Any = None, max: Any = None, **kwargs: Any) -> Array:  # noqa: A002
        return _elementwise.clip(self, min, max, **kwargs)

    def round(self, decimals: int = 0, **kwargs: Any) -> Array:
        return _elementwise.round(self, decimals)

    def map_blocks(self, func: Any, *args: Any, **kwargs: Any) -> Array:
        return _blocks.map_blocks(func, self, *args, **kwargs)

    def map_overlap(self, func: Any, depth: Any = None, boundary: Any = None, trim: bool = True, **kwargs: Any) -> Array:
        return _overlap.map_overlap(func, self, depth=depth, boundary=boundary, trim=trim, **kwargs)

    @property
    def blocks(self) -> Any:
        return _block_view.BlockView(self)

    partitions = blocks

    @property
    def vindex(self) -> Any:
        return _indexing.VIndex(self)

    def sum(self, axis: Any = None, dtype: Any = None, keepdims: bool = False, **kw: Any) -> Array:
        return _reductions.sum(self, axis=axis, dtype=dtype, keepdims=keepdims, **kw)

    def prod(self, axis: Any = None, dtype: Any = None, keepdims: bool = False, **kw: Any) -> Array:
        return _reductions.prod(self, axis=axis, dtype=dtype, keepdims=keepdims, **kw)

    def max(self, axis: Any = None, keepdims: bool = False, **kw: Any) -> Array:
        return _reductions.max(self, axis=axis, keepdims=keepdims, **kw)

    def min(self, axis: Any = None, keepdims: bool = False, **kw: Any) -> Array:
        return _reductions.min(self, axis=axis, keepdims=keepdims, **kw)

    def any(self, axis: Any = None, keepdims: bool = False, **kw: Any) -> Array:
        return _reductions.any(self, axis=axis, keepdims=keepdims, **kw)

    def all(self, axis: Any = None, keepdims: bool = False, **kw: Any) -> Array:
        return _reductions.all(self, axis=axis, keepdims=keepdims, **kw)

    def mean(self, axis: Any = None, dtype: Any = None, keepdims: bool = False, **kw: Any) -> Array:
        return _reductions.mean(self, axis=axis, dtype=dtype, keepdims=keepdims, **kw)

    def var(self, axis: Any = None, dtype: Any = None, keepdims: bool = False, ddof: float = 0, **kw: Any) -> Array:
        return _reductions.var(self, axis=axis, dtype=dtype, keepdims=keepdims, ddof=ddof, **kw)

    def std(self, axis: Any = None, dtype: Any = None, keepdims: bool = False, ddof: float = 0, **kw: Any) -> Array:
        return _reductions.std(self, axis=axis, dtype=dtype, keepdims=keepdims, ddof=ddof, **kw)

    def argmax(self, axis: Any = None, keepdims: bool = False, **kw: Any) -> Array:
        return _reductions.argmax(self, axis=axis, keepdims=keepdims, **kw)

    def argmin(self, axis: Any = None, keepdims: bool = False, **kw: Any) -> Array:
        return _reductions.argmin(self, axis=axis, keepdims=keepdims, **kw)

    def moment(self, order: int, **kw: Any) -> Array:
        return _statistics.moment(self, order, **kw)

    def cumsum(self, axis: Any = None, dtype: Any = None, **kw: Any) -> Array:
        return _scans.cumsum(self, axis=axis, dtype=dtype, **kw)

    def cumprod(self, axis: Any = None, dtype: Any = None, **kw: Any) -> Array:
        return _scans.cumprod(self, axis=axis, dtype=dtype, **kw)

    def trace(self, offset: int = 0, axis1: int = 0, axis2: int = 1, dtype: Any = None) -> Array:
        return _products.trace(self, offset, axis1, axis2, dtype)

    def dot(self, other: Any) -> Array:
        return _products.dot(self, other)

    def reshape(self, *shape: Any, **kw: Any) -> Array:
        return _manipulation.reshape(self, shape[0] if len(shape) == 1 else shape, **kw)

    def ravel(self, order: str = "C") -> Array:
        return _manipulation.ravel(self, order)

    def flatten(self, order: str = "C") -> Array:
        return _manipulation.ravel(self, order)

    def transpose(self, *axes: Any) -> Array:
        return _manipulation.transpose(self, axes[0] if len(axes) == 1 else (axes or None))

    def swapaxes(self, axis1: int, axis2: int) -> Array:
        return _manipulation.swapaxes(self, axis1, axis2)

    def squeeze(self, axis: Any = None) -> Array:
        return _manipulation.squeeze(self, axis)

    def repeat(self, repeats: Any, axis: int | None = None) -> Array:
        return _lengths.repeat(self, repeats, axis)

    def diagonal(self, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Array:
        return _diagonals.diagonal(self, offset, axis1, axis2)

    def take(self, indices: Any, axis: int | None = None, **kw: Any) -> Array:
        return _indexing.take(self, indices, axis, **kw)

    def shuffle(self, indexer: Any, axis: int, chunks: Any = "auto") -> Array:
        return _searching.shuffle(self, indexer, axis, chunks)

    def compress(self, condition: Any, axis: int | None = None) -> Array:
        return _indexing.compress(condition, self, axis)

    def choose(self, choices: Any, **kw: Any) -> Array:
        return _searching.choose(self, choices, **kw)

    def nonzero(self) -> tuple[Array, ...]:
        return _searching.nonzero(self)

    def fill(self, value: Any) -> None:
        self[...] = value

    def sort(self, axis: int = -1, **kw: Any) -> None:
        """Sort this array, as `ndarray.sort` does; `np.sort` gives a sorted copy."""
        self._expr = _sorting.sort(self, axis=axis).expr

    def argsort(self, axis: int = -1, **kw: Any) -> Array:
        return _sorting.argsort(self, axis=axis, **kw)

    def searchsorted(self, v: Any, side: str = "left", sorter: Any = None) -> Array:
        return _sorting.searchsorted(self, v, side, sorter)

    def topk(self, k: int, axis: int = -1, split_every: Any = None) -> Array:
        return _sorting.topk(self, k, axis)

    def argtopk(self, k: int, axis: int = -1, split_every: Any = None) -> Array:
        return _sorting.argtopk(self, k, axis)

    def partition(self, kth: Any, axis: int = -1, **kw: Any) -> None:
        """Partition this array, as `ndarray.partition` does; `np.partition` gives a copy."""
        self._expr = _sorting.partition(self, kth, axis=axis, **kw).expr

    def argpartition(self, kth: Any, axis: int = -1, **kw: Any) -> Array:
        return _sorting.argpartition(self, kth, axis=axis, **kw)

    def put(self, indices: Any, values: Any, mode: str = "raise") -> None:
        _assignment.put(self, indices, values, mode)

    def view(self, dtype: Any = None, order: str = "C") -> Array:
        """The same bytes read as another dtype."""
        return _binary_forms.view(self, self.dtype if dtype is None else dtype, order)

    @property
    def flat(self) -> Array:
        """All elements in a line."""
        return _manipulation.ravel(self)

    # -- out of here ------------------------------------------------------------------------------------------------------

    def tobytes(self, order: str = "C") -> bytes:
        return np.asarray(self._value("tobytes()")).tobytes(order)  # type: ignore[arg-type]

    def tofile(self, fid: Any, sep: str = "", format: str = "%s") -> None:  # noqa: A002
        np.asarray(self._value("tofile()")).tofile(fid, sep, format)

    def store(self, target: Any, **kw: Any) -> Any:
        """Write into anything with `__setitem__`, block by block."""
        return _io.store(self, target, **kw)

    def to_zarr(self, *args: Any, **kw: Any) -> Any:
        return _stores.to_zarr(self, *args, **kw)

    def to_hdf5(self, filename: Any, datapath: str, **kw: Any) -> None:
        _stores.to_hdf5(filename, datapath, self, **kw)

    def to_dask(self) -> Any:
        """A dask array with these values and chunks. Computes them; see `nums_core.array.exchange`."""
        from nums_core.array import exchange

        return exchange.to_dask(self)

    def to_svg(self, size: Any = None) -> str:
        """A drawing of the grid of blocks."""
        from nums_core.array import display

        return display.svg(self)

    def to_device(self, device: Any, /, *, stream: Any = None) -> Array:
        if device != "cpu":
            raise MissingBackendError(f"device {device!r} is not available; arrays of this session live on 'cpu'")
        return self


def _from_values(values: np.ndarray, chunks: Any) -> Array:
    return from_array(values, chunks)


def from_array(x: Any, chunks: Any = "auto", name: Any = None, lock: Any = False, asarray: Any = None,
               fancy: bool = True, getitem: Any = None, meta: Any = None, inline_array: bool = False) -> Array:
    """An array over existing data, in blocks.

    Parameters
    ----------
    x : ndarray, or anything with `shape`, `dtype` and `__getitem__` (memmap, zarr, HDF5 dataset)
        A NumPy array is *not* copied: its blocks are views, so do not change it before results are computed. Other
        sources are read block by block while the plan runs.
    chunks : see `Array.rechunk`
    lock : bool, or object with `acquire` and `release`
        Read one block at a time, for sources that threads may not share.
    getitem : function of (x, index), optional
        Reads instead of `x[index]`.
    name, asarray, fancy, meta, inline_array
        Of dask; they change nothing here.

    Raises
    ------
    DTypeError
        Python objects, masked elements, or something that is no array.
    """
    if isinstance(x, Array):
        return x if isinstance(chunks, str) and chunks == "auto" else x.rechunk(chunks)
    if _is_reader(x):
        kind, data = "reader", x
        if lock or getitem is not None:
            data = _io.Guarded(x, lock, getitem)
    else:
        kind, data = "array", _values_of(x)
    source = _sources.get(id(data))
    if source is None or source.data is not data or (source.shape, source.dtype) != (tuple(data.shape), data.dtype):
        source = _sources[id(data)] = Source(kind, data, tuple(data.shape), np.dtype(data.dtype))
    if isinstance(chunks, str) and chunks == "auto" and kind == "reader":
        chunks = getattr(x, "chunks", None) or "auto"
        if chunks != "auto":
            chunks = _multiple(chunks, source.shape, source.dtype)
    return Array(build.leaf(source, grids.normalize(chunks, source.shape, source.dtype)))


def _is_reader(x: Any) -> bool:
    """Whether `x` is to be read block by block: not in memory, but with a shape, a NumPy dtype and slices by position."""
    if isinstance(x, np.memmap):
        return True
    if isinstance(x, (np.ndarray, np.generic, list, tuple, str, bytes, *Scalar)) or hasattr(x, "iloc"):
        return False
    return hasattr(x, "shape") and hasattr(x, "__getitem__") and isinstance(getattr(x, "dtype", None), np.dtype)


def _values_of(x: Any) -> np.ndarray:
    """The NumPy array that `x` is, or is easily made."""
    if getattr(x, "mask", False) is not False and type(x).__name__ == "MaskedArray" and np.any(x.mask):
        raise DTypeError("masked elements would be shown as numbers; fill them first, as in x.filled(numpy.nan)")
    if not hasattr(x, "__array__") and not isinstance(x, (np.generic, list, tuple, str, bytes, *Scalar)):
        raise DTypeError(f"from_array() takes arrays or objects with shape, dtype and []; got {type(x).__name__}; "
                         "convert it with numpy.asarray first")
    data = np.asarray(x)
    if data.dtype.kind == "O":
        raise DTypeError("arrays of Python objects cannot be cut into blocks of known size; convert to a numeric, "
                         "string or datetime dtype first")
    return data


def _multiple(stored: Any, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    """Whole numbers of stored chunks, about a block's worth, so that no stored chunk is read twice."""
    if not all(isinstance(c, int) for c in stored):
        return "auto"
    wanted = grids.normalize("auto", shape, dtype)
    return tuple(min(max(n, 1), max(1, round(max(w) / c)) * c) for w, c, n in zip(wanted, stored, shape, strict=True))


def asarray(x: Any, dtype: Any = None, **kwargs: Any) -> Array:
    """`x` as an Array; NumPy arrays are not copied."""
    if not isinstance(x, Array):
        if isinstance(x, (list, tuple)) and _holds_arrays(x):
            x = _joining.stack([asarray(v) for v in x])
        elif not (hasattr(x, "shape") and hasattr(x, "dtype") and hasattr(x, "__getitem__")) or isinstance(x, np.generic):
            x = np.asarray(x)
        x = from_array(x, kwargs.get("chunks", "auto"))
    return x if dtype is None else Array(build.cast(x.expr, np.dtype(dtype)))


def _holds_arrays(x: Sequence[Any]) -> bool:
    return any(isinstance(v, Array) or (isinstance(v, (list, tuple)) and _holds_arrays(v)) for v in x)


def as_expr(x: Any) -> Expr:
    """The expression of anything array-like."""
    return x.expr if isinstance(x, Array) else asarray(x).expr


def known_expr(x: Any) -> Expr:
    """The same, with all extents known (blocks are computed where they must be)."""
    return _known(x) if isinstance(x, Array) else asarray(x).expr


def _known(x: Array) -> Expr:
    e = x._expr
    if not any(n != n for n in e.shape):
        return e
    if not config.get().implicit_compute:
        raise ImplicitComputeError("the shape of this array depends on its data, and computing unasked is turned off; "
                                   "call .persist() on it, or config.set(implicit_compute=True)")
    from nums_core import session
    from nums_core.expr.marks import kept

    (values,) = session.keep([e])
    x._expr = kept(values, e)
    return x._expr


def _operand(x: Any) -> Any:
    """What `x` is as an operand of an elementwise operation: an Expr, a scalar, or None if it is neither."""
    if isinstance(x, Array):
        return x._expr
    if isinstance(x, Scalar):
        return x
    if isinstance(x, np.ndarray):
        return x[()] if x.ndim == 0 and x.dtype.kind != "O" else from_array(x).expr
    if isinstance(x, (list, tuple)):
        return asarray(x).expr
    if isinstance(x, (str, bytes, datetime.timedelta, datetime.date)):
        return np.asarray(x)[()] if isinstance(x, (str, bytes)) else (
            np.timedelta64(x) if isinstance(x, datetime.timedelta) else np.datetime64(x))
    if hasattr(x, "__array__") and not hasattr(x, "__array_ufunc__"):
        return asarray(np.asarray(x)).expr
    return None


def _apply(name: str, *operands: Any, kw: build.Kw = (), dtype: Any = None) -> Array:
    """A row of the elementwise table on anything; at least one operand must be an array."""
    given = [_operand(o) for o in operands]
    for o, g in zip(operands, given, strict=True):
        if g is None:
            raise TypeError(f"{name}() cannot take a {type(o).__name__}; pass numbers or arrays")
    if not any(isinstance(g, Expr) for g in given):
        given[0] = from_array(np.asarray(given[0])).expr
    return Array(build.elementwise(name, _of_like_sizes(operands, given), kw, dtype))


def _of_like_sizes(operands: Sequence[Any], given: list[Any]) -> list[Any]:
    """Operands as they are, unless sizes that depend on data meet others: then those are computed and kept first."""
    arrays = [g for g in given if isinstance(g, Expr) and g.ndim]
    if not any(n != n for g in arrays for n in g.shape) or all(g.chunks == arrays[0].chunks for g in arrays):
        return given
    return [_known(o) if isinstance(o, Array) else g for o, g in zip(operands, given, strict=True)]


def _binary(name: str, a: Any, b: Any) -> Any:
    x, y = _operand(a), _operand(b)
    if x is None or y is None:
        return NotImplemented
    return Array(build.elementwise(name, _of_like_sizes((a, b), [x, y])))


def wrap(op: str, args: Sequence[Expr], params: tuple[Any, ...], shape: tuple[Any, ...], dtype: Any,
         chunks: grids.Chunks) -> Array:
    """An Array over a new node."""
    return Array(make(op, args, params, shape, dtype, chunks))


# The modules below import Array, and Array's methods call them: they are imported last.
from nums_core.array import assignment as _assignment  # noqa: E402
from nums_core.array import binary as _binary_forms  # noqa: E402
from nums_core.array import block_view as _block_view  # noqa: E402
from nums_core.array import blocks as _blocks  # noqa: E402
from nums_core.array import diagonals as _diagonals  # noqa: E402
from nums_core.array import elementwise as _elementwise  # noqa: E402
from nums_core.array import indexing as _indexing  # noqa: E402
from nums_core.array import io as _io  # noqa: E402
from nums_core.array import joining as _joining  # noqa: E402
from nums_core.array import lengths as _lengths  # noqa: E402
from nums_core.array import manipulation as _manipulation  # noqa: E402
from nums_core.array import overlap as _overlap  # noqa: E402
from nums_core.array import products as _products  # noqa: E402
from nums_core.array import reductions as _reductions  # noqa: E402
from nums_core.array import scans as _scans  # noqa: E402
from nums_core.array import searching as _searching  # noqa: E402
from nums_core.array import sorting as _sorting  # noqa: E402
from nums_core.array import statistics as _statistics  # noqa: E402
from nums_core.array import stores as _stores  # noqa: E402
