"""Algebraic rules on elementwise operations that change no bit of the result (tests evaluate both sides).

    (name, which operand is the constant, its value)  ->  the other operand

x + 0 is not among them: -0.0 + 0 is 0.0. Nor is x * 0, which is NaN for infinities.
"""

from __future__ import annotations

import numpy as np

from nums_core.expr.node import Const, Expr, make

NEUTRAL = [  # dtypes by kind: a complex product rounds zeros and infinities anew, so 1 is not neutral there
    ("multiply", 1, 1, "biufm"),  # x * 1 = x
    ("multiply", 0, 1, "biufm"),  # 1 * x = x
    ("divide", 1, 1, "f"),  # x / 1 = x
    ("subtract", 1, 0, "biufcmM"),  # x - 0 = x
    ("power", 1, 1, "iuf"),  # x ** 1 = x
    ("logical_or", 1, False, "b"),  # b | False = b
    ("logical_and", 1, True, "b"),  # b & True = b
]
INVOLUTIONS = {"negative", "conjugate", "logical_not", "invert"}  # f(f(x)) = x
IDEMPOTENT = {"absolute", "fabs", "floor", "ceil", "trunc", "rint", "sign", "positive"}  # f(f(x)) = f(x)


def neutral(node: Expr) -> Expr | None:
    name, _, spec = node.params
    for row, where, value, kinds in NEUTRAL:
        if name == row and isinstance(spec[where], Const) and isinstance(spec[1 - where], int):
            c = spec[where].value
            x = node.args[spec[1 - where]]
            if (x.dtype == node.dtype and x.shape == node.shape and x.dtype.kind in kinds and c == value
                    and not _negative_zero(c)):
                return x
    return None


def _negative_zero(c: np.generic) -> bool:
    """Whether a part of `c` is -0.0, which is no neutral element of anything."""
    if c.dtype.kind not in "fc":
        return False
    return bool(((c.real == 0) & np.signbit(c.real)) | ((c.imag == 0) & np.signbit(c.imag)))


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
    if name in IDEMPOTENT and node.args and node.dtype.kind != "c":  # the sign of a complex number is rounded
        x = node.args[0]
        if x.op == "ewise" and x.params[0] == name and x.dtype == node.dtype:
            return x
    return None


def small_power(node: Expr) -> Expr | None:
    """x ** 2 = square(x), x ** 0.5 = sqrt(x), x ** -1 = 1 / x: what NumPy's loop does for real numbers."""
    name, _, spec = node.params
    if name != "power" or not isinstance(spec[1], Const) or not isinstance(spec[0], int) or node.dtype.kind != "f":
        return None
    function = {2.0: "square", 0.5: "sqrt", -1.0: "reciprocal"}.get(float(spec[1].value))
    if function is None or node.args[0].dtype != node.dtype:
        return None
    return make("ewise", node.args, (function, (), (0,)), node.shape, node.dtype, node.chunks, node.line)


RULES = [("ewise", neutral), ("ewise", involution), ("ewise", idempotent), ("ewise", small_power)]
