"""make_plan: from a graph and a cluster to placed, ordered tasks with their moves."""

from __future__ import annotations

import numpy as np

from nums_core.ops.taskgraph import LEAF, REDUCE, TaskGraph
from nums_core.runtime.cluster import Cluster
from nums_core.runtime.plan import Plan
from nums_core.scheduler import order as ordering
from nums_core.scheduler.draft import Draft, Placed
from nums_core.scheduler.layout import Layout
from nums_core.scheduler.moves import Moves, list_moves
from nums_core.scheduler.simulate import Liveness, estimate


def make_plan(graph: TaskGraph, cluster: Cluster, *, policy: str = "portfolio", layout: str = "packed",
              reduction_order: str = "fixed", seed: int = 0) -> Plan:
    if cluster.n_workers == 1:
        placed, name, scores = _one_worker(graph, cluster), "single", {}
    else:
        placed, name, scores = _quick(graph, cluster, Layout(cluster, layout), reduction_order), "owner", {}
    moves = list_moves(placed.graph, placed.worker, cluster) if cluster.n_workers > 1 else Moves.none()
    live = Liveness(placed.graph, placed.worker, cluster, moves)
    orders = ordering.candidates(placed.graph)
    peaks = [live.peaks(o) for o in orders]
    best = min(range(len(orders)), key=lambda i: float(peaks[i].max(initial=0.0)))
    if len(moves.block):
        position = np.empty(placed.graph.n_tasks, np.int64)
        position[orders[best]] = np.arange(placed.graph.n_tasks)
        by_time = np.argsort(position[moves.block], kind="stable")
        moves = Moves(moves.block[by_time], moves.src[by_time], moves.dst[by_time])
    return Plan(placed.graph, cluster, placed.worker, orders[best], moves.block, moves.src, moves.dst, name,
                estimate(placed.graph, placed.worker, cluster, moves, peaks[best]), scores)


def _one_worker(graph: TaskGraph, cluster: Cluster) -> Placed:
    """Nothing to place: reductions are cut where they are too big for one task."""
    draft = Draft(graph, cluster)
    none = np.zeros(0, np.int32)
    for family in graph.families:
        if family.role == REDUCE:
            draft.put_reduce(family, none, False)
        else:
            draft.put(family, 0)
    return draft.finish()


def _quick(graph: TaskGraph, cluster: Cluster, layout: Layout, reduction_order: str) -> Placed:
    draft = Draft(graph, cluster, reduction_order)
    for f, family in enumerate(graph.families):
        at = layout.workers(family.grid)
        if family.role == REDUCE:
            draft.put_reduce(family, at, f in graph.outputs)
        elif family.role == LEAF:
            home = graph.home[family.start:family.stop]
            draft.put(family, np.where(home >= 0, home, at))
        else:
            draft.put(family, at)
    return draft.finish()
