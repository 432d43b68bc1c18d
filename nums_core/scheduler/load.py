"""Loads of a placement: bytes held, received and sent by every worker, and the objective F over them.

    R[mem | in | out][worker]      F = max R[mem] + max R[in] + max R[out]

Source     NumS (arXiv 2206.14276), cost model of LSHS.
Notation   R  loads  |  lam  price of a byte moved inside a node, of one moved between nodes
Departs    bytes, not elements; copies are charged once to each worker that gets one; `lam` follows from the links; where
           workers are unlike, R[mem] counts a byte on a weak worker more than one on a strong worker (`shares.burden`).
Checked    incremental (`Loads`, in lshs.py) against whole-graph (`account`) in tests/scheduler/test_load.py
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nums_core.ops.taskgraph import TaskGraph
from nums_core.runtime.cluster import Cluster
from nums_core.scheduler.moves import Moves
from nums_core.scheduler.shares import burden


class Loads(NamedTuple):
    """Loads of all workers: float64 arrays, shape (n_workers,), bytes. `moved` is the plain sum over all moves."""

    mem: np.ndarray
    into: np.ndarray
    out: np.ndarray
    moved: float

    @property
    def F(self) -> float:  # noqa: N802  -- the paper's name
        return float(self.mem.max(initial=0.0) + self.into.max(initial=0.0) + self.out.max(initial=0.0))


def price_inside_node(cluster: Cluster) -> float:
    """`lam`: how much dearer the network is than a move inside a node, from the links' rates."""
    return min(1.0, cluster.network.bytes_per_s / cluster.local.bytes_per_s)


def account(graph: TaskGraph, worker: np.ndarray, moves: Moves, cluster: Cluster, lam: float | None = None) -> Loads:
    """Loads of a finished placement."""
    n = cluster.n_workers
    lam = price_inside_node(cluster) if lam is None else lam
    mem = np.bincount(worker, graph.out_bytes, n)
    into: np.ndarray = np.zeros(n)
    out, moved = into, 0.0
    if len(moves.block):
        size = graph.out_bytes[moves.block]
        cost = np.where(cluster.node_of[moves.src] == cluster.node_of[moves.dst], lam * size, size)
        mem += np.bincount(moves.dst, size, n)
        into, out, moved = np.bincount(moves.dst, cost, n), np.bincount(moves.src, cost, n), float(size.sum())
    heavier = burden(cluster)
    return Loads(mem if heavier is None else mem * heavier, into, out, moved)
