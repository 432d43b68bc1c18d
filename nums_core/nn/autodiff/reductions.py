"""Derivatives of reductions and scans: a row for each of `ops.reductions` and `ops.scans`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import nums_core.array as na
from nums_core.array.array import Array
from nums_core.array.scans import accumulate
from nums_core.expr.node import Expr
from nums_core.nn.autodiff.reverse import through
from nums_core.nn.autodiff.rule import NONE, ZERO, Cotangent, Table, over_reduced, spread


def _sum(node: Expr, g: Array) -> Sequence[Cotangent]:
    return [spread(over_reduced(node, g), node.args[0])]


def _counted(node: Expr) -> tuple[Array, Any, Any]:
    """The operand, which of its elements count (True for all), and how many do in each reduction."""
    e, (_, which, _, kw) = node.args[0], node.params
    x = Array(e)
    if dict(kw).get("skip_nan"):
        counts = ~na.isnan(x)
        return x, counts, na.sum(counts, axis=which, keepdims=True).astype(node.dtype)
    return x, True, math.prod(e.shape[i] for i in which)


def _mean(node: Expr, g: Array) -> Sequence[Cotangent]:
    _, counts, n = _counted(node)
    made = spread(over_reduced(node, g) / n, node.args[0])
    return [made if counts is True else na.where(counts, made, 0)]


def _moments(node: Expr, g: Array) -> Sequence[Cotangent]:
    """d var = 2 sum((x - mean) dx) / (n - ddof); d std = d var / (2 std), 0 where std is 0."""
    kw = dict(node.params[3])
    if kw.get("what", "var") == "mean":
        return _mean(node, g)
    x, counts, n = _counted(node)
    g, which = over_reduced(node, g), node.params[1]
    values = x if counts is True else na.where(counts, x, 0)
    apart = na.conjugate(values - na.sum(values, axis=which, keepdims=True) / n)
    if kw["what"] == "std":
        y = over_reduced(node, Array(node))
        g = na.where(y == 0, 0, g / na.where(y == 0, 1, 2 * y))
    made = 2 * g / (n - kw.get("ddof", 0)) * apart
    return [made if counts is True else na.where(counts, made, 0)]


def _extreme(node: Expr, g: Array) -> Sequence[Cotangent]:
    """Shared equally among the elements that are the extreme."""
    x, which = Array(node.args[0]), node.params[1]
    chosen = x == over_reduced(node, Array(node))
    n = na.maximum(na.sum(chosen, axis=which, keepdims=True), 1)
    return [na.where(chosen, over_reduced(node, g) / n.astype(g.dtype), 0)]


def _prod(node: Expr, g: Array) -> Sequence[Cotangent]:
    """The product of the other elements: y / x where no element is 0; beside one zero only that one has any."""
    x, which = Array(node.args[0]).astype(node.dtype), node.params[1]
    zero = x == 0
    n_zero = na.sum(zero, axis=which, keepdims=True)
    nonzero = na.where(zero, 1, x)
    others = na.prod(nonzero, axis=which, keepdims=True) / nonzero
    return [over_reduced(node, g) * na.where(n_zero - zero == 0, others, 0)]


def _topk(node: Expr, g: Array) -> Sequence[Cotangent]:
    x, (_, (axis,), _, kw) = node.args[0], node.params
    k = dict(kw)["k"]
    return through(lambda a: na.take_along_axis(a, na.argtopk(Array(x), k, axis=axis), axis), x, g)


REDUCE: Table = {
    "sum": _sum,
    "prod": _prod,
    "max": _extreme,
    "min": _extreme,
    "fmax": _extreme,
    "fmin": _extreme,
    "mean": _mean,
    "moments": _moments,
    "topk": _topk,
    "tally": NONE("counts of a histogram jump as values cross its edges; use a smooth kernel, as in "
                  "exp(-(x - centre)**2)"),
    "qr": NONE("R by a tree of QR factorizations; differentiate linalg.qr(x), whose R is the same"),
    "user": NONE("it is a function of the user's; build it from array functions"),
}
REDUCE |= dict.fromkeys(("any", "all", "bitwise_or", "bitwise_and", "bitwise_xor", "argmax", "argmin", "count"),
                        ZERO("a truth value or an integer"))


# -- scans ------------------------------------------------------------------------------------------------------------

def _without_initial(node: Expr, g: Array) -> Array:
    """The cotangent of the running results alone: a scan may begin with the neutral element."""
    axis, n = node.params[1], node.args[0].shape[node.params[1]]
    if node.shape[axis] == n:
        return g
    return g[(slice(None),) * axis + (slice(1, None),)]


def _reversed_sum(g: Array, axis: int) -> Array:
    return na.flip(na.cumsum(na.flip(g, axis), axis=axis), axis)


def _kept(node: Expr, g: Array) -> Array:
    """Zero where NaN was skipped."""
    return na.where(na.isnan(Array(node.args[0])), 0, g) if node.params[3] else g


def _cumsum(node: Expr, g: Array) -> Sequence[Cotangent]:
    return [_kept(node, _reversed_sum(_without_initial(node, g), node.params[1]))]


def _cumprod(node: Expr, g: Array) -> Sequence[Cotangent]:
    """sum over j >= i of g_j y_j / x_i: NaN where an element is 0, so that nobody takes it for a derivative."""
    y = _without_initial(node, Array(node))
    return [_kept(node, _reversed_sum(_without_initial(node, g) * y, node.params[1]) / Array(node.args[0]))]


def _cumulative_extreme(node: Expr, g: Array) -> Sequence[Cotangent]:
    """A running extreme takes, at each place, the element that last came up to it."""
    x, axis = node.args[0], node.params[1]
    shape = [1] * x.ndim
    shape[axis] = x.shape[axis]
    place = na.arange(x.shape[axis]).reshape(shape)
    latest = accumulate("maximum", na.where(Array(x) == Array(node), place, 0), axis=axis)
    return through(lambda a: na.take_along_axis(a, latest, axis), x, g)


SCAN: Table = {
    "add": _cumsum,
    "multiply": _cumprod,
    "maximum": _cumulative_extreme,
    "minimum": _cumulative_extreme,
    "fmax": _cumulative_extreme,
    "fmin": _cumulative_extreme,
}
SCAN |= dict.fromkeys(("logical_or", "logical_and", "bitwise_or", "bitwise_and", "bitwise_xor"),
                      ZERO("a truth value or an integer"))

__all__ = ["REDUCE", "SCAN"]
