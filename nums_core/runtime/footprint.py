"""Footprint: what a plan takes of a worker's memory, worked out before it runs.

Leaves count nothing here: they are the user's arrays, shared memory, or blocks that an earlier run left behind.
"""

from __future__ import annotations

import numpy as np

from nums_core._util import format_bytes
from nums_core.errors import MemoryBudgetError
from nums_core.runtime.plan import Plan


def own_bytes(plan: Plan) -> np.ndarray:
    """Bytes of the block each task makes; 0 for leaves and where unknown: float64, shape (n,)."""
    g = plan.graph
    return np.where(g.is_leaf, 0.0, np.nan_to_num(g.out_bytes))


def working_set(plan: Plan) -> np.ndarray:
    """Bytes that must be in memory while each task runs, its operands with its result: float64, shape (n,)."""
    g, own = plan.graph, own_bytes(plan)
    work = own.copy()
    np.add.at(work, g.consumer_of_edge, own[g.in_idx])
    return work


def peak_bytes(plan: Plan, threads: int) -> float:
    """Most that is alive at once where `plan` runs in its order on one worker of `threads` threads."""
    g, own = plan.graph, own_bytes(plan)
    grow = own[plan.order].copy()
    np.subtract.at(grow, np.minimum(plan.last_use, g.n_tasks - 1), np.where(plan.last_use < g.n_tasks, own, 0.0))
    return float(np.cumsum(grow).max(initial=0.0)) + threads * float(own.max(initial=0.0))


def check_budget(plan: Plan) -> None:
    """Refuse a plan in which one task alone outgrows its worker.

    Raises
    ------
    MemoryBudgetError
        Names the operation, the sizes, and ways out.
    """
    work = working_set(plan)
    budget = np.array([w.memory_bytes for w in plan.cluster.workers], float)[plan.worker]
    over = work - budget
    if not len(over) or over.max() <= 0:
        return
    t = int(np.argmax(over))
    f = plan.graph.families[int(plan.graph.family_of[t])]
    raise MemoryBudgetError(
        f"one task of {f.label or f.kernel.name!r}{f' written at {f.line}' if f.line else ''} works on "
        f"{format_bytes(float(work[t]))}, over the memory budget of {format_bytes(float(budget[t]))}; use smaller "
        "chunks (x.rechunk(...), or config block_bytes) or raise memory_bytes")
