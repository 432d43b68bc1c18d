"""Axes, shapes and order: what moves elements without changing them. All of it is lazy; most of it moves nothing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from nums_core.array.array import Array, as_expr, known_expr
from nums_core.errors import GridError
from nums_core.expr import build, index
from nums_core.expr import grid as grids
from nums_core.expr import reshape as reshaping
from nums_core.expr.node import Expr

# -- axes -------------------------------------------------------------------------------------------------------------

def transpose(a: Any, axes: Sequence[int] | None = None) -> Array:
    """Axes in another order: reversed, or as `axes` names them. Moves nothing.

    Raises
    ------
    ValueError, AxisError
        `axes` do not name each axis once.
    """
    x = as_expr(a)
    if axes is None:
        return Array(build.transpose(x, range(x.ndim)[::-1]))
    named = [int(i) for i in np.atleast_1d(axes)]
    if len(named) != x.ndim:
        raise ValueError(f"axes don't match array: {axes} for {x.ndim} dimensions; name every axis once")
    order = [normalize_axis_index(i, x.ndim) for i in named]
    if len(set(order)) != len(order):
        raise ValueError(f"repeated axis in transpose: {axes}; name every axis once")
    return Array(build.transpose(x, order))


permute_dims = transpose


def matrix_transpose(x: Any, /) -> Array:
    """The last two axes exchanged."""
    e = as_expr(x)
    if e.ndim < 2:
        raise ValueError(f"Input array must be at least 2-dimensional, but it is {e.ndim}; add an axis with x[:, None]")
    return swapaxes(Array(e), -1, -2)


def swapaxes(a: Any, axis1: int, axis2: int) -> Array:
    """Two axes exchanged. Moves nothing."""
    x = as_expr(a)
    i, j = (normalize_axis_index(k, x.ndim, name) for k, name in ((axis1, "axis1"), (axis2, "axis2")))
    order = list(range(x.ndim))
    order[i], order[j] = j, i
    return Array(build.transpose(x, order))


def moveaxis(a: Any, source: int | Sequence[int], destination: int | Sequence[int]) -> Array:
    """Axes `source` at the places `destination`, the others in order. Moves nothing."""
    x = as_expr(a)
    origin = normalize_axis_tuple(source, x.ndim, "source")
    target = normalize_axis_tuple(destination, x.ndim, "destination")
    if len(origin) != len(target):
        raise ValueError("`source` and `destination` arguments must have the same number of elements")
    order = [i for i in range(x.ndim) if i not in origin]
    for place, axis in sorted(zip(target, origin, strict=True)):
        order.insert(place, axis)
    return Array(build.transpose(x, order))


def rollaxis(a: Any, axis: int, start: int = 0) -> Array:
    """`axis` moved before axis `start`; `moveaxis` says the same more plainly."""
    x = as_expr(a)
    axis = normalize_axis_index(axis, x.ndim)
    if not -x.ndim <= start <= x.ndim:
        raise np.exceptions.AxisError(f"'start' arg requires {-x.ndim} <= start < {x.ndim + 1}, but {start} was passed in")
    start += x.ndim if start < 0 else 0
    return moveaxis(Array(x), axis, start - (axis < start))


def squeeze(a: Any, axis: int | Sequence[int] | None = None) -> Array:
    """Without axes of extent 1: all of them, or those named."""
    x = as_expr(a)
    if axis is None:
        drop: tuple[int, ...] = tuple(i for i, n in enumerate(known_expr(a).shape) if n == 1)
        x = as_expr(a)
    else:
        drop = normalize_axis_tuple(axis, x.ndim)
        if any(x.shape[i] != 1 for i in drop):
            raise ValueError("cannot select an axis to squeeze out which has size not equal to one; the shape is "
                             f"{x.shape}: index the axis, or leave it out of axis=")
    kept = [i for i in range(x.ndim) if i not in drop]
    return Array(build.axes(x, kept, tuple(x.shape[i] for i in kept)))


def expand_dims(a: Any, axis: int | Sequence[int]) -> Array:
    """New axes of extent 1 at the places `axis` of the result."""
    x = as_expr(a)
    places = normalize_axis_tuple(axis, x.ndim + (len(axis) if isinstance(axis, (tuple, list)) else 1))
    return Array(with_new_axes(x, places))


def with_new_axes(x: Expr, places: Sequence[int]) -> Expr:
    """`x` with new axes of extent 1 at these places of the result."""
    old = iter(range(x.ndim))
    source = [None if i in places else next(old) for i in range(x.ndim + len(places))]
    return build.axes(x, source, tuple(1 if s is None else x.shape[s] for s in source))


def atleast_1d(*arrays: Any) -> Any:
    """Arrays with at least one axis; one argument gives an Array, several a tuple."""
    return _at_least(1, arrays)


def atleast_2d(*arrays: Any) -> Any:
    """Arrays with at least two axes: a vector becomes a row."""
    return _at_least(2, arrays)


def atleast_3d(*arrays: Any) -> Any:
    """Arrays with at least three axes: a vector becomes (1, n, 1), a matrix (m, n, 1)."""
    return _at_least(3, arrays)


def _at_least(ndim: int, arrays: Sequence[Any]) -> Any:
    made = []
    for a in arrays:
        x = as_expr(a)
        where: Sequence[int] = range(ndim - x.ndim)
        if ndim == 3 and x.ndim:
            where = {1: (0, 2), 2: (2,)}.get(x.ndim, ())
        made.append(Array(with_new_axes(x, where) if where else x))
    return made[0] if len(made) == 1 else tuple(made)


# -- shapes -----------------------------------------------------------------------------------------------------------

def shape(a: Any) -> tuple[int, ...]:
    """Extents of `a`."""
    return tuple(known_expr(a).shape)


def ndim(a: Any) -> int:
    """Number of axes of `a`."""
    return as_expr(a).ndim


def size(a: Any, axis: int | Sequence[int] | None = None) -> int:
    """Number of elements of `a`, or along `axis`."""
    extents = known_expr(a).shape
    if axis is None:
        return math.prod(extents)
    return math.prod(extents[i] for i in normalize_axis_tuple(axis, len(extents)))


def reshape(a: Any, shape: int | Sequence[int], order: str = "C", *, copy: bool | None = None,
            merge_chunks: bool = True, limit: Any = None) -> Array:
    """The same elements in another shape, whatever the chunks.

    Parameters
    ----------
    a : array
    shape : int or tuple of int, one of them may be -1
    order : "C" or "F" ("A" and "K" mean "C")
    copy, merge_chunks, limit : taken for NumPy's and dask's sake; blocks are cut as this needs anyway.

    Returns
    -------
    Array, dtype of `a`. Nothing moves where contiguous runs of the old shape are runs of the new one, as for a source
    in memory; otherwise each element moves at most twice, through blocks of the usual size.

    Raises
    ------
    ShapeError
        The sizes differ.
    """
    if order not in ("C", "F", "A", "K"):
        raise ValueError(f"order must be one of 'C', 'F', 'A', or 'K' (got {order!r}); blocks keep C order")
    wanted = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
    x = as_expr(a)
    if x.ndim == 1 and tuple(wanted) == (-1,):
        return Array(x)
    x = known_expr(a)
    wanted = reshaping.resolve(math.prod(x.shape), wanted)
    if order == "F" and x.ndim + len(wanted) > 2:
        return transpose(Array(reshaping.reshape(build.transpose(x, range(x.ndim)[::-1]), wanted[::-1])))
    return Array(reshaping.reshape(x, wanted))


def ravel(a: Any, order: str = "C") -> Array:
    """All elements in one axis."""
    return reshape(a, (-1,), order)


def reshape_blockwise(x: Any, shape: Sequence[int], chunks: grids.Chunks | None = None) -> Array:
    """Each block reshaped by itself: elements are in order within blocks only. Nothing moves.

    Parameters
    ----------
    x : array
    shape : tuple of int
    chunks : needed where axes are added: the chunks of the result, with as many blocks in the same order.
    """
    e = known_expr(x)
    wanted = reshaping.resolve(math.prod(e.shape), shape)
    if chunks is None:
        if len(wanted) > e.ndim:
            raise ValueError("chunks= is needed where a reshape adds axes; give the chunks of the result")
        chunks = tuple(tuple(math.prod(c) for c in itertools.product(*e.chunks[mine])) if mine.stop > mine.start else (1,)
                       for mine, _ in reshaping.groups(e.shape, wanted))
    chunks = grids.normalize(chunks, wanted, e.dtype)
    if math.prod(map(len, chunks)) != math.prod(e.grid):
        raise GridError(f"{e.grid} blocks cannot be relabelled as {tuple(map(len, chunks))}; the numbers of blocks must "
                        "agree, or use reshape")
    return Array(reshaping.blocks(e, wanted, chunks, in_order=False))


def broadcast_to(x: Any, shape: int | Sequence[int], chunks: Any = None, subok: bool = False, meta: Any = None) -> Array:
    """`x` repeated along axes of extent 1 and new leading axes; `chunks`, if given, cuts the result. Copies nothing."""
    e = as_expr(x)
    wanted = (int(shape),) if isinstance(shape, (int, np.integer)) else tuple(shape)
    if any(n < 0 for n in wanted):
        raise ValueError(f"all elements of broadcast shape must be non-negative, not {wanted}")
    back = len(wanted) - e.ndim
    made = build.broadcast_to(e, wanted)  # checks
    if chunks is None:
        chunks = tuple("auto" if i < back or (e.shape[i - back] == 1 and n > 1) else e.chunks[i - back]
                       for i, n in enumerate(wanted))
        if "auto" not in chunks:
            return Array(made)
    cut = grids.normalize(chunks, wanted, e.dtype)
    kept = tuple(c if e.shape[i] == 1 and wanted[back + i] != 1 else cut[back + i] for i, c in enumerate(e.chunks))
    return Array(build.broadcast_to(build.rechunk(e, kept), wanted, cut))


def broadcast_arrays(*args: Any, subok: bool = False) -> tuple[Array, ...]:
    """All arguments in their common shape."""
    arrays = [as_expr(a) for a in args]
    common = build.broadcast_shape([x.shape for x in arrays]) if arrays else ()
    return tuple(broadcast_to(Array(x), common) for x in arrays)


# -- order ------------------------------------------------------------------------------------------------------------

def flip(m: Any, axis: int | Sequence[int] | None = None) -> Array:
    """Elements in reverse along `axis` (default: along all). A view of a source in memory."""
    x = known_expr(m)
    which = range(x.ndim) if axis is None else normalize_axis_tuple(axis, x.ndim)
    start = [n - 1 if i in which and n else 0 for i, n in enumerate(x.shape)]
    step = [-1 if i in which and n else 1 for i, n in enumerate(x.shape)]
    return Array(index.box(x, start, step, x.shape))


def flipud(m: Any) -> Array:
    """Reversed along axis 0."""
    if as_expr(m).ndim < 1:
        raise ValueError("Input must be >= 1-d; use numpy.atleast_1d first")
    return flip(m, 0)


def fliplr(m: Any) -> Array:
    """Reversed along axis 1."""
    if as_expr(m).ndim < 2:
        raise ValueError("Input must be >= 2-d; use numpy.atleast_2d first")
    return flip(m, 1)


def rot90(m: Any, k: int = 1, axes: Sequence[int] = (0, 1)) -> Array:
    """Turned `k` times by 90 degrees in the plane of two axes, from the first towards the second."""
    x = Array(as_expr(m))
    if len(axes) != 2:
        raise ValueError("len(axes) must be 2.")
    first, second = axes
    if first == second or abs(first - second) == x.ndim:
        raise ValueError("Axes must be different; name two axes of the array")
    if not (-x.ndim <= first < x.ndim and -x.ndim <= second < x.ndim):
        raise ValueError(f"Axes={tuple(axes)} out of range for array of ndim={x.ndim}.")
    turned = {0: lambda: x, 1: lambda: swapaxes(flip(x, second), first, second), 2: lambda: flip(x, (first, second)),
              3: lambda: flip(swapaxes(x, first, second), second)}
    return turned[k % 4]()


def roll(a: Any, shift: int | Sequence[int], axis: int | Sequence[int] | None = None) -> Array:
    """Elements moved by `shift` along `axis`, round the end; without `axis`, in the order of `ravel`."""
    x = known_expr(a)
    if axis is None:
        return reshape(roll(reshape(Array(x), -1), shift, 0), x.shape)
    pairs = np.broadcast(shift, normalize_axis_tuple(axis, x.ndim, allow_duplicate=True))
    if pairs.ndim > 1:
        raise ValueError("'shift' and 'axis' should be scalars or 1D sequences")
    total = [0] * x.ndim
    for by, i in pairs:
        total[i] += int(by)
    for i, by in enumerate(total):
        n = x.shape[i]
        if n and by % n:
            parts = [index.along(x, i, n - by % n, n), index.along(x, i, 0, n - by % n)]
            x = build.rechunk(build.concatenate(parts, i), x.chunks)
    return Array(x)


# -- chunks -----------------------------------------------------------------------------------------------------------

def rechunk(x: Any, chunks: Any = "auto", threshold: Any = None, block_size_limit: Any = None, balance: bool = False,
            method: Any = None) -> Array:
    """The same array cut into other blocks; `chunks` as in `from_array`. The other options are taken for dask's sake."""
    if block_size_limit is not None and isinstance(chunks, str):
        chunks = block_size_limit if isinstance(block_size_limit, str) else f"{int(block_size_limit)}B"
    return Array(as_expr(x)).rechunk(chunks)


