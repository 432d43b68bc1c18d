"""Lowering of reductions: a family of partial states, block by block, and a tree over them.

- Where the reduced axes are not cut, the partial state is the last one: the kernel finishes it, and there is no tree.
- Reductions of the same operands by the same program (mean and std of `x`, max and min in `ptp`) share one pass over
  large blocks: one family makes all their states, and each picks its own.
- `map_reduce` is for what is no program: a function of whole blocks gives the states.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from nums_core.expr.grid import block_elements, known
from nums_core.expr.lower import Lowering, Rule, combine, operand_ids, position_args, shows_extents
from nums_core.expr.node import Expr
from nums_core.ops.elementwise import ELEMENTWISE
from nums_core.ops.program import Program, Reduction
from nums_core.ops.reductions import REDUCTIONS, STATE_ARRAYS, TILED
from nums_core.ops.taskgraph import AxisArgs, Kernel, ListArgs

# Blocks smaller than this are read again sooner than a state is picked from several.
SHARE_BYTES = 1 << 20


def lower_reduction(low: Lowering, node: Expr) -> np.ndarray:
    """A fused group that ends in a reduction."""
    program, chunks, keepdims = node.params
    reduction = program.reduction
    finish = (() if keepdims else reduction.axes, node.dtype.str)
    group = low.groups.get(id(node), [node])
    if len(group) > 1:
        partial = _shared_states(low, node, group)
    elif all(len(chunks[i]) == 1 for i in reduction.axes):
        return _states(low, node, [node], Kernel("fused", (program, finish)), _result_bytes(node), program.label(),
                       node.grid)
    else:
        partial = _states(low, node, [node], Kernel("fused", (program,)), _state_bytes(node), program.label())
    return combine(low, node, partial, reduction.axes, tuple(reduction), finish)


def _states(low: Lowering, node: Expr, group: Sequence[Expr], kernel: Kernel, out_bytes: np.ndarray, label: str,
            as_grid: tuple[int, ...] | None = None) -> np.ndarray:
    """The family that runs `kernel` over the blocks of the operands of `node`, in the shape of their grid or of one with
    as many blocks."""
    program, chunks, _ = node.params
    grid = tuple(map(len, chunks))
    elements = block_elements(chunks).reshape(-1)
    flop = sum(ELEMENTWISE[i.op].flop for i in program.instrs) + sum(
        REDUCTIONS[n.params[0].reduction.name].flop for n in group)
    placed = any(n.params[0].reduction.name in ("argmax", "argmin") for n in group)
    args: AxisArgs | ListArgs | None = None
    if placed or not shows_extents(node, program, chunks):
        args = position_args(chunks)
        if as_grid is not None and as_grid != grid:
            args = ListArgs(tuple(args))
    inputs = operand_ids(low, node.args, program, grid)
    return low.add(node, kernel, as_grid if as_grid is not None else grid, inputs, elements=elements, args=args,
                   out_bytes=np.nan_to_num(out_bytes, nan=1.0), flop=elements * flop, label=label)


def _state_bytes(node: Expr) -> np.ndarray:
    """Bytes of the partial state of every block (unknown extents count as nothing)."""
    program, chunks, _ = node.params
    name, axes, kw = program.reduction
    state = block_elements(tuple((1,) * len(c) if i in axes else c for i, c in enumerate(chunks))).reshape(-1)
    return state * node.dtype.itemsize * STATE_ARRAYS.get(name, 1) * abs(dict(kw).get("k", 1))


def _result_bytes(node: Expr) -> np.ndarray:
    return block_elements(node.chunks).reshape(-1) * node.dtype.itemsize


# -- several reductions in one pass -----------------------------------------------------------------------------------

def share(nodes: Iterable[Expr]) -> dict[int, list[Expr]]:
    """For each reduction that shares its pass over memory, by id: the nodes that do."""
    found: dict[Any, list[Expr]] = {}
    for node in nodes:
        if node.op == "fused" and _shareable(node):
            program, chunks, _ = node.params
            found.setdefault((program._replace(reduction=None), chunks, *map(id, node.args)), []).append(node)
    return {id(n): group for group in found.values() if len(group) > 1 for n in group}


def _shareable(node: Expr) -> bool:
    program, chunks, _ = node.params
    if program.reduction is None or program.reduction.name not in TILED or not known(chunks):
        return False
    largest = max((math.prod(map(max, a.chunks)) * a.dtype.itemsize for a in node.args), default=0)
    return largest >= SHARE_BYTES and _state_bytes(node).max() <= largest / 8


def _shared_states(low: Lowering, node: Expr, group: list[Expr]) -> np.ndarray:
    """The states of `node`, picked from those that one family makes for the whole group."""
    program: Program = node.params[0]
    reductions: list[Reduction] = [n.params[0].reduction for n in group]
    key = id(group[0])
    if key not in low.shared:
        kernel = Kernel("reductions", (program._replace(reduction=None), tuple(reductions)))
        label = "+".join(dict.fromkeys(r.name for r in reductions))
        low.shared[key] = _states(low, node, group, kernel, np.sum([_state_bytes(n) for n in group], axis=0), label)
    ids = low.shared[key]
    k = next(k for k, n in enumerate(group) if n is node)
    return low.add(node, Kernel("pick", (k,)), ids.shape, ids.reshape(-1, 1), elements=np.zeros(ids.size),
                   out_bytes=_state_bytes(node), label="pick")


# -- functions of whole blocks ----------------------------------------------------------------------------------------

def _lower_map_reduce(low: Lowering, node: Expr) -> np.ndarray:
    """States by a function of the blocks of all operands, which are cut alike; then the tree, and no more than that."""
    function, kwargs, name, axes, kw, drop, flop = node.params
    first = node.args[0]
    columns = [np.broadcast_to(low.of(a) if low.of(a).size > 1 else low.of(a).reshape(()), first.grid).reshape(-1)
               for a in node.args]
    elements = block_elements(first.chunks).reshape(-1)
    share_of = _result_bytes(node).sum() / max(node.dtype.itemsize, 1)
    partial = low.add(node, Kernel("reduction.map", (function, kwargs)), first.grid, np.stack(columns, axis=1),
                      elements=elements, out_bytes=np.full(elements.shape, np.nan_to_num(share_of, nan=1e3) * 8.0),
                      flop=elements * flop, label=f"{getattr(function, '__name__', name)}.map")
    over = tuple(i for i, n in enumerate(first.grid) if i in axes)
    return combine(low, node, partial, over, (name, axes, kw), (drop, node.dtype.str))


LOWER: dict[str, Rule] = {"map_reduce": _lower_map_reduce}
