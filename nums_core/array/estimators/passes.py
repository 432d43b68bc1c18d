"""Passes over row blocks: sums of statistics, and results row by row.

A kernel is a function of one block of each array and of small arrays; it works on tiles of rows that stay in the cache,
so that a block is read from memory once however often the kernel uses it. All sums are made in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

import nums_core.array as nc
from nums_core.expr import build
from nums_core.expr.opaque import keywords

TILE_BYTES = 2 * 2**20  # long beside handing over the interpreter, short beside the caches
Shapes = Sequence[tuple[int, ...]]
Kernel = Callable[..., Any]


def total(kernel: Kernel, rows: Sequence[Any], small: Sequence[Any], shapes: Shapes, *, flop_per_row: float = 0.0,
          **static: Any) -> list[np.ndarray]:
    """The sum over row blocks of what `kernel` makes of each.

    Parameters
    ----------
    kernel : function of (X, y, weights, *small, **static)
        Returns a sequence of arrays or numbers of `shapes`. It must be importable, so that workers find it.
    rows : [X, y, weights] or fewer, Arrays cut alike along rows
        Each may be None, and the kernel gets None.
    small : arrays that every block needs, in the caller's memory
    flop_per_row : float
        For the scheduler.

    Returns
    -------
    list of float64 arrays of `shapes`

    Raises
    ------
    ValueError
        NaN or infinity in `rows`: looked for only where a sum is not finite.
    """
    size = sum(map(math.prod, shapes))
    per_block = _mapped(_summed, kernel, rows, small, static, size, np.float64, flop_per_row, labels=("rows", "sum"))
    values = nc.Array(build.reduce("sum", per_block.expr, 0)).compute()
    ends = np.cumsum([math.prod(s) for s in shapes])[:-1]
    return [part.reshape(s) for part, s in zip(np.split(values, ends), shapes, strict=True)]


def each(kernel: Kernel, rows: Sequence[Any], small: Sequence[Any], *, width: int | None, dtype: Any,
         flop_per_row: float = 0.0, **static: Any) -> Any:
    """What `kernel` makes of the rows of each block: a lazy Array (n, width), or (n,) where `width` is None."""
    return _mapped(_rowwise, kernel, rows, small, static, width, dtype, flop_per_row, labels=("rows", "made"))


def few(kernel: Kernel, rows: Sequence[Any], small: Sequence[Any], *, count: int, width: int | None, dtype: Any = float,
        **static: Any) -> Any:
    """`count` rows that `kernel` makes of each block, one block's after another's: a lazy Array (blocks * count, width), or
    (blocks * count,) where `width` is None. The kernel also gets `count`, and the number of its block as `block`."""
    cut = (count,) * len(rows[0].chunks[0])
    chunks = (cut,) if width is None else (cut, (width,))
    given, labels = _operands(rows, small)
    return nc.Array(build.blockmap(_numbered, given, labels, ("rows", "made")[:len(chunks)], tuple(map(sum, chunks)), dtype,
                                   chunks, _keywords(kernel, rows, {"count": count, **static}), ("block_id",),
                                   label=kernel.__name__))


def tiles(x: np.ndarray, width: int) -> Iterator[slice]:
    """Slices of rows; a float64 tile of `width` columns is about `TILE_BYTES`."""
    step = max(TILE_BYTES // (8 * max(width, 1)), 16)
    return (slice(i, min(i + step, len(x))) for i in range(0, len(x), step))


# -- how kernels become block maps ------------------------------------------------------------------------------------

def _mapped(adapter: Any, kernel: Kernel, rows: Sequence[Any], small: Sequence[Any], static: dict[str, Any],
            width: int | None, dtype: Any, flop_per_row: float, labels: tuple[str, str]) -> Any:
    x = rows[0]
    given, names = _operands(rows, small)
    n_blocks = len(x.chunks[0])
    cut = (1,) * n_blocks if adapter is _summed else x.chunks[0]
    chunks = (cut,) if width is None else (cut, (width,))
    shape = tuple(map(sum, chunks))
    flop = flop_per_row * x.shape[0] / max(math.prod(shape), 1)
    return nc.Array(build.blockmap(adapter, given, names, labels[:len(chunks)], shape, dtype, chunks,
                                   _keywords(kernel, rows, static), label=kernel.__name__, flop=flop or None))


def _operands(rows: Sequence[Any], small: Sequence[Any]) -> tuple[list[Any], list[tuple[Any, ...]]]:
    given, labels = [], []
    for k, a in enumerate(a for a in rows if a is not None):
        given.append(a.expr)
        labels.append(("rows", *((k, axis) for axis in range(1, a.ndim))))
    for k, a in enumerate(small):
        given.append(build.single_block(nc.asarray(np.array(a)).expr))  # a copy: the caller may change its own
        labels.append(tuple(("small", k, axis) for axis in range(given[-1].ndim)))
    return given, labels


def _keywords(kernel: Kernel, rows: Sequence[Any], static: dict[str, Any]) -> Any:
    return keywords({"kernel": kernel, "given": tuple(a is not None for a in rows), "static": static})


def _with_none(blocks: Sequence[Any], given: tuple[bool, ...]) -> list[Any]:
    """Blocks of the arrays that were given, None for the others, and what follows."""
    rest = iter(blocks)
    return [*(next(rest) if g else None for g in given), *rest]


def _summed(*blocks: Any, kernel: Kernel, given: tuple[bool, ...], static: dict[str, Any]) -> np.ndarray:
    with np.errstate(all="ignore"):
        parts = kernel(*_with_none(blocks, given), **static)
    packed = np.concatenate([np.ravel(p) for p in parts]).astype(np.float64, copy=False)
    if not np.isfinite(packed).all():
        check_finite(_with_none(blocks, given)[:len(given)])
    return packed[None]


def _rowwise(*blocks: Any, kernel: Kernel, given: tuple[bool, ...], static: dict[str, Any]) -> np.ndarray:
    with np.errstate(all="ignore"):
        made = kernel(*_with_none(blocks, given), **static)
    if made.dtype.kind == "f" and not np.isfinite(made).all():
        check_finite(_with_none(blocks, given)[:len(given)])
    return made


def _numbered(*blocks: Any, kernel: Kernel, given: tuple[bool, ...], static: dict[str, Any], block_id: Any) -> np.ndarray:
    return kernel(*_with_none(blocks, given), block=block_id[0], **static)


def check_finite(blocks: Sequence[Any]) -> None:
    """Raise where a block of X, y or the weights, in this order, has NaN or infinity."""
    for name, block in zip(("X", "y", "sample_weight"), blocks, strict=False):
        if block is not None and not np.isfinite(block).all():
            raise ValueError(f"{name} contains NaN or infinity; clean it first, as in X[np.isfinite(X).all(axis=1)], and "
                             "the other arrays alike")
