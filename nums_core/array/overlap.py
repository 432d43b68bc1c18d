"""Functions of blocks that also see their neighbours: `map_overlap`, moving windows, forward filling.

A task reads its block and the slices of neighbours that it needs, one task a block, whatever the number of axes. A halo may
be wider than a block.

    boundary   what lies outside the array
    "none"     nothing: blocks at the ends see less
    "reflect"  the array backwards, its last element first (numpy.pad's "symmetric")
    "nearest"  its last element, repeated;   "periodic"  its other end;   a number  that number
"""

from __future__ import annotations

import functools
import inspect
import itertools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from nums_core.array.array import Array, as_expr, known_expr, wrap
from nums_core.array.blocks import aligned, map_blocks
from nums_core.config import get as _settings
from nums_core.errors import ShapeError
from nums_core.expr import build
from nums_core.expr.lowering.overlap import Window, extents
from nums_core.expr.node import Const, Expr
from nums_core.expr.opaque import Opaque, keywords

Depth = tuple[int, int]
_KINDS = ("none", "reflect", "nearest", "periodic")


# -- the halo ---------------------------------------------------------------------------------------------------------

def overlap(x: Any, depth: Any, boundary: Any = None, *, allow_rechunk: bool = True) -> Array:
    """`x` with every block grown by `depth` elements of its neighbours.

    Parameters
    ----------
    depth : int, tuple, or dict of axis to int or (before, after)
    boundary : one of the kinds above, or a dict of axis to kind

    Returns
    -------
    Array
        Its shape is the sum of the grown blocks: elements near borders occur several times.
    """
    e = known_expr(x)
    depths, kinds = _depths(depth, e.ndim), _boundaries(boundary, e.ndim)
    wide = tuple(_at_least(c, max(d)) if kind == "none" else c
                 for c, d, (kind, _) in zip(e.chunks, depths, kinds, strict=True))
    return _grown(build.rechunk(e, wide), depths, kinds)


def _grown(e: Expr, depths: Sequence[Depth], kinds: Sequence[tuple[str, Any]]) -> Array:
    windows, values = _windows(e, depths, kinds)
    chunks = tuple(extents(w, n) for w, n in zip(windows, e.shape, strict=True))
    return _node(None, (), [e], (windows,), (values,), None, tuple(sum(c) for c in chunks), e.dtype, chunks)


def _at_least(sizes: Sequence[int], least: int) -> tuple[int, ...]:
    """Chunks with neighbours merged until none is smaller than `least`: only then can a halo that ends with the array
    be cut off again without knowing where the blocks lay."""
    out: list[int] = []
    for c in sizes:
        if out and (out[-1] < least or (c < least and out[-1] + c <= 2 * least)):
            out[-1] += c
        else:
            out.append(c)
    if len(out) > 1 and out[-1] < least:
        out[-2:] = [out[-2] + out[-1]]
    return tuple(out)


def trim_overlap(x: Any, depth: Any, boundary: Any = None) -> Array:
    """Takes back what `overlap(x, depth, boundary)` added."""
    return trim_internal(x, depth, boundary)


def trim_internal(x: Any, axes: Any, boundary: Any = None) -> Array:
    """Cuts `axes` elements off every block on both sides; with boundary "none", not at the ends of the array."""
    e = known_expr(x)
    depths, kinds = _depths(axes, e.ndim), [k for k, _ in _boundaries(boundary, e.ndim)]
    return _cut_off(e, tuple(_trims(len(c), d, k) for c, d, k in zip(e.chunks, depths, kinds, strict=True)))


def _cut_off(e: Expr, trims: tuple[tuple[Depth, ...], ...]) -> Array:
    """`e` with (before, after) elements taken off each block, along each axis."""
    windows = tuple(Window(c, 0, 0, "none") for c in e.chunks)
    chunks = tuple(tuple(n - a - b for n, (a, b) in zip(c, t, strict=True)) for c, t in zip(e.chunks, trims, strict=True))
    if any(n < 0 for c in chunks for n in c):
        raise ShapeError(f"blocks of {e.chunks} are narrower than what is to be cut off; rechunk to larger blocks")
    return _node(None, (), [e], (windows,), ((None,) * e.ndim,), trims, tuple(sum(c) for c in chunks), e.dtype, chunks)


