"""Reductions on NumPy, a row each: see `devices.reducer` for what a row must do."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nums_core.runtime.devices.moments import Mean, Moments
from nums_core.runtime.devices.reducer import Reducer, State


class UfuncReducer(Reducer):
    """sum, prod, any, all: one ufunc, which has a neutral element, maps and combines."""

    def __init__(self, ufunc: np.ufunc, axes: tuple[int, ...], kw: dict[str, Any]) -> None:
        super().__init__(axes, kw)
        self.ufunc, self.dtype = ufunc, np.dtype(kw["dtype"]) if "dtype" in kw else None

    def direct(self, x: np.ndarray) -> bool:
        return True

    def map(self, x: np.ndarray, offsets: tuple[int, ...]) -> np.ndarray:
        return self.ufunc.reduce(x, axis=self.axes, dtype=self.dtype, keepdims=True)

    def combine(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return self.ufunc(a, b, dtype=self.dtype) if self.dtype is not None else self.ufunc(a, b)

    def collapse(self, stacked: np.ndarray) -> np.ndarray:
        return self.ufunc.reduce(stacked, axis=0, dtype=self.dtype)


class Order(UfuncReducer):
    """max and min: no neutral element, so that a block without elements has a state without elements."""

    def map(self, x: np.ndarray, offsets: tuple[int, ...]) -> np.ndarray:
        if not self.count(x):
            return x[tuple(slice(0) if i in self.axes else slice(None) for i in range(x.ndim))].copy()
        return super().map(x, offsets)

    def combine(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        if not self.count(a):
            return b
        return super().combine(a, b) if self.count(b) else a

    def finish(self, state: np.ndarray) -> np.ndarray:
        if "initial" in self.kw:
            return self.ufunc.reduce(state, axis=self.axes, keepdims=True, initial=self.kw["initial"])
        return self.ufunc.reduce(state, axis=self.axes, keepdims=True) if not self.count(state) else state


class Extremum(Reducer):
    """argmax and argmin: the extreme value with its index along one axis, or in C order of the whole array.

    The first of equal values wins, and the first NaN beats all numbers, as in NumPy; `skip_nan` skips NaN instead."""

    flat = False

    def __init__(self, largest: bool, axes: tuple[int, ...], kw: dict[str, Any]) -> None:
        super().__init__(axes, kw)
        self.largest = largest
        self.skip_nan = kw.get("skip_nan", False)

    def direct(self, x: np.ndarray) -> bool:
        trailing = self.axes == tuple(range(x.ndim - len(self.axes), x.ndim))
        return trailing and not self.skip_nan and (len(self.axes) == 1 or x.flags.c_contiguous)

    def map(self, x: np.ndarray, offsets: tuple[int, ...]) -> State:
        kept = [a for a in range(x.ndim) if a not in self.axes]
        extents = [x.shape[a] for a in self.axes]
        lines = x.transpose(*kept, *self.axes).reshape(*[x.shape[a] for a in kept], math.prod(extents))
        if not lines.shape[-1]:
            none = x[tuple(slice(0) if i in self.axes else slice(None) for i in range(x.ndim))]
            return tuple(none.astype(d) for d in (x.dtype, np.intp, bool)[:3 if self.skip_nan else 2])
        dims = [1 if a in self.axes else x.shape[a] for a in range(x.ndim)]
        if not self.skip_nan:
            value, index = self._extreme(lines, extents, offsets)
            return value.reshape(dims), index.reshape(dims)
        nan = np.isnan(lines)
        value, index = self._extreme(np.where(nan, -np.inf if self.largest else np.inf, lines), extents, offsets)
        return value.reshape(dims), index.reshape(dims), nan.all(-1).reshape(dims)

    def _extreme(self, lines: np.ndarray, extents: list[int], offsets: tuple[int, ...]) -> tuple[Any, Any]:
        local = (np.argmax if self.largest else np.argmin)(lines, axis=-1)[..., None]
        index = np.zeros_like(local)
        where = np.unravel_index(local, extents) if extents else ()
        for a, w in zip(self.axes, where, strict=True):
            index = index * self.kw["shape"][a] + w + offsets[a]
        return np.take_along_axis(lines, local, -1), index

    def combine(self, a: State, b: State) -> State:
        if not self.count(a[0]):
            return b
        if not self.count(b[0]):
            return a
        b_wins = self._beats(b[0], b[1], a[0], a[1])
        if self.skip_nan:
            b_wins = ~b[2] & (a[2] | b_wins)
            return np.where(b_wins, b[0], a[0]), np.where(b_wins, b[1], a[1]), a[2] & b[2]
        return np.where(b_wins, b[0], a[0]), np.where(b_wins, b[1], a[1])

    def merge(self, states: Sequence[State]) -> State:
        return functools.reduce(self.combine, states)

    def _beats(self, v: np.ndarray, i: np.ndarray, w: np.ndarray, j: np.ndarray) -> np.ndarray:
        better = v > w if self.largest else v < w
        v_nan, w_nan = v != v, w != w
        tie = (v == w) | (v_nan & w_nan)
        return np.where(tie, i < j, np.where(w_nan, False, better | v_nan))

    def finish(self, state: State) -> np.ndarray:
        if not self.count(state[0]) and 0 not in _kept_extents(state[0], self.axes):
            raise ValueError(f"attempt to get {'argmax' if self.largest else 'argmin'} of an empty sequence")
        if self.skip_nan and state[2].any():
            raise ValueError("All-NaN slice encountered; drop or fill those slices first, as with `nan_to_num`")
        return state[1].astype(np.intp, copy=False)


def _kept_extents(x: np.ndarray, axes: tuple[int, ...]) -> list[int]:
    return [n for a, n in enumerate(x.shape) if a not in axes]


class Count(Reducer):
    """How many elements are true."""

    def direct(self, x: np.ndarray) -> bool:
        return x.dtype == bool

    def map(self, x: np.ndarray, offsets: tuple[int, ...]) -> np.ndarray:
        if len(self.axes) == x.ndim:
            return np.full((1,) * x.ndim, np.count_nonzero(x), np.intp)
        return np.add.reduce(x.astype(bool, copy=False), axis=self.axes, dtype=np.intp, keepdims=True)

    def combine(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return a + b

    def collapse(self, stacked: np.ndarray) -> np.ndarray:
        return np.add.reduce(stacked, axis=0)


class Tally(Reducer):
    """Sum of counts along the last axis, where the shorter one ends with zeros that are not written."""

    flat = tiled = False

    def combine(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        short, long = (a, b) if a.shape[-1] <= b.shape[-1] else (b, a)
        out = long.copy()
        out[..., :short.shape[-1]] += short
        return out


class TopK(Reducer):
    """The k largest (k > 0) or smallest (k < 0) along one axis, largest first (smallest first)."""

    flat = False

    def map(self, x: np.ndarray, offsets: tuple[int, ...]) -> np.ndarray:
        return self._best(x)

    def combine(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return self._best(np.concatenate([a, b], axis=self.axes[0]))

    def merge(self, states: Sequence[State]) -> State:
        return self._best(np.concatenate(states, axis=self.axes[0]))

    def _best(self, x: np.ndarray) -> np.ndarray:
        k, axis = self.kw["k"], self.axes[0]
        x = np.moveaxis(x, axis, -1)
        x = np.sort(x, axis=-1)[..., ::-1][..., :k] if k > 0 else np.sort(x, axis=-1)[..., :-k]
        return np.moveaxis(x, -1, axis)


class UserReducer(Reducer):
    """`array.reduction`: functions of the user, called with NumPy blocks as dask calls them.

    A state is a tuple of what `chunk` made of blocks. Without `combine` all of them go to `aggregate` together."""

    flat = tiled = False

    def combine(self, a: State, b: State) -> State:
        together = (*a, *b)
        if self.kw["combine"] is None:
            return together
        return (self.kw["combine"](self._joined(together), axis=self.axes, keepdims=True),)

    def finish(self, state: State) -> np.ndarray:
        return np.asarray(self.kw["aggregate"](self._joined(state), axis=self.axes, keepdims=self.kw["keepdims"]))

    def _joined(self, parts: State) -> Any:
        if not self.kw["concatenate"]:
            return list(parts)
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=self.axes[0])


class RFactor(Reducer):
    """R of the QR factorization of rows, from the R factors of parts of them."""

    flat = tiled = False

    def combine(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        r: Any = np.linalg.qr(np.concatenate([a, b]), "r")
        return np.asarray(r)


REDUCERS: dict[str, Callable[[tuple[int, ...], dict[str, Any]], Reducer]] = {
    "sum": functools.partial(UfuncReducer, np.add),
    "qr": RFactor,
    "prod": functools.partial(UfuncReducer, np.multiply),
    "max": functools.partial(Order, np.maximum),
    "min": functools.partial(Order, np.minimum),
    "fmax": functools.partial(Order, np.fmax),
    "fmin": functools.partial(Order, np.fmin),
    "any": functools.partial(UfuncReducer, np.logical_or),
    "all": functools.partial(UfuncReducer, np.logical_and),
    "bitwise_or": functools.partial(UfuncReducer, np.bitwise_or),
    "bitwise_and": functools.partial(UfuncReducer, np.bitwise_and),
    "bitwise_xor": functools.partial(UfuncReducer, np.bitwise_xor),
    "mean": Mean,
    "moments": Moments,
    "argmax": functools.partial(Extremum, True),
    "argmin": functools.partial(Extremum, False),
    "count": Count,
    "tally": Tally,
    "topk": TopK,
    "user": UserReducer,
}


def make(name: str, axes: tuple[int, ...], kw: dict[str, Any]) -> Reducer:
    """The reduction `name` over `axes` (of blocks with those axes kept)."""
    return REDUCERS[name](axes, kw)


def finisher(reducer: Reducer, drop: Sequence[int], dtype: str | None) -> Callable[[State], np.ndarray]:
    """From the last state to the block: finish, squeeze the axes `drop`, cast."""
    wanted = np.dtype(dtype) if dtype is not None else None

    def finish(state: State) -> np.ndarray:
        block = reducer.finish(state)
        if drop:
            block = block.reshape([n for i, n in enumerate(block.shape) if i not in drop])
        return block if wanted is None or block.dtype == wanted else block.astype(wanted)
    return finish
