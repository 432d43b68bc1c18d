"""Reductions on NumPy: what one tile becomes (`map`), how two partial states become one, what the last one becomes.

A state is an array with the reduced axes kept at extent 1, or a tuple of such arrays. `combine` must be usable along any
tree; which tree is `ops.tree`'s business.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

State = Any


class Reducer:
    """One reduction over given axes.

    Attributes
    ----------
    flat : bool
        Over all axes the order of elements does not matter, so contiguous blocks may be run as one axis.
    tiled : bool
        A block may be mapped tile by tile.
    """

    flat = True
    tiled = True

    def __init__(self, axes: tuple[int, ...], kw: dict[str, Any]) -> None:
        self.axes, self.kw = axes, kw

    def map(self, x: np.ndarray, offsets: tuple[int, ...]) -> State:
        raise NotImplementedError

    def map_flat(self, x: np.ndarray, ndim: int) -> State:
        """Map a one-axis tile of a reduction over all axes; the state has `ndim` axes."""
        wide = x.reshape((1,) * (ndim - 1) + (-1,))
        return self.map(wide, (0,) * ndim)

    def combine(self, a: State, b: State) -> State:
        raise NotImplementedError

    def finish(self, state: State) -> np.ndarray:
        return state


class UfuncReducer(Reducer):
    """sum, prod, max, min, any, all: one ufunc maps and combines."""

    def __init__(self, ufunc: np.ufunc, axes: tuple[int, ...], kw: dict[str, Any]) -> None:
        super().__init__(axes, kw)
        self.ufunc, self.dtype = ufunc, kw.get("dtype")

    def map(self, x: np.ndarray, offsets: tuple[int, ...]) -> np.ndarray:
        return self.ufunc.reduce(x, axis=self.axes, dtype=self.dtype, keepdims=True)

    def combine(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return self.ufunc(a, b, dtype=self.dtype) if self.dtype is not None else self.ufunc(a, b)


class Moments(Reducer):
    """Count, mean and sum of squared deviations; pairwise update of Chan, Golub and LeVeque (1979), eq. (2.1)."""

    def map(self, x: np.ndarray, offsets: tuple[int, ...]) -> State:
        dtype = self.kw["dtype"]
        n = 1
        for a in self.axes:
            n *= x.shape[a]
        mean = np.add.reduce(x, axis=self.axes, dtype=dtype, keepdims=True) / np.asarray(n or 1, dtype=dtype).real
        d = np.subtract(x, mean, dtype=dtype)
        square = np.multiply(d, d, out=d) if d.dtype.kind != "c" else (d * d.conj()).real
        return float(n), mean, np.add.reduce(square, axis=self.axes, keepdims=True)

    def combine(self, a: State, b: State) -> State:
        (na, ma, sa), (nb, mb, sb) = a, b
        n = na + nb
        if n == 0:
            return a
        delta = mb - ma
        square = delta * delta if delta.dtype.kind != "c" else (delta * delta.conj()).real
        mean = ma + delta * np.asarray(nb / n, dtype=delta.real.dtype)
        return n, mean, sa + sb + square * np.asarray(na * nb / n, dtype=square.dtype)

    def finish(self, state: State) -> np.ndarray:
        n, mean, m2 = state
        if self.kw.get("what") == "mean":
            return mean if n else mean * np.nan
        free = n - self.kw.get("ddof", 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            var = m2 / np.asarray(max(free, 0), dtype=m2.dtype)
        return np.sqrt(var) if self.kw.get("what") == "std" else var


class Extremum(Reducer):
    """argmax and argmin: the extreme value with its index along one axis, or in C order of the whole array.

    The first of equal values wins, and the first NaN beats all numbers, as in NumPy; `nan` skips NaN instead."""

    flat = False

    def __init__(self, largest: bool, axes: tuple[int, ...], kw: dict[str, Any]) -> None:
        super().__init__(axes, kw)
        self.largest = largest
        self.skip_nan = kw.get("skip_nan", False)

    def map(self, x: np.ndarray, offsets: tuple[int, ...]) -> State:
        pick = np.argmax if self.largest else np.argmin
        kept = [a for a in range(x.ndim) if a not in self.axes]
        lines = x.transpose(*kept, *self.axes).reshape(*[x.shape[a] for a in kept], -1)
        if self.skip_nan and x.dtype.kind in "fc":
            lines = np.where(np.isnan(lines), -np.inf if self.largest else np.inf, lines)
        local = pick(lines, axis=-1)[..., None]
        value = np.take_along_axis(lines, local, -1)
        index = np.zeros_like(local)
        where = np.unravel_index(local, [x.shape[a] for a in self.axes])
        for a, w in zip(self.axes, where, strict=True):
            index = index * self.kw["shape"][a] + w + offsets[a]
        dims = [1 if a in self.axes else x.shape[a] for a in range(x.ndim)]
        if self.skip_nan and x.dtype.kind in "fc":
            bad = np.isnan(x.transpose(*kept, *self.axes).reshape(*[x.shape[a] for a in kept], -1)).all(-1)[..., None]
            return value.reshape(dims), index.reshape(dims), bad.reshape(dims)
        return value.reshape(dims), index.reshape(dims)

    def combine(self, a: State, b: State) -> State:
        if len(a) == 3:
            b_wins = ~b[2] & (a[2] | self._beats(b[0], b[1], a[0], a[1]))
            return (np.where(b_wins, b[0], a[0]), np.where(b_wins, b[1], a[1]), a[2] & b[2])
        b_wins = self._beats(b[0], b[1], a[0], a[1])
        return np.where(b_wins, b[0], a[0]), np.where(b_wins, b[1], a[1])

    def _beats(self, v: np.ndarray, i: np.ndarray, w: np.ndarray, j: np.ndarray) -> np.ndarray:
        better = v > w if self.largest else v < w
        v_nan, w_nan = v != v, w != w
        tie = (v == w) | (v_nan & w_nan)
        return np.where(tie, i < j, np.where(w_nan, False, better | v_nan))

    def finish(self, state: State) -> np.ndarray:
        if len(state) == 3 and state[2].any():
            raise ValueError("All-NaN slice encountered; drop or fill those slices first, as with `nan_to_num`")
        return state[1].astype(np.intp, copy=False)


class Count(Reducer):
    """How many elements are true."""

    def map(self, x: np.ndarray, offsets: tuple[int, ...]) -> np.ndarray:
        return np.asarray(np.count_nonzero(x, axis=self.axes, keepdims=True), np.intp)

    def combine(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return a + b


class TopK(Reducer):
    """The k largest (k > 0) or smallest (k < 0) along one axis, largest first (smallest first)."""

    flat = False

    def map(self, x: np.ndarray, offsets: tuple[int, ...]) -> np.ndarray:
        return self._best(x)

    def combine(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return self._best(np.concatenate([a, b], axis=self.axes[0]))

    def _best(self, x: np.ndarray) -> np.ndarray:
        k, axis = self.kw["k"], self.axes[0]
        x = np.moveaxis(x, axis, -1)
        x = np.sort(x, axis=-1)[..., ::-1][..., :k] if k > 0 else np.sort(x, axis=-1)[..., :-k]
        return np.moveaxis(x, -1, axis)


class UserReducer(Reducer):
    """`array.reduction`: functions of the user, called with NumPy blocks as dask calls them."""

    flat = False
    tiled = False

    def map(self, x: np.ndarray, offsets: tuple[int, ...]) -> State:
        return self.kw["chunk"](x, axis=self.axes, keepdims=True)

    def combine(self, a: State, b: State) -> State:
        return self.kw["combine"](np.concatenate([a, b], axis=self.axes[0]), axis=self.axes, keepdims=True)

    def finish(self, state: State) -> np.ndarray:
        return self.kw["aggregate"](state, axis=self.axes, keepdims=True)


REDUCERS: dict[str, Callable[[tuple[int, ...], dict[str, Any]], Reducer]] = {
    "sum": functools.partial(UfuncReducer, np.add),
    "prod": functools.partial(UfuncReducer, np.multiply),
    "max": functools.partial(UfuncReducer, np.maximum),
    "min": functools.partial(UfuncReducer, np.minimum),
    "fmax": functools.partial(UfuncReducer, np.fmax),
    "fmin": functools.partial(UfuncReducer, np.fmin),
    "any": functools.partial(UfuncReducer, np.logical_or),
    "all": functools.partial(UfuncReducer, np.logical_and),
    "bitwise_or": functools.partial(UfuncReducer, np.bitwise_or),
    "bitwise_and": functools.partial(UfuncReducer, np.bitwise_and),
    "bitwise_xor": functools.partial(UfuncReducer, np.bitwise_xor),
    "moments": Moments,
    "argmax": functools.partial(Extremum, True),
    "argmin": functools.partial(Extremum, False),
    "count": Count,
    "topk": TopK,
    "user": UserReducer,
}


def make(name: str, axes: tuple[int, ...], kw: dict[str, Any]) -> Reducer:
    """The reduction `name` over `axes` (of blocks with those axes kept)."""
    return REDUCERS[name](axes, kw)
