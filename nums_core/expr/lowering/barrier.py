"""Lowering of barriers: an array whose blocks are handed on only once those of another array have been made."""

from __future__ import annotations

import math

import numpy as np

from nums_core.expr.lower import Lowering, Rule
from nums_core.expr.node import Expr
from nums_core.ops.taskgraph import Kernel


def _after(low: Lowering, node: Expr) -> np.ndarray:
    """Block i of the first operand waits for one block of the second: of as many blocks, for the one at its place."""
    x, awaited = (low.of(a).reshape(-1) for a in node.args)
    n = math.prod(node.grid)
    inputs = np.stack([x, awaited[np.arange(n) * len(awaited) // max(n, 1)]], axis=1)
    return low.add(node, Kernel("identity"), node.grid, inputs, flop=np.zeros(n), label="after")


LOWER: dict[str, Rule] = {"after": _after}
