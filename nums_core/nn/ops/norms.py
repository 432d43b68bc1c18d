"""Normalisation of the last axis, in tiles of rows that stay in the cache."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np

from nums_core.array.array import Array
from nums_core.errors import DTypeError, ShapeError
from nums_core.nn import init
from nums_core.nn.ops import composed
from nums_core.nn.primitives import Call, primitive
from nums_core.runtime.devices import scratch

TILE_ELEMENTS = 2**17  # of one buffer: two of them and the rows they come from fit the cache, and a call takes 0.1 ms


def rms_norm(x: Array, w: Array | None = None, eps: float = 1e-6) -> Array:
    """x / √(mean(x²) + eps) · w over the last axis; shape and dtype of `x`, computed in float32 at least.

    Parameters
    ----------
    x : Array, shape (..., d), floating
    w : Array, shape (d,), optional

    References
    ----------
    .. [1] B. Zhang, R. Sennrich, "Root mean square layer normalization", NeurIPS 2019, eq. (4).
    """
    w = _affine("rms_norm", x, w, 1.0)
    lead = _lead(x)
    return rms.bind([x, w], f"{lead}Z,Z->{lead}Z", [(x.shape, x.dtype)], eps=float(eps))


def layer_norm(x: Array, w: Array | None = None, b: Array | None = None, eps: float = 1e-5) -> Array:
    """(x - mean) / √(variance + eps) · w + b over the last axis; shape and dtype of `x`, computed in float32 at least.

    Parameters
    ----------
    x : Array, shape (..., d), floating
    w, b : Array, shape (d,), optional

    References
    ----------
    .. [1] J. Ba, J. Kiros, G. Hinton, "Layer normalization", 2016, eq. (4).
    """
    w, b = _affine("layer_norm", x, w, 1.0), _affine("layer_norm", x, b, 0.0)
    lead = _lead(x)
    return standard.bind([x, w, b], f"{lead}Z,Z,Z->{lead}Z", [(x.shape, x.dtype)], eps=float(eps))


def _affine(name: str, x: Array, w: Array | None, default: float) -> Array:
    if x.dtype.kind != "f" or not x.ndim:
        raise DTypeError(f"{name} takes floating arrays of one axis or more, got {x.dtype} of shape {x.shape}; cast with "
                         "x.astype('float32')")
    if w is None:
        return (init.ones if default else init.zeros)(x.shape[-1:], x.dtype)
    if w.shape != x.shape[-1:]:
        raise ShapeError(f"{name} of rows of {x.shape[-1]} with a weight of shape {w.shape}; it must have the shape "
                         f"({x.shape[-1]},) of the last axis")
    return w


def _row(x: Array) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of one number a row."""
    return (*x.shape[:-1], 1), _wide(x)


def _lead(x: Array) -> str:
    return "abcdefghijklmnop"[:x.ndim - 1]


def _wide(x: Array | np.ndarray) -> np.dtype:
    return np.result_type(x.dtype, np.float32)


# -- on blocks --------------------------------------------------------------------------------------------------------

