"""Indexing: `x[...]` as NumPy does it, `x.vindex[...]` as dask does it, and the functions that take elements.

A box (integers, slices, None) is a view of a source in memory. Integer arrays known here are grouped by the block that
owns each element: one gather an owner, whatever the index. Masks select block by block, in one pass with what makes the
mask; the extent of the result then depends on data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from nums_core.array.array import Array, as_expr, asarray, from_array, known_expr
from nums_core.array.subscript import Picked, Subscript, parse
from nums_core.errors import ShapeError, UnknownSizeError
from nums_core.expr import build, grid, index
from nums_core.expr import reshape as reshaping
from nums_core.expr.node import Expr

# A mask in memory with at most one element in this many chosen is turned into the places of those elements.
SPARSE = 8


def getitem(x: Array, key: Any) -> Array:
    """`x[key]`.

    Raises
    ------
    IndexError
        In NumPy's words; for indices that are themselves lazy, when the result is computed.
    """
    if x.dtype.names is not None and _is_field(key):
        return _field(x, key)
    at, e = parsed(x, key)
    made = cut_box(e, at)
    return Array(_pick(made, at.picked, at.adjacent) if at.picked else made)


def parsed(x: Array, key: Any) -> tuple[Subscript, Expr]:
    """The index, and the expression of `x` with those extents known that the index needs."""
    try:
        return parse(key, x.expr.shape), x.expr
    except UnknownSizeError:
        e = known_expr(x)
        return parse(key, e.shape), e


def cut_box(e: Expr, at: Subscript) -> Expr:
    """The box that an index says, with integers dropped and new axes in."""
    if at.is_whole(e.shape):
        return e
    if at.start != [0] * e.ndim or at.step != [1] * e.ndim or any(
            n != m for n, m in zip(at.extent, e.shape, strict=True) if n == n):
        e = index.box(e, at.start, at.step, at.extent)
    return build.axes(e, at.source, at.box_shape())


def _is_field(key: Any) -> bool:
    return isinstance(key, str) or (isinstance(key, list) and bool(key) and all(isinstance(k, str) for k in key))


def _field(x: Array, key: Any) -> Array:
    """A field of a structured array, or several."""
    names = key if isinstance(key, str) else tuple(key)
    sample = np.zeros(0, x.dtype)[key]  # NumPy's error for unknown names; a field may be an array itself
    e, labels, inner = x.expr, range(x.ndim), sample.shape[1:]
    chunks = (*e.chunks, *((n,) for n in inner))
    out = (*labels, *(("in", i) for i in range(len(inner))))
    return Array(build.blockmap(_get_field, [e], [labels], out, (*e.shape, *inner), sample.dtype, chunks,
                                (("names", names),)))


def _get_field(block: np.ndarray, names: Any) -> np.ndarray:
    return block[names if isinstance(names, str) else list(names)]


# -- arrays in an index -----------------------------------------------------------------------------------------------

def _pick(x: Expr, picked: Sequence[Picked], adjacent: bool) -> Expr:
    """What arrays pick of a box."""
    first = picked[0].place if adjacent else 0
    if len(picked) == 1 and picked[0].value.dtype == bool:
        place, mask, width = picked[0]
        return _by_mask(in_front(x, range(place, place + width), first), mask, first)
    places = [p for p, _, width in picked for p in range(p, p + width)]
    arrays = integer_arrays(picked)
    x = in_front(x, places, first)
    if all(isinstance(a, np.ndarray) for a in arrays):
        return _at_known(x, arrays, first)
    return index.points_at(x, first, computed_places(arrays))


def in_front(x: Expr, places: Sequence[int], first: int) -> Expr:
    """`x` with the axes `places` moved to stand in order from `first`."""
    rest = [i for i in range(x.ndim) if i not in places]
    return build.transpose(x, [*rest[:first], *places, *rest[first:]])


def integer_arrays(picked: Sequence[Picked]) -> list[Any]:
    """Arrays of an index with masks turned into places (lazy ones are computed: their number decides the shape)."""
    out: list[Any] = []
    for _, value, _ in picked:
        out.extend(np.nonzero(np.asarray(value)) if value.dtype == bool else [value])
    shapes = [a.expr.shape if isinstance(a, Array) else a.shape for a in out]
    try:
        shape = build.broadcast_shape(shapes)
    except ShapeError:
        text = " ".join(str(s).replace(" ", "") for s in shapes)
        raise IndexError(f"shape mismatch: indexing arrays could not be broadcast together with shapes {text} ; for every "
                         "combination of them use np.ix_(...)") from None
    if all(isinstance(a, np.ndarray) for a in out):
        return [np.broadcast_to(a, shape) for a in out]
    return [_to_shape(as_expr(a), shape) for a in out]


def _to_shape(e: Expr, shape: tuple[Any, ...]) -> Any:
    return Array(e if e.shape == shape or not grid.known(e.chunks) else build.broadcast_to(e, shape))


def computed_places(arrays: Sequence[Array]) -> list[Expr]:
    """Lazy integer arrays of one shape, cut alike."""
    exprs = [a.expr for a in arrays]
    chunks = build.common_chunks(exprs, exprs[0].shape)
    return [build.align(e, e.shape, chunks) for e in exprs]


def _at_known(x: Expr, arrays: Sequence[np.ndarray], first: int) -> Expr:
    shape, k = arrays[0].shape, len(arrays)
    flat = [a.reshape(-1) for a in arrays]
    made = _as_slice(x, flat[0], first) if k == 1 else None
    if made is None:
        made = index.points(x, first, flat)
    if len(shape) == 1:
        return made
    return reshaping.reshape(made, (*made.shape[:first], *shape, *made.shape[first + 1:]))


def _as_slice(x: Expr, places: np.ndarray, axis: int) -> Expr | None:
    """Places at equal distances are a slice."""
    if len(places) < 2 or (step := int(places[1] - places[0])) == 0 or (np.diff(places) != step).any():
        return None
    stop = int(places[-1]) + (1 if step > 0 else -1)
    return index.along(x, axis, int(places[0]), stop, step)


def _by_mask(x: Expr, mask: Any, first: int) -> Expr:
    width = mask.ndim
    if isinstance(mask, Array):
        e = mask.expr
        if not (grid.known(x.chunks) and grid.known(e.chunks)) and x.chunks[first:first + width] != e.chunks:
            x, e = known_expr(Array(x)), known_expr(mask)  # sizes from unlike selections: computed and kept
            if x.shape[first:first + width] != e.shape:
                raise IndexError(f"boolean index did not match indexed array: the mask has shape {e.shape}, the axes it "
                                 f"runs over {x.shape[first:first + width]}; select with a mask of that shape")
        x = index.in_runs(x, first, width)
        return index.select(x, build.rechunk(e, x.chunks[first:first + width]), first)
    if SPARSE * np.count_nonzero(mask) <= mask.size:
        return _at_known(x, np.nonzero(mask), first)
    x = index.in_runs(x, first, width)
    cut = x.chunks[first:first + width]
    return index.select(x, from_array(mask.copy(), cut).expr, first, index.count_runs(mask, cut))


class VIndex:
    """`x.vindex[...]`: arrays pick points together, and their axes come first, as in dask."""

    def __init__(self, x: Array) -> None:
        self._x = x

    def __getitem__(self, key: Any) -> Array:
        at, e = parsed(self._x, key)
        made = cut_box(e, at)
        return Array(_pick(made, at.picked, False) if at.picked else made)


# -- functions --------------------------------------------------------------------------------------------------------

def take(a: Any, indices: Any, axis: int | None = None, out: Any = None, mode: str = "raise") -> Array:
    """Elements of `a` at `indices` along `axis` (default: of the raveled array).

    Parameters
    ----------
    a : array
    indices : integer array, any shape
    axis : int, optional
    mode : "raise", "wrap" or "clip"
        What becomes of indices out of range.

    Returns
    -------
    Array, shape (before, *indices.shape, after), dtype of `a`
    """
    x = Array(known_expr(a))
    if axis is None:
        x, axis = Array(reshaping.reshape(x.expr, (x.size,))), 0
    axis = normalize_axis_index(axis, x.ndim)
    where = indices if isinstance(indices, (Array, np.ndarray)) else np.asarray(indices)
    if where.dtype == bool or not where.size:
        where = where.astype(np.intp)
    if mode == "wrap":
        where = where % x.shape[axis]
    elif mode == "clip":
        where = where.clip(0, x.shape[axis] - 1)
    elif mode != "raise":
        raise ValueError(f"clipmode must be one of 'clip', 'raise', or 'wrap' (got {mode!r})")
    return into(out, x[(slice(None),) * axis + (where,)])


def into(out: Any, made: Array) -> Any:
    """`made`, or `out` with its values."""
    if out is None:
        return made
    if isinstance(out, Array):
        out[...] = made
    else:
        np.copyto(out, made.compute(), casting="unsafe")
    return out


def take_along_axis(arr: Any, indices: Any, axis: int | None = -1) -> Array:
    """For each line of `arr` along `axis`, its elements at the indices in the same line of `indices`.

    Shapes agree but along `axis`, or broadcast. Lines of `arr` are brought into one block each.
    """
    x, where = known_expr(arr), known_expr(indices)
    if where.dtype.kind not in "iu":
        raise IndexError("`indices` must be an integer array; cast it with .astype(int)")
    if axis is None:
        x, axis = reshaping.reshape(x, (math.prod(x.shape),)), 0
    if x.ndim != where.ndim:
        raise ValueError("`indices` and `arr` must have the same number of dimensions; add axes with indices[:, None]")
    axis = normalize_axis_index(axis, x.ndim)
    if x.ndim == 1:
        return Array(x)[indices if isinstance(indices, np.ndarray) else Array(where)]
    x, where, chunks = along_lines(x, where, axis)
    shape = tuple(map(sum, chunks))
    labels = tuple(range(x.ndim))
    lines = tuple("line" if i == axis else i for i in labels)
    return Array(build.blockmap(np.take_along_axis, [x, where], [lines, labels], labels, shape, x.dtype, chunks,
                                (("axis", axis),), label="take_along_axis"))


def along_lines(x: Expr, where: Expr, axis: int) -> tuple[Expr, Expr, grid.Chunks]:
    """`x` with `axis` in one block and `where`, cut alike along the other axes, which are broadcast; and the chunks of
    `where` then."""
    others = [i for i in range(x.ndim) if i != axis]
    common = build.broadcast_shape([tuple(e.shape[i] for i in others) for e in (x, where)])
    wide = dict(zip(others, common, strict=True))
    x, where = (build.broadcast_to(e, tuple(wide.get(i, n) for i, n in enumerate(e.shape))) for e in (x, where))
    x = whole_lines(x, axis)
    chunks = tuple(where.chunks[i] if i == axis else c for i, c in enumerate(x.chunks))
    return x, build.rechunk(where, chunks), chunks


def whole_lines(x: Expr, axis: int) -> Expr:
    """`x` with `axis` in one block; the others are cut finer where blocks would grow beyond the usual size."""
    one = tuple((n,) if i == axis else c for i, (n, c) in enumerate(zip(x.shape, x.chunks, strict=True)))
    if x.shape[axis] * math.prod(max(c) for i, c in enumerate(one) if i != axis) > index.block_budget(x, range(x.ndim)):
        one = grid.normalize({axis: -1}, x.shape, x.dtype)
    return build.rechunk(x, one)


def compress(condition: Any, a: Any, axis: int | None = None, out: Any = None) -> Array:
    """Slices of `a` along `axis` where the vector `condition` is true; it may be shorter than the axis."""
    x = Array(known_expr(a))
    if axis is None:
        x, axis = Array(reshaping.reshape(x.expr, (x.size,))), 0
    axis = normalize_axis_index(axis, x.ndim)
    keep = condition.astype(bool) if isinstance(condition, Array) else np.asarray(condition, bool)
    if keep.ndim != 1:
        raise ValueError("condition must be a 1-d array; for a mask of the array's own shape use x[mask]")
    if len(keep) > x.shape[axis]:
        where = np.flatnonzero(np.asarray(keep))
        return into(out, x[(slice(None),) * axis + (where,)])
    return into(out, x[(slice(None),) * axis + (slice(0, len(keep)),)][(slice(None),) * axis + (keep,)])


def extract(condition: Any, arr: Any) -> Array:
    """Elements of `arr` where `condition` (of the same size) is true, in C order."""
    keep, x = asarray(condition, bool), asarray(arr)
    return x.reshape(-1)[keep.reshape(-1)[:x.size]]


__all__ = ["compress", "extract", "take", "take_along_axis"]