def _node(function: Any, kwargs: Any, args: list[Expr], windows: Any, values: Any, trims: Any, shape: tuple[int, ...],
          dtype: Any, chunks: Any) -> Array:
    return wrap("overlap.map", args, (None if function is None else Opaque(function), kwargs, tuple(windows),
                                      tuple(values), trims), shape, dtype, chunks)


def _trims(n_blocks: int, depth: Depth, kind: str) -> tuple[Depth, ...]:
    before, after = depth
    return tuple((0 if kind == "none" and i == 0 else before, 0 if kind == "none" and i == n_blocks - 1 else after)
                 for i in range(n_blocks))


def _exact_trims(sizes: Sequence[int], depth: Depth, kind: str) -> tuple[Depth, ...]:
    """The halos of blocks whose own extents are `sizes`."""
    before, after = depth
    if kind != "none":
        return (depth,) * len(sizes)
    ends, n = list(itertools.accumulate(sizes)), sum(sizes)
    return tuple((min(before, e - c), min(after, n - e)) for e, c in zip(ends, sizes, strict=True))


def _windows(e: Expr, depths: Sequence[Depth], boundaries: Sequence[tuple[str, Any]]) -> tuple[tuple[Window, ...], Any]:
    """What every block sees, and the constants outside."""
    for n, (before, after), (kind, _) in zip(e.shape, depths, boundaries, strict=True):
        shown = {"reflect": n, "periodic": n, "nearest": before + after if n else 0}.get(kind, before + after)
        if max(before, after) > shown:
            raise ValueError(f"The overlapping depth {max(before, after)} is larger than your array {n}: a {kind} boundary "
                             "has no more elements to show; use a smaller depth, or a constant boundary")
    windows = tuple(Window(c, a, b, kind) for c, (a, b), (kind, _) in zip(e.chunks, depths, boundaries, strict=True))
    values = tuple(None if kind != "constant" else _constant(value, e.dtype) for kind, value in boundaries)
    return windows, values


def _constant(value: Any, dtype: np.dtype) -> Any:
    return Const(np.asarray(value).astype(dtype), dtype).value


def _depths(depth: Any, ndim: int) -> list[Depth]:
    """(before, after) for each axis."""
    if isinstance(depth, Mapping):
        named = {_axis(k, ndim): v for k, v in depth.items()}
        each = [named.get(i, 0) for i in range(ndim)]
    elif isinstance(depth, (tuple, list)):
        if len(depth) != ndim:
            raise ValueError(f"depth {depth} has {len(depth)} entries for an array of {ndim} dimensions; give one an axis, "
                             "one number for all, or a dict")
        each = list(depth)
    else:
        each = [0 if depth is None else depth] * ndim
    pairs = [tuple(map(operator.index, d)) if isinstance(d, (tuple, list)) else (operator.index(d),) * 2 for d in each]
    if any(len(p) != 2 or min(p) < 0 for p in pairs):
        raise ValueError(f"depth {depth} must be numbers of elements, 0 or more, or pairs (before, after) of them")
    return [(p[0], p[1]) for p in pairs]


def _boundaries(boundary: Any, ndim: int) -> list[tuple[str, Any]]:
    """(kind, value) for each axis."""
    if isinstance(boundary, Mapping):
        named = {_axis(k, ndim): v for k, v in boundary.items()}
        each = [named.get(i) for i in range(ndim)]
    elif isinstance(boundary, (tuple, list)):
        if len(boundary) != ndim:
            raise ValueError(f"boundary {boundary} has {len(boundary)} entries for an array of {ndim} dimensions; give one "
                             "an axis, one for all, or a dict")
        each = list(boundary)
    else:
        each = [boundary] * ndim
    return [_boundary(b) for b in each]


def _boundary(b: Any) -> tuple[str, Any]:
    if b is None:
        return "none", None
    if isinstance(b, str):
        if b not in _KINDS:
            raise ValueError(f"boundary {b!r} is not one of {', '.join(map(repr, _KINDS))}; or give a number")
        return b, None
    return "constant", b


def _axis(axis: int, ndim: int) -> int:
    return build.normalize_axes(axis, ndim)[0]


