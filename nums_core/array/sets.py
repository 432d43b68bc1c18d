"""Distinct elements and set operations. Results are sorted, as NumPy's; their sizes depend on data and stay unknown until
somebody asks."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np

from nums_core import config
from nums_core.array.array import Array, as_expr, known_expr
from nums_core.expr import build
from nums_core.expr.grid import known
from nums_core.expr.node import Expr
from nums_core.expr.opaque import Opaque

UNKNOWN = np.nan


def _buckets(x: Expr) -> int:
    """One where all of `x` fits a block; else as many as it has blocks."""
    if known(x.chunks) and math.prod(x.shape) * x.dtype.itemsize <= config.get().block_bytes:
        return 1
    return math.prod(x.grid)


def _united(x: Expr, positions: bool, equal_nan: bool = True) -> tuple[Expr, Expr]:
    """The distinct elements of every block, and of all, as expressions whose blocks are tuples."""
    distinct = build.custom("unique.distinct", [x], (positions, bool(equal_nan)), x.shape, x.dtype, x.chunks)
    chunks = ((UNKNOWN,) * _buckets(x),)
    return distinct, build.custom("unique.unite", [distinct], (bool(equal_nan),), (UNKNOWN,), x.dtype, chunks)


def _pick(x: Expr, k: int, dtype: Any) -> Array:
    return Array(build.pick(x, k, x.shape, dtype, x.chunks))


def unique(ar: Any, return_index: bool = False, return_inverse: bool = False, return_counts: bool = False,
           axis: int | None = None, *, equal_nan: bool = True, sorted: bool = True) -> Any:  # noqa: A002
    """The distinct elements of `ar` in ascending order, or its distinct slices along `axis`.

    Parameters
    ----------
    return_index : also where each one occurs first (in the flattened array)
    return_inverse : also which of them each element is, in the shape of `ar`; shape (n,) where `axis` is given
    return_counts : also how often each one occurs
    equal_nan : bool
        Whether all NaN are one.
    sorted : accepted; the result is always sorted.

    Returns
    -------
    Array, shape (unknown,), or a tuple of arrays

    Notes
    -----
    Blocks are made distinct first, so that few different values cost one pass; many are divided by value into as many
    buckets as `ar` has blocks. Slices along `axis`, and the inverse where NaN differ, are worked out in one block.
    """
    flags = (bool(return_index), bool(return_inverse), bool(return_counts))
    x = known_expr(ar)
    nan_apart = not equal_nan and x.dtype.kind in "fcmM"
    if axis is not None:
        axis = build.normalize_axes(axis, x.ndim)[0]
    if return_inverse and (axis is not None or nan_apart):
        parts = _in_one_block(x, axis, bool(equal_nan))
    elif axis is not None:
        parts = _rows(x, axis)
    else:
        parts = _elements(x, flags, bool(equal_nan))
    chosen = [parts[0], *(part for part, wanted in zip(parts[1:], flags, strict=True) if wanted)]
    return chosen[0] if len(chosen) == 1 else tuple(chosen)


def _elements(x: Expr, flags: tuple[bool, ...], equal_nan: bool) -> list[Any]:
    distinct, united = _united(x, flags[0], equal_nan)
    inverse = build.custom("unique.inverse", [x, distinct, united], (), x.shape, np.intp, x.chunks) if flags[1] else None
    return [_pick(united, 0, x.dtype), _pick(united, 2, np.intp), None if inverse is None else Array(inverse),
            _pick(united, 1, np.intp)]


def _rows(x: Expr, axis: int) -> list[Any]:
    """Distinct slices, by a tree over the blocks along `axis`."""
    x = build.uncut(x, [i for i in range(x.ndim) if i != axis])
    rest = tuple(n for i, n in enumerate(x.shape) if i != axis)
    shape = (UNKNOWN, *rest)
    made = build.custom("unique.rows", [x], (axis,), shape, x.dtype, tuple((n,) for n in shape))
    values = build.pick(made, 0, shape, x.dtype, made.chunks)
    back = [0 if i == axis else 1 + i - (i > axis) for i in range(x.ndim)]
    line = lambda k: Array(build.custom("pick", [made], (k,), (UNKNOWN,), np.intp, ((UNKNOWN,),)))
    return [Array(build.transpose(values, back)), line(2), None, line(1)]


def _in_one_block(x: Expr, axis: int | None, equal_nan: bool) -> list[Any]:
    """Everything by NumPy, in one block."""
    made = build.blockmap(Opaque(functools.partial(_all_of, axis=axis, equal_nan=equal_nan)), [build.single_block(x)],
                          [tuple(range(x.ndim))], ("u",), (UNKNOWN,), x.dtype, ((UNKNOWN,),), label="unique", flop=80.0)
    pick = lambda k, shape, dtype: Array(build.custom("pick", [made], (k,), shape, dtype, tuple((n,) for n in shape)))
    shape = (UNKNOWN,) if axis is None else tuple(UNKNOWN if i == axis else n for i, n in enumerate(x.shape))
    inverse = pick(2, x.shape if axis is None else (x.shape[axis],), np.intp)
    return [pick(0, shape, x.dtype), pick(1, (UNKNOWN,), np.intp), inverse, pick(3, (UNKNOWN,), np.intp)]


def _all_of(block: np.ndarray, axis: int | None, equal_nan: bool) -> tuple[np.ndarray, ...]:
    values, index, inverse, counts = np.unique(block, True, True, True, axis=axis, equal_nan=equal_nan)
    return values, index, inverse.reshape(block.shape if axis is None else -1), counts


class UniqueAllResult(NamedTuple):
    values: Array
    indices: Array
    inverse_indices: Array
    counts: Array


class UniqueCountsResult(NamedTuple):
    values: Array
    counts: Array


class UniqueInverseResult(NamedTuple):
    values: Array
    inverse_indices: Array


def unique_all(x: Any) -> UniqueAllResult:
    """Distinct values, first positions, inverse and counts; every NaN is one of its own."""
    return UniqueAllResult(*unique(x, True, True, True, equal_nan=False))


def unique_counts(x: Any) -> UniqueCountsResult:
    """Distinct values and counts; every NaN is one of its own."""
    return UniqueCountsResult(*unique(x, return_counts=True, equal_nan=False))


def unique_inverse(x: Any) -> UniqueInverseResult:
    """Distinct values and inverse; every NaN is one of its own."""
    return UniqueInverseResult(*unique(x, return_inverse=True, equal_nan=False))


def unique_values(x: Any) -> Array:
    """Distinct values; every NaN is one of its own."""
    return unique(x, equal_nan=False)


# -- two sets ---------------------------------------------------------------------------------------------------------

def _flat(x: Any) -> Expr:
    e = known_expr(x)
    return e if e.ndim == 1 else known_expr(Array(e).ravel())


def _chosen(a: Any, b: Any, which: str) -> Array:
    """Of the distinct elements of both, those that `which` says."""
    first, second = _flat(a), _flat(b)
    _, united = _united(build.concatenate([first, second], 0), True)
    return Array(build.custom("unique.choose", [united], (which, first.shape[0]), (UNKNOWN,), united.dtype, united.chunks))


def union1d(ar1: Any, ar2: Any) -> Array:
    """What is in either array, sorted."""
    return unique(Array(build.concatenate([_flat(ar1), _flat(ar2)], 0)))


def intersect1d(ar1: Any, ar2: Any, assume_unique: bool = False, return_indices: bool = False) -> Any:
    """What is in both arrays, sorted; with `return_indices` also where it occurs first in each (in one block)."""
    if not return_indices:
        return _chosen(ar1, ar2, "in both")
    a, b = build.single_block(_flat(ar1)), build.single_block(_flat(ar2))
    dtype = np.result_type(a.dtype, b.dtype)
    function = Opaque(functools.partial(np.intersect1d, assume_unique=bool(assume_unique), return_indices=True))
    made = build.blockmap(function, [a, b], [("a",), ("b",)], ("u",), (UNKNOWN,), dtype, ((UNKNOWN,),),
                          label="intersect1d", flop=100.0)
    return tuple(_pick(made, k, d) for k, d in enumerate((dtype, np.intp, np.intp)))


def setdiff1d(ar1: Any, ar2: Any, assume_unique: bool = False) -> Array:
    """What is in the first array and not in the second, sorted; in its own order where it is `assume_unique`."""
    if assume_unique:
        a = Array(_flat(ar1))
        return a[isin(a, ar2, invert=True)]
    return _chosen(ar1, ar2, "in the first").astype(as_expr(ar1).dtype)


def setxor1d(ar1: Any, ar2: Any, assume_unique: bool = False) -> Array:
    """What is in exactly one of the arrays, sorted."""
    return _chosen(ar1, ar2, "in one")


def isin(element: Any, test_elements: Any, assume_unique: bool = False, invert: bool = False, *,
         kind: str | None = None) -> Array:
    """Which elements of `element` are among `test_elements`: bool, shape and chunks of `element`.

    Every block of the one meets every block of the other. `assume_unique` and `kind` are accepted and change nothing.
    """
    x, test = as_expr(element), as_expr(test_elements)
    if known(test.chunks) and math.prod(test.shape) * test.dtype.itemsize <= config.get().block_bytes:
        test = build.single_block(test)
    found = Array(build.custom("unique.isin", [x, test], (), x.shape, bool, x.chunks))
    return ~found if invert else found


__all__ = ["intersect1d", "isin", "setdiff1d", "setxor1d", "union1d", "unique", "unique_all", "unique_counts",
           "unique_inverse", "unique_values"]
