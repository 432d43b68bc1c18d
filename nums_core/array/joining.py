"""Arrays put together, taken apart, repeated, and changed in length. Joining moves nothing: blocks are listed anew."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from nums_core.array.array import Array, as_expr, known_expr
from nums_core.array.indexing import into
from nums_core.array.manipulation import atleast_1d, atleast_2d, atleast_3d, broadcast_to, moveaxis, ravel, with_new_axes
from nums_core.errors import ShapeError
from nums_core.expr import build, grid, index
from nums_core.expr import reshape as reshaping
from nums_core.expr.node import Expr

# Above this many runs, pieces of an axis are taken by one list of places instead of a slice each.
MANY_RUNS = 256


# -- putting together -------------------------------------------------------------------------------------------------

def concatenate(seq: Sequence[Any], axis: int | None = 0, out: Any = None, dtype: Any = None, casting: str = "same_kind",
                allow_unknown_chunksizes: bool = False) -> Array:
    """Arrays one after another along `axis`; with `axis=None`, raveled first.

    Parameters
    ----------
    seq : sequence of arrays, alike but along `axis`
    dtype : of the result; NumPy's promotion if not given
    allow_unknown_chunksizes : taken for dask's sake; extents along `axis` may depend on data, the others are resolved.

    Raises
    ------
    ValueError
        Extents off `axis` differ, or there are no arrays.
    """
    parts = [as_expr(a) for a in seq]
    if not parts:
        raise ValueError("need at least one array to concatenate")
    if axis is None:
        parts, axis = [as_expr(ravel(Array(p))) for p in parts], 0
    if not parts[0].ndim:
        raise ValueError("zero-dimensional arrays cannot be concatenated; use stack")
    axis = normalize_axis_index(axis, parts[0].ndim)
    parts = _agreeing(seq, parts, axis)
    if dtype is not None:
        for p in parts:
            if not np.can_cast(p.dtype, dtype, casting):  # type: ignore[arg-type]
                raise TypeError(f"Cannot cast array data from {p.dtype!r} to {np.dtype(dtype)!r} according to the rule "
                                f"{casting!r}; use casting='unsafe' if losing digits is meant")
        parts = [build.cast(p, dtype) for p in parts]
    return into(out, Array(build.concatenate(parts, axis)))


def _agreeing(seq: Sequence[Any], parts: list[Expr], axis: int) -> list[Expr]:
    """The parts, checked; extents off `axis` that depend on data are made known where they are not the same array's."""
    first = parts[0]
    for k, p in enumerate(parts):
        if p.ndim != first.ndim:
            raise ShapeError("all the input array dimensions except for the concatenation axis must match exactly: all the "
                             "input arrays must have same number of dimensions, but the array at index 0 has "
                             f"{first.ndim} dimension(s) and the array at index {k} has {p.ndim} dimension(s); add axes "
                             "with x[:, None]")
    off = [i for i in range(first.ndim) if i != axis]
    if any(n != n for p in parts for n in (p.shape[i] for i in off)) and any(
            p.chunks[i] != first.chunks[i] for p in parts for i in off):
        parts = [known_expr(a) for a in seq]
        first = parts[0]
    for k, p in enumerate(parts):
        for i in off:
            if p.shape[i] != first.shape[i] and p.chunks[i] != first.chunks[i]:
                raise ShapeError("all the input array dimensions except for the concatenation axis must match exactly, but "
                                 f"along dimension {i}, the array at index 0 has size {first.shape[i]} and the array at "
                                 f"index {k} has size {p.shape[i]}; pad or slice one of them")
    return parts


concat = concatenate


def stack(seq: Sequence[Any], axis: int = 0, out: Any = None, dtype: Any = None, casting: str = "same_kind",
          allow_unknown_chunksizes: bool = False) -> Array:
    """Arrays of one shape along a new axis."""
    parts = [as_expr(a) for a in seq]
    if not parts:
        raise ValueError("need at least one array to stack")
    if any(p.shape != parts[0].shape and p.chunks != parts[0].chunks for p in parts):
        shapes = sorted({str(known_expr(a).shape) for a in seq})
        if len(shapes) > 1:
            raise ShapeError(f"all input arrays must have the same shape, not {' and '.join(shapes)}; pad or slice some")
        parts = [known_expr(a) for a in seq]
    axis = normalize_axis_index(axis, parts[0].ndim + 1)
    return concatenate([Array(with_new_axes(p, (axis,))) for p in parts], axis, out, dtype, casting)


def vstack(tup: Sequence[Any], dtype: Any = None, casting: str = "same_kind",
           allow_unknown_chunksizes: bool = False) -> Array:
    """Rows, or blocks of rows, under one another."""
    return concatenate(_several(atleast_2d(*_listed(tup, "vstack"))), 0, None, dtype, casting)


row_stack = vstack


def hstack(tup: Sequence[Any], dtype: Any = None, casting: str = "same_kind",
           allow_unknown_chunksizes: bool = False) -> Array:
    """Beside one another: along axis 1, vectors along axis 0."""
    parts = _several(atleast_1d(*_listed(tup, "hstack")))
    return concatenate(parts, 0 if parts[0].ndim == 1 else 1, None, dtype, casting)


def dstack(tup: Sequence[Any], allow_unknown_chunksizes: bool = False) -> Array:
    """Behind one another: along axis 2."""
    return concatenate(_several(atleast_3d(*_listed(tup, "dstack"))), 2)


def column_stack(tup: Sequence[Any]) -> Array:
    """Vectors as columns, matrices beside one another."""
    parts = [Array(as_expr(a)) for a in _listed(tup, "column_stack")]
    return concatenate([p if p.ndim >= 2 else atleast_2d(p).T for p in parts], 1)


