"""Runs a plan event by event in virtual time: the simulator of executors, links and memories.

The model: a worker starts, on any free thread, the ready task that stands first in the plan's order. A block is sent
as soon as it exists, in the plan's order of moves. Nodes have one port each way to the network, workers one each way
inside their node; a port passes one block at a time, first come, first served, and a sender does not wait for a busy
receiver. A result takes memory from the start of its task, a copy from its arrival; both are freed after the last local
reader and the last sending on. Output blocks and leaves stay. Leaves are there at time 0.
"""

from __future__ import annotations

import heapq

import numpy as np

from nums_core.ops.taskgraph import TaskGraph
from nums_core.runtime.cluster import Cluster
from nums_core.runtime.plan import Prediction
from nums_core.scheduler.moves import Moves

_TASK, _ARRIVAL = 0, 1


def ports(graph: TaskGraph, cluster: Cluster, moves: Moves) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Seconds on the wire, sending port and receiving port of each move.

    Ports 0 .. n_workers - 1 are those inside nodes, by worker; the n_nodes after them lead to the network, by node.
    """
    node = cluster.node_of
    same = node[moves.src] == node[moves.dst]
    size = graph.out_bytes[moves.block]
    wire = np.where(same, cluster.local.seconds(size), cluster.network.seconds(size))
    n = cluster.n_workers
    return wire, np.where(same, moves.src, n + node[moves.src]), np.where(same, moves.dst, n + node[moves.dst])


class Replay:
    """State of a run; `run` returns what happened."""

    def __init__(self, graph: TaskGraph, worker: np.ndarray, cluster: Cluster, moves: Moves, order: np.ndarray,
                 seconds: np.ndarray) -> None:
        self.n, self.n_tasks = cluster.n_workers, graph.n_tasks
        self.worker: list[int] = worker.tolist()
        self.seconds: list[float] = seconds.tolist()
        self.size: list[float] = graph.out_bytes.tolist()
        self.order: list[int] = order.tolist()
        position = np.empty(graph.n_tasks, np.int64)
        position[order] = np.arange(graph.n_tasks)
        self.position: list[int] = position.tolist()
        self.is_leaf: list[bool] = graph.is_leaf.tolist()
        self.kept: list[bool] = (graph.is_leaf | graph.is_output).tolist()
        self.free = [w.threads for w in cluster.workers]
        self.ready: list[list[int]] = [[] for _ in cluster.workers]
        self.waiting: list[int] = np.diff(graph.in_ptr).tolist()
        self.events: list[tuple[float, int, int, int]] = []
        self.alive, self.peak, self.busy = [0.0] * self.n, [0.0] * self.n, [0.0] * self.n
        self._link(graph, cluster, moves)

    def _link(self, graph: TaskGraph, cluster: Cluster, moves: Moves) -> None:
        """Who reads a block on which worker, and where it is sent from there."""
        self.readers: dict[tuple[int, int], list[int]] = {}
        for t, b in zip(graph.consumer_of_edge.tolist(), graph.in_idx.tolist(), strict=True):
            self.readers.setdefault((b, self.worker[t]), []).append(t)
        self.inputs: list[list[int]] = [[] for _ in range(graph.n_tasks)]
        for (b, _), tasks in self.readers.items():
            for t in tasks:
                self.inputs[t].append(b)
        self.uses = {key: len(tasks) for key, tasks in self.readers.items()}
        self.sends: dict[tuple[int, int], list[int]] = {}
        wire, out, into = ports(graph, cluster, moves)
        self.wire: list[float] = wire.tolist()
        self.port_out: list[int] = out.tolist()
        self.port_in: list[int] = into.tolist()
        self.sender = [0.0] * (self.n + cluster.n_nodes)
        self.receiver = [0.0] * (self.n + cluster.n_nodes)
        self.block, self.src, self.dst = moves.block.tolist(), moves.src.tolist(), moves.dst.tolist()
        for m, (b, src) in enumerate(zip(self.block, self.src, strict=True)):
            self.sends.setdefault((b, src), []).append(m)
            self.uses[b, src] = self.uses.get((b, src), 0) + 1

    def run(self) -> float:
        """Seconds until the last task is done; `peak` and `busy` are filled."""
        now = 0.0
        leaves = [t for t in self.order if self.is_leaf[t]]
        for t in leaves:
            self._take(self.worker[t], self.size[t])
        for t in self.order:
            if not self.is_leaf[t] and not self.waiting[t]:
                heapq.heappush(self.ready[self.worker[t]], self.position[t])
        for t in leaves:
            self._appear(t, self.worker[t], now)
        for w in range(self.n):
            self._start(w, now)
        while self.events:
            now, kind, _, what = heapq.heappop(self.events)
            if kind == _TASK:
                self._done(what, now)
            else:
                self._arrived(what, now)
        return now

    def _take(self, w: int, n_bytes: float) -> None:
        self.alive[w] += n_bytes
        self.peak[w] = max(self.peak[w], self.alive[w])

    def _start(self, w: int, now: float) -> None:
        """Start ready tasks on the free threads of `w`."""
        while self.free[w] and self.ready[w]:
            position = heapq.heappop(self.ready[w])
            t = self.order[position]
            self.free[w] -= 1
            self.busy[w] += self.seconds[t]
            self._take(w, self.size[t])
            heapq.heappush(self.events, (now + self.seconds[t], _TASK, position, t))

    def _done(self, t: int, now: float) -> None:
        w = self.worker[t]
        self.free[w] += 1
        for b in self.inputs[t]:
            self._used(b, w)
        self._appear(t, w, now)
        self._start(w, now)

    def _arrived(self, m: int, now: float) -> None:
        block, w = self.block[m], self.dst[m]
        self._take(w, self.size[block])
        self._used(block, self.src[m])
        self._appear(block, w, now)
        self._start(w, now)

    def _appear(self, block: int, w: int, now: float) -> None:
        """A block exists on `w` now: send it on, and release its readers there."""
        for m in self.sends.get((block, w), ()):
            out, into = self.port_out[m], self.port_in[m]
            sent = max(now, self.sender[out])
            received = max(sent, self.receiver[into])
            self.sender[out], self.receiver[into] = sent + self.wire[m], received + self.wire[m]
            heapq.heappush(self.events, (received + self.wire[m], _ARRIVAL, m, m))
        for t in self.readers.get((block, w), ()):
            self.waiting[t] -= 1
            if not self.waiting[t]:
                heapq.heappush(self.ready[w], self.position[t])
        if (block, w) not in self.uses and not self.kept[block]:
            self.alive[w] -= self.size[block]

    def _used(self, block: int, w: int) -> None:
        """One reader or send of a block on `w` is over; free it after the last."""
        self.uses[block, w] -= 1
        if not self.uses[block, w] and not (self.kept[block] and self.worker[block] == w):
            self.alive[w] -= self.size[block]


def replay(graph: TaskGraph, worker: np.ndarray, cluster: Cluster, moves: Moves, order: np.ndarray,
           seconds: np.ndarray, spilled_bytes: np.ndarray) -> Prediction:
    """Prediction from a run in virtual time; about 10 us a task and move."""
    run = Replay(graph, worker, cluster, moves, order, seconds)
    total = run.run()
    size = graph.out_bytes[moves.block]
    return Prediction(total, np.bincount(moves.dst, size, run.n), np.bincount(moves.src, size, run.n),
                      np.array(run.peak), np.array(run.busy), spilled_bytes)
