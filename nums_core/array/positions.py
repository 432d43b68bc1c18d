"""Arrays of positions: coordinates of elements, and the index tricks that are written with brackets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from nums_core.array.array import Array, known_expr
from nums_core.array.blocks import map_blocks
from nums_core.array.creation import asarray, shape_of, zeros
from nums_core.array.joining import concatenate
from nums_core.array.ranges import arange, linspace
from nums_core.expr import build
from nums_core.expr.grid import Chunks, normalize


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
    if shape is None:
        raise TypeError("fromfunction() needs the shape of the result; write fromfunction(f, shape=(3, 4))")
    shape = shape_of(shape)
    cut = normalize(chunks, shape, dtype)
    return map_blocks(_Filling(function), *[_index(k, shape, dtype, cut) for k in range(len(shape))], **kwargs)


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
            return _line(key)
        lines: Sequence[Array] = [_line(s) for s in key]
        dtype = np.result_type(*(x.dtype for x in lines)) if lines else np.dtype(int)
        grids = meshgrid(*[x.astype(dtype) for x in lines], sparse=self.sparse, indexing="ij")
        if self.sparse:
            return grids
        return Array(build.concatenate([build.axes(g.expr, (None, *range(g.ndim)), (1, *g.shape)) for g in grids], 0))


def _line(s: slice) -> Array:
    """A range written as a slice."""
    start, step = 0 if s.start is None else s.start, 1 if s.step is None else s.step
    if isinstance(step, (complex, np.complexfloating)):
        return linspace(start, s.stop, int(np.abs(step)))
    return arange(start, s.stop, step)


mgrid = _Grid(sparse=False)
ogrid = _Grid(sparse=True)


class _Joined:
    """`r_[...]` and `c_[...]`: arrays and ranges, written in brackets, joined along an axis."""

    def __init__(self, columns: bool) -> None:
        self.columns = columns

    def __getitem__(self, key: Any) -> Array:
        items = key if isinstance(key, tuple) else (key,)
        axis, ndmin, place = (-1, 2, 0) if self.columns else (0, 1, -1)
        if isinstance(items[0], str):
            if items[0] in ("r", "c"):
                raise ValueError("matrices ('r' and 'c') are not available; use numpy.r_ on computed arrays")
            numbers = [int(n) for n in items[0].split(",")]
            axis, ndmin, place = (*numbers, *(axis, ndmin, place)[len(numbers):])
            items = items[1:]
        parts = [self._part(item, ndmin, place) for item in items]
        dtype = np.result_type(*(p.dtype if given.ndim else kind for p, given, kind in parts))
        return concatenate([p.astype(dtype) for p, _, _ in parts], axis=axis)

    def _part(self, item: Any, ndmin: int, place: int) -> tuple[Array, Array, Any]:
        """An item with `ndmin` axes, as it was, and what it is to promotion: Python numbers are weak."""
        if isinstance(item, slice):
            given = _line(item)
        else:
            given = asarray(item)
        missing = ndmin - given.ndim
        weak = item if isinstance(item, (int, float, complex)) and not isinstance(item, np.generic) else given.dtype
        if missing <= 0:
            return given, given, weak
        order = list(range(given.ndim))
        at = place if place >= 0 else ndmin + place + 1 - given.ndim
        source = [None] * ndmin
        for i in order:
            source[at + i if given.ndim else i] = i  # type: ignore[call-overload]
        e = given.expr
        return Array(build.axes(e, source, tuple(1 if s is None else e.shape[s] for s in source))), given, weak


r_ = _Joined(columns=False)
c_ = _Joined(columns=True)


def ndenumerate(arr: Any) -> Iterator[tuple[tuple[int, ...], Any]]:
    """Positions and values of all elements, in C order; computes `arr` first."""
    yield from np.ndenumerate(np.asarray(asarray(arr).compute()))


__all__ = ["c_", "fromfunction", "indices", "meshgrid", "mgrid", "ndenumerate", "ogrid", "r_"]
