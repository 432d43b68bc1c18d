"""Native products of many rows of x with packed weights, x @ w.T: faster than unpacking w for a BLAS that packs it once more.

    for every tile of rows of w, unpacked to memory that stays in the second-level cache:
        for every panel of rows of x (two vectors wide, laid out so that a column of it is contiguous):
            for every ROWS rows of the tile: sums in registers, one pass over the columns

A library of its own packing pays for it once a product; between 32 and some hundred rows of x that is a fifth of the time.
Each element of the result is one running sum over the columns in order: its bits depend on its row of x and its row of w
alone.

Sources: K. Goto and R. van de Geijn, "Anatomy of High-Performance Matrix Multiplication", ACM TOMS 34(3), 2008, section 4;
F. Van Zee and R. van de Geijn, "BLIS", ACM TOMS 41(3), 2015, section 4 (the kernel's shape).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nums_core.runtime.devices import scratch
from nums_core.runtime.devices.native.emit import F32, I32, Emitter, Value, ir
from nums_core.runtime.devices.native.jit import ARRAY, INTEGER, Target, array_argument, host
from nums_core.runtime.devices.native.unpack import UNPACK, elements, unit

ROWS = 6  # of w at a time: with two vectors of x, twelve sums, and four registers for operands
VECTORS = 2
UNROLL = 4  # columns
TILE_BYTES = 192 * 2**10  # of unpacked w
ALIGN_BYTES = 64


class _Dense:
    """Writes void dense(x, w, out, last_x, last_out, tile, packed, n_rows, n_units, n_columns, n_full, tile_rows, out_stride,
    last_stride).

    x: float32 (n_full panels, columns) and last_x, (one panel, columns), the rows that fill none; w: rows of w, a multiple of
    `rows`; out and last_out: float32, so many elements from row to row; tile and packed: room.
    """

    def __init__(self, form: str, rows: int, last: int, target: Target) -> None:
        self.form, self.rows, self.last = form, rows, last
        self.e = Emitter("dense", [ARRAY] * 7 + [INTEGER] * 7, target)
        self.width = VECTORS * target.lanes

    def compiled(self) -> Callable[..., None]:
        e, b = self.e, self.e.build
        (x, w, out, last_x, last_out, tile, packed, n_rows, n_units, n_columns, n_full, tile_rows, out_stride,
         last_stride) = e.args
        self.n_columns, zero = n_columns, e.int64(0)
        tile, packed = e.aligned(tile, ALIGN_BYTES), e.aligned(packed, ALIGN_BYTES)
        panel_bytes = b.mul(n_columns, e.int64(4 * self.width))
        panel_of = lambda p: e.at(packed, b.mul(p, panel_bytes))
        e.loop(zero, n_full, 1, lambda p, _: self._pack(e.at(x, b.mul(p, panel_bytes)), panel_of(p), VECTORS))
        if self.last:
            self._pack(last_x, panel_of(n_full), self.last)
        per_unit, unit_bytes = unit(self.form)
        row_bytes = b.mul(n_units, e.int64(unit_bytes))

        def of_tile(start: Value, _: Any) -> None:
            left = b.sub(n_rows, start)
            here = b.select(b.icmp_signed("<", left, tile_rows), left, tile_rows)
            self._unpack(e.at(w, b.mul(start, row_bytes)), tile, b.mul(here, n_units), per_unit, unit_bytes)

            def of_panel(panel: Value, target: Value, stride: Value, vectors: int) -> None:
                stride = b.mul(stride, e.int64(4))
                e.loop(zero, here, self.rows, lambda r, _: self._kernel(
                    e.at(tile, b.mul(r, b.mul(n_columns, e.int64(4)))), panel,
                    e.at(target, b.mul(b.add(start, r), e.int64(4))), stride, vectors))

            wide = b.mul(out_stride, e.int64(4 * self.width))
            e.loop(zero, n_full, 1, lambda p, _: of_panel(panel_of(p), e.at(out, b.mul(p, wide)), out_stride, VECTORS))
            if self.last:
                of_panel(panel_of(n_full), last_out, last_stride, self.last)

        tiles = b.sdiv(b.add(n_rows, b.sub(tile_rows, e.int64(1))), tile_rows)
        e.loop(zero, tiles, 1, lambda t, _: of_tile(b.mul(t, tile_rows), _))
        return e.compiled()

    def _pack(self, x: Value, to: Value, vectors: int) -> None:
        """Rows of x beside each other: column after column, `vectors` vectors each."""
        e, b = self.e, self.e.build
        row_bytes = b.mul(self.n_columns, e.int64(4))
        rows = [e.at(x, b.mul(row_bytes, e.int64(j))) for j in range(vectors * e.lanes)]

        def body(k: Value, _: Any) -> None:
            at = b.mul(k, e.int64(4))
            target = e.at(to, b.mul(k, e.int64(4 * vectors * e.lanes)))
            for j, row in enumerate(rows):
                e.store(e.load(F32, row, at), target, 4 * j)

        e.loop(e.int64(0), self.n_columns, 1, body)

    def _unpack(self, w: Value, tile: Value, n_units: Value, per_unit: int, unit_bytes: int) -> None:
        e, b = self.e, self.e.build

        def body(u: Value, _: Any) -> None:
            block, to = e.at(w, b.mul(u, e.int64(unit_bytes))), e.at(tile, b.mul(u, e.int64(4 * per_unit)))
            for group in UNPACK[self.form](e, block):
                for k, v in enumerate(elements(e, group)):
                    e.store(v, to, 4 * (group.at + k * e.lanes))

        e.loop(e.int64(0), n_units, 1, body)

    def _kernel(self, w: Value, panel: Value, out: Value, stride: Value, vectors: int) -> None:
        """`rows` rows of w with one panel of x."""
        e, b = self.e, self.e.build
        row_bytes = b.mul(self.n_columns, e.int64(4))
        rows = [e.at(w, b.mul(row_bytes, e.int64(i))) for i in range(self.rows)]
        step = 4 * vectors * e.lanes

        def body(k: Value, carried: Sequence[Value]) -> list[Value]:
            sums = list(carried)
            at, column = b.mul(k, e.int64(4)), e.at(panel, b.mul(k, e.int64(step)))
            for u in range(UNROLL):
                xs = [e.floats(column, u * step + 4 * e.lanes * v) for v in range(vectors)]
                for i, row in enumerate(rows):
                    weight = e.splat(e.load(F32, e.at(row, at), 4 * u))
                    for v in range(vectors):
                        sums[i * vectors + v] = e.multiply_add(weight, xs[v], sums[i * vectors + v])
            return sums

        sums = e.loop(e.int64(0), self.n_columns, UNROLL, body, [e.zeros()] * (self.rows * vectors))
        for v in range(vectors):
            for lane in range(e.lanes):
                to = e.at(out, b.mul(stride, e.int64(v * e.lanes + lane)))
                for i in range(self.rows):
                    e.store(b.extract_element(sums[i * vectors + v], ir.Constant(I32, lane)), to, 4 * i)


@functools.cache
def _function(form: str, rows: int, last: int, target: Target) -> Callable[..., None]:
    return _Dense(form, rows, last, target).compiled()


def product(x: np.ndarray, w: np.ndarray, form: str, out: np.ndarray, target: Target | None = None) -> None:
    """out = x @ w.T

    Parameters
    ----------
    x : float32 (n, columns), contiguous
    w : uint8 (rows, bytes per row), contiguous; `products.takes(form, columns)`
    out : float32 (n, rows), neighbours in a row being neighbours in memory
    """
    target = target or host()
    (n, n_columns), n_rows, width = x.shape, len(w), VECTORS * target.lanes
    n_full, rest = divmod(n, width)
    last = -(-rest // target.lanes)
    last_x, last_out = x, out
    if rest:
        last_x = scratch.empty("last rows of x", (last * target.lanes, n_columns), x.dtype)
        last_x[:rest], last_x[rest:] = x[n_full * width:], 0
        last_out = scratch.empty("their results", (last * target.lanes, n_rows), x.dtype)
    tile_rows = max(TILE_BYTES // (4 * n_columns * ROWS), 1) * ROWS
    tile = scratch.buffer("tile of w", 4 * tile_rows * n_columns + ALIGN_BYTES)
    packed = scratch.buffer("panels of x", 4 * (n_full + 1) * width * n_columns + ALIGN_BYTES)
    stride, last_stride = out.strides[0] // 4, last_out.strides[0] // 4
    whole = n_rows // ROWS * ROWS
    for start, stop, rows in ((0, whole, ROWS), (whole, n_rows, 1)):
        if start < stop:
            arrays = (x, w[start:stop], out[:, start:], last_x, last_out[:, start:], tile, packed)  # alive during the call
            _function(form, rows, last, target)(*map(array_argument, arrays), stop - start, n_columns // unit(form)[0],
                                                n_columns, n_full, tile_rows, stride, last_stride)
    if rest:
        out[n_full * width:] = last_out[:rest]


__all__ = ["product"]
