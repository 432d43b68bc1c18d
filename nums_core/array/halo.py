"""Blocks with halos: grown by slices of their neighbours, and cut back.

A task reads its block and the slices of neighbours that it needs, one task a block, whatever the number of axes. A halo may
be wider than a block.

    boundary   what lies outside the array
    "none"     nothing: blocks at the ends see less
    "reflect"  the array backwards, its last element first (numpy.pad's "symmetric")
    "nearest"  its last element, repeated;   "periodic"  its other end;   a number  that number
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nums_core.array.array import Array, known_expr, wrap
from nums_core.errors import ShapeError
from nums_core.expr import build
from nums_core.expr.lowering.overlap import Window, extents
from nums_core.expr.node import Const, Expr
from nums_core.expr.opaque import Opaque

Depth = tuple[int, int]
_KINDS = ("none", "reflect", "nearest", "periodic")


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
    depths, kinds = depths_of(depth, e.ndim), boundaries_of(boundary, e.ndim)
    wide = tuple(_at_least(c, max(d)) if kind == "none" else c
                 for c, d, (kind, _) in zip(e.chunks, depths, kinds, strict=True))
    return grown(build.rechunk(e, wide), depths, kinds)


def grown(e: Expr, depths: Sequence[Depth], kinds: Sequence[tuple[str, Any]]) -> Array:
    windows, values = windows_of(e, depths, kinds)
    chunks = tuple(extents(w, n) for w, n in zip(windows, e.shape, strict=True))
    return node(None, (), [e], (windows,), (values,), None, tuple(sum(c) for c in chunks), e.dtype, chunks)


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
    depths, kinds = depths_of(axes, e.ndim), [k for k, _ in boundaries_of(boundary, e.ndim)]
    return cut_off(e, tuple(_trims(len(c), d, k) for c, d, k in zip(e.chunks, depths, kinds, strict=True)))


def cut_off(e: Expr, trims: tuple[tuple[Depth, ...], ...]) -> Array:
    """`e` with (before, after) elements taken off each block, along each axis."""
    windows = tuple(Window(c, 0, 0, "none") for c in e.chunks)
    chunks = tuple(tuple(n - a - b for n, (a, b) in zip(c, t, strict=True)) for c, t in zip(e.chunks, trims, strict=True))
    if any(n < 0 for c in chunks for n in c):
        raise ShapeError(f"blocks of {e.chunks} are narrower than what is to be cut off; rechunk to larger blocks")
    return node(None, (), [e], (windows,), ((None,) * e.ndim,), trims, tuple(sum(c) for c in chunks), e.dtype, chunks)


def node(function: Any, kwargs: Any, args: list[Expr], windows: Any, values: Any, trims: Any, shape: tuple[int, ...],
          dtype: Any, chunks: Any) -> Array:
    return wrap("overlap.map", args, (None if function is None else Opaque(function), kwargs, tuple(windows),
                                      tuple(values), trims), shape, dtype, chunks)


def _trims(n_blocks: int, depth: Depth, kind: str) -> tuple[Depth, ...]:
    before, after = depth
    return tuple((0 if kind == "none" and i == 0 else before, 0 if kind == "none" and i == n_blocks - 1 else after)
                 for i in range(n_blocks))


def exact_trims(sizes: Sequence[int], depth: Depth, kind: str) -> tuple[Depth, ...]:
    """The halos of blocks whose own extents are `sizes`."""
    before, after = depth
    if kind != "none":
        return (depth,) * len(sizes)
    ends, n = list(itertools.accumulate(sizes)), sum(sizes)
    return tuple((min(before, e - c), min(after, n - e)) for e, c in zip(ends, sizes, strict=True))


def windows_of(e: Expr, depths: Sequence[Depth], boundaries: Sequence[tuple[str, Any]]) -> tuple[tuple[Window, ...], Any]:
    """What every block sees, and the constants outside."""
    for n, (before, after), (kind, _) in zip(e.shape, depths, boundaries, strict=True):
        shown = {"reflect": n, "periodic": n, "nearest": before + after if n else 0}.get(kind, before + after)
        if max(before, after) > shown:
            raise ValueError(f"The overlapping depth {max(before, after)} is larger than your array {n}: a {kind} boundary "
                             "has no more elements to show; use a smaller depth, or a constant boundary")
    windows = tuple(Window(c, a, b, kind) for c, (a, b), (kind, _) in zip(e.chunks, depths, boundaries, strict=True))
    values = tuple(None if kind != "constant" else constant_of(value, e.dtype) for kind, value in boundaries)
    return windows, values


def constant_of(value: Any, dtype: np.dtype) -> Any:
    return Const(np.asarray(value).astype(dtype), dtype).value


def depths_of(depth: Any, ndim: int) -> list[Depth]:
    """(before, after) for each axis."""
    if isinstance(depth, Mapping):
        named = {axis_of(k, ndim): v for k, v in depth.items()}
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


def boundaries_of(boundary: Any, ndim: int) -> list[tuple[str, Any]]:
    """(kind, value) for each axis."""
    if isinstance(boundary, Mapping):
        named = {axis_of(k, ndim): v for k, v in boundary.items()}
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


def axis_of(axis: int, ndim: int) -> int:
    return build.normalize_axes(axis, ndim)[0]


__all__ = ["overlap", "trim_internal", "trim_overlap"]
