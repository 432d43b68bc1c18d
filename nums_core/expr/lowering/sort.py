"""Lowering of sorting: a sample sort with exact block sizes, in one plan; searching in cut arrays; arg-top-k.

The sample sort (Shi and Schaeffer, "Parallel sorting by regular sampling", 1992) of one axis in m blocks, k blocks out:

    run (m)         sort every block                       -> sample (m): every s-th value
    splitters (1)   elements whose ranks are about those where the result blocks begin; off by m s / 2 at most
    piece (m k + m) what of a run lies between two splitters; where they cut it -> ranks (1): their true ranks
    merge (k)       one run from m pieces                  -> edges (k): what belongs to the neighbours
    fit (k)         the result block, of the size asked for

The stride s is such that a splitter is off by half a result block at most, so a result block touches three merged runs,
of which two only by their edges. A task reads one block, or the pieces of one: memory stays bounded by a few blocks
whatever the size of the array; every element is moved once. All other axes have extent 1 in a block (`expr.sorting`
sees to that), so every line is sorted by a chain of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nums_core.expr.grid import block_elements, offsets
from nums_core.expr.lower import Lowering, combine, position_args
from nums_core.expr.node import Expr
from nums_core.ops.taskgraph import REDUCE, AxisArgs, Kernel

POSITION_BYTES = np.dtype(np.intp).itemsize


def lines_of(ids: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    """Block ids with the given axes last, in one: shape (lines, blocks of a line)."""
    kept = [i for i in range(ids.ndim) if i not in axes]
    return ids.transpose(*kept, *axes).reshape(math.prod(ids.shape[i] for i in kept), -1)


def counted(lines: int, *rest: int) -> AxisArgs:
    """Each task's argument is its place along the axes; that along the first is left out."""
    return AxisArgs(((None,) * lines, *(tuple(range(n)) for n in rest)))


class SampleSort:
    """The families of one sample sort, in the order of the table above; each method returns ids of shape (lines, ...)."""

    def __init__(self, low: Lowering, node: Expr, lines: np.ndarray, sizes: Sequence[int], item_bytes: int) -> None:
        self.low, self.node, self.lines = low, node, lines
        self.sizes, self.item_bytes, self.n = np.asarray(sizes, float), item_bytes, int(sum(sizes))
        self.n_lines, self.m = lines.shape

    def add(self, name: str, params: tuple[Any, ...], grid: tuple[int, ...], inputs: np.ndarray,
            elements: np.ndarray | float, args: AxisArgs | None = None, flop: float = 1.0,
            module: str = "sort", together: bool = False) -> np.ndarray:
        count = math.prod(grid)
        elements = np.broadcast_to(np.asarray(elements, float), grid).reshape(-1)
        return self.low.add(self.node, Kernel(f"{module}.{name}", params), grid, inputs.reshape(count, -1),
                            elements=elements, out_bytes=elements * self.item_bytes, flop=elements * flop, args=args,
                            label=f"{module}.{name}", together=together)

    def runs(self, pairs: bool) -> np.ndarray:
        at = AxisArgs(((None,) * self.n_lines, tuple(offsets(self.sizes.astype(int).tolist())))) if pairs else None
        log = math.log2(max(self.sizes.max(initial=2.0), 2.0))
        return self.add("run", (pairs,), (self.n_lines, self.m), self.lines, self.sizes, at, 4 * log)

    def samples(self, runs: np.ndarray, stride: int) -> np.ndarray:
        return self.add("sample", (stride,), (self.n_lines, self.m), runs, self.sizes / stride)

    def splitters(self, samples: np.ndarray, stride: int, ranks: tuple[int, ...]) -> np.ndarray:
        return self.add("splitters", (stride, ranks), (self.n_lines,), samples, len(ranks), flop=100.0)

    def pieces(self, runs: np.ndarray, splitters: np.ndarray, n_out: int) -> tuple[np.ndarray, np.ndarray]:
        """The pieces, shape (lines, m, n_out), and the cuts of each run, shape (lines, m): one family, so that a run which
        was spilled is brought back once."""
        grid = (self.n_lines, self.m, n_out + 1)
        inputs = np.stack([np.broadcast_to(runs[:, :, None], grid), np.broadcast_to(splitters[:, None, None], grid)], -1)
        made = self.add("piece", (n_out,), grid, inputs, self.sizes[:, None] / n_out, counted(*grid), together=True)
        return made[:, :, :n_out], made[:, :, n_out]

    def merges(self, pieces: np.ndarray) -> np.ndarray:
        n_out = pieces.shape[2]
        return self.add("merge", (), (self.n_lines, n_out), pieces.transpose(0, 2, 1), self.n / n_out,
                        flop=4 * math.log2(max(self.m, 2)))

    def ranks(self, cuts: np.ndarray, n_out: int) -> np.ndarray:
        return self.add("ranks", (), (self.n_lines,), cuts, n_out + 1)

    def edges(self, merged: np.ndarray, ranks: np.ndarray, wanted: tuple[int, ...]) -> np.ndarray:
        inputs = np.stack([merged, np.broadcast_to(ranks[:, None], merged.shape)], axis=-1)
        return self.add("edges", (wanted,), merged.shape, inputs, self.n / merged.shape[1] / 4,
                        counted(*merged.shape))


