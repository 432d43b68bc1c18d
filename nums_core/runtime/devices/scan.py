"""Running results along one axis, on NumPy: prefixes of the totals of blocks, and each block after what comes before it.

`numpy.add.accumulate` waits for each addition before the next (about 4 ns an element). `_Levels` does a few levels of
the work-efficient scan of Blelloch, "Prefix sums and their applications", 1990: pairs are added, level by level, until
a sixteenth is left for `accumulate`, and the results go back down. All other additions are independent of one another,
and a tile stays in the cache from its first level to its last: twice as fast along one long line.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from nums_core.ops.elementwise import UFUNCS
from nums_core.runtime.devices import scratch

TILE_ELEMS = 1 << 17
# Levels of pairs before what is left is accumulated; lines shorter than this are accumulated at once.
LEVELS = 4
LONG = 1 << 13
# Rows of so many elements, or so few rows, are added one to the next.
WIDE = 512
FEW = 8
NARROW = 64

Run = Callable[..., Any]
Slices = tuple[slice, ...]


def _along(axis: int, start: int | None, stop: int | None = None, step: int | None = None) -> Slices:
    return (*(slice(None),) * axis, slice(start, stop, step))


# -- between blocks ---------------------------------------------------------------------------------------------------

def _prefix(combine: str | Callable[..., Any], axis: int) -> Run:
    """From the totals of a line of blocks, a tuple: what comes before the second block, the third, ..."""
    function = UFUNCS[combine] if isinstance(combine, str) else combine

    def run(args: Any, blocks: list[np.ndarray], out: Any = None) -> tuple[np.ndarray, ...]:
        made = [blocks[0]]
        for total in blocks[1:]:
            before = made[-1]
            if not before.shape[axis] or not total.shape[axis]:  # a block without elements
                made.append(total if total.shape[axis] else before)
            else:
                made.append(function(before, total))
        return tuple(made)
    return run


def _carry(args: Any, blocks: list[Any], axis: int) -> np.ndarray | None:
    """What comes before this block; `args[axis]` is its number along the axis."""
    if len(blocks) < 2:
        return None
    carry = blocks[1][args[axis] - 1]
    return carry if carry.shape[axis] else None


# -- one block --------------------------------------------------------------------------------------------------------

def _cumulative(name: str, axis: int, dtype: str, work: str, skip_nan: bool, initial: Any) -> Run:
    """The running result of a block after its carry. `initial`, if given, stands before the first block's."""
    result, scan = np.dtype(dtype), _Scan(UFUNCS[name], np.dtype(work), skip_nan)

    def run(args: Any, blocks: list[Any], out: np.ndarray | None = None) -> np.ndarray:
        x = blocks[0]
        lead = int(initial is not None and args[axis] == 0)
        if out is None:
            out = np.empty([n + lead * (i == axis) for i, n in enumerate(x.shape)], result)
        if lead:
            out[_along(axis, 0, 1)] = initial
        scan.block(x, axis, out[_along(axis, lead)], _carry(args, blocks, axis))
        return out
    return run


def _user(function: Callable[..., Any], combine: Callable[..., Any], axis: int, dtype: str) -> Run:
    """A block scanned by a function of the user, after its carry."""
    def run(args: Any, blocks: list[Any], out: np.ndarray | None = None) -> np.ndarray:
        made = np.asarray(function(blocks[0], axis=axis, dtype=np.dtype(dtype)))
        carry = _carry(args, blocks, axis)
        if carry is not None:
            made = np.asarray(combine(carry, made))
        if out is None:
            return made
        out[...] = made
        return out
    return run


def _user_total(function: Callable[..., Any], total: Callable[..., Any] | None, axis: int, dtype: str) -> Run:
    """The total of a block, by a function of the user, or as the last of its running results."""
    def run(args: Any, blocks: list[Any], out: np.ndarray | None = None) -> np.ndarray:
        if total is not None:
            return np.asarray(total(blocks[0], axis=axis, keepdims=True))
        made = np.asarray(function(blocks[0], axis=axis, dtype=np.dtype(dtype)))
        return made[_along(axis, -1 if made.shape[axis] else 0)].copy()
    return run


