"""Kernels of quantised weights on NumPy: x @ w.T without ever expanding w as a whole, rows by number, and the way back.

    few rows of x     a native product, which unpacks w in registers (`devices.native.products`)
    many rows of x    a native product of unpacked tiles of w and panels of x (`devices.native.dense`)

Without llvmlite, or on rows that native functions do not take, tiles of w are unpacked to scratch memory for BLAS: the same
results within rounding.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from nums_core.errors import MissingBackendError
from nums_core.ops.quantize import decode
from nums_core.runtime.devices import scratch

Run = Callable[..., Any]

TILE_BYTES = 2**22  # of an unpacked tile: it stays in the cache, and BLAS calls are long
FEW_ROWS = 32  # of x: beyond, unpacking once for all of them is faster
FLOAT = np.dtype(np.float32)


@functools.cache
def native() -> Any:
    """The module of native functions, or None where this machine has none."""
    try:
        from nums_core.runtime.devices.native import jit, products

        jit.host()
    except MissingBackendError:
        return None
    return products


def unpacked(raw: np.ndarray, form: str, n_cols: int, out: np.ndarray | None = None) -> np.ndarray:
    """The values of packed rows: float32 (rows, n_cols). The same bits with and without native functions.

    Parameters
    ----------
    raw : uint8 (rows, bytes per row)
    out : float32 (rows, n_cols), contiguous, optional
    """
    products = native()
    if products is None or not products.takes(form, n_cols):
        return decode(raw, form, n_cols, out)
    if out is None:
        out = np.empty((len(raw), n_cols), FLOAT)
    products.unpack(np.ascontiguousarray(raw), form, out)
    return out


class Product:
    """x @ w.T in float32, of packed rows of `n_cols` elements.

    Up to eight rows of x, the bytes of w are read once, about as fast as memory gives them. From two to FEW_ROWS, and again
    beyond, a row of the result has the same bits whatever stands beside it in x.
    """

    def __init__(self, form: str, n_cols: int) -> None:
        self.form, self.n_cols = form, n_cols
        products = native()
        self.few = products.Product(form, n_cols) if products is not None and products.takes(form, n_cols) else None
        self.at_once = products.rows_at_once(n_cols) if products is not None else 0
        if self.few is not None:
            from nums_core.runtime.devices.native import dense

            self.many = dense.product

    def __call__(self, x: np.ndarray, raw: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """
        Parameters
        ----------
        x : float32 (n, n_cols)
        raw : uint8 (rows, bytes per row)
        out : float32 (n, rows), optional; neighbours in a row are neighbours in memory
        """
        n = len(x)
        if out is None:
            out = np.empty((n, len(raw)), FLOAT)
        if self.few is not None and n > FEW_ROWS:
            self.many(np.ascontiguousarray(x), np.ascontiguousarray(raw), self.form, out)
        elif self.few is None:
            for rows, tile in _tiles(raw, self.form, self.n_cols):
                np.matmul(x, tile.T, out=out[:, rows])
        elif n:
            x = x if x.flags.c_contiguous else x.copy()
            raw = raw if raw.flags.c_contiguous else raw.copy()
            if n <= self.at_once:
                self.few(x, raw, out)
                return out
            calls = -(-n // self.at_once)
            for k in range(calls):  # of about the same length: one row alone would be computed otherwise
                rows = slice(k * n // calls, (k + 1) * n // calls)
                self.few(x[rows], raw, out[rows])
        return out


def _tiles(raw: np.ndarray, form: str, n_cols: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Rows of w, some at a time, unpacked into the same scratch memory."""
    step = max(TILE_BYTES // (FLOAT.itemsize * max(n_cols, 1)), 1)
    for i in range(0, len(raw), step):
        part = raw[i:i + step]
        yield slice(i, i + len(part)), unpacked(part, form, n_cols, scratch.empty("unpacked", (len(part), n_cols), FLOAT))


# -- kernels ----------------------------------------------------------------------------------------------------------

def _matmul(form: str, n_cols: int) -> Run:
    """Blocks: some rows of w, x. The task's last argument says which of those rows, if not all."""
    product = Product(form, n_cols)

    def run(args: Any, blocks: list[np.ndarray], out: np.ndarray | None = None) -> np.ndarray:
        raw, x = blocks
        if args[-1] is not None:
            raw = raw[args[-1]]
        if x.ndim == 2 and (out is None or out.strides[1] == 4):
            return product(x, raw, out)
        made = product(x.reshape(-1, n_cols), raw).reshape(*x.shape[:-1], len(raw))
        return _delivered(made, out)
    return run


def _transposed(form: str, n_cols: int) -> Run:
    """g @ w. Blocks: g with all its columns, then all blocks of w."""
    def run(args: Any, blocks: list[np.ndarray], out: np.ndarray | None = None) -> np.ndarray:
        g, *parts = blocks
        flat = g.reshape(-1, g.shape[-1])
        made = np.zeros((len(flat), n_cols), FLOAT)
        at = 0
        for raw in parts:
            for rows, tile in _tiles(raw, form, n_cols):
                made += flat[:, at + rows.start:at + rows.stop] @ tile
            at += len(raw)
        return _delivered(made.reshape(*g.shape[:-1], n_cols), out)
    return run


def _take(form: str, n_cols: int) -> Run:
    """Rows of w by number. Blocks: the numbers, then all blocks of w."""
    def run(args: Any, blocks: list[np.ndarray], out: np.ndarray | None = None) -> np.ndarray:
        ids, *parts = blocks
        made = unpacked(_rows(parts, ids.reshape(-1)), form, n_cols)
        return _delivered(made.reshape(*ids.shape, n_cols), out)
    return run


def _rows(parts: Sequence[np.ndarray], ids: np.ndarray) -> np.ndarray:
    """Packed rows by number; negative ones count from the end, as in NumPy."""
    n_rows = sum(map(len, parts))
    if ids.size and not (-n_rows <= ids.min() and ids.max() < n_rows):
        bad = ids[(ids < -n_rows) | (ids >= n_rows)][0]
        raise IndexError(f"row {bad} of a matrix of {n_rows} rows; numbers go from 0 to {n_rows - 1}: were the ids made by "
                         "another tokenizer?")
    if len(parts) == 1:
        return parts[0][ids]
    ids = np.where(ids < 0, ids + n_rows, ids)
    out = np.empty((len(ids), parts[0].shape[1]), np.uint8)
    at = 0
    for raw in parts:
        here = (ids >= at) & (ids < at + len(raw))
        out[here] = raw[ids[here] - at]
        at += len(raw)
    return out


def _decode(form: str, n_cols: int) -> Run:
    return lambda args, blocks, out=None: _delivered(unpacked(blocks[0], form, n_cols), out)


def _delivered(made: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    if out is None:
        return made
    out[...] = made
    return out


KERNELS: dict[str, Callable[..., Run]] = {
    "matmul": _matmul, "transposed": _transposed, "take": _take, "decode": _decode,
}
