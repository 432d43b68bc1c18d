"""Lowering of `unique` and of set operations: distinct elements of blocks, divided by value into buckets, united there.

    distinct (m)     sorted distinct elements of each block     -> sample (m), splitters (1)
    piece (m k)      what of them belongs to a bucket
    unite (k)        the distinct elements of each bucket: the result, whose sizes depend on data

Small arrays have one bucket and skip the middle. The inverse adds up, over the buckets, where each distinct element of a
block stands in them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from nums_core.expr.grid import block_elements
from nums_core.expr.lower import Lowering, combine, position_args
from nums_core.expr.node import Expr
from nums_core.ops.taskgraph import REDUCE, AxisArgs, Kernel

SAMPLES_A_BUCKET = 16


def _item_bytes(node: Expr, positions: bool) -> int:
    return node.dtype.itemsize + (24 if positions else 8)


def _distinct(low: Lowering, node: Expr) -> np.ndarray:
    (x,), (positions, equal_nan) = node.args, node.params
    elements = np.nan_to_num(block_elements(x.chunks).reshape(-1), nan=1e5)
    return low.add(node, Kernel("unique.distinct", (positions, equal_nan, x.shape if positions else ())), x.grid,
                   low.of(x).reshape(-1, 1), elements=elements, flop=80 * elements, label="unique.blocks",
                   out_bytes=elements * _item_bytes(node, positions),
                   args=position_args(x.chunks) if positions else None)


def _unite(low: Lowering, node: Expr) -> np.ndarray:
    (distinct,), (equal_nan,) = node.args, node.params
    positions = distinct.params[0]
    ids = low.of(distinct).reshape(-1)
    (n_out,), m = node.grid, ids.size
    total = float(np.nan_to_num(block_elements(distinct.chunks), nan=1e5).sum())
    each = _item_bytes(node, positions)

    def add(name: str, params: tuple[object, ...], grid: tuple[int, ...], inputs: np.ndarray, elements: float,
            args: AxisArgs | None = None) -> np.ndarray:
        n = np.full(math.prod(grid), elements)
        return low.add(node, Kernel(f"unique.{name}", params), grid, inputs, elements=n, out_bytes=n * each, flop=30 * n,
                       args=args, label=f"unique.{name}")

    if n_out == 1:
        return add("unite", (equal_nan,), (1,), ids[None, :], total)
    samples = add("sample", (SAMPLES_A_BUCKET * n_out,), (m,), ids[:, None], SAMPLES_A_BUCKET * n_out)
    splitters = add("splitters", (n_out,), (1,), samples[None, :], n_out)
    inputs = np.stack([np.broadcast_to(ids[:, None], (m, n_out)), np.broadcast_to(splitters, (m, n_out))], axis=-1)
    pieces = add("piece", (), (m, n_out), inputs.reshape(-1, 2), total / (m * n_out),
                 AxisArgs(((None,) * m, tuple(range(n_out)))))
    return add("unite", (equal_nan,), (n_out,), pieces.T, total / n_out)


def _inverse(low: Lowering, node: Expr) -> np.ndarray:
    x, distinct, united = node.args
    blocks, buckets = low.of(distinct).reshape(-1), low.of(united)
    grid = (len(blocks), len(buckets))
    inputs = np.stack([np.broadcast_to(buckets, grid), np.broadcast_to(blocks[:, None], grid)], axis=-1)
    elements = block_elements(x.chunks).reshape(-1)
    ranks = low.add(node, Kernel("unique.rank"), grid, inputs.reshape(-1, 2), elements=np.repeat(elements, len(buckets)),
                    flop=20 * np.repeat(elements, len(buckets)), label="unique.rank").reshape(*node.grid, len(buckets))
    ranks = combine(low, node, ranks, (node.ndim,), ("sum", (), ()), ((), None), "unique.rank.sum")
    inputs = np.stack([low.of(x).reshape(-1), blocks, ranks.reshape(-1)], axis=1)
    return low.add(node, Kernel("unique.inverse"), node.grid, inputs, flop=40 * elements, label="unique.inverse")


def _choose(low: Lowering, node: Expr) -> np.ndarray:
    ids = low.of(node.args[0])
    return low.add(node, Kernel("unique.choose", node.params), node.grid, ids[:, None],
                   elements=np.full(ids.size, 1e3), label="unique.choose")


def _rows(low: Lowering, node: Expr) -> np.ndarray:
    (x,), (axis,) = node.args, node.params
    elements = block_elements(x.chunks).reshape(-1)
    size = elements * x.dtype.itemsize
    each = low.add(node, Kernel("unique.rows", (axis,)), x.grid, low.of(x).reshape(-1, 1), elements=elements, out_bytes=size,
                   flop=80 * elements, args=position_args(x.chunks), label="unique.rows")
    return low.add(node, Kernel("unique.rows_tree", ((), None)), node.grid, each.reshape(1, -1), role=REDUCE,
                   elements=np.full(1, elements.sum()), out_bytes=np.full(1, size.sum()), label="unique.rows.tree")


def _isin(low: Lowering, node: Expr) -> np.ndarray:
    x, test = node.args
    blocks = low.of(test).reshape(-1)
    grid = (*x.grid, len(blocks))
    inputs = np.stack([np.broadcast_to(low.of(x)[..., None], grid), np.broadcast_to(blocks, grid)], axis=-1)
    elements = np.repeat(np.nan_to_num(block_elements(x.chunks).reshape(-1), nan=1e5), len(blocks))
    found = low.add(node, Kernel("unique.isin"), grid, inputs.reshape(-1, 2), elements=elements, flop=60 * elements,
                    label="isin")
    if len(blocks) == 1:
        return found.reshape(x.grid)
    return combine(low, node, found, (x.ndim,), ("any", (), ()), ((), None), "isin.any")


LOWER: dict[str, Callable[[Lowering, Expr], np.ndarray]] = {
    "distinct": _distinct, "unite": _unite, "inverse": _inverse, "choose": _choose, "rows": _rows, "isin": _isin}
