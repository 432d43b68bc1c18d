"""What workers that outgrow their memory write to disk and read back, as `runtime.store.BudgetStore` will do it.

A worker runs its tasks in the plan's order. Where operands and result of the next task do not fit beside what is alive, the
block whose next use is furthest goes first (Belady's rule); one that comes back keeps its file, so it is written once.
The seconds go to the tasks that wait for the disk, so that the simulators need to know nothing of it.

Leaves take no part: they are the user's arrays, or blocks that an earlier run left behind. Nor do copies from other
workers, which lie in shared memory.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

import numpy as np

from nums_core.ops.taskgraph import TaskGraph
from nums_core.runtime.cluster import Cluster
from nums_core.scheduler.liveness import Liveness

# Up to this many tasks spilling is counted block by block (some 5 us a task), beyond it is estimated from sums.
COUNTED_TASKS = 20_000


@dataclass
class Spill:
    """Bytes that each worker writes and reads back.

    Attributes
    ----------
    written, read : float64 arrays, shape (n_workers,), bytes
    seconds : float64 array, shape (n,), s
        What that adds to each task.
    refused : bool
        A worker cannot hold operands and result of one of its tasks.
    """

    written: np.ndarray
    read: np.ndarray
    seconds: np.ndarray
    refused: bool = False

    @classmethod
    def none(cls, graph: TaskGraph, n_workers: int) -> Spill:
        return cls(np.zeros(n_workers), np.zeros(n_workers), np.zeros(graph.n_tasks))

    @property
    def costs(self) -> bool:
        """Whether the plan does not simply fit."""
        return self.refused or bool(self.written.any())

    @property
    def bytes(self) -> np.ndarray:
        """Through the disk, both ways: float64, shape (n_workers,)."""
        return self.written + self.read


def spilled(live: Liveness, cluster: Cluster, order: np.ndarray, peaks: np.ndarray, keep: bool = True) -> Spill:
    """What a plan spills in this order; `peaks` as `Liveness` counts them.

    `keep`: results stay on the workers; otherwise they are written to memory that is not the run's.
    """
    graph, worker = live.graph, live.worker
    out = Spill.none(graph, live.n)
    over = peaks - live.held > cluster.memory_bytes
    if not over.any():
        return out
    if graph.n_tasks > COUNTED_TASKS:
        return _estimated(live, cluster, order, out)
    sequence = order[~graph.is_leaf[order]]
    for w in np.flatnonzero(over).tolist():
        mine = sequence[worker[sequence] == w]
        own = np.where(graph.is_leaf | (worker != w) | (graph.is_output & (not keep)), 0.0, graph.out_bytes)
        store = _Store(graph, mine, own, float(cluster.memory_bytes[w]))
        moved = np.array([store.run(k, t) for k, t in enumerate(mine.tolist())]).reshape(-1, 2)
        out.written[w], out.read[w] = moved.sum(axis=0)
        out.seconds[mine] = moved.sum(axis=1) / cluster.workers[w].disk_bytes_per_s
        out.refused = out.refused or store.refused
    return out


def _estimated(live: Liveness, cluster: Cluster, order: np.ndarray, out: Spill) -> Spill:
    """At least what must leave goes, and comes back, at an even pace over the tasks of its worker."""
    out.written = live.overflow(order, cluster.memory_bytes)
    out.read = out.written.copy()
    disk = np.array([w.disk_bytes_per_s for w in cluster.workers])
    tasks = np.bincount(live.worker[~live.graph.is_leaf], minlength=live.n)
    out.seconds = (out.bytes / disk / np.maximum(tasks, 1))[live.worker]
    out.seconds[live.graph.is_leaf] = 0.0
    return out


class _Store:
    """A worker's blocks in memory and on disk, by size; `run` takes it through one task after another."""

    def __init__(self, graph: TaskGraph, tasks: np.ndarray, own_bytes: np.ndarray, budget_bytes: float) -> None:
        self.budget_bytes, self.kept = budget_bytes, graph.is_output
        self.size: list[float] = own_bytes.tolist()
        self.inputs = [list(dict.fromkeys(graph.inputs(t).tolist())) for t in tasks.tolist()]
        self.uses: dict[int, list[int]] = {}  # of each block, the last one first
        for k in range(len(tasks) - 1, -1, -1):
            for b in self.inputs[k]:
                self.uses.setdefault(b, []).append(k)
        self.here: set[int] = set()
        self.on_disk: set[int] = set()
        self.victims: list[tuple[float, int]] = []
        self.live = 0.0
        self.refused = False

    def run(self, k: int, t: int) -> tuple[float, float]:
        """Bytes written and read back for the `k`-th task, `t`."""
        operands, size = self.inputs[k], self.size
        read = sum(size[b] for b in operands if b not in self.here)
        self.refused = self.refused or size[t] + sum(size[b] for b in operands) > self.budget_bytes
        written = self._make_room(size[t] + read, operands)
        self.live += size[t] + read
        self.here.update(operands, (t,))
        for b in operands:
            self.uses[b].pop()
        for b in (*operands, t):
            if not self.uses.get(b) and not self.kept[b]:
                self.here.discard(b)
                self.live -= size[b]
            elif size[b]:
                heapq.heappush(self.victims, (-self._next_use(b), b))
        return written, read

    def _next_use(self, b: int) -> float:
        ahead = self.uses.get(b)
        return ahead[-1] if ahead else math.inf

    def _make_room(self, need: float, keep: list[int]) -> float:
        """Let blocks go, furthest use first; bytes that are written."""
        written, passed = 0.0, []
        while self.live + need > self.budget_bytes and self.victims:
            entry = heapq.heappop(self.victims)
            use, b = -entry[0], entry[1]
            if b not in self.here or use != self._next_use(b):
                continue  # gone, or offered again with a later use
            if b in keep:
                passed.append(entry)
                continue
            self.here.discard(b)
            self.live -= self.size[b]
            written += self.size[b] if b not in self.on_disk else 0.0
            self.on_disk.add(b)
        for entry in passed:
            heapq.heappush(self.victims, entry)
        return written
