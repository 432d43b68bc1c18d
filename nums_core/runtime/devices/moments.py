"""Means and variances on NumPy: one pass over memory, with the accuracy of two."""

from __future__ import annotations

from typing import Any

import numpy as np

from nums_core.runtime.devices import scratch
from nums_core.runtime.devices.reducer import Reducer, State

RUN = 4096  # elements that one dot product sums


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
        mean = np.add.reduce(x, axis=self.axes, dtype=self.dtype, keepdims=True)
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
        return np.add.reduce(d, axis=self.axes, keepdims=True)

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
