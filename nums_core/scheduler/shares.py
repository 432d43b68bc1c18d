"""What part of the blocks each worker of an unlike cluster gets: in proportion to its speed, as far as its memory goes.

Speed is threads times the rate of one, flop and memory bytes counting alike (relative to the cluster's fastest). Where the
part that speed asks for would not fit a worker's memory, it is filled, and the others take the rest.
On clusters of alike workers nothing here is asked: `shares` is None and layouts deal equally, by tiles.
"""

from __future__ import annotations

import numpy as np

from nums_core.ops.taskgraph import TaskGraph
from nums_core.runtime.cluster import Cluster


def shares(cluster: Cluster, bytes_held: float = 0.0) -> np.ndarray | None:
    """Part of each worker: float64, shape (n_workers,), sum 1; None where all are alike.

    `bytes_held` is what the workers hold together at once.
    """
    if not cluster.workers or cluster.alike:
        return None
    speed = _speed(cluster)
    part, room = speed / speed.sum(), cluster.memory_bytes / max(bytes_held, 1.0)
    if room.sum() <= 1.0:  # it does not fit anyway: all are filled alike
        return room / room.sum()
    full = np.zeros(len(part), bool)
    while (part > room)[~full].any():
        full |= part > room
        part = np.where(full, room, speed / speed[~full].sum() * (1.0 - room[full].sum()))
    return part / part.sum()


def held_bytes(graph: TaskGraph) -> float:
    """What the workers hold together for as long as a plan runs: leaves and results."""
    return float(graph.out_bytes[graph.is_leaf | graph.is_output].sum())


def _speed(cluster: Cluster) -> np.ndarray:
    flop, memory, threads = (np.array([getattr(w, name) for w in cluster.workers], float)
                             for name in ("flop_per_s", "memory_bytes_per_s", "threads"))
    return threads * (flop / flop.max() + memory / memory.max())


def burden(cluster: Cluster) -> np.ndarray | None:
    """How much more a byte weighs on each worker than on an average one; None where all are alike."""
    part = shares(cluster)
    return None if part is None else 1.0 / (part * len(part))
