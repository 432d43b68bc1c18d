"""Indexing expressions: gathering points, selecting by masks, and assigning to parts; checks are the caller's.

`first` is always the first of the `k` consecutive axes that an index runs over. The axes before and after it keep their
grid, so that a task touches one block of each source it needs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nums_core.expr.build import axes, cast, full, gather, rechunk, slice_chunks
from nums_core.expr.grid import Chunks, known, offsets, uniform
from nums_core.expr.node import Expr, make
from nums_core.expr.reshape import flatten, run_chunks, usual_elements

NAN = np.nan  # one object: tuples of chunks compare it by identity


class Frozen:
    """An array as a parameter of a node: compared by contents. It must not be written to afterwards."""

    __slots__ = ("_key", "array")

    def __init__(self, array: np.ndarray) -> None:
        import hashlib

        self.array = np.ascontiguousarray(array)
        self._key = (self.array.dtype.str, self.array.shape, hashlib.blake2b(self.array.data, digest_size=16).digest())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frozen) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"<{self.array.shape} {self.array.dtype}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return Frozen, (self.array,)


def block_budget(x: Expr, without: Sequence[int]) -> int:
    """Elements along the axes `without` that make a block of the usual size, given how the other axes are cut."""
    rest = math.prod(max(c) for i, c in enumerate(x.chunks) if i not in without)
    return int(usual_elements(x) // max(rest, 1)) or 1


# -- boxes ------------------------------------------------------------------------------------------------------------

def box(x: Expr, start: Sequence[int], step: Sequence[int], extent: Sequence[Any]) -> Expr:
    """A strided box of `x`; each block keeps what it has of it (far fewer elements of many blocks are put together)."""
    chunks = tuple(c if n != n or (n == m and d == 1) else _sliced(c, s, d, n)
                   for c, m, s, d, n in zip(x.chunks, x.shape, start, step, extent, strict=True))
    return gather(x, tuple(start), tuple(step), chunks)


def _sliced(sizes: Sequence[int], start: int, step: int, n: int) -> tuple[int, ...]:
    cut = slice_chunks(sizes, start, step, n)
    if abs(step) < 8 or len(cut) == 1:
        return cut
    group = np.cumsum(cut) // max(max(sizes), 1)  # blocks of about the size they had
    return tuple(int(c) for c in np.bincount(group - group[0], cut) if c)


def along(x: Expr, axis: int, start: int, stop: int, step: int = 1) -> Expr:
    """`x[..., start:stop:step, ...]` along one axis; `start` and `stop` are not negative, or -1 for a step below 0."""
    starts, steps, extents = [0] * x.ndim, [1] * x.ndim, list(x.shape)
    starts[axis], steps[axis], extents[axis] = start, step, len(range(start, stop, step))
    return box(x, starts, steps, extents)


# -- points -----------------------------------------------------------------------------------------------------------

def points(x: Expr, first: int, locs: Sequence[np.ndarray], cut: tuple[int, ...] | None = None) -> Expr:
    """Elements of `x` at known places: `locs` are k int64 vectors of one length, not negative and in range.

    The k axes become one, cut by `cut`. One gather for each block that owns some of a result block's elements."""
    k, n = len(locs), len(locs[0])
    if cut is None:
        cut = _point_chunks(x, first, k, n)
    shape = (*x.shape[:first], n, *x.shape[first + k:])
    chunks = (*x.chunks[:first], cut, *x.chunks[first + k:])
    return make("index.points", (x,), (first, Frozen(np.stack(locs))), shape, x.dtype, chunks)