def _listed(tup: Any, name: str) -> Sequence[Any]:
    if isinstance(tup, Array):
        return list(tup)
    if not hasattr(tup, "__getitem__"):
        raise TypeError(f'arrays to stack must be passed as a "sequence" type such as list or tuple to {name}()')
    if not len(tup):
        raise ValueError("need at least one array to concatenate")
    return tup


def _several(made: Any) -> Sequence[Any]:
    return made if isinstance(made, tuple) else (made,)


def block(arrays: Any, allow_unknown_chunksizes: bool = False) -> Array:
    """Nested lists of arrays put together: innermost lists along the last axis, the next along the one before.

    Raises
    ------
    ValueError
        Lists of different depths, empty lists, or arrays that do not fit.
    """
    depth = _depth(arrays, ())
    leaves = list(_leaves(arrays))
    ndim = max(depth, max(np.ndim(a) if not isinstance(a, Array) else a.ndim for a in leaves))
    return _joined(arrays, depth, ndim)


def _depth(arrays: Any, path: tuple[int, ...]) -> int:
    if isinstance(arrays, tuple):
        raise TypeError(f"arrays{''.join(f'[{i}]' for i in path)} is a tuple. Only lists can be used to arrange blocks, and "
                        "np.block does not allow implicit conversion from tuple to ndarray.")
    if not isinstance(arrays, list):
        return 0
    if not arrays:
        raise ValueError(f"List at arrays{''.join(f'[{i}]' for i in path)} cannot be empty")
    depths = {_depth(a, (*path, i)) for i, a in enumerate(arrays)}
    if len(depths) > 1:
        raise ValueError(f"List depths are mismatched: found depths {sorted(depths)} beside one another; nest all alike")
    return depths.pop() + 1


def _leaves(arrays: Any) -> Any:
    return itertools.chain.from_iterable(map(_leaves, arrays)) if isinstance(arrays, list) else (arrays,)


def _joined(arrays: Any, depth: int, ndim: int) -> Array:
    if not isinstance(arrays, list):
        x = as_expr(arrays)
        return Array(with_new_axes(x, range(ndim - x.ndim)))
    return concatenate([_joined(a, depth - 1, ndim) for a in arrays], -depth)


def append(arr: Any, values: Any, axis: int | None = None) -> Array:
    """`values` after `arr` along `axis` (default: both raveled)."""
    return concatenate([arr, values], axis)


# -- taking apart -----------------------------------------------------------------------------------------------------

def array_split(ary: Any, indices_or_sections: Any, axis: int = 0) -> list[Array]:
    """Consecutive parts along `axis`: so many of almost equal extent, or between the given places."""
    x = known_expr(ary)
    axis = normalize_axis_index(axis, x.ndim)
    n = x.shape[axis]
    if np.ndim(indices_or_sections):
        borders = [range(n)[:int(i)].stop for i in np.asarray(indices_or_sections)]
        starts, stops = [0, *borders], [*borders, n]
    else:
        sections = int(indices_or_sections)
        if sections <= 0:
            raise ValueError("number sections must be larger than 0.")
        each, more = divmod(n, sections)
        edges = list(itertools.accumulate([0, *[each + (k < more) for k in range(sections)]]))
        starts, stops = edges[:-1], edges[1:]
    return [Array(index.along(x, axis, a, max(a, b))) for a, b in zip(starts, stops, strict=True)]


def split(ary: Any, indices_or_sections: Any, axis: int = 0) -> list[Array]:
    """As `array_split`, but a number of parts must divide the extent."""
    if not np.ndim(indices_or_sections):
        n = known_expr(ary).shape[normalize_axis_index(axis, as_expr(ary).ndim)]
        if n % int(indices_or_sections):
            raise ValueError(f"array split does not result in an equal division: {n} elements in {indices_or_sections} "
                             "parts; use array_split")
    return array_split(ary, indices_or_sections, axis)


def hsplit(ary: Any, indices_or_sections: Any) -> list[Array]:
    """Parts along axis 1 (of a vector: axis 0)."""
    x = _deep_enough(ary, 1, "hsplit")
    return split(x, indices_or_sections, 0 if x.ndim == 1 else 1)


def vsplit(ary: Any, indices_or_sections: Any) -> list[Array]:
    """Parts along axis 0."""
    return split(_deep_enough(ary, 2, "vsplit"), indices_or_sections, 0)


def dsplit(ary: Any, indices_or_sections: Any) -> list[Array]:
    """Parts along axis 2."""
    return split(_deep_enough(ary, 3, "dsplit"), indices_or_sections, 2)


def _deep_enough(ary: Any, ndim: int, name: str) -> Array:
    x = Array(as_expr(ary))
    if x.ndim < ndim:
        raise ValueError(f"{name} only works on arrays of {ndim} or more dimensions")
    return x


def unstack(x: Any, /, *, axis: int = 0) -> tuple[Array, ...]:
    """The slices along `axis`, without it."""
    e = known_expr(x)
    if not e.ndim:
        raise ValueError("Input array must be at least 1-d.")
    axis = normalize_axis_index(axis, e.ndim)
    kept = [i for i in range(e.ndim) if i != axis]
    shape = tuple(e.shape[i] for i in kept)
    return tuple(Array(build.axes(index.along(e, axis, k, k + 1), kept, shape)) for k in range(e.shape[axis]))


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


__all__ = ["append", "array_split", "block", "column_stack", "concat", "concatenate", "delete", "dsplit", "dstack", "hsplit",
           "hstack", "insert", "repeat", "resize", "row_stack", "split", "stack", "tile", "trim_zeros", "unstack", "vsplit",
           "vstack"]
