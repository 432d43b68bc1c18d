"""Contractions on NumPy: two blocks with labelled axes become one BLAS call with as few copies as their strides allow.

Every label is a *batch* label (in both blocks and the result), a *row* or *column* label (in one block and the result),
or *summed*. A product of matrices needs rows, columns and summed labels merged into one axis each. Whether a merge is
a view depends on the strides, so the form is chosen when the first pair of a layout arrives: the order of the merged
labels is free, a row or column label that will not merge may be looped over instead, and the roles of the blocks may be
swapped so that the result comes out in the order it is wanted. The cheapest form by bytes copied wins.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from nums_core.runtime.devices import scratch

Run = Callable[..., Any]

LOOP_BYTES = 16 * 1024  # what one more BLAS call costs, in bytes copied
TILE_ELEMENTS = 1 << 18  # of an operand that is made on the way: long calls (see `fused.TILE_BYTES`)
PAGE_BYTES = 4096  # addresses this far apart share a set of the first cache
RESULT_TILE_BYTES = 4 << 20


class Form(NamedTuple):
    """left (loops, rows, summed) @ right (loops, summed, cols) = out (loops, rows, cols)."""

    swap: bool
    loops: tuple[str, ...]
    rows: tuple[str, ...]
    summed: tuple[str, ...]
    cols: tuple[str, ...]

    @property
    def made(self) -> tuple[str, ...]:
        return self.loops + self.rows + self.cols


def compile_contraction(a: str, b: str, c: str, dtype: str, inline: tuple[Any, ...] = ()) -> Run:
    """`run(args, blocks, out=None)` of `a,b->c`: labels are letters, as in einsum.

    With `inline`, operands are made by fused programs from their own blocks: an entry for each is (program or None,
    number of blocks), or None for the same block as the first.
    """
    product = _Product(a, b, c, np.dtype(dtype))
    if not inline:
        def run(args: Any, blocks: list[np.ndarray], out: np.ndarray | None = None) -> np.ndarray:
            return product(blocks[0], blocks[1], out)
        return run
    return _WithPrograms(product, inline)


class _WithPrograms:
    """A contraction that makes its operands by fused programs first: all at once, or, where one label is summed, in tiles
    along it that stay in the cache."""

    def __init__(self, product: _Product, inline: tuple[Any, ...]) -> None:
        from nums_core.runtime.devices.fused import compile_program

        self.product = product
        programs = [entry[0] if entry else None for entry in inline]
        self.makers = [compile_program(p) if p is not None else None for p in programs]
        # A new array for each tile would be new pages, each touched for the first time, which costs more than to fill it.
        self.tile_makers = [
            compile_program(p, empty=functools.partial(scratch.empty, f"operand {k}")) if p is not None and p.instrs
            and not np.dtype(p.instrs[-1].dtype).hasobject else self.makers[k] for k, p in enumerate(programs)]
        self.split, self.same = inline[0][1], inline[1] is None
        a, b, c = product.a, product.b, product.c
        summed = [x for x in dict.fromkeys(a + b) if x not in c]
        tiled = len(summed) == 1 and summed[0] in a and summed[0] in b
        self.axes = _axes_along(summed[0], (a, b), inline) if tiled else []

    def __call__(self, args: Any, blocks: list[np.ndarray], out: np.ndarray | None = None) -> np.ndarray:
        along = [(b.shape[k], b.size) for b, k in zip(blocks, self.axes, strict=False) if k is not None]
        n = along[0][0] if along else 0
        step = max(TILE_ELEMENTS * n // max((size for _, size in along if size), default=1), 64)
        if n <= step or (out is not None and out.size > TILE_ELEMENTS):
            return self._at_once(blocks, out, self.makers)
        made = self._at_once(self._tile(blocks, 0, step), out, self.tile_makers)
        if made.size > TILE_ELEMENTS:
            return self._at_once(blocks, None, self.makers)
        for i in range(step, n, step):
            np.add(made, self._at_once(self._tile(blocks, i, i + step), None, self.tile_makers), out=made)
        return made

    def _tile(self, blocks: list[np.ndarray], start: int, stop: int) -> list[np.ndarray]:
        return [b if k is None else b[(slice(None),) * k + (slice(start, stop),)]
                for b, k in zip(blocks, self.axes, strict=True)]

    def _at_once(self, blocks: list[np.ndarray], out: np.ndarray | None, makers: list[Run | None]) -> np.ndarray:
        left = _made(makers[0], blocks[:self.split])
        return self.product(left, left if self.same else _made(makers[1], blocks[self.split:]), out)


def _axes_along(label: str, operands: tuple[str, str], inline: tuple[Any, ...]) -> list[int | None]:
    """For each block of the task, its axis along `label`."""
    out: list[int | None] = []
    for labels, entry in zip(operands, inline, strict=True):
        loop = labels.index(label)
        if entry is not None:
            out += [loop] if entry[0] is None else [amap[loop] for amap in entry[0].maps]
    return out


def _made(make: Run | None, blocks: list[np.ndarray]) -> np.ndarray:
    return blocks[0] if make is None else make(None, blocks)


def _matmul(x: np.ndarray, y: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """float16 by way of float32, in which NumPy's own loops add up too, but a hundred times slower than BLAS."""
    if x.dtype.char != "e" or y.dtype.char != "e":
        return _tiled(x, y, out) if _rows_collide(x, y) else np.matmul(x, y, out=out)
    made = np.matmul(x.astype(np.float32), y.astype(np.float32))
    if out is None:
        return made.astype(np.float16)
    out[...] = made
    return out


