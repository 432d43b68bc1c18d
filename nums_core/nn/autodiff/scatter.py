"""Scatter-add: cotangents of elements that were picked, added up where they were picked from.

`index.put_points` writes, and of equal places the last wins; here equal places add up, as the rows of an embedding that
are looked up several times must. Sums are made in the order of the picks, whatever the grid: the bits do not depend on
it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nums_core.expr import build, index
from nums_core.expr.node import Expr


def add_points_at(like: Expr, first: int, where: Sequence[Expr], value: Expr) -> Expr:
    """Zeros of the shape and grid of `like`, with `value` added at computed places of the len(where) axes from `first`.

    `where` are integer expressions of one shape, `value` has shape (before, *where.shape, after). Every block of the
    result reads all places, and of `value` all that belongs to its other axes."""
    k, width = len(where), where[0].ndim
    before = [("before", i) for i in range(first)]
    after = [("after", i) for i in range(like.ndim - first - k)]
    picks = [("pick", i) for i in range(width)]
    extents = value.shape[first:first + width]
    value = build.rechunk(value, (*like.chunks[:first], *((n,) for n in extents), *like.chunks[first + k:]))
    places = [build.single_block(w) for w in where]
    out = [*before, *(("place", i) for i in range(k)), *after]
    kw = (("first", first), ("k", k), ("shape", like.shape))
    labels = [[*before, *picks, *after], *[picks] * k]
    return build.blockmap(add_at, [value, *places], labels, out, like.shape, value.dtype,
                          like.chunks, kw, ("block_info",), "scatter.add", 4.0)


def add_at(value: np.ndarray, *where: np.ndarray, first: int, k: int, shape: tuple[int, ...],
           block_info: Any) -> np.ndarray:
    """The kernel: one block of the result."""
    box = block_info[None]["array-location"]
    extents = [b - a for a, b in box]
    rows, inside = _flat_places(where, shape[first:first + k], box[first:first + k])
    width = where[0].ndim
    lines = np.moveaxis(value, range(first, first + width), range(width)).reshape(rows.size, -1)
    kept = extents[:first] + extents[first + k:]
    out = np.zeros((math.prod(extents[first:first + k]), math.prod(kept)), value.dtype)
    _add_rows(out, rows[inside], lines if inside.all() else lines[inside])
    out = out.reshape(*extents[first:first + k], *kept)
    return np.moveaxis(out, range(k), range(first, first + k))


def _flat_places(where: Sequence[np.ndarray], shape: Sequence[int],
                 box: Sequence[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Each pick's place in the box, in C order, and whether it lies in it."""
    flat = np.zeros(where[0].size, np.int64)
    inside = np.ones(where[0].size, bool)
    for w, n, (begin, end) in zip(where, shape, box, strict=True):
        w = w.reshape(-1).astype(np.int64)
        w = np.where(w < 0, w + n, w)
        inside &= (begin <= w) & (w < end)
        flat = flat * (end - begin) + (w - begin)
    return flat, inside


def _add_rows(out: np.ndarray, rows: np.ndarray, lines: np.ndarray) -> None:
    """out[rows] += lines, equal rows one after the other: sorted, so that each row is summed and written once."""
    if not rows.size:
        return
    order = np.argsort(rows, kind="stable")
    rows = rows[order]
    begins = np.flatnonzero(np.diff(rows, prepend=-1))
    out[rows[begins]] = np.add.reduceat(lines[order], begins, axis=0)


def add_along_axis(like: Expr, where: Expr, value: Expr, axis: int) -> Expr:
    """The same for `take_along_axis`: each line of `value` added at the places in the same line of `where`."""
    one = [build.rechunk(a, tuple((a.shape[axis],) if i == axis else c for i, c in enumerate(like.chunks)))
           for a in (where, value)]
    labels = tuple(range(like.ndim))
    picks = tuple("pick" if i == axis else i for i in labels)
    chunks = build.uncut(like, [axis]).chunks
    return build.blockmap(add_along, one, [picks, picks], labels, like.shape, value.dtype, chunks,
                          (("axis", axis), ("n", like.shape[axis])), label="scatter.add", flop=4.0)


def add_along(where: np.ndarray, value: np.ndarray, axis: int, n: int) -> np.ndarray:
    """The kernel: whole lines along `axis`."""
    w, v = np.moveaxis(where, axis, -1), np.moveaxis(value, axis, -1)
    lines = math.prod(w.shape[:-1])
    flat = np.where(w < 0, w + n, w).reshape(lines, -1) + n * np.arange(lines)[:, None]
    out = np.zeros((lines * n, 1), value.dtype)
    _add_rows(out, flat.reshape(-1), v.reshape(-1, 1))
    return np.moveaxis(out.reshape(*w.shape[:-1], n), -1, axis)


def add_points(like: Expr, first: int, locs: np.ndarray, value: Expr) -> Expr:
    """The same at known places, int64 of shape (k, n): written block by block where no place stands twice."""
    from nums_core.array.array import asarray

    sizes = like.shape[first:first + len(locs)]
    flat = np.ravel_multi_index(tuple(locs), sizes) if locs.size else np.zeros(0, np.int64)
    if len(np.unique(flat)) == len(flat):
        return index.put_points(build.full(0, like.shape, value.dtype, like.chunks), first, list(locs), value)
    return add_points_at(like, first, [asarray(loc).expr for loc in locs], value)
