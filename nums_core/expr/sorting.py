"""Constructors of sorted expressions: whole lines in a block where they fit, else a sample sort (`expr.lowering.sort`).

A line is what lies along the sorted axis. "Fits" means `config.block_bytes`: the grid and the settings decide, never the
machine.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nums_core import config
from nums_core.expr import build
from nums_core.expr.grid import Chunks, normalize, uniform
from nums_core.expr.node import Expr
from nums_core.expr.opaque import Opaque

POSITION_BYTES = np.dtype(np.intp).itemsize


def fits(x: Expr, axes: Sequence[int]) -> bool:
    """Whether whole lines over `axes` go into a block, or lie in one already."""
    if all(len(x.chunks[a]) == 1 for a in axes):
        return True
    return math.prod(x.shape[a] for a in axes) * x.dtype.itemsize <= config.get().block_bytes


def whole_lines(x: Expr, axes: Sequence[int]) -> Expr:
    """`x` with `axes` uncut; other axes keep their cuts where blocks stay of a good size, else they are cut finer."""
    kept: Chunks = tuple((n,) if i in axes else c for i, (n, c) in enumerate(zip(x.shape, x.chunks, strict=True)))
    limit = max(config.get().block_bytes, x.dtype.itemsize * math.prod(max(c) for c in x.chunks))
    if x.dtype.itemsize * math.prod(max(c) for c in kept) > limit:
        kept = normalize(tuple(-1 if i in axes else "auto" for i in range(x.ndim)), x.shape, x.dtype)
    return build.rechunk(x, kept)


def single_lines(x: Expr, axes: Sequence[int]) -> Expr:
    """`x` with every axis but `axes` cut into ones."""
    return build.rechunk(x, tuple(c if i in axes else uniform(n, 1)
                                  for i, (n, c) in enumerate(zip(x.shape, x.chunks, strict=True))))


def on_lines(function: Callable[..., Any], args: Sequence[Expr], axis: int, dtype: Any, label: str,
             options: dict[str, Any] | None = None) -> Expr:
    """`function(*blocks, axis=axis, **options)`, whose result has the shape of its operands, on whole lines."""
    first = whole_lines(args[0], [axis])
    rest = [build.rechunk(a, first.chunks) for a in args[1:]]
    labels = tuple(range(first.ndim))
    made = build.blockmap(Opaque(functools.partial(function, axis=axis, **(options or {}))), [first, *rest],
                          [labels] * len(args), labels, first.shape, dtype, first.chunks, label=label, flop=60.0)
    return build.rechunk(made, args[0].chunks)


def sample_sort(x: Expr, axis: int, part: int) -> Expr:
    """The sorted values (part 0) or their positions (part 1) along a cut axis, stably, on the grid of `x`."""
    thin = single_lines(x, [axis])
    n, sizes = x.shape[axis], x.chunks[axis]
    item = x.dtype.itemsize + (POSITION_BYTES if part else 0)
    limit = max(1, max(config.get().block_bytes, x.dtype.itemsize * max(sizes)) // item)
    if max(sizes) > limit or min(sizes[:-1]) < max(sizes):  # values with their positions must not outgrow a block, and
        alike = uniform(n, min(limit, -(-n // len(sizes))))  # result blocks must be alike, for splitters to fit them
        thin = build.rechunk(thin, tuple(alike if i == axis else c for i, c in enumerate(thin.chunks)))
    made = build.custom("sort.sort", [thin], (axis, part), x.shape, np.intp if part else x.dtype, thin.chunks)
    return build.rechunk(made, x.chunks)


def flip(x: Expr, axis: int) -> Expr:
    """`x` backwards along one axis."""
    n = x.shape[axis]
    if n < 2:
        return x
    chunks = tuple(c[::-1] if i == axis else c for i, c in enumerate(x.chunks))
    return build.gather(x, tuple(n - 1 if i == axis else 0 for i in range(x.ndim)),
                        tuple(-1 if i == axis else 1 for i in range(x.ndim)), chunks)


def head(x: Expr, axis: int, n: int) -> Expr:
    """The first `n` elements along one axis."""
    chunks = tuple(build.slice_chunks(c, 0, 1, n) if i == axis else c for i, c in enumerate(x.chunks))
    return build.gather(x, (0,) * x.ndim, (1,) * x.ndim, chunks)
