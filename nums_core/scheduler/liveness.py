"""How much is alive on each worker, for any order of one placement.

Time is a worker's own sequence of tasks. A block lives from the task that makes it to its last reader there, outputs to
the end, a copy from its first to its last reader at its destination; leaves are held all along. A block's maker is taken
to have sent it off when its last local reader is done.
"""

from __future__ import annotations

import numpy as np

from nums_core.ops.taskgraph import TaskGraph
from nums_core.runtime.cluster import Cluster
from nums_core.scheduler.moves import Moves, Router, crossings


class Liveness:
    """Peak bytes alive on each worker.

    Attributes
    ----------
    held : float64 array, shape (n_workers,), bytes
        Leaves.
    """

    def __init__(self, graph: TaskGraph, worker: np.ndarray, cluster: Cluster, moves: Moves) -> None:
        self.graph, self.worker, self.moves, self.n = graph, worker, moves, cluster.n_workers
        self.weight = np.where(graph.is_leaf, 0.0, graph.out_bytes)
        self.counts = np.bincount(worker, minlength=self.n) if self.n > 1 else np.array([graph.n_tasks])
        self.ends = np.cumsum(self.counts + 1) - 1  # one slot more a worker, in which everything is gone
        self.held = np.bincount(worker, graph.out_bytes - self.weight, self.n)
        if len(moves.block):
            self.cross, self.move_of = _served_by(graph, worker, cluster, moves)
            self.local = np.ones(len(graph.in_idx), bool)
            self.local[self.cross] = False

    def peaks(self, order: np.ndarray) -> np.ndarray:
        """Bytes, leaves included: float64, shape (n_workers,)."""
        return self.held + np.maximum(np.maximum.reduceat(self.alive(order), self.ends - self.counts), 0.0)

    def overflow(self, order: np.ndarray, memory_bytes: np.ndarray) -> np.ndarray:
        """Bytes that must leave each worker, now and again, for it to keep to its memory; leaves not counted. float64,
        shape (n_workers,)."""
        over = np.maximum(self.alive(order) - np.repeat(memory_bytes, self.counts + 1), 0.0)
        return np.add.reduceat(np.maximum(np.diff(over, prepend=0.0), 0.0), self.ends - self.counts)

    def alive(self, order: np.ndarray) -> np.ndarray:
        """Bytes during each task, leaves left out; the sequences of the workers one after the other, each with one slot
        more in which everything is gone."""
        if self.n == 1:
            slot = np.empty(len(order), np.int64)
            slot[order] = np.arange(len(order))
        else:
            slot = self._slots(order)
        total = int(self.ends[-1]) + 1
        reader = slot[self.graph.consumer_of_edge]
        last = self._last_use(slot, reader)
        alive = np.bincount(slot, self.weight, total + 1) - np.bincount(last + 1, self.weight, total + 1)
        if len(self.moves.block):
            alive += self._copies(reader, total)
        return np.cumsum(alive[:total])

    def _slots(self, order: np.ndarray) -> np.ndarray:
        """Place of each task in its worker's sequence, the sequences one after the other."""
        of_order = self.worker[order]
        by_worker = np.argsort(of_order.astype(np.int16) if self.n < 2**15 else of_order, kind="stable")
        slot = np.empty(len(order), np.int64)
        slot[order[by_worker]] = np.arange(len(order)) + np.repeat(np.arange(self.n), self.counts)
        return slot

    def _last_use(self, slot: np.ndarray, reader: np.ndarray) -> np.ndarray:
        last = slot.copy()
        if len(self.moves.block):
            np.maximum.at(last, self.graph.in_idx[self.local], reader[self.local])
        else:
            np.maximum.at(last, self.graph.in_idx, reader)
        for f in self.graph.outputs:
            ids = slice(self.graph.families[f].start, self.graph.families[f].stop)
            last[ids] = self.ends[self.worker[ids]] - 1
        return last

    def _copies(self, reader: np.ndarray, total: int) -> np.ndarray:
        first = np.full(len(self.moves.block), total, np.int64)
        last = np.zeros(len(self.moves.block), np.int64)
        np.minimum.at(first, self.move_of, reader[self.cross])
        np.maximum.at(last, self.move_of, reader[self.cross])
        size = self.graph.out_bytes[self.moves.block]
        return np.bincount(first, size, total + 1) - np.bincount(last + 1, size, total + 1)


def _served_by(graph: TaskGraph, worker: np.ndarray, cluster: Cluster, moves: Moves) -> tuple[np.ndarray, np.ndarray]:
    """Crossing edges, and the move that serves each."""
    router = Router(cluster)
    edge, key = crossings(graph, worker, router)
    by_key = np.argsort(key)  # equal keys in any order will do
    key = key[by_key]
    move_of = np.empty(len(key), np.int64)
    move_of[by_key] = np.cumsum(np.r_[False, key[1:] != key[:-1]])
    return edge, np.argsort(router.key(moves.block, worker[moves.block], moves.dst))[move_of]
