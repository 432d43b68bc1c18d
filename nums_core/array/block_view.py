"""BlockView: the grid of an array as if its blocks were elements."""

from __future__ import annotations

import itertools
import math
from typing import Any, NoReturn

import numpy as np

from nums_core.array.array import Array, wrap
from nums_core.expr import build
from nums_core.expr.grid import known


class BlockView:
    """`x.blocks`: the grid of an array as if its blocks were elements. `x.blocks[0, 1:3]` is the array of those blocks."""

    def __init__(self, x: Array) -> None:
        self._x = x

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of blocks along each axis."""
        return self._x.numblocks

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def ravel(self) -> list[Array]:
        """Every block as an array, in C order."""
        return [self[at] for at in itertools.product(*map(range, self.shape))]

    def __getitem__(self, index: Any) -> Array:
        e = self._x.expr
        numbers = _block_numbers(index, e.grid)
        chunks = tuple(tuple(c[i] for i in which) for c, which in zip(e.chunks, numbers, strict=True))
        if known(e.chunks) and all(list(w) == list(range(w[0], w[0] + len(w))) for w in numbers):
            start = tuple(sum(c[:w[0]]) for c, w in zip(e.chunks, numbers, strict=True))
            return Array(build.gather(e, start, (1,) * e.ndim, chunks))
        return wrap("blocks.take", (e,), (numbers,), tuple(sum(c) for c in chunks), e.dtype, chunks)


def _block_numbers(index: Any, grid: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """The numbers of the blocks that an index names along each axis."""
    items = list(index) if isinstance(index, tuple) else [index]
    if any(i is None for i in items):
        raise ValueError("newaxis is not supported by x.blocks; index the array itself with None")
    if sum(i is Ellipsis for i in items) > 1:
        raise IndexError("an index can only have a single ellipsis ('...')")
    if Ellipsis in [i for i in items if i is Ellipsis]:
        at = next(k for k, i in enumerate(items) if i is Ellipsis)
        items[at:at + 1] = [slice(None)] * (len(grid) - len(items) + 1)
    if len(items) > len(grid):
        raise IndexError(f"too many indices: the grid of blocks has {len(grid)} axes, but {len(items)} were indexed")
    items += [slice(None)] * (len(grid) - len(items))
    if sum(not isinstance(i, (int, np.integer, slice)) for i in items) > 1:
        raise ValueError("Can only slice with a single list; index twice, as in x.blocks[[0, 2]].blocks[:, [1]]")
    return tuple(_along(i, n) for i, n in zip(items, grid, strict=True))


def _along(item: Any, n: int) -> tuple[int, ...]:
    if isinstance(item, slice):
        return tuple(range(n)[item]) or _refused(item, n)
    which = np.atleast_1d(np.asarray(item))
    if which.dtype == bool and len(which) == n:
        which = np.flatnonzero(which)
    if which.dtype.kind not in "iu" or which.ndim != 1:
        raise IndexError(f"x.blocks takes integers, slices and one list of integers; got {item!r}")
    if ((which < -n) | (which >= n)).any():
        raise IndexError(f"index {item!r} is out of bounds for {n} blocks along that axis")
    return tuple(int(i) % n for i in which) or _refused(item, n)


def _refused(item: Any, n: int) -> NoReturn:
    raise IndexError(f"x.blocks[{item!r}] names no block of the {n} along that axis; name at least one")


__all__ = ["BlockView"]
