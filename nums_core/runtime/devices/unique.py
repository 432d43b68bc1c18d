"""Kernels of `unique` and the set operations; how they fit together: expr/lowering/unique.py.

The distinct elements of a block (or of a bucket) are a tuple, sorted by value:

    values, counts, first, last      positions in C order of the whole array, or None where nobody asked for them
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from nums_core.runtime.devices.sort import count_valid

Run = Callable[..., Any]


def starts_of(values: np.ndarray, equal_nan: bool) -> np.ndarray:
    """Where groups of equal elements begin in sorted values; all NaN are one group where `equal_nan`."""
    if not len(values):
        return np.zeros(0, np.intp)
    new = np.empty(len(values), bool)
    new[0] = True
    np.not_equal(values[1:], values[:-1], out=new[1:])
    if equal_nan:
        new[count_valid(values) + 1:] = False
    return np.flatnonzero(new)


def _at(f: np.ufunc, x: np.ndarray | None, starts: np.ndarray) -> np.ndarray | None:
    return None if x is None else f.reduceat(x, starts) if len(starts) else x[:0]


def _distinct(positions: bool, equal_nan: bool, shape: tuple[int, ...]) -> Run:
    """The distinct elements of a block; `shape` is that of the whole array, the arguments are the block's place in it."""
    def run(args: Any, blocks: list[np.ndarray], out: Any = None) -> Any:
        values = blocks[0].reshape(-1)
        place = None
        if positions:
            order = np.argsort(values, kind="stable")
            values, place = values[order], _in_whole(order, blocks[0].shape, args, shape)
        else:
            values = np.sort(values)
        starts = starts_of(values, equal_nan)
        counts = np.diff(starts, append=len(values))
        return values[starts], counts, _at(np.minimum, place, starts), _at(np.maximum, place, starts)
    return run


