"""Lowering of scans, in two passes over the blocks.

    totals     of every block but the last along the axis: an ordinary fused reduction
    prefix     of each line of totals: one small task, whose block is a tuple of carries
    scan       each block after its carry; the first of a line has none

A line of one block needs the last step only.
"""

from __future__ import annotations

import math

import numpy as np

from nums_core.expr.grid import block_elements
from nums_core.expr.lower import Lowering, Rule
from nums_core.expr.node import Expr
from nums_core.ops.program import Instr, Program, Reduction
from nums_core.ops.scans import SCANS
from nums_core.ops.taskgraph import AxisArgs, Kernel

FLOP = 4.0  # of an element: twice the additions, and they wait for one another


def _lower_cumulative(low: Lowering, node: Expr) -> np.ndarray:
    name, axis, work, skip_nan, initial = node.params
    x = node.args[0]
    ids = low.of(x)
    scan = Kernel("scan.cumulative", (name, axis, node.dtype.str, work, skip_nan, initial))
    carries = None
    if ids.shape[axis] > 1:
        totals = Kernel("fused", (_total_program(name, axis, work, skip_nan, x),))
        carries = _carries(low, node, totals, axis, name, np.dtype(work))
    return _scan(low, node, scan, axis, carries)


def _total_program(name: str, axis: int, work: str, skip_nan: bool, x: Expr) -> Program:
    row = SCANS[name]
    kw = (("dtype", work),) if row in ("sum", "prod") and x.dtype.str != work else ()
    instrs: tuple[Instr, ...] = ()
    consts: tuple[object, ...] = ()
    if skip_nan:  # where(isnan(x), neutral, x)
        consts = (np.asarray(row == "prod").astype(x.dtype)[()],)
        instrs = (Instr("isnan", (0,), "|b1"), Instr("where", (2, 1, 0), x.dtype.str))
    elif row not in ("sum", "prod") and x.dtype.str != work:
        instrs = (Instr("cast", (0,), work, (("dtype", work),)),)
    return Program(x.ndim, (tuple(range(x.ndim)),), (x.dtype.str,), consts, instrs, Reduction(row, (axis,), kw))


def _lower_user(low: Lowering, node: Expr) -> np.ndarray:
    function, combine, total, axis = node.params
    carries = None
    if low.of(node.args[0]).shape[axis] > 1:
        kernel = Kernel("scan.user_total", (function, total, axis, node.dtype.str))
        carries = _carries(low, node, kernel, axis, combine, node.dtype)
    return _scan(low, node, Kernel("scan.user", (function, combine, axis, node.dtype.str)), axis, carries)


def _carries(low: Lowering, node: Expr, total: Kernel, axis: int, combine: object, dtype: np.dtype) -> np.ndarray:
    """Block ids of the tuples of carries, in the shape of the grid with one block along the axis."""
    x = node.args[0]
    chunks = tuple(c[:-1] if i == axis else c for i, c in enumerate(x.chunks))
    ids = np.moveaxis(low.of(x), axis, -1)[..., :-1]
    grid = tuple(map(len, chunks))
    read = block_elements(chunks).reshape(-1)
    state = block_elements(tuple((1,) * len(c) if i == axis else c for i, c in enumerate(chunks))).reshape(-1)
    totals = low.add(node, total, grid, np.moveaxis(ids, -1, axis).reshape(-1, 1), elements=read,
                     out_bytes=np.nan_to_num(state) * dtype.itemsize, flop=read, label="scan.total")
    lines = np.moveaxis(totals, axis, -1)
    kept = (*grid[:axis], 1, *grid[axis + 1:])
    line_bytes = np.moveaxis(np.nan_to_num(state).reshape(grid), axis, -1).sum(axis=-1).reshape(-1) * dtype.itemsize
    prefix = Kernel("scan.prefix", (combine, axis))
    return low.add(node, prefix, kept, lines.reshape(math.prod(kept), -1), elements=line_bytes / dtype.itemsize,
                   out_bytes=line_bytes, flop=line_bytes / dtype.itemsize, label="scan.prefix")


def _scan(low: Lowering, node: Expr, kernel: Kernel, axis: int, carries: np.ndarray | None) -> np.ndarray:
    ids = low.of(node.args[0])
    args = AxisArgs(tuple(tuple(range(n)) for n in ids.shape))
    elements = block_elements(node.chunks).reshape(-1)
    inputs, counts = ids.reshape(-1, 1), None
    if carries is not None:
        later = np.broadcast_to(np.arange(ids.shape[axis]).reshape([-1 if i == axis else 1 for i in range(ids.ndim)]) > 0,
                                ids.shape).reshape(-1)
        both = np.stack([ids.reshape(-1), np.broadcast_to(carries, ids.shape).reshape(-1)], axis=1)
        inputs = both[np.stack([np.ones_like(later), later], axis=1)]
        counts = 1 + later.astype(np.int64)
    return low.add(node, kernel, ids.shape, inputs, counts=counts, elements=elements, flop=elements * FLOP, args=args,
                   label="scan")


LOWER: dict[str, Rule] = {"cumulative": _lower_cumulative, "user": _lower_user}
