"""Native products with packed weights, x @ w.T, and unpacking: the functions that `devices.quantized` calls.

A step of the product's loop unpacks a block of one row of w into registers and multiplies it with every row of x, so that the
bytes of w, which are what such products wait for, are read once. x is first laid out so that what a step reads is contiguous:

    for every 32 columns, for every row of x:  32 elements [, their sums lane by lane]

For one row of x, scales and offsets are taken out of the sum of a group, sum(s v + o) x = s sum(v x) + o sum(x), which saves
a multiplication an element; the sums of x are those laid out beside it. Each element of the result has its own accumulators
and a fixed order: the same bits in every run, however the rows are cut.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nums_core.runtime.devices import scratch
from nums_core.runtime.devices.native.emit import Emitter, Value
from nums_core.runtime.devices.native.jit import ARRAY, INTEGER, Target, array_argument, host
from nums_core.runtime.devices.native.unpack import UNIT, UNPACK, Group, elements, has_offset, unit

MOST_ROWS = 8  # of x in one call: their accumulators stay in registers
ALIGN_BYTES = 64
AHEAD_BYTES = 2048  # of w that are asked for before they are needed: q8_0 12 -> 14 GB/s
CACHE_BYTES = 24 * 2**10  # of packed x that stay in the innermost cache beside the rest


class _ProductEmitter:
    """Writes void product(x, w, out, n_rows, n_units, out_stride, packed) for `n` rows of x.

    x: float32 (n, columns), packed below; w: rows of w; out: float32 (n, n_rows), `out_stride` elements from row to row;
    packed: room for x as above.
    """

    def __init__(self, form: str, n: int, target: Target) -> None:
        self.form, self.n = form, n
        self.apart = n == 1  # scale and offset taken out of the sums
        self.sums = self.apart and has_offset(form)
        self.e = Emitter("product", [ARRAY] * 3 + [INTEGER] * 3 + [ARRAY], target)
        self.row_stride = 4 * (UNIT + (target.lanes if self.sums else 0))  # of packed x, bytes

    def compiled(self) -> Callable[..., None]:
        e = self.e
        x, w, out, n_rows, n_units, out_stride, room = e.args
        packed = e.aligned(room, ALIGN_BYTES)
        self._pack(x, packed, n_units)
        e.loop(e.int64(0), n_rows, 1, lambda r, _: self._row(r, w, out, n_units, out_stride, packed))
        return e.compiled()

    def _pack(self, x: Value, packed: Value, n_units: Value) -> None:
        e, per_unit = self.e, unit(self.form)[0]
        n_groups = e.build.mul(n_units, e.int64(per_unit // UNIT))
        columns_bytes = e.build.mul(n_groups, e.int64(4 * UNIT))

        def body(k: Value, _: Any) -> None:
            source = e.at(x, e.build.mul(k, e.int64(4 * UNIT)))
            to = e.at(packed, e.build.mul(k, e.int64(self.n * self.row_stride)))
            for row in range(self.n):
                parts = [e.floats(e.at(source, e.build.mul(columns_bytes, e.int64(row))), 4 * j)
                         for j in range(0, UNIT, e.lanes)]
                if self.sums:
                    parts.append(functools.reduce(e.build.fadd, parts))
                for j, part in enumerate(parts):
                    e.store(part, to, row * self.row_stride + 4 * e.lanes * j)

        e.loop(e.int64(0), n_groups, 1, body)

    def _row(self, r: Value, w: Value, out: Value, n_units: Value, out_stride: Value, packed: Value) -> None:
        """Row r of w with every row of x. One row after the other: w is read as it lies, which is how memory is fastest."""
        e = self.e
        per_unit, unit_bytes = unit(self.form)
        start = e.at(w, e.build.mul(r, e.build.mul(n_units, e.int64(unit_bytes))))

        def body(u: Value, carried: Sequence[Value]) -> list[Value]:
            sums = list(carried)
            x = e.at(packed, e.build.mul(u, e.int64(per_unit // UNIT * self.n * self.row_stride)))
            block = e.at(start, e.build.mul(u, e.int64(unit_bytes)))
            for line in range(0, unit_bytes, 64):
                e.prefetch(block, AHEAD_BYTES + line)
            for group in UNPACK[self.form](e, block):
                (self._add_apart if self.apart else self._add)(sums, group, x)
            return sums

        sums = e.loop(e.int64(0), n_units, 1, body, [e.zeros()] * (self.n + self.sums))
        if self.sums:
            sums = [e.build.fadd(*sums)]
        for row, vector in enumerate(sums):
            where = e.build.add(e.build.mul(out_stride, e.int64(row)), r)
            e.store(e.total(vector), out, e.build.mul(where, e.int64(4)))

    def _add(self, sums: list[Value], group: Group, x: Value) -> None:
        """Add the products of a group with every row of x."""
        weights = elements(self.e, group)
        for row in range(self.n):
            sums[row] = self.e.build.fadd(sums[row], self._dot(weights, group.at, row, x))

    def _add_apart(self, sums: list[Value], group: Group, x: Value) -> None:
        """The same for one row of x, scale and offset applied to the sums."""
        e = self.e
        made = self._dot(group.values, group.at, 0, x)
        if group.scale is None:
            sums[0] = e.build.fadd(sums[0], made)
        else:
            sums[0] = e.multiply_add(group.scale, made, sums[0])
        if group.offset is not None:
            sums[1] = e.multiply_add(group.offset, e.floats(x, self._where(group.at, 0) + 4 * UNIT), sums[1])

    def _dot(self, values: Sequence[Value], at: int, row: int, x: Value) -> Value:
        """values · x, lane by lane."""
        e = self.e
        made = None
        for k, v in enumerate(values):
            of_x = e.floats(x, self._where(at + k * e.lanes, row))
            made = e.build.fmul(v, of_x) if made is None else e.multiply_add(v, of_x, made)
        return made

    def _where(self, element: int, row: int) -> int:
        """Where an element of a step's columns lies in packed x, bytes."""
        return (element // UNIT * self.n + row) * self.row_stride + element % UNIT * 4


@functools.cache
def _unpack(form: str, target: Target) -> Callable[..., None]:
    """void unpack(w, out, n_units)"""
    e = Emitter("unpack", [ARRAY, ARRAY, INTEGER], target)
    w, out, n_units = e.args
    per_unit, unit_bytes = unit(form)

    def body(u: Value, _: Any) -> None:
        block, to = e.at(w, e.build.mul(u, e.int64(unit_bytes))), e.at(out, e.build.mul(u, e.int64(4 * per_unit)))
        for group in UNPACK[form](e, block):
            for k, v in enumerate(elements(e, group)):
                e.store(v, to, 4 * (group.at + k * e.lanes))

    e.loop(e.int64(0), n_units, 1, body)
    return e.compiled()


# -- calling them -----------------------------------------------------------------------------------------------------

@functools.cache
def _product(form: str, n: int, target: Target) -> Callable[..., None]:
    return _ProductEmitter(form, n, target).compiled()


def takes(form: str, n_cols: int) -> bool:
    """Whether rows of so many columns are whole steps of these functions."""
    return n_cols % unit(form)[0] == 0


def rows_at_once(n_cols: int) -> int:
    """How many rows of x one call should take, of many: all that there are accumulators for, or half of them where only those
    fit into the innermost cache."""
    half = 4 * n_cols * MOST_ROWS // 2
    return MOST_ROWS // 2 if half <= CACHE_BYTES < 2 * half else MOST_ROWS


class Product:
    """out = x @ w.T for few rows of x; compiled when first called with so many.

    Parameters
    ----------
    form : str
    n_cols : int
        `takes(form, n_cols)`
    target : Target, optional
        Default: this machine's.
    """

    def __init__(self, form: str, n_cols: int, target: Target | None = None) -> None:
        self.form, self.target = form, target or host()
        self.n_units = n_cols // unit(form)[0]
        self.row_bytes = n_cols // UNIT * 4 * (UNIT + self.target.lanes)
        self.functions: list[Any] = [None] * (MOST_ROWS + 1)

    def __call__(self, x: np.ndarray, w: np.ndarray, out: np.ndarray) -> None:
        """x: float32 (n, n_cols), contiguous, n is 1 to MOST_ROWS; w: uint8 (rows, bytes per row), contiguous; out: float32
        (n, rows), neighbours in a row being neighbours in memory."""
        n = len(x)
        function = self.functions[n]
        if function is None:
            function = self.functions[n] = _product(self.form, n, self.target)
        room = scratch.buffer("packed x", n * self.row_bytes + ALIGN_BYTES)
        function(array_argument(x), array_argument(w), array_argument(out), len(w), self.n_units, out.strides[0] // 4,
                 array_argument(room))


def unpack(w: np.ndarray, form: str, out: np.ndarray, target: Target | None = None) -> None:
    """out = the values of w, bit for bit those of `ops.quantize.decode`.

    Parameters
    ----------
    w : uint8 (rows, bytes per row), contiguous
    out : float32 (rows, columns), contiguous, `takes(form, columns)`
    """
    _unpack(form, target or host())(array_argument(w), array_argument(out), out.size // unit(form)[0])


__all__ = ["MOST_ROWS", "Product", "rows_at_once", "takes", "unpack"]