def _point_chunks(x: Expr, first: int, k: int, n: int) -> tuple[int, ...]:
    """About as many blocks as the source has, none smaller than its blocks nor larger than blocks should be."""
    over = range(first, first + k)
    owners = math.prod(len(x.chunks[i]) for i in over)
    size = max(-(-n // owners), math.prod(max(x.chunks[i]) for i in over), 1)
    return uniform(n, min(size, block_budget(x, over)))


def owners(chunks: Chunks, locs: Sequence[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """The block that owns each point (C order of the grid of these axes), and the point's place in it."""
    owner = np.zeros(len(locs[0]), np.int64)
    local = []
    for sizes, loc in zip(chunks, locs, strict=True):
        begins = np.array(offsets(sizes), np.int64)
        block = np.searchsorted(np.cumsum(sizes), loc, side="right")
        owner = owner * len(sizes) + block
        local.append(loc - begins[block])
    return owner, local


def points_at(x: Expr, first: int, where: Sequence[Expr]) -> Expr:
    """Elements of `x` at places that are themselves computed: k integer expressions of one shape and grid."""
    k, w = len(where), where[0]
    shape = (*x.shape[:first], *w.shape, *x.shape[first + k:])
    chunks = (*x.chunks[:first], *w.chunks, *x.chunks[first + k:])
    return make("index.points_at", (x, *where), (first,), shape, x.dtype, chunks)


# -- masks ------------------------------------------------------------------------------------------------------------

def in_runs(x: Expr, first: int, k: int) -> Expr:
    """`x` with the k axes from `first` cut in contiguous runs, so that C order of blocks is C order of elements."""
    over = range(first, first + k)
    if k == 1 or not known(x.chunks):
        return x
    stop = first + k
    cut = run_chunks(x.shape[first:stop], x.chunks[first:stop], block_budget(x, over))
    return rechunk(x, (*x.chunks[:first], *cut, *x.chunks[stop:]))


def select(x: Expr, mask: Expr, first: int, counts: tuple[int, ...] | None = None) -> Expr:
    """Elements of `x` (in runs) where `mask` (cut alike) is true, in C order: its axes become one.

    Its extents depend on data, unless `counts`, the true elements of each run, are given."""
    stop = first + mask.ndim
    assert mask.chunks == x.chunks[first:stop]
    n_runs = math.prod(map(len, mask.chunks))
    cut: tuple[Any, ...] = (NAN,) * n_runs if counts is None else counts
    shape = (*x.shape[:first], NAN if counts is None else sum(counts), *x.shape[stop:])
    return make("index.select", (x, mask), (first, None, ()), shape, x.dtype,
                (*x.chunks[:first], cut, *x.chunks[stop:]))


def count_runs(mask: np.ndarray, cut: Chunks) -> tuple[int, ...]:
    """True elements of each run of a mask in memory."""
    flat = np.ascontiguousarray(mask).reshape(-1)
    stops = np.cumsum(flatten(cut)).tolist()
    return tuple(int(np.count_nonzero(flat[a:b])) for a, b in zip([0, *stops], stops, strict=False))


def nonzero(x: Expr) -> Expr:
    """For each run of `x`, the tuple of the places of its true elements along each axis."""
    x = in_runs(x, 0, x.ndim)
    n_runs = math.prod(x.grid)
    return make("index.nonzero", (x,), (), (NAN,), np.intp, ((NAN,) * n_runs,))


def diagonal(x: Expr, offset: int) -> Expr:
    """Diagonals of the last two axes, as the last axis: a block for each block of `x` that one passes through."""
    row, column = max(-offset, 0), max(offset, 0)
    n = max(min(x.shape[-2] - row, x.shape[-1] - column), 0)
    shape = (*x.shape[:-2], n)
    if n == 0:
        return full(np.zeros((), x.dtype)[()], shape, x.dtype, (*x.chunks[:-2], (0,)))
    borders = {b - first for sizes, first in zip(x.chunks[-2:], (row, column), strict=True) for b in np.cumsum(sizes).tolist()}
    cut = np.diff([0, *sorted(b for b in borders if 0 < b < n), n])
    return make("index.diagonal", (x,), (row, column), shape, x.dtype, (*x.chunks[:-2], tuple(cut.tolist())))


# -- assignment -------------------------------------------------------------------------------------------------------

def put_region(x: Expr, start: tuple[int, ...], step: tuple[int, ...], value: Expr) -> Expr:
    """`x` with the strided box of `value`'s shape at `start` (steps positive) replaced by `value`.

    Blocks outside the box are those of `x`, blocks inside it those of `value`: only its border costs a task."""
    if any(n == 0 for n in value.shape):
        return x
    value = rechunk(value, tuple(slice_chunks(c, s, d, n) for c, s, d, n in
                                 zip(x.chunks, start, step, value.shape, strict=True)))
    return make("index.put_region", (x, value), (start, step), x.shape, x.dtype, x.chunks)


def put_points(x: Expr, first: int, locs: Sequence[np.ndarray], value: Expr) -> Expr:
    """`x` with the elements at `locs` replaced by `value` of shape (before, n or 1, after); the last of equals wins."""
    k, n = len(locs), len(locs[0])
    if n == 0:
        return x
    owner, _ = owners(x.chunks[first:first + k], locs)
    order = np.argsort(owner, kind="stable")
    runs = np.diff(np.flatnonzero(np.diff(owner[order], prepend=-1, append=-2)))
    cut = tuple(int(c) for c in runs)
    if value.shape[first] == 1:
        value = axes(value, range(value.ndim), (*value.shape[:first], n, *value.shape[first + 1:]))
        value = rechunk(value, (*x.chunks[:first], cut, *x.chunks[first + k:]))
    else:
        value = rechunk(value, (*x.chunks[:first], value.chunks[first], *x.chunks[first + k:]))
        value = points(value, first, [order], cut)
    return make("index.put_points", (x, value), (first, Frozen(np.stack(locs)[:, order])), x.shape, x.dtype, x.chunks)


def put_points_at(x: Expr, first: int, where: Sequence[Expr], value: Expr) -> Expr:
    """The same at places that are computed; `value` has shape (before, *where.shape, after)."""
    k, w = len(where), where[0]
    value = rechunk(cast(value, x.dtype), (*x.chunks[:first], *w.chunks, *x.chunks[first + k:]))
    return make("index.put_points_at", (x, value, *where), (first,), x.shape, x.dtype, x.chunks)


def put_mask(x: Expr, mask: Expr, first: int, value: Expr) -> Expr:
    """`x` (in runs) with what `select(x, mask, first)` gives replaced by `value`, which is cut like it."""
    return make("index.put_mask", (x, mask, value), (first,), x.shape, x.dtype, x.chunks)