def unify_chunks(*args: Any, **kwargs: Any) -> tuple[dict[Any, tuple[int, ...]], list[Any]]:
    """Arrays cut alike along the labels they share.

    Parameters
    ----------
    *args : array, labels, array, labels, ...
        Labels are a tuple or text with one entry an axis; None for an argument that passes through.

    Returns
    -------
    chunks : dict from label to the chunks of that axis: every border that any array has
    arrays : list
    """
    pairs = list(itertools.batched(args, 2)) if hasattr(itertools, "batched") else list(
        zip(args[::2], args[1::2], strict=True))
    arrays = [(known_expr(a), tuple(labels)) if labels is not None else (a, None) for a, labels in pairs]
    borders: dict[Any, set[int]] = {}
    for x, labels in arrays:
        for label, sizes in zip(labels or (), x.chunks if labels else (), strict=True):
            if sum(sizes) != 1 or label not in borders:
                borders.setdefault(label, set()).update(itertools.accumulate(sizes))
    chunks = {k: tuple(int(d) for d in np.diff(sorted(b | {0}))) or (0,) for k, b in borders.items()}
    made = [a if labels is None else Array(build.rechunk(a, tuple(
        chunks[label] if sum(sizes) == sum(chunks[label]) else sizes for label, sizes in zip(labels, a.chunks, strict=True))))
        for a, labels in arrays]
    return chunks, made


__all__ = ["atleast_1d", "atleast_2d", "atleast_3d", "broadcast_arrays", "broadcast_to", "expand_dims", "flip", "fliplr",
           "flipud", "matrix_transpose", "moveaxis", "ndim", "permute_dims", "ravel", "rechunk", "reshape",
           "reshape_blockwise", "roll", "rollaxis", "rot90", "shape", "size", "squeeze", "swapaxes", "transpose",
           "unify_chunks"]
