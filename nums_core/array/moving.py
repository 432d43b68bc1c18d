"""Moving windows, and values carried forward."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from nums_core import config
from nums_core.array import elementwise
from nums_core.array.array import Array, as_expr, known_expr
from nums_core.array.blocks import map_blocks
from nums_core.array.halo import axis_of, node
from nums_core.expr import build
from nums_core.expr.lowering.overlap import Window


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
        axis_of(a, e.ndim) for a in (axis if np.iterable(axis) else (axis,))]  # the same axis may be named twice
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
    return node(function, (), [e], (windows,), ((None,) * e.ndim,), None, tuple(sum(c) for c in chunks), e.dtype, chunks)


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
    limit = max(config.get().block_bytes, 1)
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
    axis = axis_of(axis, x.ndim)
    if x.dtype.kind not in "fc":
        return x
    filled = _push_all(x, axis)
    if n is None or n >= x.shape[axis]:
        return filled
    e = x.expr
    place = Array(build.create("index", (axis, "<f8"), e.shape, float, e.chunks))
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


__all__ = ["push", "sliding_window_view"]
