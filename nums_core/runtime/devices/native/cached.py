"""Native attention of single queries over cached keys and values: products with keys, and weighted sums of values.

Vectors of several sequences lie in slots of large arrays, one a KV head; a list of slots says which belong to whom, so that
nothing is gathered, and packed ones are unpacked in registers. What a step of the loop reads is one vector, shared by all
queries of the head's group. Each sum has its own accumulators and a fixed order: the same bits wherever the slots lie.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nums_core.runtime.devices.native.emit import F32, I64, Emitter, Value
from nums_core.runtime.devices.native.jit import ARRAY, INTEGER, Target, array_argument, host

UNIT = 32  # elements that one part of the code is written for; a group of packed elements
SUMS = 12  # accumulators that stay in registers beside what is added


def takes(form: str, dim: int) -> bool:
    """Whether there are functions for vectors of `dim` elements stored in this form: "f32", "f16", "u8" or "u4"."""
    return form in ("f32", "f16", "u8", "u4") and dim % (2 * UNIT if form == "u4" else UNIT) == 0


def widths(form: str, dim: int) -> list[int]:
    """Bytes of each part of a stored vector; of packed ones the codes, then a scale and a least value (float16) a unit."""
    meta = 4 * dim // UNIT
    return {"f32": [4 * dim], "f16": [2 * dim], "u8": [dim, meta], "u4": [dim // 2, meta]}[form]


class _Emitter:
    """Code shared by the two functions: addresses, and one unit of a stored vector in registers."""

    def __init__(self, name: str, form: str, dim: int, target: Target) -> None:
        self.form, self.dim, self.widths = form, dim, widths(form, dim)
        n_parts = len(self.widths)
        self.e = Emitter(name, [ARRAY] * (n_parts + 4) + [INTEGER] * 4, target)
        self.parts = self.e.args[:n_parts]
        self.slots, self.bounds, self.x, self.out, self.n, self.heads, self.n_slots, self.columns = self.e.args[n_parts:]
        self.vectors = UNIT // target.lanes

    def scaled(self, value: Value, factor: int) -> Value:
        return self.e.build.mul(value, self.e.int64(factor))

    def rows(self, head: Value, column: Value) -> list[Value]:
        """Addresses of the parts of the vector that a column stands for."""
        e = self.e
        slot = e.load(I64, self.slots, self.scaled(column, 8))
        number = e.build.add(e.build.mul(head, self.n_slots), slot)
        return [e.at(part, self.scaled(number, width)) for part, width in zip(self.parts, self.widths, strict=True)]

    def unit(self, rows: Sequence[Value], u: int) -> list[Value]:
        """Unit `u` of a vector, float32."""
        e, first = self.e, UNIT * u
        starts = range(0, UNIT, e.lanes)
        if self.form == "f32":
            return [e.floats(rows[0], 4 * (first + k)) for k in starts]
        if self.form == "f16":
            return [e.halves(rows[0], 2 * (first + k), e.lanes) for k in starts]
        scale, low = (e.chosen(e.halves(rows[1], 2 * at, 1), [0] * e.lanes) for at in (u, self.dim // UNIT + u))
        return [e.multiply_add(e.number(c), scale, low) for c in self.codes(rows[0], first)]

    def codes(self, row: Value, first: int) -> list[Value]:
        """Codes of a unit: whole bytes, or their lower halves in the first half of a vector, the upper in the second."""
        e, starts = self.e, range(0, UNIT, self.e.lanes)
        if self.form == "u8":
            return [e.integers(row, first + k) for k in starts]
        upper = first >= self.dim // 2
        packed = [e.integers(row, first - upper * self.dim // 2 + k) for k in starts]
        return [e.shifted(p, -4) if upper else e.masked(p, 15) for p in packed]

    def each(self, body: Callable[[Value, Value, Value, Value], None]) -> Callable[..., None]:
        """body(sequence, head, first column, end of its columns), for all; then the function is compiled."""
        e = self.e

        def sequence(i: Value, _: Any) -> None:
            first, end = (e.load(I64, self.bounds, self.scaled(e.build.add(i, e.int64(k)), 8)) for k in (0, 1))
            e.loop(e.int64(0), self.heads, 1, lambda head, _: body(i, head, first, end))

        e.loop(e.int64(0), self.n, 1, sequence)
        return e.compiled()

    def group_at(self, array: Value, i: Value, head: Value, group: int) -> Value:
        """Where the vectors of a sequence and head begin in an array (n, heads, group, dim)."""
        number = self.e.build.add(self.e.build.mul(i, self.heads), head)
        return self.e.at(array, self.scaled(number, 4 * group * self.dim))

    def lines_at(self, array: Value, head: Value, group: int) -> list[Value]:
        """Where the lines of a head begin in an array (heads, group, columns)."""
        e = self.e
        numbers = [e.build.add(self.scaled(head, group), e.int64(g)) for g in range(group)]
        return [e.at(array, self.scaled(e.build.mul(k, self.columns), 4)) for k in numbers]


@functools.cache
def _products(form: str, dim: int, group: int, target: Target) -> Callable[..., None]:
    """void products(parts..., slots, bounds, queries, out, n, heads, n_slots, columns)"""
    w = _Emitter("products", form, dim, target)
    e = w.e

    def head(i: Value, h: Value, first: Value, end: Value) -> None:
        queries, lines = w.group_at(w.x, i, h, group), w.lines_at(w.out, h, group)

        def column(c: Value, _: Any) -> None:
            rows = w.rows(h, c)
            vectors = [v for u in range(dim // UNIT) for v in w.unit(rows, u)]
            for g in range(group):
                made = e.zeros()
                for k, v in enumerate(vectors):
                    made = e.multiply_add(v, e.floats(queries, 4 * (g * dim + k * e.lanes)), made)
                e.store(e.total(made), lines[g], w.scaled(c, 4))

        e.loop(first, end, 1, column)

    return w.each(head)


@functools.cache
def _sums(form: str, dim: int, group: int, target: Target) -> Callable[..., None]:
    """void sums(parts..., slots, bounds, weights, out, n, heads, n_slots, columns)"""
    w = _Emitter("sums", form, dim, target)
    e, at_once = w.e, max(SUMS // w.vectors, 1)

    def head(i: Value, h: Value, first: Value, end: Value) -> None:
        lines, out = w.lines_at(w.x, h, group), w.group_at(w.out, i, h, group)
        for u in range(dim // UNIT):
            for g in range(0, group, at_once):
                some = range(g, min(g + at_once, group))
                made = e.loop(first, end, 1, functools.partial(column, h, u, [lines[k] for k in some]),
                              [e.zeros()] * (len(some) * w.vectors))
                for k, value in enumerate(made):
                    e.store(value, out, 4 * ((g + k // w.vectors) * dim + u * UNIT + k % w.vectors * e.lanes))

    def column(h: Value, u: int, lines: Sequence[Value], c: Value, carried: Sequence[Value]) -> list[Value]:
        vectors = w.unit(w.rows(h, c), u)
        weights = [e.splat(e.load(F32, line, w.scaled(c, 4))) for line in lines]
        made = list(carried)
        for j, v in enumerate(vectors):  # vector by vector: few are in registers at once
            for g, weight in enumerate(weights):
                made[g * w.vectors + j] = e.multiply_add(weight, v, made[g * w.vectors + j])
        return made

    return w.each(head)


class Cached:
    """Products with stored keys and sums of stored values, of vectors in one form.

    Parameters
    ----------
    form : "f32", "f16", "u8" or "u4"
    dim : int, elements of a vector
        `takes(form, dim)`
    group : int
        Queries that share a KV head.
    target : Target, optional
        Default: this machine's.

    Raises
    ------
    MissingBackendError
        This machine has no native functions.
    """

    def __init__(self, form: str, dim: int, group: int, target: Target | None = None) -> None:
        target = target or host()
        self._products, self._sums = (make(form, dim, group, target) for make in (_products, _sums))

    def products(self, keys: Sequence[np.ndarray], slots: np.ndarray, bounds: np.ndarray, queries: np.ndarray,
                 out: np.ndarray) -> None:
        """out[h, g, c] = queries[i, h, g] · key of head h in slot slots[c], where bounds[i] <= c < bounds[i + 1].

        Parameters
        ----------
        keys : arrays (heads, n_slots, width), contiguous
        slots, bounds : int64 (columns,), (n + 1,), contiguous
        queries : float32 (n, heads, group, dim), contiguous
        out : float32 (heads, group, columns), contiguous
        """
        _call(self._products, keys, slots, bounds, queries, out)

    def sums(self, values: Sequence[np.ndarray], slots: np.ndarray, bounds: np.ndarray, weights: np.ndarray,
             out: np.ndarray) -> None:
        """out[i, h, g] = sum over c of weights[h, g, c] · value of head h in slot slots[c]; arrays as in `products`."""
        _call(self._sums, values, slots, bounds, weights, out)


def _call(function: Callable[..., None], parts: Sequence[np.ndarray], slots: np.ndarray, bounds: np.ndarray, x: np.ndarray,
          out: np.ndarray) -> None:
    heads, n_slots = parts[0].shape[:2]
    function(*map(array_argument, parts), array_argument(slots), array_argument(bounds), array_argument(x),
             array_argument(out), len(bounds) - 1, heads, n_slots, len(slots))


__all__ = ["Cached", "takes", "widths"]