def _in_whole(flat: np.ndarray, extents: tuple[int, ...], place: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Positions in the whole array of flat positions in a block."""
    out = np.zeros(flat.shape, np.intp)
    for index, (start, _), n in zip(np.unravel_index(flat, extents), place, shape, strict=True):
        out = out * n + (index + start)
    return out


def _sample(most: int) -> Run:
    """About `most` values at equal distances, and that distance."""
    def run(args: Any, blocks: list[Any], out: Any = None) -> Any:
        values = blocks[0][0]
        stride = max(1, math.ceil(len(values) / most))
        return values[::stride].copy(), stride
    return run


def _splitters(n_out: int) -> Run:
    """Values that divide the elements into `n_out` buckets of about the same size; none where there are no elements."""
    def run(args: Any, blocks: list[Any], out: Any = None) -> np.ndarray:
        values = np.concatenate([v for v, _ in blocks])
        order = np.argsort(values, kind="stable")
        before = np.cumsum(np.concatenate([np.full(len(v), stride) for v, stride in blocks])[order])
        if not len(values):
            return values
        at = np.searchsorted(before, before[-1] * np.arange(1, n_out) / n_out)
        return values[order[np.minimum(at, len(values) - 1)]]
    return run


def _piece() -> Run:
    """What of a block's distinct elements belongs to one bucket: equal values always to the same."""
    def run(args: Any, blocks: list[Any], out: Any = None) -> Any:
        parts, splitters = blocks
        j = args[-1]
        values = parts[0]
        start = np.searchsorted(values, splitters[j - 1], "left") if 0 < j <= len(splitters) else 0
        stop = np.searchsorted(values, splitters[j], "left") if j < len(splitters) else len(values)
        return tuple(None if p is None else p[start:stop].copy() for p in parts)
    return run


def _unite(equal_nan: bool) -> Run:
    """The distinct elements of several sets of them."""
    def run(args: Any, blocks: list[Any], out: Any = None) -> Any:
        if len(blocks) == 1:
            return blocks[0]
        values, counts, first, last = (_joined([b[k] for b in blocks]) for k in range(4))
        assert values is not None
        order = np.argsort(values, kind="stable")
        values = values[order]
        starts = starts_of(values, equal_nan)
        counts, first, last = (None if p is None else p[order] for p in (counts, first, last))
        return (values[starts], _at(np.add, counts, starts), _at(np.minimum, first, starts),
                _at(np.maximum, last, starts))
    return run


def _joined(parts: list[Any]) -> np.ndarray | None:
    return None if parts[0] is None else np.concatenate(parts)


CHOICES: dict[str, Callable[[Any, Any, int], Any]] = {
    "in both": lambda first, last, n: (first < n) & (last >= n),
    "in one": lambda first, last, n: (last < n) | (first >= n),
    "in the first": lambda first, last, n: last < n,
}


def _choose(which: str, n: int) -> Run:
    """Of the distinct elements of two arrays after one another, the first with `n` elements, those in both, ..."""
    def run(args: Any, blocks: list[Any], out: Any = None) -> np.ndarray:
        values, _, first, last = blocks[0]
        return values[CHOICES[which](first, last, n)]
    return run


def _rank() -> Run:
    """For each distinct element of a block, how many elements of a bucket are before it."""
    def run(args: Any, blocks: list[Any], out: Any = None) -> np.ndarray:
        bucket, values = blocks[0][0], blocks[1][0]
        return _positions(bucket, values)
    return run


def _positions(table: np.ndarray, values: np.ndarray) -> np.ndarray:
    found = np.searchsorted(table, values, "left")
    if values.dtype.kind == "c":  # complex NaN come in kinds that sort apart, but are all the same here
        found = np.where(np.isnan(values), count_valid(table), found)
    return found


def _inverse() -> Run:
    """Where each element of a block stands among the distinct ones of the whole array."""
    def run(args: Any, blocks: list[Any], out: np.ndarray | None = None) -> np.ndarray:
        x, distinct, ranks = blocks
        made = ranks[_positions(distinct[0], x.reshape(-1))].reshape(x.shape)
        if out is None:
            return made
        out[...] = made
        return out
    return run


# -- rows -------------------------------------------------------------------------------------------------------------

def _rows(axis: int) -> Run:
    """The distinct slices of a block along `axis`, that axis first."""
    def run(args: Any, blocks: list[np.ndarray], out: Any = None) -> Any:
        values, first, counts = np.unique(np.moveaxis(blocks[0], axis, 0), True, False, True, axis=0)
        return values, counts, first + args[axis][0], None
    return run


def _rows_tree(how: tuple[Any, ...], finish: Any) -> Run:
    def run(args: Any, blocks: list[Any], out: Any = None) -> Any:
        if len(blocks) == 1:
            return blocks[0]
        values, inverse = np.unique(np.concatenate([b[0] for b in blocks]), False, True, axis=0)
        inverse = inverse.reshape(-1)
        counts = np.zeros(len(values), np.intp)
        np.add.at(counts, inverse, np.concatenate([b[1] for b in blocks]))
        first = np.full(len(values), np.iinfo(np.intp).max)
        np.minimum.at(first, inverse, np.concatenate([b[2] for b in blocks]))
        return values, counts, first, None
    return run


# -- membership -------------------------------------------------------------------------------------------------------

def _isin() -> Run:
    def run(args: Any, blocks: list[np.ndarray], out: np.ndarray | None = None) -> np.ndarray:
        made = np.isin(blocks[0], blocks[1])
        if out is None:
            return made
        out[...] = made
        return out
    return run


KERNELS: dict[str, Callable[..., Run]] = {
    "distinct": _distinct,
    "sample": _sample,
    "splitters": _splitters,
    "piece": _piece,
    "unite": _unite,
    "choose": _choose,
    "rank": _rank,
    "inverse": _inverse,
    "rows": _rows,
    "rows_tree": _rows_tree,
    "isin": _isin,
}
