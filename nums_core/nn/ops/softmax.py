"""Softmax over one axis, and its logarithm; derivatives of every order."""

from __future__ import annotations

import numpy as np

from nums_core.array import elementwise as ew
from nums_core.array.array import Array
from nums_core.errors import DTypeError
from nums_core.expr.build import normalize_axes
from nums_core.nn.primitives import Call, primitive


def softmax(x: Array, axis: int = -1) -> Array:
    """exp(x) / sum(exp(x)) along `axis`, which is put into one block."""
    return _along(exponentials, x, axis)


def log_softmax(x: Array, axis: int = -1) -> Array:
    """x - log(sum(exp(x))) along `axis`, which is put into one block."""
    return _along(logarithms, x, axis)


def _along(p: object, x: Array, axis: int) -> Array:
    if x.dtype.kind != "f":
        raise DTypeError(f"softmax takes floating arrays, got {x.dtype}; cast with x.astype('float32')")
    (at,) = normalize_axes(axis, x.ndim)
    labels = "".join("Z" if i == at else "abcdefghijklmnop"[i] for i in range(x.ndim))
    return p.bind([x], f"{labels}->{labels}", [(x.shape, x.dtype)], axis=at)  # type: ignore[attr-defined]


def _shifted(x: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """x less its largest, and the sum of the exponentials of that."""
    y = x - x.max(axis=axis, keepdims=True)
    return y, np.exp(y).sum(axis=axis, keepdims=True)


@primitive(label="softmax", flop=12)
def exponentials(x: np.ndarray, *, axis: int) -> np.ndarray:
    y, total = _shifted(x, axis)
    np.exp(y, out=y)
    y /= total
    return y


@exponentials.defbackward
def _exponentials_backward(call: Call, g: Array | None) -> list[Array | None]:
    if g is None:
        return [None]
    (y,), axis = call.outs, call.static["axis"]
    return [y * (g - (g * y).sum(axis=axis, keepdims=True))]


@primitive(label="log_softmax", flop=12)
def logarithms(x: np.ndarray, *, axis: int) -> np.ndarray:
    y, total = _shifted(x, axis)
    y -= np.log(total)
    return y


@logarithms.defbackward
def _logarithms_backward(call: Call, g: Array | None) -> list[Array | None]:
    if g is None:
        return [None]
    (y,), axis = call.outs, call.static["axis"]
    return [g - ew.exp(y) * g.sum(axis=axis, keepdims=True)]


__all__ = ["log_softmax", "softmax"]
