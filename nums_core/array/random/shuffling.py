"""Permutations and samples of given things: sort by random keys, in blocks, so that n may exceed any memory.

A permutation is the stable argsort of n random 64-bit words; a weighted sample without replacement takes the k smallest
of Eᵢ / pᵢ, Eᵢ standard exponential (Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006).
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from nums_core.array.array import Array, asarray
from nums_core.array.random.draws import Stream, drawn, shape_of, words
from nums_core.expr.build import normalize_axes


class Shuffling:
    """`permutation`, `permuted`, `shuffle` and `choice`."""

    _stream: Stream

    def permutation(self, x: Any, axis: int = 0, chunks: Any = "auto") -> Array:
        """`x` with its slices along `axis` in random order; of an integer, of `arange(x)`."""
        if not np.ndim(x):
            return self._order(operator.index(x), chunks)
        from nums_core.array.indexing import take

        x = asarray(x)
        axis = normalize_axes(axis, x.ndim)[0]
        return take(x, self._order(x.shape[axis], x.chunks[axis:axis + 1]), axis=axis)

    def _order(self, n: int, chunks: Any) -> Array:
        from nums_core.array.sorting import argsort

        return argsort(words(self._stream, (n,), chunks), stable=True)

    def permuted(self, x: Any, axis: int | None = None) -> Array:
        """`x` with each line along `axis` shuffled by itself; all its elements where `axis` is None."""
        from nums_core.array.indexing import take_along_axis
        from nums_core.array.sorting import argsort

        x = asarray(x)
        if axis is None:
            return self.permutation(x.ravel()).reshape(x.shape)
        axis = normalize_axes(axis, x.ndim)[0]
        return take_along_axis(x, argsort(words(self._stream, x.shape, x.chunks), axis=axis, stable=True), axis)

    def shuffle(self, x: Any, axis: int = 0) -> None:
        """`permutation` in place: of an Array (its name gets a new value), a NumPy array or a list."""
        if isinstance(x, Array):
            x._expr = self.permutation(x, axis).expr
        elif isinstance(x, np.ndarray):
            order = self._order(x.shape[normalize_axes(axis, x.ndim)[0]], -1).compute()
            x[...] = np.take(x, order, axis=axis)
        else:
            x[:] = [x[i] for i in self._order(len(x), -1).compute()]

    def choice(self, a: Any, size: Any = None, replace: bool = True, p: Any = None, axis: int = 0, shuffle: bool = True,
               chunks: Any = "auto") -> Array:
        """A sample of `a` (of `arange(a)` for an integer) along `axis`: with or without putting back, weighted by `p`.

        Without putting back: n log n at most, all in blocks. `shuffle` is accepted; the order is always random.
        """
        population = None if not np.ndim(a) else asarray(a)
        n = operator.index(a) if population is None else population.shape[normalize_axes(axis, population.ndim)[0]]
        shape = shape_of(size)
        count = int(np.prod(shape, dtype=np.int64))
        if n <= 0 and count:
            raise ValueError(f"a cannot be empty unless no samples are taken: it has {n} elements and size is {size!r}")
        weights = None if p is None else _weights(p, n)
        index = self._with(n, shape, weights, chunks) if replace else self._without(n, count, weights, chunks)
        if not replace:
            index = index.reshape(shape)
        if population is None:
            return index
        from nums_core.array.indexing import take

        return take(population, index, axis=axis)

    def _with(self, n: int, shape: tuple[int, ...], weights: np.ndarray | None, chunks: Any) -> Array:
        if weights is None:
            return drawn(self._stream, "integers", (0, max(n, 1), False), shape, chunks, np.int64)
        from nums_core.array.sorting import searchsorted

        cumulative = np.cumsum(weights)
        cumulative /= cumulative[-1]
        return searchsorted(cumulative, drawn(self._stream, "random", (), shape, chunks, float), side="right")

    def _without(self, n: int, count: int, weights: np.ndarray | None, chunks: Any) -> Array:
        if count > n:
            raise ValueError("Cannot take a larger sample than population when replace is False: "
                             f"{count} of {n}; use replace=True, or a smaller size")
        from nums_core.array.sorting import argtopk

        if weights is None:
            return argtopk(words(self._stream, (n,)), -count) if count else self._order(n, chunks)[:0]
        if np.count_nonzero(weights) < count:
            raise ValueError(f"Fewer non-zero entries in p than size: {np.count_nonzero(weights)} < {count}; use "
                             "replace=True, or a smaller size")
        with np.errstate(divide="ignore"):
            slowness = 1.0 / weights
        keys = drawn(self._stream, "standard_exponential", ("zig",), (n,), "auto", float) * slowness
        return argtopk(keys, -count) if count else self._order(n, chunks)[:0]


def _weights(p: Any, n: int) -> np.ndarray:
    """`p`, checked in NumPy's words."""
    weights = np.asarray(p, float)
    if weights.ndim != 1:
        raise ValueError(f"p must be 1-dimensional, not of shape {weights.shape}; give one probability an element")
    if len(weights) != n:
        raise ValueError(f"a and p must have same size: {n} and {len(weights)}; give one probability an element")
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError("Probabilities are not non-negative numbers; drop NaN and negative entries of p")
    if abs(weights.sum() - 1.0) > max(1e-8, np.sqrt(np.finfo(float).eps)):
        raise ValueError(f"Probabilities do not sum to 1 but to {weights.sum()}; divide p by its sum")
    return weights


__all__ = ["Shuffling"]
