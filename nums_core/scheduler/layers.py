"""2.5D products: workers in layers, each making a part of every sum, so that operands travel less and results more.

The output blocks of a product lie on a grid of R_1 x R_2 ... workers. With c layers, c neighbouring tiles are made into
one large tile (m_x of them along axis x, prod m = c). Each of the c workers that own a part of it makes 1/c of the sums of
the whole large tile, and the partial results are added up where the layout wants them. Into every worker come

    over its operands, bytes of the part that its tile and its share of the sum read   (less what lies there already)
    + (c - 1) / c of its large tile
    square arrays of n^2 elements, k = c r^2 workers:    2 n^2 / (r c) + (c - 1) n^2 / k

Source     E. Solomonik, J. Demmel, "Communication-Optimal Parallel 2.5D Matrix Multiplication and LU Factorization
           Algorithms", Euro-Par 2011: c copies of the operands for a factor of sqrt(c) in bandwidth.
Notation   c  layers  |  R, m  workers, and tiles made into one, along the axes of the output  |  r = R / m
Departs    (1) a worker is sent what its layer reads, never a whole copy   (2) any number of axes and operands
           (3) c, and how it is dealt to the axes, is the one of least bytes by the formula among those that fit memory;
           whether it beats the other policies is for the portfolio to simulate
Checked    against the formula, and against owner-computes, in tests/scheduler/test_layers.py
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nums_core.ops.taskgraph import REDUCE, Family, TaskGraph
from nums_core.scheduler.layout import runs

# Layers that do not spare this share of the bytes of one layer are not worth a simulation.
GAIN = 0.05


@dataclass(frozen=True)
class Product:
    """A family of products and the reductions that add them up.

    Attributes
    ----------
    family : Family
        Its grid is that of the output followed by that of the summed axes.
    outer : tuple of int
        Grid of the output.
    n_sum : int
        Products of an output block.
    operands : list of (bytes of a block, output axes it depends on, blocks along the summed axes)
    out_bytes : float
        Size of a partial result.
    """

    family: Family
    outer: tuple[int, ...]
    n_sum: int
    operands: list[tuple[float, list[int], int]]
    out_bytes: float

    def bytes_in(self, tile: Sequence[int], share: int) -> float:
        """Bytes of operands that a worker reads for `tile` blocks along each output axis and `share` of the sum."""
        return sum(size * math.prod(tile[x] for x in axes) * min(share, along) for size, axes, along in self.operands)


def find(graph: TaskGraph, f: int) -> Product | None:
    """The product that reduction `f` adds up, if its inputs are one family, block after block."""
    reduction = graph.families[f]
    a, b = graph.in_ptr[reduction.start], graph.in_ptr[reduction.stop]
    if reduction.role != REDUCE or b - a <= reduction.count:
        return None
    family = graph.families[graph.family_of[graph.in_idx[a]]]
    grid, outer = family.grid, tuple(reduction.grid)
    n_sum, rest = divmod(family.count, max(reduction.count, 1))
    alike = b - a == family.count and rest == 0 and grid[:len(outer)] == outer and math.prod(grid[len(outer):]) == n_sum
    if not alike or (graph.in_idx[a:b] != np.arange(family.start, family.stop)).any():
        return None
    ptr = graph.in_ptr[family.start:family.stop + 1]
    width, rest = divmod(int(ptr[-1] - ptr[0]), family.count)
    if rest or not width or (np.diff(ptr) != width).any():
        return None
    ids = graph.in_idx[ptr[0]:ptr[-1]].reshape(*grid, width)
    operands = [_operand(graph, ids[..., k], len(outer)) for k in range(width)]
    return Product(family, outer, n_sum, operands, float(graph.out_bytes[family.start]))


def _operand(graph: TaskGraph, ids: np.ndarray, n_outer: int) -> tuple[float, list[int], int]:
    first = ids[(0,) * ids.ndim]
    moves_on = [n > 1 and ids[tuple(int(x == axis) for x in range(ids.ndim))] != first for axis, n in enumerate(ids.shape)]
    along = math.prod(n for n, moves in zip(ids.shape[n_outer:], moves_on[n_outer:], strict=True) if moves)
    return float(graph.out_bytes[first]), [x for x in range(n_outer) if moves_on[x]], along


def worker_grid(owner: np.ndarray, n_workers: int) -> tuple[list[np.ndarray], np.ndarray] | None:
    """Coordinates of every index along each axis, and the worker at each point of the worker grid, if `owner` (worker of
    each output block, in the shape of their grid) is such a grid of all workers."""
    coordinates = []
    for axis in range(owner.ndim):
        line = owner[tuple(slice(None) if x == axis else 0 for x in range(owner.ndim))]
        coordinates.append(np.unique(line, return_inverse=True)[1].reshape(-1))
    shape = tuple(int(c.max()) + 1 for c in coordinates)
    if math.prod(shape) != n_workers:
        return None
    table = np.full(shape, -1, np.int32)
    table[np.ix_(*coordinates)] = owner
    right = (table[np.ix_(*coordinates)] == owner).all() and (np.bincount(table.reshape(-1), minlength=n_workers) == 1).all()
    return (coordinates, table) if right else None


def best_merge(product: Product, shape: Sequence[int], free_bytes: float, powers: bool) -> tuple[int, ...] | None:
    """The m of least bytes into a worker, None where one layer is as good.

    `powers` allows powers of two only, whose layers are whole ranges of the fixed reduction tree.
    """
    best, merge = _bytes(product, shape, (1,) * len(shape))[0] * (1 - GAIN), None
    for m in _merges(shape):
        c = math.prod(m)
        if 1 < c <= product.n_sum and not (powers and c & (c - 1)):
            into, held = _bytes(product, shape, m)
            if into < best and held <= free_bytes:
                best, merge = into, m
    return merge


def _merges(shape: Sequence[int]) -> Iterator[tuple[int, ...]]:
    return itertools.product(*[[m for m in range(1, n + 1) if n % m == 0] for n in shape])


def _bytes(product: Product, shape: Sequence[int], m: Sequence[int]) -> tuple[float, float]:
    """Bytes into a worker, and bytes that it holds of copies and partial results."""
    c = math.prod(m)
    tile = [-(-g // (n // k)) for g, n, k in zip(product.outer, shape, m, strict=True)]
    operands = product.bytes_in(tile, -(-product.n_sum // c))
    large = product.out_bytes * math.prod(tile)
    return operands + large * (c - 1) / c, operands + large


def place(product: Product, coordinates: Sequence[np.ndarray], table: np.ndarray, m: Sequence[int]) -> np.ndarray:
    """Worker of every product: in its large tile, the one whose layer has its part of the sum.

    From one large tile to the next, workers take other layers, so that all relay about equally much.
    """
    c, n = math.prod(m), len(m)
    tiles = [(at // k).reshape([-1 if axis == x else 1 for axis in range(n)] + [1])
             for x, (at, k) in enumerate(zip(coordinates, m, strict=True))]
    turn = sum((n - x) * tile for x, tile in enumerate(tiles))
    digits = np.unravel_index((runs(product.n_sum, c) + turn) % c, tuple(m))
    at = tuple(tile * k + digit for tile, k, digit in zip(tiles, m, digits, strict=True))
    return np.ascontiguousarray(np.broadcast_to(table[at], (*product.outer, product.n_sum))).reshape(-1)


def layered(graph: TaskGraph, owner: np.ndarray, n_workers: int, free_bytes: float, powers: bool) -> dict[int, np.ndarray]:
    """Workers of the products, by family, of all products that layers make cheaper."""
    found = {}
    for f, reduction in enumerate(graph.families):
        product = find(graph, f)
        if product is None or not product.outer:
            continue
        grid = worker_grid(owner[reduction.start:reduction.stop].reshape(product.outer), n_workers)
        if grid is None:
            continue
        m = best_merge(product, grid[1].shape, free_bytes, powers)
        if m is not None:
            found[int(graph.family_of[product.family.start])] = place(product, *grid, m)
    return found
