"""Plan: every task with its worker, every move, every free, in order. The product of the library.

A Plan is immutable and picklable. Its graph is the *expanded* one: reductions are trees of ordinary tasks. Executors run
it, the simulator only counts, and `text()` explains it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np

from nums_core._util import format_bytes, format_seconds
from nums_core.ops.taskgraph import TaskGraph
from nums_core.runtime.cluster import Cluster


@dataclass(frozen=True)
class Prediction:
    """What the simulator expects of a plan.

    Attributes
    ----------
    seconds : float, s
    bytes_in, bytes_out : float64 arrays, shape (n_workers,), bytes
        Moved into and out of each worker.
    peak_bytes : float64 array, shape (n_workers,), bytes
        Most that is alive at once on each worker, leaves that a worker holds included.
    busy_s : float64 array, shape (n_workers,), s
        Of all threads, waiting for the disk included.
    spilled_bytes : float64 array, shape (n_workers,), bytes
        Written to disk and read back, together.
    """

    seconds: float
    bytes_in: np.ndarray
    bytes_out: np.ndarray
    peak_bytes: np.ndarray
    busy_s: np.ndarray
    spilled_bytes: np.ndarray = field(default_factory=lambda: np.zeros(1))


@dataclass(frozen=True, eq=False)
class Plan:
    """Placed, ordered tasks with their moves and frees.

    Attributes
    ----------
    graph : TaskGraph
        Expanded: no family has role "reduce" with more inputs than one task combines.
    cluster : Cluster
    worker : int32 array, shape (n,)
        Where each task runs; for a leaf, the worker that reads or holds it.
    order : int64 array, shape (n,)
        All task ids, a topological order; each worker follows its own subsequence.
    move_block, move_src, move_dst : int64, int32, int32 arrays
        Each block sent to each worker that needs it and does not make it, once. In an order in which they can happen
        (a relayed copy comes after the one it relays).
    policy : str
        Name of the scheduling policy that won.
    prediction : Prediction or None
    scores : dict
        F (bytes) of every member of the portfolio, for `explain`.
    """

    graph: TaskGraph
    cluster: Cluster
    worker: np.ndarray
    order: np.ndarray
    move_block: np.ndarray
    move_src: np.ndarray
    move_dst: np.ndarray
    policy: str = "single"
    prediction: Prediction | None = None
    scores: dict[str, float] = field(default_factory=dict)

    def __getstate__(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}  # what was worked out is worked out again

    @cached_property
    def position(self) -> np.ndarray:
        """int64, shape (n,): where each task stands in `order`."""
        position = np.empty(self.graph.n_tasks, np.int64)
        position[self.order] = np.arange(self.graph.n_tasks)
        return position

    @cached_property
    def last_use(self) -> np.ndarray:
        """int64, shape (n,): position of the last reader of each block; n for outputs, its own where nobody reads."""
        g = self.graph
        last = self.position.copy()
        np.maximum.at(last, g.in_idx, self.position[g.consumer_of_edge])
        last[g.is_output] = g.n_tasks
        return last

    @cached_property
    def bytes_moved(self) -> float:
        """Bytes that cross between workers."""
        return float(self.graph.out_bytes[self.move_block].sum())

    def validate(self) -> None:
        """Check order and moves; for tests."""
        g, edges = self.graph, self.graph.consumer_of_edge
        g.validate()
        assert (np.sort(self.order) == np.arange(g.n_tasks)).all(), "order must hold every task once"
        assert (self.position[g.in_idx] < self.position[edges]).all(), "order must be topological"
        cross = self.worker[g.in_idx] != self.worker[edges]
        needed = {(int(b), int(w)) for b, w in zip(g.in_idx[cross], self.worker[edges][cross], strict=True)}
        have = {(int(b), int(w)) for b, w in zip(self.move_block, self.move_dst, strict=True)}
        assert len(have) == len(self.move_block), "a block is sent to a worker at most once"
        assert needed <= have, "every operand must be where it is used"

    def text(self) -> str:
        """A table for people: families with their counts, then the totals."""
        g = self.graph
        n_leaves = int(g.is_leaf.sum())
        rows = [f"Plan: {g.n_tasks - n_leaves} tasks on {self.cluster.n_workers} worker(s) of "
                f"{self.cluster.n_nodes} node(s), policy {self.policy}"]
        for f in g.families:
            ids = slice(f.start, f.stop)
            where = f"  {f.line}" if f.line else ""
            rows.append(f"  {f.role:6} {f.label or f.kernel.name:28} x {f.count:<8} "
                        f"{format_bytes(float(g.out_bytes[ids].sum())):>10} {g.flop[ids].sum():.3g} flop{where}")
        rows.append(f"  reads {format_bytes(float(g.out_bytes[g.is_leaf].sum()))} in {n_leaves} blocks; "
                    f"{g.flop.sum():.3g} flop; moves {format_bytes(self.bytes_moved)} in {len(self.move_block)} blocks")
        if self.prediction is not None:
            p = self.prediction
            rows.append(f"  predicted {format_seconds(p.seconds)}; peak "
                        f"{format_bytes(float(p.peak_bytes.max(initial=0.0)))} on the fullest worker")
        if len(self.scores) > 1:
            rows.append("  portfolio F: " + ", ".join(f"{k} {format_bytes(v)}" for k, v in self.scores.items()))
        return "\n".join(rows)

    __repr__ = __str__ = text


def direct_moves(graph: TaskGraph, worker: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`move_block`, `move_src`, `move_dst` where every block goes from who makes it to each that reads it."""
    producer, reader = graph.in_idx, worker[graph.consumer_of_edge]
    cross = worker[producer] != reader
    block, dst = np.unique(np.stack([producer[cross], reader[cross]]), axis=1)
    return block, worker[block].astype(np.int32), dst.astype(np.int32)
