"""Algebraic rules on elementwise operations that change no bit of the result (tests evaluate both sides).

    (name, which operand is the constant, its value)  ->  the other operand

x + 0 is not among them: -0.0 + 0 is 0.0. Nor is x * 0, which is NaN for infinities.
"""

from __future__ import annotations

import numpy as np

from nums_core.expr.node import Const, Expr, make

NEUTRAL = [
    ("multiply", 1, 1),  # x * 1 = x
    ("multiply", 0, 1),  # 1 * x = x
    ("divide", 1, 1),  # x / 1 = x
    ("subtract", 1, 0),  # x - 0 = x
    ("power", 1, 1),  # x ** 1 = x
    ("logical_or", 1, False),  # b | False = b
    ("logical_and", 1, True),  # b & True = b
]
INVOLUTIONS = {"negative", "conjugate", "logical_not", "invert"}  # f(f(x)) = x
IDEMPOTENT = {"absolute", "fabs", "floor", "ceil", "trunc", "rint", "sign", "positive"}  # f(f(x)) = f(x)


def neutral(node: Expr) -> Expr | None:
    name, _, spec = node.params
    for row, where, value in NEUTRAL:
        if name == row and isinstance(spec[where], Const) and isinstance(spec[1 - where], int):
            c = spec[where].value
            x = node.args[spec[1 - where]]
            signed_zero = value == 0 and np.signbit(np.asarray(c, complex).real)
            if c == value and not signed_zero and x.dtype == node.dtype and x.shape == node.shape:
                return x
    return None


def involution(node: Expr) -> Expr | None:
    name = node.params[0]
    if name in INVOLUTIONS and node.args:
        x = node.args[0]
        if x.op == "ewise" and x.params[0] == name and x.dtype == node.dtype:
            inner = x.args[0]
            return inner if inner.dtype == node.dtype and inner.shape == node.shape else None
    return None


def idempotent(node: Expr) -> Expr | None:
    name = node.params[0]
    if name in IDEMPOTENT and node.args:
        x = node.args[0]
        if x.op == "ewise" and x.params[0] == name and x.dtype == node.dtype:
            return x
    return None


def small_power(node: Expr) -> Expr | None:
    """x ** 2 = x * x and x ** 0.5 = sqrt(x), as NumPy's own operator does."""
    name, _, spec = node.params
    if name != "power" or not isinstance(spec[1], Const) or not isinstance(spec[0], int) or node.dtype.kind not in "fc":
        return None
    function = {2.0: "square", 0.5: "sqrt", -1.0: "reciprocal"}.get(complex(spec[1].value).real)
    if function is None or complex(spec[1].value).imag or node.args[0].dtype != node.dtype:
        return None
    return make("ewise", node.args, (function, (), (0,)), node.shape, node.dtype, node.chunks, node.line)


RULES = [("ewise", neutral), ("ewise", involution), ("ewise", idempotent), ("ewise", small_power)]
