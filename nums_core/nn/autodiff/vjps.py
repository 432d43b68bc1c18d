"""VJPS: the derivative of every kind of expression, or an explicit NONE with the reason.

Keyed by the op of a node. Families whose nodes name a row of another table (`ops.elementwise`, `ops.reductions`,
functions mapped over blocks, LAPACK's functions) have a table of their own here, and `KEY` says where a node keeps the
name. A test walks all of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from nums_core.array.array import Array
from nums_core.expr.node import Expr
from nums_core.expr.opaque import value_of
from nums_core.nn.autodiff.elementwise import EWISE
from nums_core.nn.autodiff.linalg import BLOCKED, LINALG, PANELS, contract
from nums_core.nn.autodiff.movement import FUNCTION, MAPS, MOVEMENT
from nums_core.nn.autodiff.quantized import QUANTIZED
from nums_core.nn.autodiff.reductions import REDUCE, SCAN
from nums_core.nn.autodiff.rule import NONE, ZERO, Cotangent, Row
from nums_core.nn.primitives import Primitive, call_of


def _primitive(node: Expr, g: Any) -> Sequence[Cotangent]:
    """By the primitive's own rule; a cotangent for each result, None where nothing depends on it."""
    primitive: Primitive = value_of(node.params[0])
    assert primitive.backward is not None
    cotangents = [g.get(k) for k in range(primitive.n_out)] if isinstance(g, dict) else [g]
    made = list(primitive.backward(call_of(node), *cotangents))
    if len(made) != len(node.args):
        raise TypeError(f"the backward rule of {primitive.label} returned {len(made)} cotangents for {len(node.args)} "
                        "arguments; return one for each, None for those that have none")
    return made


def _after(node: Expr, g: Array) -> Sequence[Cotangent]:
    return [g, None]


def _function_of(node: Expr) -> Any:
    function = value_of(node.params[0])
    return function.func if isinstance(function, functools.partial) else function


def _kernel_of(node: Expr) -> Any:
    kernel, params = node.params[:2]
    return params[0] if kernel == "linalg.apply" else None


VJPS: dict[str, Any] = {
    "ewise": EWISE,
    "reduce": REDUCE,
    "scan.cumulative": SCAN,
    "map": MAPS,
    "linalg.blocks": LINALG,
    "contract": contract,
    **MOVEMENT,
    **PANELS,
    **QUANTIZED,
    "barrier.after": _after,
    "leaf": ZERO("data"),
    "create": ZERO("made from its position alone"),
    "stop": ZERO("stop_gradient()"),
    "fused": NONE("fused groups are made after differentiation"),
}
KEY: dict[str, Callable[[Expr], Any]] = {
    "ewise": lambda node: node.params[0],
    "reduce": lambda node: node.params[0],
    "scan.cumulative": lambda node: node.params[0],
    "map": _function_of,
    "linalg.blocks": _kernel_of,
}
OTHERWISE: dict[str, Row] = {"map": FUNCTION, "linalg.blocks": BLOCKED}


def rule_of(node: Expr) -> Row:
    """The row for a node."""
    row = VJPS.get(node.op, NONE(f"the operation {node.op!r} is not in the table of derivatives"))
    if not isinstance(row, dict):
        return row
    key = KEY[node.op](node)
    if isinstance(key, Primitive):
        if key.backward is not None:
            return _primitive
        return NONE(f"the primitive {key.label} has no backward rule; give it one with primitive(backward=...)")
    try:
        return row.get(key) or OTHERWISE.get(node.op) or NONE(f"{key!r} is not in the table of {node.op}")
    except TypeError:  # an unhashable callable
        return OTHERWISE[node.op]


__all__ = ["VJPS", "rule_of"]
