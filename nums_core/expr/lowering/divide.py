"""Lowering of re-blockings that read much for every block they make: rows to columns, say.

A block that is put together from thin slices of many would hold all of them in memory, and fetch all of them from other
workers. So every source block is divided once, into the pieces where its cuts and the wanted cuts meet, and only pieces
are put together:

    divide (pieces)   one after the other by source block, so that each is in memory once
    gather            the wanted blocks, each from pieces of about its own size
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nums_core import config
from nums_core.expr.grid import known
from nums_core.expr.lower import Lowering, piece_ids
from nums_core.expr.node import Expr
from nums_core.ops.taskgraph import AxisArgs, Kernel, ListArgs

Pieces = Sequence[tuple[int, slice, slice]]  # of one result chunk: (source chunk, slice in it, slice in the result)


def reads_much(x: Expr, node: Expr, per_axis: Sequence[Sequence[Pieces]]) -> bool:
    """Whether a task would read several blocks' worth, and far more than it makes. The grid decides, not the machine."""
    if not known(x.chunks) or not known(node.chunks) or not node.ndim:
        return False
    read = made = float(x.dtype.itemsize)
    for have, want, chunks in zip(x.chunks, node.chunks, per_axis, strict=True):
        read *= max((sum(have[k] for k, _, _ in pieces) for pieces in chunks), default=0)
        made *= max(want, default=0)
    several = math.prod(max(map(len, chunks), default=0) for chunks in per_axis)
    return several > 1 and read > 2 * made and read > 3 * config.get().block_bytes


def divided(low: Lowering, node: Expr, per_axis: Sequence[Sequence[Pieces]]) -> np.ndarray:
    """Lower a gather by way of pieces; returns the ids of the result's blocks."""
    segments = [[(k, src, dst) for pieces in chunks for k, src, dst in pieces] for chunks in per_axis]
    grid = tuple(map(len, segments))
    sources = low.of(node.args[0])[np.ix_(*[[k for k, _, _ in line] for line in segments])].reshape(-1)
    by_source = np.argsort(sources, kind="stable")
    extents = [np.array([dst.stop - dst.start for _, _, dst in line], float) for line in segments]
    elements = np.ones(())
    for line in extents:
        elements = np.multiply.outer(elements, line)
    args = list(itertools.product(*[[(dst.stop - dst.start, ((0, src, slice(0, dst.stop - dst.start)),))
                                     for _, src, dst in line] for line in segments]))
    made = low.add(node, Kernel("gather", (node.dtype,)), (len(args),), sources[by_source, None],
                   elements=elements.reshape(-1)[by_source], args=ListArgs(tuple(args[i] for i in by_source)),
                   label="divide", together=True)
    pieces = np.empty(len(args), np.int64)
    pieces[by_source] = made
    return _gathered(low, node, pieces.reshape(grid), per_axis)


def _gathered(low: Lowering, node: Expr, pieces: np.ndarray, per_axis: Sequence[Sequence[Pieces]]) -> np.ndarray:
    """The wanted blocks from whole pieces."""
    numbers = [itertools.count() for _ in per_axis]
    whole = [[tuple((next(number), slice(None), dst) for _, _, dst in chunk) for chunk in chunks]
             for number, chunks in zip(numbers, per_axis, strict=True)]
    flat, counts = piece_ids(pieces, whole)
    args: list[Any] = [tuple((int(n), p) for n, p in zip(want, axis, strict=True))
                       for want, axis in zip(node.chunks, whole, strict=True)]
    return low.add(node, Kernel("gather", (node.dtype,)), node.grid, flat, counts=counts, args=AxisArgs(tuple(args)),
                   label="gather")