def _tiles(n: int, d: int) -> Iterator[slice]:
    rows = max(1, TILE_ELEMENTS // max(d, 1))
    return (slice(i, min(i + rows, n)) for i in range(0, n, rows))


def _rows(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x).reshape(-1, x.shape[-1])


def _inverse_root(square: np.ndarray, d: int, eps: float) -> np.ndarray:
    """1 / √(square / d + eps), beside the rows: with a last axis of extent 1."""
    root = np.asarray(square / d)
    root += eps
    np.sqrt(root, out=root)
    return np.divide(1, root, out=root)[..., None]


# What the backward pass needs of a row it computes again: one more pass over a tile costs less than a second result of
# every forward pass, which inference would make for nothing.

@primitive(label="rms_norm", flop=4)
def rms(x: np.ndarray, w: np.ndarray, *, eps: float) -> np.ndarray:
    wide, d = _wide(x), x.shape[-1]
    out = np.empty(x.shape, x.dtype)
    rows, made = _rows(x), out.reshape(-1, d)
    w = w.astype(wide, copy=False)
    for at in _tiles(len(rows), d):
        t = rows[at].astype(wide, copy=False)
        y = made[at] if made.dtype == wide else scratch.empty("norm y", t.shape, wide)
        np.multiply(t, _inverse_root(np.vecdot(t, t), d, eps), out=y)
        y *= w
        if made.dtype != wide:
            made[at] = y
    return out


@primitive(label="rms_norm.rows", flop=2)
def inverse_rms(x: np.ndarray, *, eps: float) -> np.ndarray:
    """1 / √(mean(x²) + eps) of every row."""
    t = x.astype(_wide(x), copy=False)
    return _inverse_root(np.vecdot(t, t), x.shape[-1], eps)


@primitive(label="rms_norm.backward", flop=8)
def rms_backward(x: np.ndarray, w: np.ndarray, inverse: np.ndarray, g: np.ndarray, *, eps: float) -> np.ndarray:
    """With r = 1 / rms, given: dx = r g w - x r³ mean(g w x). `eps` is for the derivative of this."""
    wide, d = _wide(x), x.shape[-1]
    out = np.empty(x.shape, x.dtype)
    rows, slopes, made, r = _rows(x), _rows(g), out.reshape(-1, d), inverse.reshape(-1, 1)
    w = w.astype(wide, copy=False)
    for at in _tiles(len(rows), d):
        t, y = (scratch.empty(name, rows[at].shape, wide) for name in ("norm t", "norm y"))
        np.multiply(slopes[at], w, out=y)
        along = np.vecdot(y, rows[at].astype(wide, copy=False))[:, None]
        along *= r[at] ** 3
        along /= d
        np.multiply(rows[at], along, out=t)
        y *= r[at]
        np.subtract(y, t, out=made[at], casting="same_kind")
    return out


@rms.defbackward
def _rms_backward(call: Call, g: Array | None) -> list[Array | None]:
    if g is None:
        return [None, None]
    x, w = call.args
    lead = _lead(x)
    inverse = inverse_rms.bind([x], f"{lead}Z->{lead}1", [_row(x)], **call.static)
    dx = rms_backward.bind([x, w, inverse, g], f"{lead}Z,Z,{lead}1,{lead}Z->{lead}Z", [(x.shape, x.dtype)],
                           **call.static)
    return [dx, (g * (x * inverse)).sum(axis=tuple(range(x.ndim - 1)))]


@inverse_rms.defbackward
def _inverse_rms_backward(call: Call, g: Array | None) -> list[Array | None]:
    (x,), (inverse,) = call.args, call.outs
    return [None if g is None else g * inverse * inverse * inverse * x * (-1 / x.shape[-1])]


@rms_backward.defbackward
def _rms_second(call: Call, c: Array | None) -> list[Array | None]:
    if c is None:
        return [None] * 4
    x, w, _, g = call.args
    f = functools.partial(composed.rms_norm, **call.static)
    (dx, dw), dg = composed.second_order(f, [x, w], g, [c])
    return [dx, dw, None, dg]


@primitive(label="layer_norm", flop=8)
def standard(x: np.ndarray, w: np.ndarray, b: np.ndarray, *, eps: float) -> np.ndarray:
    wide, d = _wide(x), x.shape[-1]
    out = np.empty(x.shape, x.dtype)
    rows, made = _rows(x), out.reshape(-1, d)
    for at in _tiles(len(rows), d):
        t = scratch.empty("norm t", rows[at].shape, wide)
        np.subtract(rows[at], rows[at].mean(axis=1, keepdims=True, dtype=wide), out=t)
        t *= _inverse_root(np.vecdot(t, t), d, eps)
        t *= w
        np.add(t, b, out=made[at], casting="same_kind")
    return out


@primitive(label="layer_norm.rows", n_out=2, flop=6)
def moments(x: np.ndarray, *, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and 1 / √(variance + eps) of every row."""
    mean = x.mean(axis=-1, keepdims=True, dtype=_wide(x))
    centred = x - mean
    return mean, _inverse_root(np.vecdot(centred, centred), x.shape[-1], eps)


@primitive(label="layer_norm.backward", flop=12)
def standard_backward(x: np.ndarray, w: np.ndarray, mean: np.ndarray, inverse: np.ndarray, g: np.ndarray, *,
                      eps: float) -> np.ndarray:
    """With n = (x - mean) r: dx = r (g w - mean(g w) - n mean(g w n)). `eps` is for the derivative of this."""
    wide, d = _wide(x), x.shape[-1]
    out = np.empty(x.shape, x.dtype)
    rows, slopes, made, m, r = _rows(x), _rows(g), out.reshape(-1, d), mean.reshape(-1, 1), inverse.reshape(-1, 1)
    for at in _tiles(len(rows), d):
        t, y = (scratch.empty(name, rows[at].shape, wide) for name in ("norm t", "norm y"))
        np.subtract(rows[at], m[at], out=t)
        t *= r[at]
        np.multiply(slopes[at], w, out=y)
        along = np.vecdot(y, t)[:, None]
        along /= d
        t *= along
        y -= y.mean(axis=1, keepdims=True)
        y -= t
        np.multiply(y, r[at], out=made[at], casting="same_kind")
    return out


@standard.defbackward
def _standard_backward(call: Call, g: Array | None) -> list[Array | None]:
    if g is None:
        return [None, None, None]
    x, w, _ = call.args
    lead, before = _lead(x), tuple(range(x.ndim - 1))
    mean, inverse = moments.bind([x], f"{lead}Z->{lead}1,{lead}1", [_row(x), _row(x)], **call.static)
    dx = standard_backward.bind([x, w, mean, inverse, g], f"{lead}Z,Z,{lead}1,{lead}1,{lead}Z->{lead}Z",
                                [(x.shape, x.dtype)], **call.static)
    return [dx, (g * ((x - mean) * inverse)).sum(axis=before), g.sum(axis=before)]


@moments.defbackward
def _moments_backward(call: Call, of_mean: Array | None, of_inverse: Array | None) -> list[Array | None]:
    (x,), (mean, inverse) = call.args, call.outs
    parts = [] if of_mean is None else [of_mean * (1 / x.shape[-1]) + x * 0]
    if of_inverse is not None:
        parts.append(of_inverse * inverse * inverse * inverse * (x - mean) * (-1 / x.shape[-1]))
    return [sum(parts[1:], start=parts[0]) if parts else None]


@standard_backward.defbackward
def _standard_second(call: Call, c: Array | None) -> list[Array | None]:
    if c is None:
        return [None] * 5
    x, w, _, _, g = call.args
    f = functools.partial(composed.layer_norm, **call.static)
    (dx, dw, _), dg = composed.second_order(f, [x, w, init.zeros(w.shape, w.dtype)], g, [c])
    return [dx, dw, None, None, dg]


__all__ = ["layer_norm", "rms_norm"]
