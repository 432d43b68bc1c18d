"""Functions of blocks that also see their neighbours, and arrays padded as such blocks are (see `halo` for boundaries)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from nums_core.array.array import Array, known_expr
from nums_core.array.blocks import aligned, map_blocks
from nums_core.array.halo import (
    Depth,
    axis_of,
    boundaries_of,
    constant_of,
    cut_off,
    depths_of,
    exact_trims,
    grown,
    node,
    windows_of,
)
from nums_core.array.halo import (
    overlap as overlap,
)
from nums_core.array.halo import (
    trim_internal as trim_internal,
)
from nums_core.array.halo import (
    trim_overlap as trim_overlap,
)
from nums_core.array.moving import push as push
from nums_core.array.moving import sliding_window_view as sliding_window_view
from nums_core.expr import build
from nums_core.expr.node import Expr
from nums_core.expr.opaque import keywords


def map_overlap(func: Callable[..., Any], *args: Any, depth: Any = None, boundary: Any = None, trim: bool = True,
                align_arrays: bool = True, allow_rechunk: bool = True, **kwargs: Any) -> Array:
    """`func` of every block with its surroundings; what lies around the block is cut off the result.

    Parameters
    ----------
    func : callable
        Gets one ndarray for each Array argument, read-only; returns the shape it was given, if `trim`.
    *args : Arrays, and other values passed as they are
    depth : int, tuple, dict, or a list with one of these for each array
        How far blocks see along each axis, in elements: a number, or (before, after).
    boundary : kind, tuple, dict, or a list with one of these for each array
        See this module; "none" if not given.
    trim : bool
        Cut the surroundings off again. Otherwise `func` returns blocks of the array's own chunks, or of `chunks`.
    align_arrays : bool
        Cut several arrays alike first.
    **kwargs
        Of `map_blocks` (dtype, chunks, drop_axis, ...), and for `func`.

    Raises
    ------
    ValueError
        The depth is larger than a reflected or periodic array.
    """
    if isinstance(func, Array) and args and callable(args[0]):  # the old order of arguments
        func, args = args[0], (func, *args[1:])
    if not callable(func):
        raise TypeError(f"`func` must be callable, not {type(func).__name__}; write map_overlap(f, x, depth=1)")
    arrays = [a for a in args if isinstance(a, Array)]
    if not arrays:
        raise TypeError("map_overlap() needs an Array; make one with from_array() or asarray()")
    exprs = [known_expr(a) for a in arrays]
    if align_arrays and len(exprs) > 1:
        pairs, _ = aligned([(e, tuple(range(e.ndim))[::-1]) for e in exprs], True)
        exprs = [e for e, _ in pairs]
    depths = [depths_of(d, e.ndim) for d, e in zip(_each(depth, len(exprs), "depth"), exprs, strict=True)]
    kinds = [boundaries_of(b, e.ndim) for b, e in zip(_each(boundary, len(exprs), "boundary"), exprs, strict=True)]
    wide = iter([grown(e, d, k) for e, d, k in zip(exprs, depths, kinds, strict=True)])
    widest = max(range(len(exprs)), key=lambda i: (exprs[i].ndim, -i))
    given = dict(kwargs)
    if not trim and not any(kwargs.get(k) is not None for k in ("chunks", "drop_axis", "new_axis")):
        given["chunks"] = exprs[widest].chunks  # the function cuts the halo off itself
    made = map_blocks(func, *[next(wide) if isinstance(a, Array) else a for a in args], **given)
    if not trim:
        return made
    if _simple(func, args, exprs, kwargs):  # built above for its dtype alone
        return _in_one_task(func, exprs, depths, kinds, made.dtype, kwargs)
    trims = [exact_trims(c, d, k) for c, d, (k, _) in
             zip(exprs[widest].chunks, depths[widest], kinds[widest], strict=True)]
    return _trim_result(made, trims, kwargs)


def _each(value: Any, n: int, name: str) -> list[Any]:
    """One entry for each array."""
    if not isinstance(value, list):
        return [value] * n
    if len(value) != n:
        raise ValueError(f"{name} has {len(value)} entries for {n} arrays; give a list with one for each, or one for all")
    return value


_MAP_BLOCKS = ("chunks", "drop_axis", "new_axis", "meta", "name", "token", "enforce_ndim")


def _simple(func: Callable[..., Any], args: tuple[Any, ...], exprs: list[Expr], kwargs: dict[str, Any]) -> bool:
    """Whether everything can be done in one task a block: equal grids, and nothing but arrays and plain keywords."""
    try:
        asks = any(k in inspect.signature(func).parameters for k in ("block_info", "block_id"))
    except (TypeError, ValueError):
        asks = False
    return (not asks and all(isinstance(a, Array) for a in args)
            and len({e.grid for e in exprs}) == 1 and not any(isinstance(v, Array) for v in kwargs.values())
            and not any(kwargs.get(k) is not None for k in _MAP_BLOCKS))


def _in_one_task(func: Callable[..., Any], exprs: list[Expr], depths: list[list[Depth]],
                 kinds: list[list[tuple[str, Any]]], dtype: np.dtype, kwargs: dict[str, Any]) -> Array:
    seen = [windows_of(e, d, k) for e, d, k in zip(exprs, depths, kinds, strict=True)]
    e = exprs[0]
    trims = tuple(exact_trims(c, d, k) for c, d, (k, _) in zip(e.chunks, depths[0], kinds[0], strict=True))
    given = {k: v for k, v in kwargs.items() if k not in ("dtype", *_MAP_BLOCKS)}
    return node(func, keywords(given), exprs, [w for w, _ in seen], [v for _, v in seen], trims, e.shape,
                 dtype, e.chunks)


def _trim_result(made: Array, trims: list[tuple[Depth, ...]], kwargs: dict[str, Any]) -> Array:
    """Cuts the halo off those axes of the operand that are still there."""
    drop, new = kwargs.get("drop_axis"), kwargs.get("new_axis")
    dropped = {axis_of(a, len(trims)) for a in (drop if np.iterable(drop) else [drop]) if a is not None}
    kept: list[Any] = [t for i, t in enumerate(trims) if i not in dropped]
    for a in sorted(a for a in (new if np.iterable(new) else [new]) if a is not None):
        kept.insert(a, None)
    kept = [None] * (made.ndim - len(kept)) + kept
    return cut_off(made.expr, tuple(((0, 0),) * n if t is None else t for t, n in zip(kept, made.numblocks, strict=True)))


# -- padding by one kind ----------------------------------------------------------------------------------------------

def boundaries(x: Any, depth: Any = None, kind: Any = None) -> Array:
    """`x` with `depth` elements of the given kind put around it, in blocks of their own."""
    e = known_expr(x)
    for axis, (d, (name, value)) in enumerate(zip(depths_of(depth, e.ndim), boundaries_of(kind, e.ndim), strict=True)):
        e = _padded(e, axis, d, name, value)
    return Array(e)


def periodic(x: Any, axis: int, depth: int) -> Array:
    """`x` with its other end put before and behind it."""
    return _padded_array(x, axis, depth, "periodic")


def reflect(x: Any, axis: int, depth: int) -> Array:
    """`x` with its mirror image put before and behind it, the last element first."""
    return _padded_array(x, axis, depth, "reflect")


def nearest(x: Any, axis: int, depth: int) -> Array:
    """`x` with its first and last elements repeated."""
    return _padded_array(x, axis, depth, "nearest")


def constant(x: Any, axis: int, depth: int, value: Any) -> Array:
    """`x` with `value` put before and behind it."""
    return _padded_array(x, axis, depth, "constant", value)


def _padded_array(x: Any, axis: int, depth: int, kind: str, value: Any = None) -> Array:
    e = known_expr(x)
    axis = axis_of(axis, e.ndim)
    return Array(_padded(e, axis, (depth, depth), kind, value))


def _padded(e: Expr, axis: int, depth: Depth, kind: str, value: Any) -> Expr:
    """`e` with `depth` elements more along `axis`, in new blocks."""
    if kind == "none" or not any(depth):
        return e
    n, (before, after) = e.shape[axis], depth
    if max(depth) > n and kind in ("reflect", "periodic"):
        raise ValueError(f"The overlapping depth {max(depth)} is larger than your array {n}; use a smaller depth")
    parts = [e]
    for count, left in ((before, True), (after, False)):
        if count:
            shape = tuple(count if i == axis else m for i, m in enumerate(e.shape))
            chunks = tuple((count,) if i == axis else c for i, c in enumerate(e.chunks))
            if kind == "constant":
                part = build.full(constant_of(value, e.dtype), shape, e.dtype, chunks)
            elif kind == "nearest":
                one = tuple((1,) if i == axis else c for i, c in enumerate(e.chunks))
                edge = build.gather(e, _at(axis, 0 if left else n - 1, e.ndim), (1,) * e.ndim, one)
                part = build.broadcast_to(edge, shape, chunks)
            else:
                backwards = kind == "reflect"
                first = (count - 1 if left else n - 1) if backwards else (n - count if left else 0)
                step = tuple(-1 if backwards and i == axis else 1 for i in range(e.ndim))
                part = build.gather(e, _at(axis, first, e.ndim), step, chunks)
            parts.insert(0 if left else len(parts), part)
    return build.concatenate(parts, axis)


def _at(axis: int, start: int, ndim: int) -> tuple[int, ...]:
    return tuple(start if i == axis else 0 for i in range(ndim))


# The others, and what is imported "as" itself above, are reached as nums_core.array.overlap.periodic(...), as in dask.
__all__ = ["map_overlap"]
