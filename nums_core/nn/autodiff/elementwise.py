"""Derivatives of elementwise operations: a row for each of `ops.elementwise`, an entry for each operand.

In a formula `g` is the cotangent, `y` the result, `a`, `b`, `x` the operands (Arrays or scalars).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import nums_core.array as na
from nums_core.array.array import Array
from nums_core.expr.node import Expr
from nums_core.nn.autodiff.rule import NONE, ZERO, Cotangent, Rule, Table, unbroadcast

LN2, LN10 = math.log(2), math.log(10)


def formula(*partials: Callable[..., Any] | None) -> Rule:
    """The rule made of one formula an operand; None where an operand has no part in the derivative."""
    def rule(node: Expr, g: Array) -> Sequence[Cotangent]:
        spec = node.params[2]
        operands = [Array(node.args[s]) if isinstance(s, int) else s.value for s in spec]
        out: list[Any] = [None] * len(node.args)
        for s, partial in zip(spec, partials, strict=True):
            if isinstance(s, int) and partial is not None and node.args[s].dtype.kind in "fc":
                made = partial(g, Array(node), *operands)
                out[s] = made if out[s] is None else out[s] + made
        return [None if c is None else unbroadcast(c, a) for c, a in zip(out, node.args, strict=True)]
    return rule


def _absolute(g: Any, y: Any, x: Any) -> Any:
    if x.dtype.kind != "c":
        return g * na.sign(x)
    return na.where(y == 0, 0, g * na.conjugate(x) / na.where(y == 0, 1, y))


def _power_base(g: Any, y: Any, a: Any, b: Any) -> Any:
    """b a^(b-1), and 0 where b is 0, whatever a is."""
    if not isinstance(b, Array):
        return 0 * g if b == 0 else g * (b * a ** (b - 1))
    return na.where(b == 0, 0, g * b * a ** na.where(b == 0, 1, b - 1))


def _power_exponent(g: Any, y: Any, a: Any, b: Any) -> Any:
    """a^b log a, and 0 where a is 0: the limit for b > 0."""
    if not isinstance(a, Array):
        return 0 * g if a == 0 else g * y * na.log(a)
    return na.where(a == 0, 0, g * y * na.log(na.where(a == 0, 1, a)))


def _chosen(mine: int) -> Callable[..., Any]:
    """Of maximum and minimum: to the operand that was chosen, in halves where both were."""
    def partial(g: Any, y: Any, *operands: Any) -> Any:
        a, b = operands[mine], operands[1 - mine]
        return na.where(a == y, na.where(b == y, 0.5 * g, g), 0)
    return partial


def _sinc(g: Any, y: Any, x: Any) -> Any:
    nonzero = na.where(x == 0, 1, x)
    return na.where(x == 0, 0, g * (na.cos(math.pi * x) - y) / nonzero)


def _cast(node: Expr, g: Array) -> Sequence[Cotangent]:
    return [g]


def _angle(node: Expr, g: Array) -> Sequence[Cotangent]:
    x, degrees = Array(node.args[0]), dict(node.params[1]).get("deg", False)
    if x.dtype.kind != "c":
        return [None]
    return [(180 / math.pi if degrees else 1) * g * (-1j / x)]


def _sign(node: Expr, g: Array) -> Sequence[Cotangent]:
    """Zero; of complex numbers y = x / |x|, the part of the change across x."""
    x = Array(node.args[0])
    if x.dtype.kind != "c":
        return [None]
    y, size = Array(node), na.where(x == 0, 1, abs(x))
    return [(g - (g * y).real * na.conjugate(y)) / size]


WHOLE = ZERO("piecewise constant")
NOT_REAL = ZERO("a truth value or an integer")
BITS = ZERO("of integers")

EWISE: Table = {
    "absolute": formula(_absolute),
    "add": formula(lambda g, y, a, b: g, lambda g, y, a, b: g),
    "angle": _angle,
    "arccos": formula(lambda g, y, x: -g / na.sqrt(1 - x * x)),
    "arccosh": formula(lambda g, y, x: g / (na.sqrt(x - 1) * na.sqrt(x + 1))),
    "arcsin": formula(lambda g, y, x: g / na.sqrt(1 - x * x)),
    "arcsinh": formula(lambda g, y, x: g / na.sqrt(x * x + 1)),
    "arctan": formula(lambda g, y, x: g / (1 + x * x)),
    "arctan2": formula(lambda g, y, a, b: g * b / (a * a + b * b), lambda g, y, a, b: -g * a / (a * a + b * b)),
    "arctanh": formula(lambda g, y, x: g / (1 - x * x)),
    "cast": _cast,
    "cbrt": formula(lambda g, y, x: g / (3 * y * y)),
    "conjugate": formula(lambda g, y, x: na.conjugate(g)),
    "copysign": formula(lambda g, y, a, b: g * na.sign(a) * na.copysign(na.ones_like(a), b), None),
    "cos": formula(lambda g, y, x: -g * na.sin(x)),
    "cosh": formula(lambda g, y, x: g * na.sinh(x)),
    "deg2rad": formula(lambda g, y, x: g * (math.pi / 180)),
    "degrees": formula(lambda g, y, x: g * (180 / math.pi)),
    "divide": formula(lambda g, y, a, b: g / b, lambda g, y, a, b: -g * y / b),
    "divmod.0": WHOLE,
    "divmod.1": formula(lambda g, y, a, b: g, lambda g, y, a, b: -g * na.floor_divide(a, b)),
    "exp": formula(lambda g, y, x: g * y),
    "exp2": formula(lambda g, y, x: g * y * LN2),
    "expm1": formula(lambda g, y, x: g * (y + 1)),
    "fabs": formula(lambda g, y, x: g * na.sign(x)),
    "float_power": formula(_power_base, _power_exponent),
    "floor_divide": WHOLE,
    "fmax": formula(_chosen(0), _chosen(1)),
    "fmin": formula(_chosen(0), _chosen(1)),
    "fmod": formula(lambda g, y, a, b: g, lambda g, y, a, b: -g * na.trunc(a / b)),
    "frexp.0": formula(lambda g, y, x: na.ldexp(g, -na.frexp(x)[1])),
    "heaviside": formula(None, lambda g, y, a, b: na.where(a == 0, g, 0)),
    "hypot": formula(lambda g, y, a, b: g * a / y, lambda g, y, a, b: g * b / y),
    "i0": NONE("it is the Bessel function I1, which is no operation here; write a primitive with a backward rule"),
    "imag": formula(lambda g, y, x: -1j * g if x.dtype.kind == "c" else 0 * g),
    "ldexp": formula(lambda g, y, x, e: na.ldexp(g, e), None),
    "log": formula(lambda g, y, x: g / x),
    "log10": formula(lambda g, y, x: g / (x * LN10)),
    "log1p": formula(lambda g, y, x: g / (1 + x)),
    "log2": formula(lambda g, y, x: g / (x * LN2)),
    "logaddexp": formula(lambda g, y, a, b: g * na.exp(a - y), lambda g, y, a, b: g * na.exp(b - y)),
    "logaddexp2": formula(lambda g, y, a, b: g * na.exp2(a - y), lambda g, y, a, b: g * na.exp2(b - y)),
    "maximum": formula(_chosen(0), _chosen(1)),
    "minimum": formula(_chosen(0), _chosen(1)),
    "modf.0": formula(lambda g, y, x: g),
    "multiply": formula(lambda g, y, a, b: g * b, lambda g, y, a, b: g * a),
    "nan_to_num": formula(lambda g, y, x: na.where(na.isfinite(x), g, 0)),
    "negative": formula(lambda g, y, x: -g),
    "nextafter": formula(lambda g, y, a, b: g, None),
    "positive": formula(lambda g, y, x: g),
    "power": formula(_power_base, _power_exponent),
    "rad2deg": formula(lambda g, y, x: g * (180 / math.pi)),
    "radians": formula(lambda g, y, x: g * (math.pi / 180)),
    "real": formula(lambda g, y, x: g),
    "reciprocal": formula(lambda g, y, x: -g * y * y),
    "remainder": formula(lambda g, y, a, b: g, lambda g, y, a, b: -g * na.floor_divide(a, b)),
    "sign": _sign,
    "sin": formula(lambda g, y, x: g * na.cos(x)),
    "sinc": formula(_sinc),
    "sinh": formula(lambda g, y, x: g * na.cosh(x)),
    "sqrt": formula(lambda g, y, x: 0.5 * g / y),
    "square": formula(lambda g, y, x: 2 * g * x),
    "subtract": formula(lambda g, y, a, b: g, lambda g, y, a, b: -g),
    "tan": formula(lambda g, y, x: g * (1 + y * y)),
    "tanh": formula(lambda g, y, x: g * (1 - y * y)),
    "user": NONE("it is a function of the user's that nothing is known of; build it from array functions, or make it a "
                 "primitive with a backward rule (nums_core.nn.primitives)"),
    "where": formula(None, lambda g, y, c, a, b: na.where(c, g, 0), lambda g, y, c, a, b: na.where(c, 0, g)),
}
EWISE |= dict.fromkeys(("ceil", "floor", "modf.1", "rint", "round", "spacing", "trunc"), WHOLE)
EWISE |= dict.fromkeys(("equal", "not_equal", "less", "less_equal", "greater", "greater_equal", "isclose", "isfinite",
                        "isinf", "isnan", "isnat", "signbit", "logical_and", "logical_or", "logical_xor", "logical_not",
                        "frexp.1", "searchsorted"), NOT_REAL)
EWISE |= dict.fromkeys(("bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_count", "invert", "left_shift",
                        "right_shift", "gcd", "lcm"), BITS)
