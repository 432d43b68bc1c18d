"""What a plan will cost, without running it.

`estimate` counts with array operations what does not depend on timing (bytes in and out, busy seconds, bytes alive in
each worker's own order) and bounds the seconds from below by the busiest worker and link. `replay` (events.py) runs the
plan event by event in virtual time, and `called` (call_events.py) runs its super-tasks, as clusters of processes do.
`predict` takes the second for small plans on several workers, `simulate` whichever fits the cluster. Where a worker
outgrows its memory, its tasks wait for the disk as well (spill.py).
"""

from __future__ import annotations

import numpy as np

from nums_core.ops.taskgraph import TaskGraph
from nums_core.runtime.cluster import CALLED, Cluster
from nums_core.runtime.plan import Plan, Prediction
from nums_core.runtime.seconds import task_seconds
from nums_core.scheduler.events import ports, replay
from nums_core.scheduler.liveness import Liveness
from nums_core.scheduler.moves import Moves
from nums_core.scheduler.spill import Spill, spilled

# Graphs up to this many tasks are replayed event by event when planned.
REPLAY_TASKS = 2000


def estimate(graph: TaskGraph, worker: np.ndarray, cluster: Cluster, moves: Moves, peaks: np.ndarray,
             spill: Spill) -> Prediction:
    """Prediction from sums alone; `peaks` as `Liveness` counts them."""
    n = cluster.n_workers
    seconds = task_seconds(graph, worker, cluster)
    if spill.bytes.any():
        seconds += spill.seconds
    threads = np.array([w.threads for w in cluster.workers])
    busy = np.bincount(worker, seconds, n)
    size = graph.out_bytes[moves.block]
    into, out = np.bincount(moves.dst, size, n), np.bincount(moves.src, size, n)
    least = max(float((busy / threads).max(initial=0.0)), float(seconds.max(initial=0.0)))
    if len(size):
        wire, sender, receiver = ports(graph, cluster, moves)
        least = max(least, float(np.bincount(sender, wire).max()), float(np.bincount(receiver, wire).max()))
    return Prediction(least, into, out, peaks, busy, spill.bytes)


def predict(graph: TaskGraph, worker: np.ndarray, cluster: Cluster, moves: Moves, order: np.ndarray, peaks: np.ndarray,
            spill: Spill) -> Prediction:
    """`replay` for at most `REPLAY_TASKS` tasks on several workers, else `estimate`."""
    if cluster.n_workers == 1 or graph.n_tasks > REPLAY_TASKS:
        return estimate(graph, worker, cluster, moves, peaks, spill)
    return replay(graph, worker, cluster, moves, order, task_seconds(graph, worker, cluster) + spill.seconds, spill.bytes)


def simulate(plan: Plan, *, exact: bool = True, keep: bool = False, cluster: Cluster | None = None) -> Prediction:
    """Run a plan on its cluster in virtual time (or, `exact=False`, estimate it from sums).

    Parameters
    ----------
    plan : Plan
    exact : bool
        Some 10 us a task and move. On clusters of the kinds `CALLED` what runs is the super-tasks, with the driver's part.
    keep : bool
        Whether results stay on the workers; otherwise they are gathered in the driver's memory.
    cluster : Cluster, optional
        The plan's own with other rates or links, as `runtime.calibration` makes it.
    """
    graph, worker = plan.graph, plan.worker
    cluster = cluster or plan.cluster
    moves = Moves(plan.move_block, plan.move_src, plan.move_dst)
    live = Liveness(graph, worker, cluster, moves)
    peaks = live.peaks(plan.order)
    spill = spilled(live, cluster, plan.order, peaks, keep)
    if not exact:
        return estimate(graph, worker, cluster, moves, peaks, spill)
    seconds = task_seconds(graph, worker, cluster) + spill.seconds
    if cluster.kind in CALLED:
        from nums_core.scheduler.call_events import called

        return called(plan, cluster, seconds, peaks, keep, spill.bytes)
    return replay(graph, worker, cluster, moves, plan.order, seconds, spill.bytes)
