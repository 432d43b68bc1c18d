"""Where elements are and which of several to take: `nonzero`, `choose`, `select`, and flat indices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from nums_core.array.array import Array, as_expr, asarray, known_expr
from nums_core.array.elementwise import where
from nums_core.array.indexing import into
from nums_core.expr import build, grid, index
from nums_core.expr import reshape as reshaping
from nums_core.expr.opaque import Opaque

# -- places of true elements ------------------------------------------------------------------------------------------

def nonzero(a: Any) -> tuple[Array, ...]:
    """Places of the elements that are not zero, in C order: one vector an axis. Their number depends on data."""
    x = known_expr(a)
    if not x.ndim:
        raise ValueError("Calling nonzero on 0d arrays is not allowed. Use np.atleast_1d(scalar).nonzero() instead.")
    places = index.nonzero(x)
    return tuple(Array(build.pick(places, k, places.shape, np.intp, places.chunks)) for k in range(x.ndim))


def flatnonzero(a: Any) -> Array:
    """Places of the elements that are not zero, in the order of `ravel`."""
    x = known_expr(a)
    return nonzero(Array(reshaping.reshape(x, (math.prod(x.shape),))))[0]


def argwhere(a: Any) -> Array:
    """Places of the elements that are not zero: a row each."""
    x = known_expr(a)
    if not x.ndim:
        return argwhere(Array(reshaping.reshape(x, (1,))))[:, :0]
    places = [p.expr for p in nonzero(Array(x))]
    n = len(places)
    return Array(build.blockmap(_stacked, places, [(0,)] * n, (0, 1), (places[0].shape[0], n), np.intp,
                                (places[0].chunks[0], (n,)), label="argwhere"))


def _stacked(*places: np.ndarray) -> np.ndarray:
    return np.stack(places, axis=1)


# -- one of several ---------------------------------------------------------------------------------------------------

def choose(a: Any, choices: Any, out: Any = None, mode: str = "raise") -> Array:
    """For each element of `a`, the element of `choices[a]` at its place; all are broadcast.

    Raises
    ------
    ValueError
        When computed with `mode="raise"`: an element of `a` is not the number of a choice.
    """
    if mode not in ("raise", "wrap", "clip"):
        raise ValueError(f"clipmode must be one of 'clip', 'raise', or 'wrap' (got {mode!r})")
    which = asarray(a)
    if which.dtype.kind not in "biu":
        raise TypeError(f"choose() takes integers, not {which.dtype}; cast with .astype(int)")
    options = [asarray(c) for c in choices]
    dtype = np.result_type(*(c.dtype for c in options))
    return into(out, _blockwise(_choose, [which, *options], dtype, (("mode", mode),)))


def _choose(which: np.ndarray, *options: np.ndarray, mode: str) -> np.ndarray:
    dtype = np.result_type(*options)
    if len(options) > 31:  # NumPy's choose takes no more
        wide = np.stack(np.broadcast_arrays(*options))
        if mode == "raise" and ((which < 0) | (which >= len(options))).any():
            raise ValueError("invalid entry in choice array")
        which = which % len(options) if mode == "wrap" else which.clip(0, len(options) - 1)
        return np.take_along_axis(wide, np.broadcast_to(which, wide.shape[1:])[None], 0)[0]
    return np.asarray(np.choose(which, options, mode=mode), dtype)  # type: ignore[call-overload]


def _blockwise(function: Any, arrays: Sequence[Any], dtype: Any, kwargs: build.Kw = ()) -> Array:
    """`function` on blocks of arrays that are broadcast and cut alike."""
    exprs = [as_expr(a) for a in arrays]
    shape = build.broadcast_shape([e.shape for e in exprs])
    chunks = build.common_chunks(exprs, shape)
    exprs = [build.align(e, shape, chunks) for e in exprs]
    exprs = [build.rechunk(build.broadcast_to(e, shape), chunks) if e.shape != shape and grid.known(e.chunks) else e
             for e in exprs]
    labels = tuple(range(len(shape)))
    return Array(build.blockmap(function, exprs, [labels] * len(exprs), labels, shape, dtype, chunks, kwargs,
                                label=function.__name__.strip("_")))


def select(condlist: Sequence[Any], choicelist: Sequence[Any], default: Any = 0) -> Array:
    """The element of the first choice whose condition is true, else `default`."""
    if len(condlist) != len(choicelist):
        raise ValueError(f"list of cases must be same length as list of conditions: {len(choicelist)} and {len(condlist)}")
    if not len(condlist):
        raise ValueError("select with an empty condition list is not possible")
    conditions = [asarray(c) for c in condlist]
    for i, c in enumerate(conditions):
        if c.dtype != bool:
            raise TypeError(f"invalid entry {i} in condlist: should be boolean ndarray, not {c.dtype}")
    choices = [c if isinstance(c, (Array, np.ndarray)) or not np.ndim(c) else asarray(c) for c in [*choicelist, default]]
    dtype = np.result_type(*(c.dtype if hasattr(c, "dtype") else c for c in choices))
    made: Any = choices[-1]
    for c, choice in zip(conditions[::-1], choices[-2::-1], strict=True):
        made = where(c, choice, made)
    return made.astype(dtype)


def piecewise(x: Any, condlist: Any, funclist: Sequence[Any], *args: Any, **kw: Any) -> Array:
    """Functions (or constants) on the parts of `x` where their conditions are true, the last of several winning.

    As in NumPy the result has the dtype of `x`, and one more function than conditions is the default.
    """
    e = asarray(x)
    several = isinstance(condlist, (list, tuple)) and bool(condlist) and not (
        all(isinstance(c, (bool, np.bool_)) for c in condlist) and e.ndim)
    conditions = [asarray(c, bool) for c in condlist] if several else [asarray(condlist, bool)]
    if len(funclist) not in (len(conditions), len(conditions) + 1):
        raise ValueError(f"with {len(conditions)} condition(s), either {len(conditions)} or {len(conditions) + 1} functions "
                         "are expected")
    call = (("args", Opaque(args)), ("functions", Opaque(list(funclist))), ("kw", Opaque(kw)))
    return _blockwise(_piecewise, [e, *conditions], e.dtype, call)


def _piecewise(x: np.ndarray, *conditions: np.ndarray, functions: Any, args: Any, kw: Any) -> np.ndarray:
    return np.piecewise(x, list(conditions), functions, *args, **kw)


def in1d(ar1: Any, ar2: Any, assume_unique: bool = False, invert: bool = False, *, kind: str | None = None) -> Array:
    """`isin` of raveled arrays."""
    from nums_core.array.sets import isin

    x = known_expr(ar1)
    return isin(Array(reshaping.reshape(x, (math.prod(x.shape),))), ar2, assume_unique, invert, kind=kind)


# -- flat and open indices --------------------------------------------------------------------------------------------

def unravel_index(indices: Any, shape: Any, order: str = "C") -> tuple[Array, ...]:
    """Places along each axis of the elements with these flat indices in an array of `shape`."""
    e = as_expr(indices)
    if e.dtype.kind not in "iu":
        raise TypeError("only int indices permitted; cast with .astype(int)")
    dims = (int(shape),) if isinstance(shape, (int, np.integer)) else tuple(int(n) for n in shape)
    labels = tuple(range(e.ndim))
    parts = build.blockmap(_unravel, [e], [labels], labels, e.shape, np.intp, e.chunks,
                           (("dims", dims), ("order", order)), label="unravel_index")
    return tuple(Array(build.pick(parts, k, e.shape, np.intp, e.chunks)) for k in range(len(dims)))


def _unravel(block: np.ndarray, dims: tuple[int, ...], order: str) -> tuple[np.ndarray, ...]:
    return tuple(np.asarray(p) for p in np.unravel_index(block, dims, order))  # type: ignore[call-overload]


def ravel_multi_index(multi_index: Any, dims: Any, mode: Any = "raise", order: str = "C") -> Array:
    """Flat indices of the elements at these places of an array of shape `dims`."""
    arrays = list(multi_index)
    shape = (int(dims),) if isinstance(dims, (int, np.integer)) else tuple(int(n) for n in dims)
    if len(arrays) != len(shape):
        raise ValueError(f"parameter multi_index must be a sequence of length {len(shape)}")
    how = mode if isinstance(mode, str) else tuple(mode)
    return _blockwise(_ravel_multi, arrays, np.intp, (("dims", shape), ("mode", how), ("order", order)))


def _ravel_multi(*places: np.ndarray, dims: tuple[int, ...], mode: Any, order: str) -> np.ndarray:
    return np.asarray(np.ravel_multi_index(places, dims, mode, order))  # type: ignore[call-overload]


def ix_(*args: Any) -> tuple[Any, ...]:
    """Vectors as an open mesh: `x[np.ix_(rows, columns)]` takes all combinations. Masks become places."""
    made = []
    for k, a in enumerate(args):
        v = a if isinstance(a, (Array, np.ndarray)) else np.asarray(a)
        if v.ndim != 1:
            raise ValueError("Cross index must be 1 dimensional")
        if v.dtype == bool:
            v = nonzero(v)[0] if isinstance(v, Array) else np.flatnonzero(v)
        elif not isinstance(v, Array) and not v.size:
            v = v.astype(np.intp)
        made.append(v[(None,) * k + (slice(None),) + (None,) * (len(args) - k - 1)])
    return tuple(made)


def shuffle(x: Any, indexer: Sequence[Sequence[int]], axis: int, chunks: Any = "auto") -> Array:
    """Elements along `axis` in the order of the groups of `indexer`; no group is cut. As dask's.

    Parameters
    ----------
    x : array
    indexer : list of lists of int
        Together they name each place once, or any places.
    chunks : "auto"
        Neighbouring groups share a block until it has about the extent of the largest block of `x`.
    """
    e = known_expr(x)
    axis = normalize_axis_index(axis, e.ndim)
    groups = [np.asarray(g, np.int64).reshape(-1) for g in indexer]
    places = np.concatenate(groups) if groups else np.zeros(0, np.int64)
    if len(places) and (places.min() < 0 or places.max() >= e.shape[axis]):
        raise IndexError(f"Indexer contains places out of range: they must be from 0 to {e.shape[axis] - 1}")
    limit = max(e.chunks[axis]) if isinstance(chunks, str) else int(chunks)
    cut: list[int] = []
    for n in map(len, groups):
        if cut and cut[-1] + n <= limit:
            cut[-1] += n
        else:
            cut.append(n)
    return Array(index.points(e, axis, [places], tuple(cut) or (0,)))


__all__ = ["argwhere", "choose", "flatnonzero", "in1d", "ix_", "nonzero", "piecewise", "ravel_multi_index", "select",
           "shuffle", "unravel_index"]
