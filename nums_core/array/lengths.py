"""Arrays made longer or shorter: repeated, with parts inserted or left out. Most of it lists blocks anew."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from nums_core.array.array import Array, known_expr
from nums_core.array.manipulation import broadcast_to, moveaxis, with_new_axes
from nums_core.expr import build, grid, index
from nums_core.expr import reshape as reshaping
from nums_core.expr.node import Expr

# Above this many runs, pieces of an axis are taken by one list of places instead of a slice each.
MANY_RUNS = 256


# -- repeating --------------------------------------------------------------------------------------------------------

def tile(A: Any, reps: Any) -> Array:
    """`A` beside itself, so many times along each axis. Blocks are listed again, not copied."""
    times = (int(reps),) if not np.ndim(reps) else tuple(int(r) for r in reps)
    x = known_expr(A)
    x = with_new_axes(x, range(len(times) - x.ndim)) if len(times) > x.ndim else x
    times = (1,) * (x.ndim - len(times)) + times
    for axis, r in enumerate(times):
        if r < 0:
            raise ValueError("negative dimensions are not allowed")
        if r != 1:
            x = build.concatenate([x] * r, axis) if r else index.along(x, axis, 0, 0)
    return Array(x)


def repeat(a: Any, repeats: Any, axis: int | None = None) -> Array:
    """Each element so many times in a row.

    Parameters
    ----------
    a : array
    repeats : int, or integers that are broadcast to the extent of `axis` (lazy ones are computed)
    axis : int, optional
        Default: of the raveled array.
    """
    x = known_expr(a)
    if axis is None:
        x, axis = reshaping.reshape(x, (math.prod(x.shape),)), 0
    axis = normalize_axis_index(axis, x.ndim)
    times = np.asarray(repeats)
    if times.dtype.kind not in "iub" or (times < 0).any():
        raise ValueError(f"repeats may not contain negative values, and must be integers: {repeats!r}")
    n = x.shape[axis]
    if times.size == 1:
        return Array(_repeated(x, int(times.reshape(())), axis))
    if times.shape != (n,):
        raise ValueError(f"operands could not be broadcast together with shape ({n},) {str(times.shape).replace(' ', '')}; "
                         "give one number, or one for each element")
    return Array(index.points(x, axis, [np.repeat(np.arange(n), times)]))


def _repeated(x: Expr, times: int, axis: int) -> Expr:
    """A new axis after `axis`, broadcast, then merged with it; blocks are cut finer so as not to outgrow others."""
    if times == 0:
        return index.along(x, axis, 0, 0)
    budget = max(index.block_budget(x, [axis]) // times, 1)
    if max(x.chunks[axis]) > budget:
        x = build.rechunk(x, tuple(grid.uniform(x.shape[axis], budget) if i == axis else c for i, c in enumerate(x.chunks)))
    wide = (*x.shape[:axis + 1], times, *x.shape[axis + 1:])
    source = [*range(axis + 1), None, *range(axis + 1, x.ndim)]
    merged = tuple(n * times if i == axis else n for i, n in enumerate(x.shape))
    if 0 in merged:
        return reshaping.reshape(build.axes(x, source, wide), merged)
    chunks = tuple(tuple(n * times for n in c) if i == axis else c for i, c in enumerate(x.chunks))
    return reshaping.blocks(build.axes(x, source, wide), merged, chunks)


def resize(a: Any, new_shape: int | Sequence[int]) -> Array:
    """`a` repeated, or cut short, in C order to fill `new_shape`."""
    shape = (int(new_shape),) if isinstance(new_shape, (int, np.integer)) else tuple(int(n) for n in new_shape)
    if any(n < 0 for n in shape):
        raise ValueError("all elements of `new_shape` must be non-negative")
    x = known_expr(a)
    n, have = math.prod(shape), math.prod(x.shape)
    if not n or not have:
        return Array(build.full(np.zeros((), x.dtype)[()], shape, x.dtype, grid.normalize("auto", shape, x.dtype)))
    flat = reshaping.reshape(x, (have,))
    parts = [flat] * (n // have) + ([index.along(flat, 0, 0, n % have)] if n % have else [])
    return Array(reshaping.reshape(build.concatenate(parts, 0), shape))


# -- changing length --------------------------------------------------------------------------------------------------

def by_runs(x: Expr, places: np.ndarray, axis: int) -> Expr:
    """`x` at known places along `axis`: a slice for each run of neighbours, or a gather where runs are many."""
    n = len(places)
    if not n:
        return index.along(x, axis, 0, 0)
    steps = np.diff(places)
    runs: list[tuple[int, int, int]] = []
    a = 0
    while a < n and len(runs) <= MANY_RUNS:
        step = int(steps[a]) if a < n - 1 and abs(steps[a]) == 1 else 1
        ends = np.flatnonzero(steps[a:] != step)
        b = a + int(ends[0]) + 1 if len(ends) else n
        runs.append((int(places[a]), int(places[b - 1]) + step, step))
        a = b
    if a < n:
        return index.points(x, axis, [places.astype(np.int64)])
    return build.concatenate([index.along(x, axis, *run) for run in runs], axis)


def delete(arr: Any, obj: Any, axis: int | None = None) -> Array:
    """`arr` without the slices `obj` (int, slice, integers or a mask; lazy ones are computed) along `axis`."""
    x = known_expr(arr)
    if axis is None:
        x, axis = reshaping.reshape(x, (math.prod(x.shape),)), 0
    axis = normalize_axis_index(axis, x.ndim)
    n = x.shape[axis]
    gone = np.arange(n)[obj] if isinstance(obj, slice) else _places(obj, n, axis)
    if len(gone) > MANY_RUNS:
        return Array(by_runs(x, np.delete(np.arange(n), gone), axis))
    edges = [-1, *np.unique(gone).tolist(), n]
    return Array(build.concatenate([index.along(x, axis, a + 1, b) for a, b in itertools.pairwise(edges)], axis))


def _places(obj: Any, n: int, axis: int) -> np.ndarray:
    """Integers or a mask as places from 0."""
    at = np.asarray(obj)
    if at.dtype == bool:
        if at.shape != (n,):
            raise ValueError(f"boolean array argument obj to delete must be one dimensional and match the axis length of "
                             f"{n}; it has shape {at.shape}")
        return np.flatnonzero(at)
    at = at.reshape(-1).astype(np.intp) if not at.size else at.reshape(-1)
    bad = (at < -n) | (at >= n)
    if bad.any():
        raise IndexError(f"index {at[bad][0]} is out of bounds for axis {axis} with size {n}")
    return np.where(at < 0, at + n, at)


def insert(arr: Any, obj: Any, values: Any, axis: int | None = None) -> Array:
    """`values` before the places `obj` along `axis` (default: of the raveled array).

    Parameters
    ----------
    arr : array
    obj : int, slice, integers or a mask; lazy ones are computed
    values : array
        Broadcast to the slices inserted; for a scalar `obj`, its first axis is `axis`.
    """
    x = known_expr(arr)
    if axis is None:
        x, axis = reshaping.reshape(x, (math.prod(x.shape),)), 0
    axis = normalize_axis_index(axis, x.ndim)
    n = x.shape[axis]
    at = np.arange(*obj.indices(n)) if isinstance(obj, slice) else np.asarray(obj)
    if at.ndim > 1:
        raise ValueError("index array argument obj to insert must be one dimensional or scalar")
    at = np.flatnonzero(at) if at.dtype == bool else at.astype(np.intp) if not at.size else at
    v = build.cast(known_expr(values), x.dtype)
    count = len(at) if at.ndim else 1
    if at.size == 1:
        v = with_new_axes(v, range(x.ndim - v.ndim)) if v.ndim < x.ndim else v
        v = v if at.ndim else moveaxis(Array(v), 0, axis).expr  # as NumPy: the first axis of `values` is `axis`
        count = v.shape[axis]
    new = broadcast_to(Array(v), tuple(count if i == axis else m for i, m in enumerate(x.shape))).expr
    bad = (at < -n) | (at > n)
    if bad.any():
        raise IndexError(f"index {at[bad].flat[0]} is out of bounds for axis {axis} with size {n}")
    return Array(_interleaved(x, np.where(at < 0, at + n, at), new, axis))


def _interleaved(x: Expr, at: np.ndarray, new: Expr, axis: int) -> Expr:
    """Slices of `new` before the places `at` of `x`; all of it where there is one place."""
    n, count = x.shape[axis], new.shape[axis]
    if at.size > MANY_RUNS:  # old elements are 0 to n - 1, new ones n, n + 1, ...: NumPy says where each goes
        return by_runs(build.concatenate([x, new], axis), np.insert(np.arange(n), at, np.arange(n, n + count)), axis)
    parts, done = [], 0
    for k in np.argsort(at.reshape(-1), kind="stable").tolist():
        place = int(at.flat[k])
        parts.append(index.along(x, axis, done, place))
        parts.append(new if at.size == 1 else index.along(new, axis, k, k + 1))
        done = place
    return build.concatenate([*parts, index.along(x, axis, done, n)], axis)


def trim_zeros(filt: Any, trim: str = "fb", axis: Any = None) -> Array:
    """Without leading ("f") and trailing ("b") zeros along each axis. The borders are computed at once."""
    x = Array(known_expr(filt))
    trim = trim.lower()
    if trim not in ("fb", "bf", "f", "b"):
        raise ValueError(f"unexpected character(s) in `trim`: {trim!r}; give 'f', 'b' or 'fb'")
    which = normalize_axis_tuple(range(x.ndim) if axis is None else axis, x.ndim)
    from nums_core.array.computing import compute

    nonzero = x != 0
    hit = compute(*[nonzero.any(axis=tuple(j for j in range(x.ndim) if j != i)) if x.ndim > 1 else nonzero for i in which])
    at: list[slice] = [slice(None)] * x.ndim
    for i, line in zip(which, hit, strict=True):
        found = np.flatnonzero(line)
        if not len(found):
            at[i] = slice(0, 0)
            continue
        at[i] = slice(int(found[0]) if "f" in trim else 0, int(found[-1]) + 1 if "b" in trim else len(line))
    return x[tuple(at)]


__all__ = ["delete", "insert", "repeat", "resize", "tile", "trim_zeros"]
