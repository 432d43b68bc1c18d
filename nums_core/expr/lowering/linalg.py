"""Lowering of linear algebra: kernels over lists of blocks, and the step-by-step graphs of blocked factorizations.

`blocks` is one kernel over all blocks of a list, each reading its own, a group of them, or the one of its group: the tree
of tall-skinny QR is made of it. A factorization takes *column panels* (blocks that hold all rows of a few columns)
from left to right: one task factors panel k, then one task for each column to its right applies it. A substitution applies
panel after panel to the columns of a right-hand side.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nums_core.expr.grid import block_elements, offsets
from nums_core.expr.lower import Lowering, Rule, combine
from nums_core.expr.node import Expr
from nums_core.ops.taskgraph import Kernel, ListArgs


def _blocks(low: Lowering, node: Expr) -> np.ndarray:
    """One task a block of `node`. What each reads of an operand:

    "same"     the block of its own number
    "one"      the only block
    "group"    blocks `fan * i` to `fan * i + fan - 1` (only as the only operand)
    "parent"   block `i // fan`
    """
    kernel, params, reads, fan, args, n_elements, flop = node.params
    count = math.prod(node.grid)
    number = np.arange(count)
    ids = [low.of(a).reshape(-1) for a in node.args]
    at = {"same": number, "one": number * 0, "parent": number // fan}
    elements = np.broadcast_to(np.asarray(n_elements, float), count) if n_elements else None
    common: dict[str, Any] = {"elements": elements, "flop": flop,
                              "label": params[0] if kernel == "linalg.apply" else kernel.rpartition(".")[2],
                              "args": ListArgs(args) if args is not None else None}
    if reads == ("group",):
        starts = fan * number
        counts = np.minimum(starts + fan, len(ids[0])) - starts
        return low.add(node, Kernel(kernel, params), node.grid, ids[0], counts=counts, **common)
    columns = np.stack([x[at[how]] for x, how in zip(ids, reads, strict=True)], axis=1)
    return low.add(node, Kernel(kernel, params), node.grid, columns, **common)


def _r_of_rows(low: Lowering, node: Expr) -> np.ndarray:
    """One R from those of the row blocks: a reduction, so that k - 1 of them cross between k workers."""
    factors = low.of(node.args[0]).reshape(-1)
    return combine(low, node, factors, (0,), ("qr", (0,), ()), ((), None), "qr.tree")


# -- blocked factorizations -------------------------------------------------------------------------------------------

def _column_elements(node: Expr, x: Expr) -> tuple[float, float]:
    """Rows, and elements of the widest column panel."""
    rows = float(x.shape[0])
    return rows, rows * max(x.chunks[1])


def _right_looking(low: Lowering, node: Expr) -> np.ndarray:
    """Factor panels from left to right; every panel updates the columns to its right."""
    kind, n_panels = node.params
    (x,) = node.args
    rows, elements = _column_elements(node, x)
    begins, widths = offsets(x.chunks[1]), x.chunks[1]
    columns = low.of(x).reshape(-1).copy()
    for k in range(n_panels):
        k0, width, left = begins[k], widths[k], len(columns) - k - 1
        columns[k:k + 1] = low.add(node, Kernel(f"linalg.{kind}_panel", (k0,)), (1,), np.array([[columns[k]]]),
                                   elements=np.full(1, elements), flop=2 * (rows - k0) * width ** 2,
                                   label=f"{kind}.panel")
        if left:
            pairs = np.stack([np.full(left, columns[k]), columns[k + 1:]], axis=1)
            places = ListArgs(tuple((b, b + w) for b, w in zip(begins[k + 1:], widths[k + 1:], strict=True)))
            columns[k + 1:] = low.add(node, Kernel(f"linalg.{kind}_update", (k0,)), (left,), pairs,
                                      elements=np.full(left, elements), flop=4 * (rows - k0) * width ** 2,
                                      args=places, label=f"{kind}.update")
    return columns.reshape(node.grid)


def _q_of_panels(low: Lowering, node: Expr) -> np.ndarray:
    """Q from the panels of a Householder QR: reflectors, last panel first, applied to columns of the identity."""
    (x,) = node.args
    widths, begins = node.chunks[1], offsets(node.chunks[1])
    rows, elements = _column_elements(node, node)
    panels = low.of(x).reshape(-1)
    columns = np.zeros(len(widths), np.int64)
    for k in range(len(widths) - 1, -1, -1):
        right = columns[k + 1:]
        if len(right):
            pairs = np.stack([np.full(len(right), panels[k]), right], axis=1)
            columns[k + 1:] = low.add(node, Kernel("linalg.qr_update", (begins[k], False)), (len(right),), pairs,
                                      elements=np.full(len(right), elements), label="qr.q",
                                      flop=4 * (rows - begins[k]) * widths[k] ** 2)
        columns[k:k + 1] = low.add(node, Kernel("linalg.qr_start", (begins[k], widths[k])), (1,), panels[k:k + 1, None],
                                   elements=np.full(1, elements), flop=4 * (rows - begins[k]) * widths[k] ** 2,
                                   label="qr.q")
    return columns.reshape(node.grid)


def _substitute(low: Lowering, node: Expr) -> np.ndarray:
    """Apply panels in order (or in reverse) to every column of a right-hand side."""
    kernel, params, reverse, begins = node.params
    panels, columns = (low.of(a).reshape(-1) for a in node.args)
    rows = float(node.shape[0])
    elements = block_elements(node.chunks).reshape(-1)
    flop = 2 * elements * rows / max(len(begins), 1)
    for k in reversed(range(len(begins))) if reverse else range(len(begins)):
        pairs = np.stack([np.full(len(columns), panels[k]), columns], axis=1)
        columns = low.add(node, Kernel(kernel, (begins[k], *params)), node.grid, pairs, elements=elements, flop=flop,
                          label=kernel.rpartition(".")[2]).reshape(-1)
    return columns.reshape(node.grid)


def _per_panel(low: Lowering, node: Expr) -> np.ndarray:
    """A kernel for each panel, which is told where its columns begin."""
    kernel, params, begins = node.params
    panels = low.of(node.args[0]).reshape(-1)
    made = [low.add(node, Kernel(kernel, (k0, *p)), (1,), panels[k:k + 1, None],
                    elements=np.full(1, float(node.shape[0] * n)), label=kernel.rpartition(".")[2])
            for k, (k0, p, n) in enumerate(zip(begins, params, node.chunks[-1], strict=True))]
    return np.concatenate(made).reshape(node.grid)


def _lu_lower(low: Lowering, node: Expr) -> np.ndarray:
    """Columns of L: each panel with the interchanges of the panels after it."""
    panels, pivots = (low.of(a).reshape(-1) for a in node.args)
    _, elements = _column_elements(node, node)
    made = []
    for k, (k0, width) in enumerate(zip(offsets(node.chunks[1]), node.chunks[1], strict=True)):
        reads = np.concatenate([panels[k:k + 1], pivots[k + 1:len(node.chunks[1])]])
        made.append(low.add(node, Kernel("linalg.lu_lower", (k0, width)), (1,), reads[None, :],
                            elements=np.full(1, elements), label="lu.lower"))
    return np.concatenate(made).reshape(node.grid)


LOWER: dict[str, Rule] = {
    "blocks": _blocks,
    "r_of_rows": _r_of_rows,
    "right_looking": _right_looking,
    "q_of_panels": _q_of_panels,
    "substitute": _substitute,
    "per_panel": _per_panel,
    "lu_lower": _lu_lower,
}
