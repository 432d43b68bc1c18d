"""What a plan will cost, without running it.

`estimate` counts with array operations what does not depend on timing (bytes in and out, busy seconds, bytes alive in
each worker's own order) and bounds the seconds from below by the busiest worker and link. `replay` (events.py) runs the
plan event by event in virtual time. `predict` takes the second for small plans on several workers.
"""

from __future__ import annotations

import numpy as np

from nums_core.ops.taskgraph import TaskGraph
from nums_core.runtime.cluster import Cluster
from nums_core.runtime.plan import Plan, Prediction
from nums_core.scheduler.events import ports, replay
from nums_core.scheduler.moves import Moves, Router, crossings

# Graphs up to this many tasks are replayed event by event when planned.
REPLAY_TASKS = 2000
# Kernels that touch no memory: their blocks are parts of their operands.
VIEWS = frozenset({"pick", "scatter.slice"})


def task_seconds(graph: TaskGraph, worker: np.ndarray, cluster: Cluster) -> np.ndarray:
    """Seconds of each task on one thread of its worker: the larger of computing and touching memory; 0 for leaves."""
    touched = graph.out_bytes + np.bincount(graph.consumer_of_edge, graph.out_bytes[graph.in_idx], graph.n_tasks)
    rates = {(w.flop_per_s, w.memory_bytes_per_s) for w in cluster.workers}
    if len(rates) == 1:
        flop_per_s, bytes_per_s = rates.pop()
        seconds = np.maximum(graph.flop / flop_per_s, touched / bytes_per_s)
    else:
        flop_rate = np.array([w.flop_per_s for w in cluster.workers])[worker]
        byte_rate = np.array([w.memory_bytes_per_s for w in cluster.workers])[worker]
        seconds = np.maximum(graph.flop / flop_rate, touched / byte_rate)
    seconds[graph.is_leaf] = 0.0
    for f in graph.families:
        if f.kernel.name in VIEWS:
            seconds[f.start:f.stop] = 0.0
    return seconds


class Liveness:
    """Peak bytes alive on each worker, for any order of one placement.

    Time is a worker's own sequence of tasks. A block lives from the task that makes it to its last reader there,
    outputs to the end, a copy from its first to its last reader at its destination; leaves are held all along. A
    block's maker is taken to have sent it off when its last local reader is done.
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
        """Bytes, shape (n_workers,)."""
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
        alive = np.cumsum(alive[:total])
        starts = self.ends - self.counts
        return self.held + np.maximum(np.maximum.reduceat(alive, starts), 0.0)

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


def estimate(graph: TaskGraph, worker: np.ndarray, cluster: Cluster, moves: Moves, peaks: np.ndarray) -> Prediction:
    """Prediction from sums alone; `peaks` as `Liveness` counts them."""
    n = cluster.n_workers
    seconds = task_seconds(graph, worker, cluster)
    threads = np.array([w.threads for w in cluster.workers])
    busy = np.bincount(worker, seconds, n)
    size = graph.out_bytes[moves.block]
    into, out = np.bincount(moves.dst, size, n), np.bincount(moves.src, size, n)
    least = max(float((busy / threads).max(initial=0.0)), float(seconds.max(initial=0.0)))
    if len(size):
        wire, sender, receiver = ports(graph, cluster, moves)
        least = max(least, float(np.bincount(sender, wire).max()), float(np.bincount(receiver, wire).max()))
    return Prediction(least, into, out, peaks, busy)


def predict(graph: TaskGraph, worker: np.ndarray, cluster: Cluster, moves: Moves, order: np.ndarray,
            peaks: np.ndarray) -> Prediction:
    """`replay` for at most `REPLAY_TASKS` tasks on several workers, else `estimate`."""
    if cluster.n_workers == 1 or graph.n_tasks > REPLAY_TASKS:
        return estimate(graph, worker, cluster, moves, peaks)
    return replay(graph, worker, cluster, moves, order, task_seconds(graph, worker, cluster))


def simulate(plan: Plan, *, exact: bool = True) -> Prediction:
    """Run a plan on its cluster in virtual time (or, `exact=False`, estimate it from sums)."""
    graph, worker, cluster = plan.graph, plan.worker, plan.cluster
    moves = Moves(plan.move_block, plan.move_src, plan.move_dst)
    if exact:
        return replay(graph, worker, cluster, moves, plan.order, task_seconds(graph, worker, cluster))
    return estimate(graph, worker, cluster, moves, Liveness(graph, worker, cluster, moves).peaks(plan.order))
