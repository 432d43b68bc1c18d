"""QuantizedArray: a matrix of weights that stays packed, in the blocks of a model file, while it is multiplied with.

    w = QuantizedArray.quantize(weights, "q4_1")     # 5 bits an element
    y = w.matmul(x)                                  # x @ w.T in float32
    e = w.take(ids)                                  # rows by number: an embedding

`nn.functional.linear` and `embedding` take one in place of an Array. There is a derivative with respect to x, none with respect
to the weights: train adapters beside them, or `dequantize()` first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from nums_core.array.array import Array
from nums_core.errors import DTypeError, ShapeError
from nums_core.expr import build
from nums_core.expr.grid import require_known, uniform
from nums_core.expr.node import Expr
from nums_core.nn.module import Module, static
from nums_core.ops import quantize as codec

PIECE_BYTES = 4 * 2**20  # of packed weights in one task: about half a millisecond
PIECE_FLOP = 2.5e7  # as long
MOST_PIECES = 16  # a rule of sizes alone: the plan is the same on every machine
LEAST_ROWS = 64

_whole: ContextVar[bool] = ContextVar("whole_products", default=False)


class QuantizedArray(Module):
    """A matrix in a packed format.

    Attributes
    ----------
    data : Array, uint8 (rows, bytes per row)
        The blocks as they lie in a GGUF file (`ops.quantize`). May be cut along its rows.
    format : str
        "q8_0", "q4_0", "q4_1", "q4_k", "q6_k", "f16", "bf16" or "f32".
    shape : (rows, cols)
        Of the matrix.
    """

    data: Array
    format: str = static()
    shape: tuple[int, int] = static()

    @classmethod
    def quantize(cls, x: Any, format: str) -> QuantizedArray:
        """Pack a matrix; computes.

        Parameters
        ----------
        x : ndarray or Array (rows, cols), real
        format : str

        Raises
        ------
        ConfigError, ShapeError, DTypeError
            An unknown format; columns that are no whole number of blocks; values it cannot hold.
        """
        from nums_core.array.array import asarray

        values = np.asarray(x)
        return cls(asarray(codec.encode(values, format)), format, values.shape)

    @property
    def dtype(self) -> np.dtype:
        """Of the values, as results have it."""
        return np.dtype(np.float32)

    @property
    def nbytes(self) -> int:
        """Bytes of the packed weights."""
        return self.data.nbytes

    def matmul(self, x: Array) -> Array:
        """x @ w.T, accumulated in float32.

        Parameters
        ----------
        x : Array (*lead, cols), real

        Returns
        -------
        Array (*lead, rows), float32, cut like x along its leading axes and like `data` along its rows

        Raises
        ------
        ShapeError
            The last axis of x is not `cols`.

        Notes
        -----
        2·lead·rows·cols flop. One task for each block of x, which reads the packed weights once; large products are cut into
        pieces of rows, so that several threads take part. Few rows of x: native code, 5 to 15 GB/s of packed weights on one
        core. Many: some 75 to 90 GFLOP/s on a core whose peak is 100.
        """
        data, e = self._checked(), _real(x)
        if not e.ndim or e.shape[-1] != self.shape[1]:
            raise ShapeError(f"a matrix of shape {self.shape} multiplies arrays whose last axis is {self.shape[1]}, not one of "
                             f"shape {tuple(e.shape)}; matmul(x) is x @ w.T: transpose x, or check which weights you mean")
        require_known(e.chunks, "a product with quantised weights")
        e = build.uncut(e, [e.ndim - 1])
        lead = e.chunks[:-1]
        most = math.prod(max(c, default=0) for c in lead)
        # Blocks of x are tasks already; pieces of w besides would unpack the same weights more often.
        alone = math.prod(map(len, lead)) == 1 and not _whole.get()
        pieces = tuple(_pieces(n, data.shape[1], most, self.shape[1]) if alone else (n,) for n in data.chunks[0])
        shape = (*e.shape[:-1], self.shape[0])
        made = build.custom("quantize.matmul", (data, e), (self.format, pieces), shape, np.float32,
                            (*lead, tuple(n for p in pieces for n in p)))
        return Array(build.rechunk(made, (*lead, data.chunks[0])))

    def take(self, ids: Array) -> Array:
        """Rows by number: Array (*ids.shape, cols), float32. Only the rows asked for are unpacked.

        Raises
        ------
        DTypeError
            `ids` are not integers.
        IndexError
            While computing: a number outside the matrix.
        """
        data, e = self._checked(), ids.expr
        if e.dtype.kind not in "iu":
            raise DTypeError(f"rows are taken by integers, not by {e.dtype}; cast with ids.astype(numpy.int32)")
        shape, chunks = (*e.shape, self.shape[1]), (*e.chunks, (self.shape[1],))
        return Array(build.custom("quantize.take", (data, e), (self.format, self.shape[1]), shape, np.float32, chunks))

    def dequantize(self) -> Array:
        """The whole matrix: Array (rows, cols), float32, cut like `data`."""
        data = self._checked()
        chunks = (data.chunks[0], (self.shape[1],))
        return Array(build.custom("quantize.decode", (data,), (self.format, self.shape[1]), self.shape, np.float32, chunks))

    def _checked(self) -> Expr:
        """The packed rows, whole; what does not fit the format is refused here, at the user's line."""
        e = self.data.expr
        codec.check_rows(e.shape, e.dtype, self.format, self.shape[1])
        if e.shape[0] != self.shape[0]:
            raise ShapeError(f"the packed weights have {e.shape[0]} rows and their shape is given as {self.shape}; give the "
                             "shape of the matrix, (rows, columns)")
        return build.uncut(e, [1])


@contextmanager
def whole_products() -> Iterator[None]:
    """Expressions made inside do not cut products into pieces: for programs in which several chains of products run side by
    side and keep the threads busy anyway."""
    token = _whole.set(True)
    try:
        yield
    finally:
        _whole.reset(token)


def _real(x: Array) -> Expr:
    if x.dtype.kind not in "biuf":
        raise DTypeError(f"quantised weights multiply real numbers, not {x.dtype}; cast with x.astype(numpy.float32)")
    return build.cast(x.expr, np.float32)


def _pieces(n_rows: int, row_bytes: int, lead: int, n_cols: int) -> tuple[int, ...]:
    """Rows of each piece that a block of `n_rows` rows is cut into for a product with `lead` rows of x."""
    want = max(n_rows * row_bytes / PIECE_BYTES, 2.0 * lead * n_rows * n_cols / PIECE_FLOP)
    n = min(int(want), MOST_PIECES, n_rows // LEAST_ROWS)
    return uniform(n_rows, -(-n_rows // n)) if n > 1 else (n_rows,)


def transposed_product(data: Expr, g: Expr, form: str, n_cols: int) -> Expr:
    """g @ w, the derivative of `matmul` with respect to x: g is (*lead, rows), the result (*lead, n_cols), float32."""
    g = build.uncut(build.cast(g, np.float32), [g.ndim - 1])
    return build.custom("quantize.transposed", (data, g), (form, n_cols), (*g.shape[:-1], n_cols), np.float32,
                        (*g.chunks[:-1], (n_cols,)))


__all__ = ["QuantizedArray", "transposed_product", "whole_products"]
