"""make_plan: from a graph and a cluster to placed, ordered tasks with their moves.

    place    by the best of several policies (`portfolio`); reductions are cut into trees on the way (`draft`, `expand`)
    order    depth first, the order with the lower peak (`order`)
    fit      where that outgrows a worker's memory, placements are compared again with what they would spill
    predict  bytes and seconds (`simulate`)

On one worker there is nothing to place, and planning is a few array operations a family.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nums_core.errors import ConfigError
from nums_core.ops.taskgraph import REDUCE, TaskGraph
from nums_core.runtime.cluster import Cluster
from nums_core.runtime.plan import Plan
from nums_core.scheduler import order as ordering
from nums_core.scheduler import simulate
from nums_core.scheduler.draft import Draft, Placed
from nums_core.scheduler.liveness import Liveness
from nums_core.scheduler.moves import Moves
from nums_core.scheduler.spill import COUNTED_TASKS, Spill, spilled

if TYPE_CHECKING:
    from nums_core.scheduler.portfolio import Member

REDUCTION_ORDERS = ("fixed", "local")

# Orders are not compared further where one needs no more than this share of each worker's memory.
ROOMY = 1 / 16

# Placements of graphs up to this many tasks are compared again where the best one does not fit; twice the planning, and some us
# a task for counting what is spilled.
FITTED_TASKS = COUNTED_TASKS


def make_plan(graph: TaskGraph, cluster: Cluster, *, policy: str = "portfolio", layout: str = "packed",
              reduction_order: str = "fixed", seed: int = 0) -> Plan:
    """Place, order and price every task of `graph`.

    Parameters
    ----------
    graph : TaskGraph
        Reductions not yet cut. Tasks of one family must not read each other.
    cluster : Cluster
    policy : str
        "portfolio" (the best of all), "lshs", "beam", "owner", "2.5d", "a-stationary", "b-stationary", "largest" or
        "layout".
    layout : "packed" or "cyclic"
        Where output blocks, and leaves without a home, lie.
    reduction_order : "fixed" or "local"
        "fixed" keeps to the halving tree of `ops.tree`, the same on every cluster. "local" combines what lies together
        first and never moves more than k - 1 partials of k workers; its rounding depends on the cluster.
    seed : int
        Of the search; the same seed gives the same plan in any process.

    Returns
    -------
    Plan
        With a prediction, and F in bytes of each policy tried.

    Raises
    ------
    ConfigError
        Unknown policy, layout or reduction order.

    Notes
    -----
    Linear in tasks and edges, up to the logarithm of a sort; see bench/planning.py for microseconds a task.
    """
    if reduction_order not in REDUCTION_ORDERS:
        raise ConfigError(f"{reduction_order!r} is not a reduction order; write one of "
                          f"{', '.join(map(repr, REDUCTION_ORDERS))}")
    if cluster.n_workers == 1 and policy == "portfolio":
        return _single(graph, cluster)
    # What one worker does not need is not imported for it: the first result comes sooner.
    from nums_core.scheduler.layout import Layout
    from nums_core.scheduler.policies import Problem
    from nums_core.scheduler.portfolio import check_policy, choose
    from nums_core.scheduler.shares import held_bytes, shares

    if cluster.n_workers == 1:
        check_policy(policy)
        return _single(graph, cluster)
    blocks_at = Layout(cluster, layout, shares=shares(cluster, held_bytes(graph)))
    problem = Problem(graph, blocks_at, reduction_order)
    best, scores = choose(problem, policy, seed)
    made = _ordered(best.placed, cluster, best.moves)
    if made.spill.costs and len(scores) > 1 and graph.n_tasks <= FITTED_TASKS:
        best, scores = choose(problem, policy, seed, lambda member: _penalty(member, cluster))
        made = _ordered(best.placed, cluster, best.moves)
    return _finish(best.placed, cluster, best.moves, made, best.name, scores)


class _Ordered(NamedTuple):
    """An order of the tasks, and what it takes of the memories."""

    order: np.ndarray
    peaks: np.ndarray
    spill: Spill


def _single(graph: TaskGraph, cluster: Cluster) -> Plan:
    placed = _one_worker(graph, cluster)
    return _finish(placed, cluster, Moves.none(), _ordered(placed, cluster, Moves.none()), "single", {})


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


def _ordered(placed: Placed, cluster: Cluster, moves: Moves) -> _Ordered:
    live = Liveness(placed.graph, placed.worker, cluster, moves)
    order, peaks = _least_alive(ordering.candidates(placed.graph), live, cluster.memory_bytes)
    return _Ordered(order, peaks, spilled(live, cluster, order, peaks))


def _penalty(member: Member, cluster: Cluster) -> float:
    """What the fullest worker of a placement spills, as bytes that the network would carry in that time. Infinite where one
    task's operands and result do not fit its worker."""
    spill = _ordered(member.placed, cluster, member.moves).spill
    disk_s = spill.bytes / np.array([w.disk_bytes_per_s for w in cluster.workers])
    return math.inf if spill.refused else float(disk_s.max()) * cluster.network.bytes_per_s


def _finish(placed: Placed, cluster: Cluster, moves: Moves, made: _Ordered, name: str, scores: dict[str, float]) -> Plan:
    """Order the moves, and predict what it all costs."""
    graph, worker = placed.graph, placed.worker
    moves = _in_time(moves, made.order)
    return Plan(graph, cluster, worker, made.order, moves.block, moves.src, moves.dst, name,
                simulate.predict(graph, worker, cluster, moves, *made), scores)


def _least_alive(orders: Iterable[np.ndarray], live: simulate.Liveness,
                 memory_bytes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The order with the lowest peak, and its peaks; the first one that leaves most of the memory free will do."""
    best: tuple[np.ndarray, np.ndarray] | None = None
    for order in orders:
        peaks = live.peaks(order)
        if best is None or peaks.max(initial=0.0) < best[1].max(initial=0.0):
            best = order, peaks
        if (best[1] - live.held <= ROOMY * memory_bytes).all():
            break
    assert best is not None
    return best


def _in_time(moves: Moves, order: np.ndarray) -> Moves:
    """Moves in the order in which their blocks are made; of one block, relays after what they relay."""
    if not len(moves.block):
        return moves
    position = np.empty(len(order), np.int64)
    position[order] = np.arange(len(order))
    by_time = np.argsort(position[moves.block], kind="stable")
    return Moves(moves.block[by_time], moves.src[by_time], moves.dst[by_time])
