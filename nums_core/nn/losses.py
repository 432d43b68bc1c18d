"""Losses: how far results are from what was wanted. `reduction` is "mean", "sum" or "none" everywhere."""

from __future__ import annotations

from nums_core.array import elementwise as ew
from nums_core.array.array import Array
from nums_core.errors import ConfigError, ShapeError
from nums_core.nn.ops.loss import cross_entropy as cross_entropy


def squared_error(x: Array, target: Array, reduction: str = "mean") -> Array:
    """(x - target)²"""
    return _reduced(ew.square(_difference("squared_error", x, target)), reduction)


def absolute_error(x: Array, target: Array, reduction: str = "mean") -> Array:
    """|x - target|; the derivative at 0 is 0."""
    return _reduced(ew.absolute(_difference("absolute_error", x, target)), reduction)


def huber(x: Array, target: Array, delta: float = 1.0, reduction: str = "mean") -> Array:
    """e²/2 where |e| = |x - target| ≤ delta, and delta (|e| - delta/2) beyond.

    References
    ----------
    .. [1] P. Huber, "Robust estimation of a location parameter", Ann. Math. Statist. 1964.
    """
    e = ew.absolute(_difference("huber", x, target))
    near = ew.minimum(e, delta)
    return _reduced(near * (e - near * 0.5), reduction)


def binary_cross_entropy(logits: Array, target: Array, reduction: str = "mean") -> Array:
    """-target log σ(x) - (1 - target) log σ(-x), as max(x, 0) - x target + log(1 + exp(-|x|)), which does not overflow."""
    _difference("binary_cross_entropy", logits, target)
    return _reduced(ew.maximum(logits, 0) - logits * target + ew.log1p(ew.exp(-ew.absolute(logits))), reduction)


def _difference(name: str, x: Array, target: Array) -> Array:
    if x.shape != target.shape:
        raise ShapeError(f"{name} of shapes {x.shape} and {target.shape}; they must be equal: a result (n, 1) beside a target "
                         "(n,) would be broadcast to (n, n)")
    return x - target


def _reduced(losses: Array, reduction: str) -> Array:
    if reduction == "mean":
        return losses.mean()
    if reduction == "sum":
        return losses.sum()
    if reduction == "none":
        return losses
    raise ConfigError(f"reduction={reduction!r}; give 'mean', 'sum' or 'none'")


__all__ = ["absolute_error", "binary_cross_entropy", "cross_entropy", "huber", "squared_error"]
