"""Diagonals and triangles: `diagonal`, `diag`, `tril`, `triu`, `fill_diagonal`, and the indices of such parts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from nums_core.array.array import Array, asarray, from_array, known_expr
from nums_core.array.manipulation import moveaxis
from nums_core.expr import build, grid, index
from nums_core.expr import reshape as reshaping
from nums_core.expr.node import Expr


def diagonal(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Array:
    """The diagonal of each matrix in the plane of two axes, as the last axis. Reads only blocks on the diagonal.

    Parameters
    ----------
    a : array, at least two axes
    offset : int
        Above the main diagonal (positive) or below it.
    """
    x = known_expr(a)
    if x.ndim < 2:
        raise ValueError("diag requires an array of at least two dimensions")
    i, j = normalize_axis_index(axis1, x.ndim, "axis1"), normalize_axis_index(axis2, x.ndim, "axis2")
    if i == j:
        raise ValueError("axis1 and axis2 cannot be the same")
    moved = moveaxis(Array(x), (i, j), (-2, -1)).expr
    return Array(index.diagonal(moved, int(offset)))


def diag(v: Any, k: int = 0) -> Array:
    """The k-th diagonal of a matrix, or the matrix with vector `v` on its k-th diagonal."""
    x = known_expr(v)
    if x.ndim == 2:
        return diagonal(Array(x), k)
    if x.ndim != 1:
        raise ValueError("Input must be 1- or 2-d.")
    n = x.shape[0] + abs(k)
    line = build.full(np.zeros((), x.dtype)[()], (abs(k),), x.dtype, ((abs(k),),))
    wide = build.concatenate([line, x] if k >= 0 else [x, line], 0) if k else x
    row = build.axes(wide, (None, 0), (1, n))
    chunks = (wide.chunks[0], wide.chunks[0])
    on = build.create("eye", (int(k), "|b1"), (n, n), bool, chunks)
    return Array(build.elementwise("where", [on, row, np.zeros((), x.dtype)[()]]))


def diagflat(v: Any, k: int = 0) -> Array:
    """The matrix with the elements of `v`, in C order, on its k-th diagonal."""
    x = known_expr(v)
    return diag(Array(reshaping.reshape(x, (int(np.prod(x.shape, dtype=np.int64)),))), k)


def tril(m: Any, k: int = 0) -> Array:
    """`m` with zeros above the k-th diagonal of its last two axes."""
    return _triangle(m, k, lower=True)


def triu(m: Any, k: int = 0) -> Array:
    """`m` with zeros below the k-th diagonal of its last two axes."""
    return _triangle(m, k - 1, lower=False)


def _triangle(m: Any, k: int, lower: bool) -> Array:
    x = known_expr(m)
    if x.ndim < 2:
        x = build.axes(x, (None, *range(x.ndim)), (x.shape[-1], *x.shape), (x.chunks[-1], *x.chunks))
    below = build.create("creation.tri", (int(k), "|b1"), x.shape[-2:], bool, x.chunks[-2:])
    zero = np.zeros((), x.dtype)[()]
    return Array(build.elementwise("where", [below, *((x, zero) if lower else (zero, x))]))


def fill_diagonal(a: Array, val: Any, wrap: bool = False) -> None:
    """Set the main diagonal of `a` to `val`, repeated as needed; `wrap` starts anew below the end of a tall matrix.

    `a` gets a new value; other arrays made from it keep the old one.
    """
    if not isinstance(a, Array):
        raise TypeError(f"fill_diagonal() changes an Array; got {type(a).__name__}: wrap it with np.asarray(x)")
    x = known_expr(a)
    if x.ndim < 2:
        raise ValueError("array must be at least 2-d")
    if x.ndim > 2 and len(set(x.shape)) > 1:
        raise ValueError(f"All dimensions of input must be of equal length, not {x.shape}")
    values = np.asarray(val).astype(x.dtype).reshape(-1)
    n = min(x.shape)
    step = x.shape[1] + 1
    flat = np.arange(0, x.shape[0] * x.shape[1], step) if wrap and x.ndim == 2 else np.arange(n) * step
    rows, columns = np.divmod(flat, x.shape[1])
    places = [rows, columns, *[rows] * (x.ndim - 2)]
    a[tuple(places)] = np.resize(values, len(rows)) if values.size > 1 else values[0]


# -- indices ----------------------------------------------------------------------------------------------------------

def diag_indices(n: int, ndim: int = 2) -> tuple[Array, ...]:
    """Indices of the main diagonal of an array of `ndim` axes of extent `n`."""
    line = from_array(np.arange(n))
    return (line,) * ndim


def diag_indices_from(arr: Any) -> tuple[Array, ...]:
    """Indices of the main diagonal of `arr`, all of whose extents must be equal."""
    x = known_expr(arr)
    if x.ndim < 2:
        raise ValueError("input array must be at least 2-d")
    if len(set(x.shape)) > 1:
        raise ValueError(f"All dimensions of input must be of equal length, not {x.shape}")
    return diag_indices(x.shape[0], x.ndim)


def tril_indices(n: int, k: int = 0, m: int | None = None, chunks: Any = "auto") -> tuple[Array, Array]:
    """Row and column indices of the lower triangle of an (n, m) matrix, up to the k-th diagonal."""
    return _triangle_indices(n, k, n if m is None else m, chunks, lower=True)


def triu_indices(n: int, k: int = 0, m: int | None = None, chunks: Any = "auto") -> tuple[Array, Array]:
    """Row and column indices of the upper triangle of an (n, m) matrix, from the k-th diagonal on."""
    return _triangle_indices(n, k, n if m is None else m, chunks, lower=False)


def tril_indices_from(arr: Any, k: int = 0) -> tuple[Array, Array]:
    """Indices of the lower triangle of a matrix."""
    return tril_indices(_matrix(arr).shape[-2], k, _matrix(arr).shape[-1])


def triu_indices_from(arr: Any, k: int = 0) -> tuple[Array, Array]:
    """Indices of the upper triangle of a matrix."""
    return triu_indices(_matrix(arr).shape[-2], k, _matrix(arr).shape[-1])


def _matrix(arr: Any) -> Expr:
    x = known_expr(arr)
    if x.ndim != 2:
        raise ValueError("input array must be 2-d")
    return x


def _triangle_indices(n: int, k: int, m: int, chunks: Any, lower: bool) -> tuple[Array, Array]:
    """Made from their position: the row of an element is found among the running counts of the rows."""
    rows = np.arange(int(n), dtype=np.int64)
    counts = np.clip(rows + k + 1, 0, m) if lower else m - np.clip(rows + k, 0, m)
    total = int(counts.sum())
    cut = grid.normalize(chunks, (total,), np.intp)
    params = (int(n), int(k), int(m), lower)
    made = [build.create("index.triangle", (*params, column), (total,), np.intp, cut, flop=10) for column in (False, True)]
    return Array(made[0]), Array(made[1])


def mask_indices(n: int, mask_func: Any, k: Any = 0) -> tuple[Array, ...]:
    """Indices where `mask_func` (such as `triu`) keeps elements of an (n, n) matrix of ones."""
    from nums_core.array.searching import nonzero

    ones = Array(build.full(1, (n, n), int, grid.normalize("auto", (n, n), int)))
    return nonzero(asarray(mask_func(ones, k)) != 0)


__all__ = ["diag", "diag_indices", "diag_indices_from", "diagflat", "diagonal", "fill_diagonal", "mask_indices", "tril",
           "tril_indices", "tril_indices_from", "triu", "triu_indices", "triu_indices_from"]