class _Scan:
    """A scan by one ufunc, in the dtype `work`. With `skip_nan`, NaN counts as the neutral element."""

    def __init__(self, ufunc: np.ufunc, work: np.dtype, skip_nan: bool) -> None:
        self.ufunc, self.work, self.skip_nan = ufunc, work, skip_nan

    def block(self, x: np.ndarray, axis: int, out: np.ndarray, carry: np.ndarray | None) -> None:
        """Tile by tile, the axes in the order in which they lie in memory."""
        order = sorted(range(x.ndim), key=lambda i: (-abs(x.strides[i]), i))
        axis = order.index(axis)
        x, out = x.transpose(order), out.transpose(order)
        before = carry.transpose(order) if carry is not None else None
        plain = x.dtype == self.work == out.dtype and not self.skip_nan
        for column, steps in _tiles(x.shape, axis):
            last = before[column] if before is not None else None
            for at in steps:
                piece, target = x[at], out[at]
                made = target if plain else scratch.empty("scan", piece.shape, self.work)
                self.tile(piece if plain else self._prepared(piece), made, axis, last)
                if not plain:
                    np.copyto(target, made, casting="unsafe")
                last = made[_along(axis, -1)] if plain else made[_along(axis, -1)].copy()

    def _prepared(self, piece: np.ndarray) -> np.ndarray:
        ready = scratch.empty("scan.operand", piece.shape, self.work)
        np.copyto(ready, piece, casting="unsafe")
        if self.skip_nan:
            np.copyto(ready, self.ufunc.identity, where=np.isnan(piece))
        return ready

    def tile(self, x: np.ndarray, out: np.ndarray, axis: int, carry: np.ndarray | None) -> None:
        n, after = x.shape[axis], math.prod(x.shape[axis + 1:])
        if n <= FEW or after >= WIDE:
            self._by_rows(x, out, axis, carry)
        elif n == x.size >= LONG:
            _levels(x.shape, axis, self.work).run(self.ufunc, x, out, carry)
        elif carry is not None and 1 < after < NARROW:  # adding the carry to every row would cost more than the scan
            np.copyto(out, x)
            self.ufunc(carry, x[_along(axis, 0, 1)], out=out[_along(axis, 0, 1)])
            self.ufunc.accumulate(out, axis=axis, out=out)
        else:
            self.ufunc.accumulate(x, axis=axis, out=out)
            if carry is not None:
                self.ufunc(carry, out, out=out)

    def _by_rows(self, x: np.ndarray, out: np.ndarray, axis: int, carry: np.ndarray | None) -> None:
        """One step along the axis at a time, all others together."""
        steps = [_along(axis, i, i + 1) for i in range(x.shape[axis])]
        if math.prod(x.shape[:axis]) == 1:
            for at in steps:
                if carry is None:
                    out[at] = x[at]
                else:
                    self.ufunc(carry, x[at], out=out[at])
                carry = out[at]
            return
        # Rows interleave in memory: NumPy would copy each row to be safe.
        running = np.array(carry) if carry is not None else None
        for at in steps:
            running = np.array(x[at]) if running is None else self.ufunc(running, x[at], out=running)
            out[at] = running


