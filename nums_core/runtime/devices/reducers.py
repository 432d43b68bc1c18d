"""Reductions on NumPy: what one tile becomes (`map`), how partial states become one, what the last one becomes.

A state is an array with the reduced axes kept at extent 1, or a tuple of such arrays and numbers. The state of a block
without elements must be neutral; where a reduction has no neutral element, its reduced axes have extent 0. `combine`
must be usable along any tree; which tree is `ops.tree`'s business.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nums_core.runtime.devices import scratch

State = Any
RUN = 4096  # elements that one dot product sums


class Reducer:
    """One reduction over given axes.

    Attributes
    ----------
    flat : bool
        Over all axes the order of elements does not matter, so contiguous blocks may be run as one axis, and narrow
        ones as wide ones.
    tiled : bool
        A block may be mapped tile by tile.
    """

    flat = True
    tiled = True

    def __init__(self, axes: tuple[int, ...], kw: dict[str, Any]) -> None:
        self.axes, self.kw = axes, kw

    def direct(self, x: np.ndarray) -> bool:
        """Whether `map` reads a block as it lies once and makes no copy of it, so that it needs no tiles."""
        return False

    def map(self, x: np.ndarray, offsets: tuple[int, ...]) -> State:
        raise NotImplementedError

    def combine(self, a: State, b: State) -> State:
        raise NotImplementedError

    def collapse(self, stacked: State) -> State:
        """Combine along a new first axis: every array of `stacked` has one more axis than that of a state."""
        raise NotImplementedError

    def merge(self, states: Sequence[State]) -> State:
        """Many states into one."""
        if len(states) == 1:
            return states[0]
        if isinstance(states[0], tuple):
            return self.collapse(tuple(np.stack(field) for field in zip(*states, strict=True)))
        return self.collapse(np.stack(states))

    def finish(self, state: State) -> np.ndarray:
        return state

    def count(self, x: np.ndarray) -> int:
        """Elements of `x` that go into one element of the state."""
        n = 1
        for a in self.axes:
            n *= x.shape[a]
        return n


class UfuncReducer(Reducer):
    """sum, prod, any, all: one ufunc, which has a neutral element, maps and combines."""

    def __init__(self, ufunc: np.ufunc, axes: tuple[int, ...], kw: dict[str, Any]) -> None:
        super().__init__(axes, kw)
        self.ufunc, self.dtype = ufunc, np.dtype(kw["dtype"]) if "dtype" in kw else None

    def direct(self, x: np.ndarray) -> bool:
        return True

    def map(self, x: np.ndarray, offsets: tuple[int, ...]) -> np.ndarray:
        return self.ufunc.reduce(x, self.axes, self.dtype, None, True)

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


class Mean(Reducer):
    """Count and sum; with `skip_nan`, of what is not NaN."""

    def __init__(self, axes: tuple[int, ...], kw: dict[str, Any]) -> None:
        super().__init__(axes, kw)
        self.skip_nan, self.dtype = kw.get("skip_nan", False), np.dtype(kw["dtype"]) if "dtype" in kw else None

    def direct(self, x: np.ndarray) -> bool:
        return not self.skip_nan

    def map(self, x: np.ndarray, offsets: tuple[int, ...]) -> State:
        n: Any = self.count(x)
        if self.skip_nan:
            x, n, _ = _without_nan(x, self.axes, n)
        return n, np.add.reduce(x, axis=self.axes, dtype=self.dtype, keepdims=True)

    def combine(self, a: State, b: State) -> State:
        return a[0] + b[0], a[1] + b[1]

    def collapse(self, stacked: State) -> State:
        n, total = stacked
        return _collapsed_count(n), np.add.reduce(total, axis=0)

    def finish(self, state: State) -> np.ndarray:
        n, total = state
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.true_divide(total, n)


class Moments(Reducer):
    """Count, mean and sum of squared deviations, in one pass over memory.

    Within a tile, which is in the cache, the deviations are from the tile's own mean; states are combined pairwise by
    eq. (2.1) of Chan, Golub and LeVeque, "Algorithms for computing the sample variance", 1983. Accuracy is that of two
    passes. `what`: "var", "std" or "mean".
    """


    def __init__(self, axes: tuple[int, ...], kw: dict[str, Any]) -> None:
        super().__init__(axes, kw)
        self.skip_nan, self.dtype = kw.get("skip_nan", False), np.dtype(kw["dtype"])
        self.real = np.zeros(0, self.dtype).real.dtype

    def map(self, x: np.ndarray, offsets: tuple[int, ...]) -> State:
        n: Any = self.count(x)
        nan = None
        if x.ndim == 1 and self.axes and not self.skip_nan and self.dtype.char in "fd":
            return self._line(x, n)
        if self.skip_nan:
            x, n, nan = _without_nan(x, self.axes, n)
        mean = np.add.reduce(x, self.axes, self.dtype, None, True)
        mean /= (n or 1) if nan is None else np.maximum(n, 1).astype(self.real)
        d = np.subtract(x, mean, scratch.empty_like(x, "deviation", self.dtype))
        if nan is not None and nan.any():
            np.copyto(d, 0, where=nan)
        return n, mean, self._squares(d)

    def _line(self, x: np.ndarray, n: int) -> State:
        """The same for one axis, with as few calls as it can be."""
        mean = np.add.reduce(x, dtype=self.dtype, keepdims=True)
        mean /= n or 1
        d = np.subtract(x, mean, scratch.empty("deviation", x.shape, self.dtype))
        whole = n - n % RUN
        runs = d[:whole].reshape(-1, RUN)
        square = np.add.reduce(np.vecdot(runs, runs), keepdims=True)
        if whole < n:
            square += np.vecdot(d[whole:], d[whole:])
        return n, mean, square

    def _squares(self, d: np.ndarray) -> np.ndarray:
        """Sum of |d|² over the reduced axes. Overwrites `d`."""
        if d.dtype.kind == "c":
            return np.add.reduce(np.square(d.real) + np.square(d.imag), axis=self.axes, keepdims=True)
        n = self.count(d)
        if n >= 32 and d.dtype.char in "fd" and self.axes[0] == d.ndim - len(self.axes) and d.flags.c_contiguous:
            return self._dots(d, n)
        np.multiply(d, d, d)
        return np.add.reduce(d, self.axes, None, None, True)

    def _dots(self, d: np.ndarray, n: int) -> np.ndarray:
        """Sums over last axes by BLAS, in runs short enough to stay on one thread and to lose no digits."""
        rest = n % RUN
        rows = d.reshape(-1, n)
        out = np.vecdot(rows[:, :rest], rows[:, :rest]) if rest else np.zeros(len(rows), d.dtype)
        if n >= RUN:
            runs = rows[:, rest:].reshape(len(rows), -1, RUN)
            out += np.add.reduce(np.vecdot(runs, runs), axis=1)
        return out.reshape([1 if a in self.axes else m for a, m in enumerate(d.shape)])

    def combine(self, a: State, b: State) -> State:
        (na, ma, sa), (nb, mb, sb) = a, b
        n = na + nb
        share = np.asarray(nb / np.maximum(n, 1), self.real)
        delta = mb - ma
        return n, ma + delta * share, sa + sb + _square(delta) * (share * np.asarray(na, self.real))

    def collapse(self, stacked: State) -> State:
        n, mean, square = stacked
        if n.ndim < mean.ndim:
            n = n.reshape((-1,) + (1,) * (mean.ndim - 1))
        total = np.add.reduce(n, axis=0)
        share = np.asarray(n / np.maximum(total, 1), self.real)
        # Around the first mean: a weighted mean of large numbers would lose the digits in which they differ.
        middle = mean[0] + np.add.reduce((mean - mean[0]) * share, axis=0)
        between = np.add.reduce(_square(mean - middle) * np.asarray(n, self.real), axis=0)
        return _collapsed_count(stacked[0]), middle, np.add.reduce(square, axis=0) + between

    def finish(self, state: State) -> np.ndarray:
        n, mean, square = state
        if self.kw.get("what") == "mean":
            return np.where(np.asarray(n) > 0, mean, np.nan)
        free = n - self.kw.get("ddof", 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            var = np.asarray(square / np.asarray(np.maximum(free, 0), self.real))
        if self.skip_nan:  # NumPy: var() of too few numbers is inf or NaN, nanvar() is NaN
            var = np.where(free > 0, var, np.asarray(np.nan, self.real))
        return np.sqrt(var) if self.kw.get("what") == "std" else var


def _square(x: np.ndarray) -> np.ndarray:
    return np.square(x) if x.dtype.kind != "c" else np.square(x.real) + np.square(x.imag)


def _collapsed_count(n: np.ndarray) -> Any:
    total = np.add.reduce(n, axis=0)
    return total if total.ndim else int(total)


def _without_nan(x: np.ndarray, axes: tuple[int, ...], n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`x` with zeros for NaN (in scratch memory), how many numbers it has, and where the NaN are."""
    nan = np.isnan(x, out=scratch.empty_like(x, "nan", np.dtype(bool)))
    dims = [1 if a in axes else m for a, m in enumerate(x.shape)]
    if not nan.any():
        return x, np.full(dims, n, np.intp), nan
    clean = scratch.empty_like(x, "clean", x.dtype)
    np.copyto(clean, x)
    np.copyto(clean, 0, where=nan)
    if len(axes) == x.ndim:
        return clean, np.full(dims, n - np.count_nonzero(nan), np.intp), nan
    return clean, n - np.add.reduce(nan, axis=axes, dtype=np.intp, keepdims=True), nan


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


REDUCERS: dict[str, Callable[[tuple[int, ...], dict[str, Any]], Reducer]] = {
    "sum": functools.partial(UfuncReducer, np.add),
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
