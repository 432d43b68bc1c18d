"""Sorting and searching. Along a cut axis a sample sort keeps to a few blocks of memory, whatever the size of the array."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from nums_core.array.array import Array, as_expr, asarray, known_expr
from nums_core.errors import ShapeError
from nums_core.expr import build, sorting
from nums_core.expr.node import Expr
from nums_core.expr.opaque import keywords

_KINDS = ("quicksort", "mergesort", "heapsort", "stable")


def _line(a: Any, axis: int | None) -> tuple[Expr, int]:
    """The expression of `a` (flattened where `axis` is None) and the axis, counted from the front."""
    if axis is None:
        x = known_expr(a)
        return (known_expr(Array(x).ravel()) if x.ndim != 1 else x), 0
    x = known_expr(a)
    return x, build.normalize_axes(operator.index(axis), x.ndim)[0]


def _check_kind(kind: Any, stable: Any) -> None:
    if kind is not None and stable is not None:
        raise ValueError("`kind` and `stable` parameters can't be provided at the same time. Use only one of them: the "
                         "result is the same, as sorting here is always stable")
    if kind is not None and kind not in _KINDS:
        raise ValueError(f"sort kind must be one of 'quick', 'heap', or 'stable' (got {kind!r}); leave it out, sorting "
                         "here is always stable")


def sort(a: Any, axis: int | None = -1, kind: str | None = None, order: Any = None, *, stable: bool | None = None,
         descending: bool = False) -> Array:
    """`a` in ascending order along `axis` (of all elements where it is None); NaN last.

    Parameters
    ----------
    kind, stable : accepted as NumPy accepts them; the result does not depend on them.
    order : field names of a structured dtype, optional
    descending : bool
        As in the array API standard.

    Returns
    -------
    Array, shape, dtype and chunks of `a`.

    Notes
    -----
    Lines that fit a block are sorted whole. Longer ones by a sample sort: every element is moved once, a task holds a
    block and its copy, and what does not fit memory is spilled.
    """
    _check_kind(kind, stable)
    x, axis = _line(a, axis)
    if order is not None or sorting.fits(x, [axis]):
        options = {"kind": "stable"} if order is None else {"kind": "stable", "order": order}
        if x.dtype.names is None:  # of plain numbers equals cannot be told apart, and NumPy's default is faster
            options = {}
        made = sorting.on_lines(np.sort, [x], axis, x.dtype, "sort", options)
    else:
        made = sorting.sample_sort(x, axis, 0)
    return Array(sorting.flip(made, axis) if descending else made)


def argsort(a: Any, axis: int | None = -1, kind: str | None = None, order: Any = None, *, stable: bool | None = None,
            descending: bool = False) -> Array:
    """Positions along `axis` that would sort `a`; of equal elements the first comes first. Parameters as of `sort`.

    Returns
    -------
    Array, shape and chunks of `a`, dtype intp.
    """
    _check_kind(kind, stable)
    x, axis = _line(a, axis)
    x = sorting.flip(x, axis) if descending else x
    if order is not None or sorting.fits(x, [axis]):
        options = {"kind": "stable"} if order is None else {"kind": "stable", "order": order}
        made = sorting.on_lines(np.argsort, [x], axis, np.intp, "argsort", options)
    else:
        made = sorting.sample_sort(x, axis, 1)
    return x.shape[axis] - 1 - Array(sorting.flip(made, axis)) if descending else Array(made)


def _check_kth(kth: Any, n: int) -> Any:
    """`kth` as an int or a tuple of ints."""
    values = np.asarray(kth)
    if values.dtype.kind not in "iu":
        raise TypeError(f"Partition index must be integer, not {values.dtype}; cast it with int()")
    for k in np.ravel(values):
        if not -n <= k < n:
            raise ValueError(f"kth(={k}) out of bounds ({n}); it must be from {-n} to {n - 1} along that axis")
    return int(values) if not values.ndim else tuple(values.ravel().tolist())


def partition(a: Any, kth: Any, axis: int | None = -1, kind: str = "introselect", order: Any = None) -> Array:
    """`a` with element `kth` in its sorted place, smaller ones before and others after it; a full sort on a cut axis."""
    return _partition(a, kth, axis, order, np.partition)


def argpartition(a: Any, kth: Any, axis: int | None = -1, kind: str = "introselect", order: Any = None) -> Array:
    """Positions that would partition `a`; see `partition`."""
    return _partition(a, kth, axis, order, np.argpartition)


def _partition(a: Any, kth: Any, axis: int | None, order: Any, function: Any) -> Array:
    x, axis = _line(a, axis)
    kth = _check_kth(kth, x.shape[axis])
    positions = function is np.argpartition
    if order is None and not sorting.fits(x, [axis]):
        return Array(sorting.sample_sort(x, axis, int(positions)))
    options = {"kth": kth} if order is None else {"kth": kth, "order": order}
    return Array(sorting.on_lines(function, [x], axis, np.intp if positions else x.dtype, function.__name__, options))


def sort_complex(a: Any) -> Array:
    """`a` sorted along its last axis, as complex numbers: by real part, then by imaginary part."""
    made = sort(a)
    if made.dtype.kind == "c":
        return made
    return made.astype("F" if made.dtype.char in "bhBH" else "G" if made.dtype.char == "g" else "D")


def lexsort(keys: Any, axis: int = -1) -> Array:
    """Positions that sort by several keys, the last one first; keys are a sequence of arrays, or rows of one array.

    Along a cut axis too long for a block: one stable sort a key.
    """
    rows = [as_expr(k) for k in (keys if not hasattr(keys, "ndim") else asarray(keys))]
    if not rows:
        raise TypeError("need sequence of keys with len > 0 in lexsort; pass one array a key")
    if len({r.shape for r in rows}) > 1:
        raise ValueError(f"all keys need to be the same shape, got {[r.shape for r in rows]}; broadcast them first")
    if not rows[0].ndim:
        return Array(build.full(0, (), np.intp, ()))
    axis = build.normalize_axes(axis, rows[0].ndim)[0]
    if sorting.fits(rows[0], [axis]):
        return Array(sorting.on_lines(_lexsort, rows, axis, np.intp, "lexsort"))
    from nums_core.array.indexing import take_along_axis

    order = argsort(Array(rows[0]), axis=axis)
    for row in rows[1:]:
        order = take_along_axis(order, argsort(take_along_axis(Array(row), order, axis), axis=axis), axis)
    return order


def _lexsort(*blocks: np.ndarray, axis: int) -> np.ndarray:
    return np.lexsort(blocks, axis=axis)


def searchsorted(a: Any, v: Any, side: str = "left", sorter: Any = None) -> Array:
    """Where values `v` would be inserted into the sorted `a` (shape (n,)) to keep it sorted.

    Parameters
    ----------
    side : "left" or "right"
        Before or after elements equal to the value.
    sorter : integer array, shape (n,), optional
        Positions that sort `a`.

    Returns
    -------
    Array, shape and chunks of `v`, dtype intp.

    Notes
    -----
    `a` may be cut: positions in its blocks add up. Every block of `v` meets every block of `a`.
    """
    if side not in ("left", "right"):
        raise ValueError(f"search side must be one of 'left' or 'right' (got {side!r})")
    if sorter is not None:
        from nums_core.array.indexing import take

        a = take(a, sorter)
    table, values = as_expr(a), as_expr(v)
    if table.ndim != 1:
        raise ShapeError(f"object too deep for desired array: searchsorted() looks in arrays of one axis, not of shape "
                         f"{table.shape}; flatten it with .ravel()" if table.ndim else
                         "object of too small depth for desired array: searchsorted() looks in arrays of one axis, not "
                         "in a number; wrap it in a list")
    return Array(build.custom("sort.search", [table, values], (side,), values.shape, np.intp, values.chunks))


def digitize(x: Any, bins: Any, right: bool = False) -> Array:
    """The number of the bin that each element of `x` falls into; `bins` are monotonic edges, shape (n,)."""
    if not isinstance(bins, Array):
        np.digitize(np.zeros(0), np.asarray(bins))  # NumPy's complaint, now
    values, edges = as_expr(x), build.single_block(known_expr(bins))
    labels = tuple(range(values.ndim))
    return Array(build.blockmap(np.digitize, [values, edges], [labels, ("edge",)], labels, values.shape, np.intp,
                                values.chunks, (("right", bool(right)),), label="digitize", flop=30.0))


def interp(x: Any, xp: Any, fp: Any, left: Any = None, right: Any = None, period: float | None = None) -> Array:
    """The piecewise linear function through the points (`xp`, `fp`), shape (n,) both, at `x`.

    Shape and chunks of `x`; float64, or complex128 where `fp` is complex. The points are kept in one block.
    """
    at, (xs, ys) = as_expr(x), (build.single_block(known_expr(p)) for p in (xp, fp))
    if xs.shape != ys.shape or xs.ndim != 1:
        raise ValueError(f"fp and xp are not of the same length: shapes {ys.shape} and {xs.shape}; give one axis each")
    if not xs.shape[0]:
        raise ValueError("array of sample points is empty; give at least one point")
    if period == 0:
        raise ValueError("period must be a non-zero value")
    labels = tuple(range(at.ndim))
    dtype = np.complex128 if ys.dtype.kind == "c" else float
    kw = {"left": left, "right": right, "period": period}
    return Array(build.blockmap(np.interp, [at, xs, ys], [labels, ("p",), ("p",)], labels, at.shape, dtype, at.chunks,
                                keywords(kw), label="interp", flop=40.0))


def topk(a: Any, k: int, axis: int = -1, split_every: Any = None) -> Array:
    """The k largest elements along `axis`, largest first; for negative k the -k smallest, smallest first."""
    x, axis = _line(a, axis)
    count = min(abs(operator.index(k)), x.shape[axis])
    if _many(x, axis, count):
        made = sort(Array(x), axis=axis).expr
        return Array(sorting.head(sorting.flip(made, axis) if k > 0 else made, axis, count))
    signed = count if k > 0 else -count
    return Array(build.reduce("topk", x, axis, True, (("k", signed),), width=count))


def argtopk(a: Any, k: int, axis: int = -1, split_every: Any = None) -> Array:
    """Positions along `axis` of what `topk` gives; of equal elements the first comes first."""
    x, axis = _line(a, axis)
    count = min(abs(operator.index(k)), x.shape[axis])
    if _many(x, axis, count):
        return Array(sorting.head(argsort(Array(x), axis=axis, descending=k > 0).expr, axis, count))
    shape = tuple(count if i == axis else n for i, n in enumerate(x.shape))
    chunks = tuple((count,) if i == axis else c for i, c in enumerate(x.chunks))
    return Array(build.custom("sort.argtopk", [x], (count if k > 0 else -count, axis), shape, np.intp, chunks))


def _many(x: Expr, axis: int, count: int) -> bool:
    """Whether so many are wanted (or none) that sorting is the cheaper way."""
    return count == 0 or 2 * count > max(x.chunks[axis])


__all__ = ["argpartition", "argsort", "argtopk", "digitize", "interp", "lexsort", "partition", "searchsorted", "sort",
           "sort_complex", "topk"]