class _Levels:
    """The levels of tiles of one shape: their memory, and the slices by which they meet, made once.

    Level 0 is the tile; each level holds the pairs of the one below. Going down, the results of a level are the odd
    ones of the level below, and each even one is the odd one before it and its own element.
    """

    def __init__(self, shape: tuple[int, ...], axis: int, dtype: np.dtype) -> None:
        self.axis = axis
        self.even, self.odd = _along(axis, 0, None, 2), _along(axis, 1, None, 2)
        self.pairs = _along(axis, 0, shape[axis] - shape[axis] % 2, 2)
        self.first, self.later = _along(axis, 0, 1), _along(axis, 2, None, 2)
        sizes = [shape[axis] >> k for k in range(1, LEVELS + 1)]
        up, down = ([np.empty((*shape[:axis], n, *shape[axis + 1:]), dtype) for n in sizes] for _ in range(2))
        self.sums, self.results = up[0], down[0]
        self.rising = [(u[_along(axis, 0, n - n % 2, 2)], u[self.odd], v)
                       for u, v, n in zip(up, up[1:], sizes, strict=False)]
        self.top, self.above = up[-1], down[-1]
        self.falling = [self._step(u, d, above) for u, d, above in zip(up, down, down[1:], strict=False)][::-1]
        self.last = self.results[_along(axis, 0, (shape[axis] - 1) // 2)]

    def _step(self, own: np.ndarray, results: np.ndarray, above: np.ndarray) -> tuple[np.ndarray, ...]:
        n = own.shape[self.axis]
        return (own[self.first], results[self.first], above, results[self.odd],
                above[_along(self.axis, 0, (n - 1) // 2)], own[self.later], results[self.later])

    def run(self, f: np.ufunc, x: np.ndarray, out: np.ndarray, carry: np.ndarray | None) -> None:
        f(x[self.pairs], x[self.odd], out=self.sums)
        for even, odd, sums in self.rising:
            f(even, odd, out=sums)
        f.accumulate(self.top, axis=self.axis, out=self.above)
        if carry is not None:
            f(carry, self.above, out=self.above)
        for step in self.falling:
            _fall(f, carry, *step)
        _fall(f, carry, x[self.first], out[self.first], self.results, out[self.odd], self.last, x[self.later],
              out[self.later])


def _fall(f: np.ufunc, carry: np.ndarray | None, first: np.ndarray, first_result: np.ndarray, above: np.ndarray,
          odd: np.ndarray, before: np.ndarray, later: np.ndarray, even: np.ndarray) -> None:
    if carry is None:
        first_result[...] = first
    else:
        f(carry, first, out=first_result)
    odd[...] = above
    f(before, later, out=even)


_kept = threading.local()


def _levels(shape: tuple[int, ...], axis: int, dtype: np.dtype) -> _Levels:
    """This thread's levels for tiles of a shape; those of the last few shapes are kept."""
    try:
        kept = _kept.levels
    except AttributeError:
        kept = _kept.levels = {}
    key = (shape, axis, dtype)
    found = kept.get(key)
    if found is None:
        if len(kept) >= 4:
            kept.clear()
        found = kept[key] = _Levels(shape, axis, dtype)
    return found


def _tiles(shape: tuple[int, ...], axis: int) -> Iterator[tuple[Slices, list[Slices]]]:
    """Columns of tiles: where each column lies across the axis, and its tiles along it, in order."""
    box, left = list(shape), TILE_ELEMS
    for i in reversed(range(axis + 1, len(shape))):
        box[i] = max(1, min(shape[i], TILE_ELEMS // 4, left))
        left = max(1, left // box[i])
    box[axis] = max(1, min(shape[axis], left))
    left = max(1, left // box[axis]) if box[axis] < LONG else 1
    for i in reversed(range(axis)):
        box[i] = max(1, min(shape[i], left))
        left = max(1, left // box[i])
    cuts = [[slice(j, min(j + b, n)) for j in range(0, n, b)] for n, b in zip(shape, box, strict=True)]
    steps, cuts[axis] = cuts[axis], [slice(None)]
    for column in itertools.product(*cuts):
        yield column, [(*column[:axis], s, *column[axis + 1:]) for s in steps]


KERNELS: dict[str, Callable[..., Run]] = {
    "prefix": _prefix,
    "cumulative": _cumulative,
    "user": _user,
    "user_total": _user_total,
}
