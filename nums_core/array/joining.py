"""Arrays put together and taken apart. Joining moves nothing: blocks are listed anew."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from nums_core.array.array import Array, as_expr, known_expr
from nums_core.array.indexing import into
from nums_core.array.manipulation import atleast_1d, atleast_2d, atleast_3d, ravel, with_new_axes
from nums_core.errors import ShapeError
from nums_core.expr import build, index
from nums_core.expr.node import Expr

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


__all__ = ["append", "array_split", "block", "column_stack", "concat", "concatenate", "dsplit", "dstack", "hsplit", "hstack",
           "row_stack", "split", "stack", "unstack", "vsplit", "vstack"]
