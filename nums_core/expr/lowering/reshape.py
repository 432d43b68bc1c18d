"""Lowering of reshapes: each block is relabelled, a view."""

from __future__ import annotations

import numpy as np

from nums_core.expr.lower import Lowering, Rule
from nums_core.expr.node import Expr
from nums_core.ops.taskgraph import AxisArgs, Kernel


def _blocks(low: Lowering, node: Expr) -> np.ndarray:
    args = AxisArgs(tuple(tuple(map(int, c)) for c in node.chunks))
    return low.add(node, Kernel("reshape.blocks"), node.grid, low.of(node.args[0]).reshape(-1, 1), args=args,
                   label="reshape")


LOWER: dict[str, Rule] = {"blocks": _blocks}
