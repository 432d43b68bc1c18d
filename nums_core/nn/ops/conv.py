"""Convolutions of one and two axes: windows are laid out as rows, and one product of matrices does the rest.

Laying windows out and adding them back are linear and each the other's derivative, so a convolution has derivatives of
every order, and its blocks are those of its batch.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from nums_core.array import contractions, products
from nums_core.array.array import Array
from nums_core.errors import ConfigError, ShapeError
from nums_core.nn.primitives import Call, primitive


def conv(x: Array, w: Array, b: Array | None = None, *, stride: int | Sequence[int] = 1, padding: int | Sequence[int] = 0,
         dilation: int | Sequence[int] = 1, groups: int = 1) -> Array:
    """Cross-correlation of every window of `x` with every filter, as neural networks call convolution.

        out[n, o, p..] = b[o] + sum_{c, k..} x[n, c, stride p + dilation k - padding ..] w[o, c, k..]

    Parameters
    ----------
    x : Array, shape (batch, channels, *extent), one or more axes after the channels
    w : Array, shape (out_channels, channels / groups, *window)
    b : Array, shape (out_channels,), optional
    stride, padding, dilation : int, or one an axis
        `padding` zeros stand before and after.
    groups : int
        Channels, and filters, fall into as many parts; each part sees its own.

    Returns
    -------
    Array, shape (batch, out_channels, *(extent + 2 padding - dilation (window - 1) - 1) // stride + 1)

    Raises
    ------
    ShapeError, ConfigError

    Notes
    -----
    2·batch·out_channels·positions·channels/groups·window flop. The windows take `window / stride` times the memory of `x`.
    """
    n = x.ndim - 2
    if n < 1 or w.ndim != x.ndim or x.shape[1] != w.shape[1] * groups or w.shape[0] % groups:
        raise ShapeError(f"convolution of x {x.shape} with filters {w.shape} in {groups} group(s): x is (batch, channels, "
                         "*extent), w (out_channels, channels / groups, *window), and groups divide both channels")
    windows = Windows(_each(stride, n, "stride", 1), _each(padding, n, "padding", 0), _each(dilation, n, "dilation", 1),
                      w.shape[2:], x.shape[2:])
    if min(windows.positions) < 1:
        raise ShapeError(f"windows {w.shape[2:]} do not fit the extents {x.shape[2:]}; pad more, or dilate less")
    rows = _unfolded(x, windows)  # (batch, *positions, channels · window)
    out_channels = w.shape[0]
    if groups == 1:
        made = products.tensordot(rows, w.reshape(out_channels, -1), axes=([-1], [1]))
    else:
        rows = rows.reshape((*rows.shape[:-1], groups, -1))
        filters = w.reshape(groups, out_channels // groups, -1)
        letters = "abcd"[:n]
        made = contractions.einsum(f"y{letters}gk,gok->y{letters}go", rows, filters)
        made = made.reshape((*made.shape[:-2], out_channels))
    if b is not None:
        made = made + b
    return made.transpose(0, n + 1, *range(1, n + 1))


class Windows(NamedTuple):
    """Where the windows of a convolution lie; each field has one number an axis."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    window: tuple[int, ...]
    extent: tuple[int, ...]

    @property
    def positions(self) -> tuple[int, ...]:
        return tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for s, p, d, k, n in zip(*self, strict=True))


def _each(value: Any, n: int, name: str, least: int) -> tuple[int, ...]:
    out = tuple(value) if isinstance(value, (tuple, list)) else (value,) * n
    if len(out) != n or any(int(v) != v or v < least for v in out):
        raise ConfigError(f"{name}={value!r} for a convolution of {n} axis(es); give one integer of at least {least}, or one "
                          "an axis")
    return tuple(map(int, out))


def _labels(n: int) -> tuple[str, str]:
    """Of x (batch, channels, *extent) and of its windows (batch, *positions, channels · window)."""
    return "aC" + "IJKL"[:n], "a" + "PQRS"[:n] + "Z"


def _unfolded(x: Array, windows: Windows) -> Array:
    n = x.ndim - 2
    before, after = _labels(n)
    width = x.shape[1] * int(np.prod(windows.window))
    return unfold.bind([x], f"{before}->{after}", [((x.shape[0], *windows.positions, width), x.dtype)], windows=tuple(windows))


# -- on blocks --------------------------------------------------------------------------------------------------------

def _offsets(w: Windows) -> Any:
    """For each element of the window: its number along each axis, and where it lies in the padded extent."""
    for k in itertools.product(*map(range, w.window)):
        yield k, tuple(slice(d * i, d * i + s * (p - 1) + 1, s)
                       for i, d, s, p in zip(k, w.dilation, w.stride, w.positions, strict=True))


def _padded_shape(lead: Sequence[int], w: Windows) -> tuple[int, ...]:
    return (*lead, *(n + 2 * p for n, p in zip(w.extent, w.padding, strict=True)))


def _inside(w: Windows) -> tuple[slice, ...]:
    return (slice(None), slice(None), *(slice(p, p + n) for n, p in zip(w.extent, w.padding, strict=True)))


@primitive(label="conv.unfold", flop=1)
def unfold(x: np.ndarray, *, windows: tuple[tuple[int, ...], ...]) -> np.ndarray:
    """(batch, channels, *extent) -> (batch, *positions, channels · window): a copy of every window."""
    w = Windows(*windows)
    n = len(w.window)
    padded = x
    if any(w.padding):
        padded = np.zeros(_padded_shape(x.shape[:2], w), x.dtype)
        padded[_inside(w)] = x
    out = np.empty((x.shape[0], *w.positions, x.shape[1], *w.window), x.dtype)
    for k, at in _offsets(w):
        out[(..., *k)] = padded[(slice(None), slice(None), *at)].transpose(0, *range(2, n + 2), 1)
    return out.reshape(*out.shape[:n + 1], -1)


@primitive(label="conv.fold", flop=1)
def fold(rows: np.ndarray, *, windows: tuple[tuple[int, ...], ...]) -> np.ndarray:
    """(batch, *positions, channels · window) -> (batch, channels, *extent): windows added where they lie."""
    w = Windows(*windows)
    n = len(w.window)
    parts = rows.reshape(*rows.shape[:n + 1], -1, *w.window)
    out = np.zeros(_padded_shape((rows.shape[0], parts.shape[n + 1]), w), rows.dtype)
    for k, at in _offsets(w):
        out[(slice(None), slice(None), *at)] += parts[(..., *k)].transpose(0, n + 1, *range(1, n + 1))
    return out[_inside(w)]


@unfold.defbackward
def _unfold_backward(call: Call, g: Array | None) -> list[Array | None]:
    (x,) = call.args
    before, after = _labels(x.ndim - 2)
    return [None if g is None else fold.bind([g], f"{after}->{before}", [(x.shape, x.dtype)], **call.static)]


@fold.defbackward
def _fold_backward(call: Call, g: Array | None) -> list[Array | None]:
    return [None if g is None else _unfolded(g, Windows(*call.static["windows"]))]


__all__ = ["conv"]
