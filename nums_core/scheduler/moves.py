"""Which blocks travel, and from where: each block to each worker that needs it, once, relayed along a tree.

The first copy that reaches a node crosses the network, the others of that node are taken from it; nodes pass the block
on in a binomial tree, so a block wanted everywhere costs its maker log2(nodes) sends instead of nodes - 1, and the
bytes moved stay the least possible. Destinations are numbered from the maker on, so that on a regular grid all workers
relay equally much.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np

from nums_core.ops.taskgraph import TaskGraph
from nums_core.runtime.cluster import Cluster

SOURCES = ("relay", "first")


class Moves(NamedTuple):
    """`block[m]` goes from `src[m]` to `dst[m]`; the moves of a block stand together, a relay after what it relays."""

    block: np.ndarray
    src: np.ndarray
    dst: np.ndarray

    @classmethod
    def none(cls) -> Moves:
        return cls(np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int32))


class Router:
    """Turns (block, destination) into numbers that sort in the order of relaying, and back."""

    def __init__(self, cluster: Cluster) -> None:
        self.node = cluster.node_of.astype(np.int64)
        self.position = np.arange(len(self.node)) - np.searchsorted(self.node, self.node)
        self.n_nodes, self.width = cluster.n_nodes, cluster.workers_per_node
        self.bits = max(self.n_nodes * self.width - 1, 1).bit_length()

    @cached_property
    def table(self) -> np.ndarray:
        """Worker at (node, position), -1 where there is none."""
        table = np.full((self.n_nodes, self.width), -1, np.int32)
        table[self.node, self.position] = np.arange(len(self.node))
        return table

    def key(self, block: np.ndarray, maker: np.ndarray, dst: np.ndarray) -> np.ndarray:
        far = _round(self.node[dst] - self.node[maker], self.n_nodes)
        if self.width == 1:
            return block << self.bits | far
        return block << self.bits | far * self.width + _round(self.position[dst] - self.position[maker], self.width)

    def block(self, key: np.ndarray) -> np.ndarray:
        return key >> self.bits

    def far(self, key: np.ndarray) -> np.ndarray:
        """Nodes from the maker's node to the destination's, counted round the cluster."""
        rest = key & ((1 << self.bits) - 1)
        return rest if self.width == 1 else rest // self.width

    def dst(self, key: np.ndarray, maker: np.ndarray) -> np.ndarray:
        far = self.far(key)
        near = (key & ((1 << self.bits) - 1)) - far * self.width
        return self.table[_round(self.node[maker] + far - self.n_nodes, self.n_nodes),
                          _round(self.position[maker] + near - self.width, self.width)]


def _round(difference: np.ndarray, n: int) -> np.ndarray:
    """`difference % n` for differences from -n to n - 1, without the division."""
    return difference + n * (difference < 0)


class Crossings(NamedTuple):
    """Edges whose block is made on another worker than it is read; `key` names the move that serves each."""

    edge: np.ndarray
    key: np.ndarray


def crossings(graph: TaskGraph, worker: np.ndarray, router: Router) -> Crossings:
    maker = worker[graph.in_idx]
    reader = np.repeat(worker, np.diff(graph.in_ptr))
    edge = np.flatnonzero(maker != reader)
    return Crossings(edge, router.key(graph.in_idx[edge], maker[edge], reader[edge]))


def list_moves(graph: TaskGraph, worker: np.ndarray, cluster: Cluster, source: str = "relay") -> Moves:
    """All moves of a placement, sorted by block.

    `source="first"` sends every copy from the maker, as NumS does.
    """
    router = Router(cluster)
    keys = crossings(graph, worker, router).key
    if not len(keys):
        return Moves.none()
    keys.sort()
    keys = keys[np.r_[True, keys[1:] != keys[:-1]]]
    block = router.block(keys)
    maker = worker[block]
    dst = router.dst(keys, maker)
    src = maker if source == "first" else _relays(block, router.far(keys), maker, dst)
    return Moves(block, src, dst)


def _relays(block: np.ndarray, far: np.ndarray, maker: np.ndarray, dst: np.ndarray) -> np.ndarray:
    """Source of each move: the maker, or a destination earlier in the list."""
    new_block = np.r_[True, block[1:] != block[:-1]]
    if new_block.all():
        return maker
    group = new_block | np.r_[True, far[1:] != far[:-1]]  # first copy that reaches a node
    src = maker
    if not group.all():
        group_of = np.cumsum(group) - 1
        home = far[group] == 0  # the maker's own node: it leads, not its first copy
        src = _binomial(group, maker, dst, np.where(home, maker[group], dst[group]), home[group_of])
    lead = np.flatnonzero(group & (far > 0))
    if len(lead):
        starts = np.r_[True, block[lead][1:] != block[lead][:-1]]
        src = src.copy()
        src[lead] = _binomial(starts, maker[lead], dst[lead], maker[lead][starts], True)
    return src


def _binomial(start: np.ndarray, maker: np.ndarray, dst: np.ndarray, leader: np.ndarray,
              outside: np.ndarray | bool) -> np.ndarray:
    """Parents in a binomial tree over each group: rank r is served by rank r less its highest bit; rank 0 leads.

    Where `outside`, the leader is not in the list, and the members are ranks 1, 2, ...; else the first member leads
    (its own source is left as the maker).
    """
    group_of = np.cumsum(start) - 1
    first = np.flatnonzero(start)[group_of]
    rank = np.arange(len(dst)) - first + outside
    parent = rank - (1 << np.maximum(np.frexp(rank.astype(float))[1] - 1, 0))
    src = np.where(parent <= 0, leader[group_of], dst[np.maximum(first + parent - outside, 0)])
    return np.where(rank == 0, maker, src).astype(np.int32)