def _rows_collide(x: np.ndarray, y: np.ndarray) -> bool:
    """Whether BLAS would add to many rows of a result that begin in one set of the first cache and push each other out.

    Looks at extents alone, not at where the result is to lie: how a product is cut decides its last bits.
    """
    return (x.ndim == y.ndim == 2 and x.shape[1] >= 256 and x.shape[0] >= 128 and y.shape[1] > 0
            and y.shape[1] * y.itemsize % PAGE_BYTES == 0 and x.dtype == y.dtype and x.dtype.char in "fdFD"
            and not _transposes(x, y))


def _transposes(x: np.ndarray, y: np.ndarray) -> bool:
    """Whether `y` is `x` transposed, the same memory: NumPy then does half the work."""
    return (x.shape == y.shape[::-1] and x.strides == y.strides[::-1]
            and x.__array_interface__["data"] == y.__array_interface__["data"])


def _tiled(x: np.ndarray, y: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    """`x @ y` by tiles in scratch memory whose rows are spread over the cache: up to a tenth faster."""
    (n_rows, _), (_, n_cols) = x.shape, y.shape
    if out is None:
        out = np.empty((n_rows, n_cols), x.dtype)
    cols = min(n_cols, 2 * PAGE_BYTES // x.itemsize)
    rows = min(n_rows, RESULT_TILE_BYTES // (cols * x.itemsize))
    pad = 128 // x.itemsize  # two cache lines
    for i, j in itertools.product(range(0, n_rows, rows), range(0, n_cols, cols)):
        target = out[i:i + rows, j:j + cols]
        tile = scratch.empty("product", (rows, cols + pad), x.dtype)[:target.shape[0], :target.shape[1]]
        target[...] = np.matmul(x[i:i + rows], y[:, j:j + cols], out=tile)
    return out


class _Product:
    """One contraction; remembers the form chosen for each layout of its operands."""

    def __init__(self, a: str, b: str, c: str, dtype: np.dtype) -> None:
        self.a, self.b, self.c, self.dtype = a, b, c, dtype
        self.alone = [tuple(i for i, x in enumerate(mine) if x not in other and x not in c)
                      for mine, other in ((a, b), (b, a))]
        self.kept = ["".join(x for i, x in enumerate(mine) if i not in alone)
                     for mine, alone in zip((a, b), self.alone, strict=True)]
        self.forms: dict[Any, Form | None] = {}
        self.blas = dtype.char in "efdFD"
        letters = {x: i for i, x in enumerate(dict.fromkeys(a + b))}
        self.sublists = [[letters[x] for x in part] for part in (*self.kept, c)]

    def __call__(self, left: np.ndarray, right: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        same = left is right
        left, right = (np.add.reduce(x, axis=axes, dtype=x.dtype) if axes else x
                       for x, axes in zip((left, right), self.alone, strict=True))
        if same and not any(self.alone):
            right = left  # NumPy calls syrk when both operands are one array
        key = (left.shape, left.strides, right.shape, right.strides, None if out is None else out.strides)
        if key not in self.forms:
            self.forms[key] = self._choose(left, right, out)
        form = self.forms[key]
        if form is None:
            return self._sum_of_products(left, right, out)
        return self._multiply(left, right, out, form)

    def _sum_of_products(self, left: np.ndarray, right: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        """NumPy's own loops: better than BLAS calls on single rows, and than matmul's loops for integers."""
        la, lb, lc = self.sublists
        made = np.einsum(left, la, right, lb, lc, out=out, dtype=self.dtype, casting="unsafe")
        return np.asarray(made, self.dtype)

    def _multiply(self, left: np.ndarray, right: np.ndarray, out: np.ndarray | None, form: Form) -> np.ndarray:
        la, lb = self.kept
        if form.swap:
            la, lb, left, right = lb, la, right, left
        extent = dict(zip(la + lb, left.shape + right.shape, strict=True))
        x = _arrange(left, la, form.loops, form.rows, form.summed)
        y = _arrange(right, lb, form.loops, form.summed, form.cols)
        final = [extent[i] for i in form.made]
        if out is not None and out.dtype == self.dtype:
            target = _merged(_to_order(out, self.c, form.made), len(form.loops), len(form.rows))
            if target is not None:
                _matmul(x, y, target)
                return out
        made = _matmul(x, y).reshape(final)
        made = made.transpose([form.made.index(i) for i in self.c])
        if made.dtype != self.dtype:
            made = made.astype(self.dtype)
        if out is None:
            return made
        out[...] = made
        return out

    # -- choosing ------------------------------------------------------------------------------------------------------

    def _choose(self, left: np.ndarray, right: np.ndarray, out: np.ndarray | None) -> Form | None:
        la, lb = self.kept
        extent = dict(zip(la + lb, left.shape + right.shape, strict=True))
        batch = tuple(x for x in self.c if x in la and x in lb)
        rows = tuple(x for x in self.c if x not in lb)
        cols = tuple(x for x in self.c if x not in la)
        summed = tuple(x for x in la if x in lb and x not in self.c)
        if not self.blas and self.dtype.kind in "iu":
            return None
        thin = min(_size(rows, extent), _size(cols, extent)) == 1
        if _size(summed, extent) == 1 or (batch and thin and self.blas and _innermost(left, la) in batch):
            return None
        by_left, by_right = _by_stride(left, la), _by_stride(right, lb)
        candidates = []
        for s, r, q in itertools.product(_orders(summed, by_left, by_right), _orders(rows, by_left, self.c),
                                         _orders(cols, by_right, self.c)):
            for k, j in itertools.product(range(max(len(r), 1)), range(max(len(q), 1))):
                loops = batch + r[:k] + q[:j]
                candidates += [Form(False, loops, r[k:], s, q[j:]), Form(True, loops, q[j:], s, r[k:])]
        costs = [self._cost(form, left, right, out, extent) for form in candidates]
        return candidates[costs.index(min(costs))]

    def _cost(self, form: Form, left: np.ndarray, right: np.ndarray, out: np.ndarray | None,
              extent: dict[str, int]) -> float:
        la, lb = self.kept
        if form.swap:
            la, lb, left, right = lb, la, right, left
        cost = float(_size(form.loops, extent) - 1) * LOOP_BYTES
        for x, labels, first, second in ((left, la, form.rows, form.summed), (right, lb, form.summed, form.cols)):
            loops = [i for i in form.loops if i in labels]
            view = _merged(_to_order(x, labels, (*loops, *first, *second)), len(loops), len(first))
            if view is None or not _for_blas(view):
                cost += 2.0 * x.nbytes
        straight = form.made == tuple(self.c)
        if out is not None and not straight:
            target = _merged(_to_order(out, self.c, form.made), len(form.loops), len(form.rows))
            straight = target is not None and _for_blas(target)
        return cost + (0.0 if straight else 2.0 * _size(form.made, extent) * self.dtype.itemsize) + 0.5 * form.swap


def _size(labels: Sequence[str], extent: dict[str, int]) -> int:
    return math.prod(extent[x] for x in labels)


def _by_stride(x: np.ndarray, labels: str) -> str:
    """Labels from the slowest axis to the fastest."""
    order = sorted(range(x.ndim), key=lambda i: -abs(x.strides[i]))
    return "".join(labels[i] for i in order)


def _innermost(x: np.ndarray, labels: str) -> str:
    long = [(abs(s), i) for i, (s, n) in enumerate(zip(x.strides, x.shape, strict=True)) if n > 1]
    return labels[min(long)[1]] if long else ""


def _orders(labels: Sequence[str], *orders: str) -> list[tuple[str, ...]]:
    """The distinct orders of `labels` that follow each of `orders`."""
    return list(dict.fromkeys(tuple(x for x in order if x in labels) for order in orders))


def _to_order(x: np.ndarray, labels: str, wanted: Sequence[str]) -> np.ndarray:
    return x.transpose([labels.index(i) for i in wanted])


def _merged(x: np.ndarray, n_loops: int, n_first: int) -> np.ndarray | None:
    """A view of shape (loops.., first, second), or None where merging would copy."""
    k = n_loops + n_first
    dims = []
    for lo, hi in ((n_loops, k), (k, x.ndim)):
        n, step = 1, 0
        for i in range(hi - 1, lo - 1, -1):
            if x.shape[i] != 1:
                if n != 1 and x.strides[i] != n * step:
                    return None
                step = x.strides[i] if n == 1 else step
                n *= x.shape[i]
        dims.append(n)
    return x.reshape(*x.shape[:n_loops], *dims)


def _for_blas(x: np.ndarray) -> bool:
    """Whether a BLAS call takes the matrices of `x` as they lie."""
    (n, m), (s, t) = x.shape[-2:], x.strides[-2:]
    if n <= 1 or m <= 1:
        return True
    return (t == x.itemsize and s >= m * t) or (s == x.itemsize and t >= n * s)


def _arrange(x: np.ndarray, labels: str, loops: Sequence[str], first: Sequence[str], second: Sequence[str]) -> np.ndarray:
    """`x` as a stack of matrices (loops.., first, second); a loop that `x` lacks has extent 1."""
    mine = [i for i in loops if i in labels]
    ordered = _to_order(x, labels, (*mine, *first, *second))
    view = _merged(ordered, len(mine), len(first))
    if view is None or not _for_blas(view):
        k = len(mine)
        dims = (*ordered.shape[:k], math.prod(ordered.shape[k:k + len(first)]), math.prod(ordered.shape[k + len(first):]))
        view = np.ascontiguousarray(ordered).reshape(dims)
    if len(mine) == len(loops):
        return view
    return view[tuple(slice(None) if i in labels else None for i in loops)]