# -- map_overlap ------------------------------------------------------------------------------------------------------

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
        Cut the surroundings off again.
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
    depths = [_depths(d, e.ndim) for d, e in zip(_each(depth, len(exprs), "depth"), exprs, strict=True)]
    kinds = [_boundaries(b, e.ndim) for b, e in zip(_each(boundary, len(exprs), "boundary"), exprs, strict=True)]
    grown = iter([_grown(e, d, k) for e, d, k in zip(exprs, depths, kinds, strict=True)])
    made = map_blocks(func, *[next(grown) if isinstance(a, Array) else a for a in args], **kwargs)
    if not trim:
        return made
    if _simple(func, args, exprs, kwargs):  # built above for its dtype alone
        return _in_one_task(func, exprs, depths, kinds, made.dtype, kwargs)
    widest = max(range(len(exprs)), key=lambda i: (exprs[i].ndim, -i))
    trims = [_exact_trims(c, d, k) for c, d, (k, _) in
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
    seen = [_windows(e, d, k) for e, d, k in zip(exprs, depths, kinds, strict=True)]
    e = exprs[0]
    trims = tuple(_exact_trims(c, d, k) for c, d, (k, _) in zip(e.chunks, depths[0], kinds[0], strict=True))
    given = {k: v for k, v in kwargs.items() if k not in ("dtype", *_MAP_BLOCKS)}
    return _node(func, keywords(given), exprs, [w for w, _ in seen], [v for _, v in seen], trims, e.shape,
                 dtype, e.chunks)


def _trim_result(made: Array, trims: list[tuple[Depth, ...]], kwargs: dict[str, Any]) -> Array:
    """Cuts the halo off those axes of the operand that are still there."""
    drop, new = kwargs.get("drop_axis"), kwargs.get("new_axis")
    dropped = {_axis(a, len(trims)) for a in (drop if np.iterable(drop) else [drop]) if a is not None}
    kept: list[Any] = [t for i, t in enumerate(trims) if i not in dropped]
    for a in sorted(a for a in (new if np.iterable(new) else [new]) if a is not None):
        kept.insert(a, None)
    kept = [None] * (made.ndim - len(kept)) + kept
    return _cut_off(made.expr, tuple(((0, 0),) * n if t is None else t for t, n in zip(kept, made.numblocks, strict=True)))


# -- padding by one kind ----------------------------------------------------------------------------------------------

def boundaries(x: Any, depth: Any = None, kind: Any = None) -> Array:
    """`x` with `depth` elements of the given kind put around it, in blocks of their own."""
    e = known_expr(x)
    for axis, (d, (name, value)) in enumerate(zip(_depths(depth, e.ndim), _boundaries(kind, e.ndim), strict=True)):
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
    axis = _axis(axis, e.ndim)
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
                part = build.full(_constant(value, e.dtype), shape, e.dtype, chunks)
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


# -- moving windows ---------------------------------------------------------------------------------------------------

def sliding_window_view(x: Any, window_shape: Any, axis: Any = None, *, subok: bool = False, writeable: bool = False,
                        automatic_rechunk: bool = True) -> Array:
    """Every window of the given shape: windows run along new axes at the end.

    Parameters
    ----------
    window_shape : int or tuple of int
    axis : int or tuple of int, optional
        Axes the windows lie along; all if not given.
    automatic_rechunk : bool
        Cut the windowed axes finer, so that blocks of windows written out are no larger than usual ones.

    Returns
    -------
    Array, shape (n - w + 1 along windowed axes, ..., *window_shape)
        Blocks are strided views: windows cost nothing until they are written out.

    Raises
    ------
    ValueError
        A window larger than the array; as many windows as axes are needed.
    """
    e = known_expr(x)
    widths = tuple(map(operator.index, window_shape)) if np.iterable(window_shape) else (operator.index(window_shape),)
    if any(w < 0 for w in widths):
        raise ValueError("`window_shape` cannot contain negative values")
    which = list(range(e.ndim)) if axis is None else [
        _axis(a, e.ndim) for a in (axis if np.iterable(axis) else (axis,))]  # the same axis may be named twice
    if len(which) != len(widths):
        raise ValueError("Must provide matching length window_shape and axis; got "
                         f"{len(widths)} window_shape elements and {len(which)} axes.")
    reach = [sum(w - 1 for w, a in zip(widths, which, strict=True) if a == i) for i in range(e.ndim)]
    if any(r >= n for r, n in zip(reach, e.shape, strict=True) if r > 0):
        raise ValueError(f"window shape cannot be larger than input array shape; windows {widths} along axes {which} of "
                         f"shape {e.shape}")
    centres = [_stretches(c, n - r) for c, n, r in zip(e.chunks, e.shape, reach, strict=True)]
    if automatic_rechunk:
        centres = _finer(centres, reach, float(np.prod(widths)) * e.dtype.itemsize)
    windows = tuple(Window(c, 0, r, "none") for c, r in zip(centres, reach, strict=True))
    chunks = (*centres, *((w,) for w in widths))
    function = functools.partial(_view_windows, widths, tuple(which))
    return _node(function, (), [e], (windows,), ((None,) * e.ndim,), None, tuple(sum(c) for c in chunks), e.dtype, chunks)


def _view_windows(widths: tuple[int, ...], axes: tuple[int, ...], block: np.ndarray) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(block, widths, axes)


def _stretches(sizes: Sequence[int], n: int) -> tuple[int, ...]:
    """Chunks `sizes`, cut off after `n` elements."""
    out, left = [], n
    for c in sizes:
        out.append(min(c, left))
        left -= out[-1]
    return tuple(c for c in out if c) or (0,)


def _finer(centres: list[tuple[int, ...]], reach: list[int], bytes_each: float) -> list[tuple[int, ...]]:
    """Windowed axes cut so that a block of windows is no larger than a usual block."""
    limit = max(_settings().block_bytes, 1)
    size = float(np.prod([max(c) for c in centres])) * bytes_each
    out = list(centres)
    for axis in sorted((i for i, r in enumerate(reach) if r), key=lambda i: -max(out[i])):
        if size <= limit:
            break
        factor = min(int(-(-size // limit)), max(out[axis]))
        size /= factor
        out[axis] = tuple(p for c in out[axis] for p in build.uniform(c, -(-c // factor)))
    return out


# -- forward filling --------------------------------------------------------------------------------------------------

def push(array: Any, n: int | None = None, axis: int = -1) -> Array:
    """NaN replaced by the last number before it along `axis`, over at most `n` elements.

    Each block is filled by itself, and then from the last numbers of the blocks before it: no chain of tasks.
    """
    x = Array(known_expr(array))
    axis = _axis(axis, x.ndim)
    if x.dtype.kind not in "fc":
        return x
    filled = _push_all(x, axis)
    if n is None or n >= x.shape[axis]:
        return filled
    e = x.expr
    place = Array(build.create("index", (axis, "<f8"), e.shape, float, e.chunks))
    from nums_core.array import elementwise

    last = _push_all(elementwise.where(elementwise.isnan(x), np.nan, place), axis)
    return elementwise.where(place - last <= n, filled, x)


def _push_all(x: Array, axis: int) -> Array:
    e = x.expr
    inside = map_blocks(functools.partial(_push_block, axis), x, dtype=x.dtype, name="push")
    blocks = len(e.chunks[axis])
    if blocks == 1:
        return inside
    ones = tuple((1,) * blocks if i == axis else c for i, c in enumerate(e.chunks))
    ends = map_blocks(functools.partial(_last_line, axis), inside, dtype=x.dtype, chunks=ones)
    carried = map_blocks(functools.partial(_push_block, axis, shift=True),
                         Array(build.uncut(as_expr(ends), [axis])), dtype=x.dtype)
    return map_blocks(_fill_before, inside, carried.rechunk({axis: 1}), dtype=x.dtype, chunks=e.chunks)


def _push_block(axis: int, block: np.ndarray, shift: bool = False) -> np.ndarray:
    """A block filled by itself; with `shift`, moved on by one, with NaN in front."""
    index = np.arange(block.shape[axis]).reshape([-1 if i == axis else 1 for i in range(block.ndim)])
    last = np.maximum.accumulate(np.where(np.isnan(block), 0, index), axis=axis)
    out = np.take_along_axis(block, last, axis)
    if shift:
        out = np.roll(out, 1, axis)
        out[(slice(None),) * axis + (0,)] = np.nan
    return out


def _last_line(axis: int, block: np.ndarray) -> np.ndarray:
    return block.take([-1], axis)


def _fill_before(block: np.ndarray, before: np.ndarray) -> np.ndarray:
    """NaN are left only where a block begins with them: fill those from the block before."""
    return np.where(np.isnan(block), before, block)


# The others are reached as nums_core.array.overlap.periodic(...), as in dask.
__all__ = ["map_overlap", "push", "sliding_window_view"]
