"""Which worker owns block (i, j, ...) of a grid: the hierarchical data layout.

Source     NumS (arXiv 2206.14276): device grids, cyclic and packed layouts.
Notation   g_i  blocks along axis i  |  G_i  workers along axis i, prod(G) = number of workers
Departs    (1) the worker grid is factorised for each block grid, not chosen by the user (it may be, `worker_grid`);
           (2) packed runs are the ranges of the reduction tree (`ops.tree.bounds`) where G_i is a power of two, so that
               a reduction crosses between workers k - 1 times;
           (3) packed factorises nodes first and the workers of a node after, so that a node owns a tile, not a strip;
           (4) unlike workers get blocks in proportion to `shares`, along one axis after the other.
Checked    against the reference's example and by brute force in tests/scheduler/test_layout.py
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from nums_core.errors import ConfigError
from nums_core.ops import tree
from nums_core.runtime.cluster import Cluster

KINDS = ("packed", "cyclic")

# Blocks are dealt out one by one where a factorised grid would make the fullest worker this many times fuller, or
# leave more than so many workers idle.
_IMBALANCE, _IDLE = 1.5, 0.25


def _prime_factors(n: int) -> list[int]:
    """Largest first: ``12`` -> ``[3, 2, 2]``."""
    factors, p = [], 2
    while p * p <= n:
        while n % p == 0:
            factors.append(p)
            n //= p
        p += 1
    return ([n] if n > 1 else []) + factors[::-1]


@lru_cache(maxsize=4096)
def factorise(grid: tuple[int, ...], n: int) -> tuple[int, ...]:
    """`n` workers as a grid over the axes of `grid`: each prime goes to the axis with most blocks a worker left."""
    shape, left = [1] * len(grid), [float(g) for g in grid]
    for p in _prime_factors(n) if grid else []:
        axis = left.index(max(left))
        shape[axis] *= p
        left[axis] /= p
    return tuple(shape)


def runs(g: int, workers: int) -> np.ndarray:
    """Coordinate of each of `g` blocks in contiguous runs over `workers`."""
    if workers > g:
        return np.arange(g) * workers // max(g, 1)
    if workers & (workers - 1) == 0:
        return np.repeat(np.arange(workers), np.diff(tree.bounds(g, workers.bit_length() - 1)))
    return np.repeat(np.arange(workers), np.diff(_balanced_edges(g, workers)))


@lru_cache(maxsize=4096)
def _balanced_edges(g: int, workers: int) -> np.ndarray:
    """Borders of runs of at most ceil(g / workers) blocks, at the coarsest borders of the reduction tree that allow it:
    where blocks cannot be dealt evenly, what is left over serves to let fewer ranges of the tree span workers."""
    most = -(-g // workers)
    edges = [0]
    for k in range(workers - 1, 0, -1):  # runs still to come after this border
        low, high = max(edges[-1] + 1, g - k * most), min(edges[-1] + most, g - k)
        edges.append(_coarsest_border(g, low, high))
    return np.array([*edges, g])


def _coarsest_border(g: int, low: int, high: int) -> int:
    """The border in low .. high that halving the range 0 .. g meets first."""
    begin, end = 0, g
    while True:
        middle = begin + (end - begin) // 2
        if low <= middle <= high:
            return middle
        begin, end = (middle, end) if middle < low else (begin, middle)


def _strides(shape: tuple[int, ...]) -> list[int]:
    return [math.prod(shape[i + 1:]) for i in range(len(shape))]


class Layout:
    """Positions of blocks on the workers of a cluster.

    Parameters
    ----------
    cluster : Cluster
    kind : "packed" or "cyclic"
        Contiguous runs of blocks, or blocks dealt round-robin: first over nodes, then over the workers of a node.
    worker_grid : tuple of int, optional
        One worker grid for all arrays, as in NumS: axes of the worker grid that an array lacks count as 0, axes of the
        array beyond it are ignored. Default: factorised for each block grid.
    shares : float64 array, shape (n_workers,), optional
        Part of the blocks that each worker gets, where they are not to be alike; see `scheduler.shares`.
    """

    def __init__(self, cluster: Cluster, kind: str = "packed", worker_grid: tuple[int, ...] | None = None,
                 shares: np.ndarray | None = None) -> None:
        if kind not in KINDS:
            raise ConfigError(f"{kind!r} is not a layout; write one of {', '.join(map(repr, KINDS))}")
        if worker_grid is not None and math.prod(worker_grid) != cluster.n_workers:
            raise ConfigError(f"worker grid {worker_grid} has {math.prod(worker_grid)} places and the cluster "
                              f"{cluster.n_workers} workers; they must be as many")
        self.cluster, self.kind, self.worker_grid, self.shares = cluster, kind, worker_grid, shares
        self._known: dict[tuple[int, ...], np.ndarray] = {}

    def workers(self, grid: tuple[int, ...]) -> np.ndarray:
        """Worker of each block: int32, shape (prod(grid),), C order."""
        found = self._known.get(grid)
        if found is None:
            found = self._known[grid] = self._make(grid)
            found.setflags(write=False)
        return found

    def _make(self, grid: tuple[int, ...]) -> np.ndarray:
        n = self.cluster.n_workers
        if n == 1 or math.prod(grid) <= 1:
            first = -1 if not n else 0 if self.shares is None else int(np.argmax(self.shares))
            return np.full(math.prod(grid), first, np.int32)
        shape = self.worker_grid or factorise(grid, n)
        if self.shares is not None and self.worker_grid is None:
            return self._in_proportion(grid, shape, self.shares)
        if self.worker_grid is None and _is_poor(grid, shape):
            return self._deal(math.prod(grid))
        if self.kind == "cyclic":
            return self._cyclic(grid, shape)
        return self._packed(grid, shape)

    def _in_proportion(self, grid: tuple[int, ...], shape: tuple[int, ...], shares: np.ndarray) -> np.ndarray:
        """Blocks by `shares`: tiles, or runs in C order where tiles would overfill somebody."""
        count = math.prod(grid)
        if self.kind == "cyclic":  # each worker comes round at a pace of its own
            each = np.bincount(_weighted((count,), (len(shares),), shares), minlength=len(shares))
            turns = np.concatenate([(np.arange(c) + 0.5) / c for c in each.tolist() if c])
            return np.repeat(np.arange(len(shares), dtype=np.int32), each)[np.argsort(turns, kind="stable")]
        tiles = _weighted(grid, shape, shares).reshape(-1)
        fullest = (np.bincount(tiles, minlength=len(shares)) / np.maximum(shares * count, 1.0)).max()
        return (tiles if fullest < _IMBALANCE else _weighted((count,), (len(shares),), shares)).astype(np.int32)

    def _deal(self, count: int) -> np.ndarray:
        """Blocks in C order over workers in order, where no factorisation is balanced."""
        n = self.cluster.n_workers
        if self.kind == "cyclic":
            return self._node_first()[np.arange(count) % n]
        return runs(count, n).astype(np.int32)

    def _node_first(self) -> np.ndarray:
        """Workers sorted by (position in the node, node): neighbours in this list lie on different nodes."""
        node = self.cluster.node_of
        position = np.arange(len(node)) - np.searchsorted(node, node)
        return np.lexsort((node, position)).astype(np.int32)

    def _cyclic(self, grid: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
        index = _outer_sum([np.arange(g) % w * s for g, w, s in zip(grid, shape, _strides(shape))], grid)
        return self._node_first()[index]

    def _packed(self, grid: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
        """Runs along each axis; see `Departs (3)`."""
        n_nodes, n = self.cluster.n_nodes, self.cluster.n_workers
        if self.worker_grid is not None or n_nodes * self.cluster.workers_per_node != n:
            parts = [runs(g, w) * s for g, w, s in zip(grid, shape, _strides(shape))]
            return _outer_sum(parts, grid).astype(np.int32)
        nodes, local = _nested(grid, n_nodes, n // n_nodes)
        parts = []
        for g, a, b, s, t in zip(grid, nodes, local, _strides(nodes), _strides(local), strict=True):
            run = runs(g, a * b)
            parts.append(run // b * s * (n // n_nodes) + run % b * t)
        return _outer_sum(parts, grid).astype(np.int32)


def _weighted(grid: tuple[int, ...], shape: tuple[int, ...], weights: np.ndarray) -> np.ndarray:
    """Worker of each block: runs along the first axis by the weights of all workers behind each place there, and inside
    each run along the next axis by theirs."""
    if not shape:
        return np.zeros(grid, np.int64)
    behind = weights.reshape(shape[0], -1)
    edges = np.rint(np.cumsum(behind.sum(axis=1)) / weights.sum() * grid[0]).astype(np.int64)
    runs = np.diff(edges, prepend=0)
    inner = [_weighted(grid[1:], shape[1:], w) + k * behind.shape[1] for k, w in enumerate(behind)]
    return np.concatenate([np.broadcast_to(tile, (n, *grid[1:])) for tile, n in zip(inner, runs.tolist(), strict=True)])


def _is_poor(grid: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    count, n = math.prod(grid), math.prod(shape)
    fullest = math.prod(-(-g // w) for g, w in zip(grid, shape, strict=True))
    used = math.prod(map(min, grid, shape))
    return fullest >= _IMBALANCE * -(-count // n) or used < (1 - _IDLE) * min(count, n)


def _nested(grid: tuple[int, ...], n_nodes: int, per_node: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Grid of nodes, and grid of workers inside the tile of one node."""
    nodes = factorise(grid, n_nodes)
    tile = tuple(-(-g // a) for g, a in zip(grid, nodes, strict=True))
    return nodes, factorise(tile, per_node)


def _outer_sum(parts: list[np.ndarray], grid: tuple[int, ...]) -> np.ndarray:
    """`sum_i parts[i][index_i]` at every index of `grid`, flat; axes without a part add nothing."""
    total = np.zeros((1,) * len(grid), np.int64)
    for axis, part in enumerate(parts):
        total = total + part.reshape((-1,) + (1,) * (len(grid) - axis - 1))
    return np.broadcast_to(total, grid).reshape(-1)
