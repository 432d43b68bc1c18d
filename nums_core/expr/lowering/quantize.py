"""Lowering of operations on quantised weights.

    matmul      a task for each block of x and each piece of w: a large matrix is cut into pieces of rows, which are views
    transposed, take     a task for each block of the first operand, which reads all blocks of w
    decode      block by block
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from nums_core.expr.grid import block_elements
from nums_core.expr.lower import Lowering, Rule
from nums_core.expr.node import Expr
from nums_core.ops.taskgraph import AxisArgs, Kernel


def _matmul(low: Lowering, node: Expr) -> np.ndarray:
    """`node.params` is (format, pieces): for each block of w, how many rows each of its pieces has."""
    data, x = node.args
    form, pieces = node.params
    lead = low.of(x).reshape(x.grid[:-1])
    of_w = np.repeat(low.of(data).reshape(-1), [len(p) for p in pieces])
    inputs = np.stack([np.broadcast_to(of_w, node.grid).reshape(-1),
                       np.broadcast_to(lead[..., None], node.grid).reshape(-1)], axis=1)
    rows = [None if len(p) == 1 else slice(stop - n, stop)
            for p in pieces for n, stop in zip(p, itertools.accumulate(p), strict=True)]
    args = AxisArgs((*((None,) * n for n in x.grid[:-1]), tuple(rows)))
    elements = block_elements(node.chunks).reshape(-1)
    return low.add(node, Kernel("quantized.matmul", (form, x.shape[-1])), node.grid, inputs, elements=elements, args=args,
                   flop=2.0 * elements * x.shape[-1], label=f"product with {form}")


def _with_all_of_w(low: Lowering, node: Expr, kernel: Kernel, flop: float, label: str) -> np.ndarray:
    """A task for each block of the second operand; each reads all blocks of the first."""
    data, x = node.args
    own = low.of(x).reshape(-1, 1)
    every = np.broadcast_to(low.of(data).reshape(1, -1), (len(own), math.prod(data.grid)))
    elements = block_elements(node.chunks).reshape(-1)
    return low.add(node, kernel, node.grid, np.concatenate([own, every], axis=1), elements=elements, flop=elements * flop,
                   label=label)


def _transposed(low: Lowering, node: Expr) -> np.ndarray:
    form, n_cols = node.params
    return _with_all_of_w(low, node, Kernel("quantized.transposed", (form, n_cols)), 2.0 * node.args[1].shape[-1],
                          f"product with {form} transposed")


def _take(low: Lowering, node: Expr) -> np.ndarray:
    form, n_cols = node.params
    return _with_all_of_w(low, node, Kernel("quantized.take", (form, n_cols)), 2.0, f"rows of {form}")


def _decode(low: Lowering, node: Expr) -> np.ndarray:
    form, n_cols = node.params
    elements = block_elements(node.chunks).reshape(-1)
    return low.add(node, Kernel("quantized.decode", (form, n_cols)), node.grid, low.of(node.args[0]).reshape(-1, 1),
                   elements=elements, flop=2.0 * elements, label=f"decode {form}")


LOWER: dict[str, Rule] = {"matmul": _matmul, "transposed": _transposed, "take": _take, "decode": _decode}