def stride_for(smallest: int, m: int) -> int:
    """Distance of samples such that a splitter is off by less than half of the smallest result block."""
    return max(1, smallest // (2 * m + 2))


def _sort(low: Lowering, node: Expr) -> np.ndarray:
    """Params: the axis, and 0 for the sorted values or 1 for their positions."""
    (x,), (axis, part) = node.args, node.params
    pairs = part == 1
    wanted = (*offsets(node.chunks[axis]), node.shape[axis])
    n_out = len(node.chunks[axis])
    item = x.dtype.itemsize + (POSITION_BYTES if pairs else 0)
    sort = SampleSort(low, node, lines_of(low.of(x), [axis]), x.chunks[axis], item)
    stride = stride_for(min(node.chunks[axis][:-1], default=node.shape[axis]), sort.m)
    runs = sort.runs(pairs)
    splitters = sort.splitters(sort.samples(runs, stride), stride, wanted[1:-1])
    pieces, cuts = sort.pieces(runs, splitters, n_out)
    ranks = sort.ranks(cuts, n_out)
    merged = sort.merges(pieces)
    edges = sort.edges(merged, ranks, wanted)
    before, after = edges[:, [0, *range(n_out - 1)]], edges[:, [*range(1, n_out), n_out - 1]]
    inputs = np.stack([merged, before, after, np.broadcast_to(ranks[:, None], merged.shape)], axis=-1)
    others = tuple(n for i, n in enumerate(node.grid) if i != axis)
    inputs = np.moveaxis(inputs.reshape(*others, n_out, 4), -2, axis)
    return low.add(node, Kernel("sort.fit", (wanted, part, axis, node.ndim)), node.grid, inputs.reshape(-1, 4),
                   args=AxisArgs(tuple(tuple(range(n)) for n in node.grid)), label="sort.fit")


def _search(low: Lowering, node: Expr) -> np.ndarray:
    """Positions in a sorted array: the sum over its blocks of the positions in each."""
    (a, v), (side,) = node.args, node.params
    blocks, values = low.of(a), low.of(v)
    grid = (*v.grid, len(blocks))
    inputs = np.stack([np.broadcast_to(blocks, grid).reshape(-1),
                       np.broadcast_to(values[..., None], grid).reshape(-1)], axis=1)
    elements = np.broadcast_to(block_elements(v.chunks)[..., None], grid).reshape(-1)
    found = low.add(node, Kernel("sort.search", (side,)), grid, inputs, elements=elements, flop=40 * elements,
                    label="searchsorted")
    if len(blocks) == 1:
        return found.reshape(v.grid)
    return combine(low, node, found, (v.ndim,), ("sum", (), ()), ((), None), "searchsorted.sum")


def _argtopk(low: Lowering, node: Expr) -> np.ndarray:
    (x,), (k, axis) = node.args, node.params
    ids = low.of(x)
    state = block_elements(tuple(tuple(min(n, abs(k)) for n in c) if i == axis else c for i, c in enumerate(x.chunks)))
    each = x.dtype.itemsize + POSITION_BYTES
    best = low.add(node, Kernel("sort.argbest", (k, axis)), x.grid, ids.reshape(-1, 1), elements=state.reshape(-1),
                   out_bytes=state.reshape(-1) * each, flop=60 * block_elements(x.chunks).reshape(-1),
                   args=position_args(x.chunks), label="argtopk")
    lines = np.moveaxis(best, axis, -1).reshape(math.prod(node.grid), -1)
    return low.add(node, Kernel("sort.argbest_tree", ((k, axis), True)), node.grid, lines, role=REDUCE,
                   out_bytes=block_elements(node.chunks).reshape(-1) * each, label="argtopk.tree")


LOWER: dict[str, Callable[[Lowering, Expr], np.ndarray]] = {"sort": _sort, "search": _search, "argtopk": _argtopk}
