"""Complete policies: rules that place a whole graph, family by family, with array operations.

Work whose operands lie on one worker runs there under every policy: there is no choice in it. A policy only decides
where operands disagree. Output blocks always go to their layout worker, and reductions follow their partial results
(`expand`). Section 4.7 of NumS' placement is "layout"; "owner" on a product is SUMMA's communication.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nums_core.ops.taskgraph import LEAF, REDUCE, Family, TaskGraph
from nums_core.runtime.cluster import Cluster
from nums_core.scheduler import layers
from nums_core.scheduler.draft import Draft
from nums_core.scheduler.layout import Layout


class Problem:
    """A graph to be placed, with what several policies ask about it.

    Attributes
    ----------
    outputs : frozenset of int
        Families whose blocks are results.
    """

    def __init__(self, graph: TaskGraph, layout: Layout, reduction_order: str = "fixed") -> None:
        self.graph, self.layout, self.reduction_order = graph, layout, reduction_order
        self.cluster: Cluster = layout.cluster
        self.outputs = frozenset(graph.outputs)

    @cached_property
    def owner(self) -> np.ndarray:
        """int32, shape (n,): layout worker of the output block that a task serves.

        A task whose readers have one owner is owned by it too, unless that would funnel a family onto fewer workers
        than it could use; any other task is owned by the layout worker of its own grid.
        """
        g, n = self.graph, self.cluster.n_workers
        owner = np.empty(g.n_tasks, np.int32)
        low = np.full(g.n_tasks, n, np.int32)
        high = np.full(g.n_tasks, -1, np.int32)
        narrow = np.full(g.n_tasks, np.iinfo(np.int64).max)  # count of the smallest family among the readers
        for f in range(len(g.families) - 1, -1, -1):
            family = g.families[f]
            ids = slice(family.start, family.stop)
            own = self.layout.workers(family.grid)
            if f not in self.outputs:
                wide = narrow[ids] >= min(n, family.count)
                own = np.where((low[ids] == high[ids]) & wide, low[ids], own)
            owner[ids] = own
            blocks = g.in_idx[g.in_ptr[family.start]:g.in_ptr[family.stop]]
            reader = np.repeat(owner[ids], np.diff(g.in_ptr[family.start:family.stop + 1]))
            np.minimum.at(low, blocks, reader)
            np.maximum.at(high, blocks, reader)
            np.minimum.at(narrow, blocks, family.count)
        return owner

    @cached_property
    def only_reduced(self) -> np.ndarray:
        """bool, one a family: read by reductions alone, as the products of a contraction are."""
        g = self.graph
        reads = np.repeat([f.role == REDUCE for f in g.families], [f.count for f in g.families])
        by_reduce = np.repeat(reads, np.diff(g.in_ptr))
        flags = np.zeros((2, len(g.families)), bool)
        flags[0, g.family_of[g.in_idx[by_reduce]]] = True
        flags[1, g.family_of[g.in_idx[~by_reduce]]] = True
        return flags[0] & ~flags[1]

    @cached_property
    def layered(self) -> dict[int, np.ndarray]:
        """Workers of the products, by family, that several layers of workers make with fewer bytes (`layers`)."""
        workers = self.cluster.workers
        data = float(self.graph.out_bytes[self.graph.is_leaf].sum()) / max(len(workers), 1)
        free = min((w.memory_bytes for w in workers), default=0) - data
        return layers.layered(self.graph, self.owner, len(workers), free, self.reduction_order == "fixed")


@dataclass(frozen=True)
class Operands:
    """Where the operands of a family's tasks are.

    Attributes
    ----------
    f : int
        The family's index.
    rows : int64 array, one an edge
        Which task of the family reads it, counted from 0.
    blocks, at : arrays, one an edge
        Block read, and the worker that made it.
    ptr : int64 array, shape (count + 1,)
    first : int32 array, shape (count,)
        Worker of each task's first operand (the layout worker where it has none).
    apart : bool array, shape (count,)
        Its operands lie on several workers.
    """

    f: int
    family: Family
    blocks: np.ndarray
    at: np.ndarray
    ptr: np.ndarray
    first: np.ndarray
    apart: np.ndarray

    @cached_property
    def rows(self) -> np.ndarray:
        return np.repeat(np.arange(self.family.count), np.diff(self.ptr))


def operands(problem: Problem, draft: Draft, f: int) -> Operands:
    g, family = problem.graph, problem.graph.families[f]
    ptr = g.in_ptr[family.start:family.stop + 1]
    blocks = g.in_idx[ptr[0]:ptr[-1]]
    ptr = ptr - ptr[0]
    at = draft.place[blocks]
    width, rest = divmod(len(at), family.count)
    counts = np.diff(ptr)
    if rest == 0 and width and (counts == width).all():
        first = at[::width]
        apart = np.zeros(family.count, bool)
        for k in range(1, width):
            apart |= at[k::width] != first
        return Operands(f, family, blocks, at, ptr, first, apart)
    first = problem.layout.workers(family.grid).copy()
    first[counts > 0] = at[ptr[:-1][counts > 0]]
    rows = np.repeat(np.arange(family.count), counts)
    apart = np.bincount(rows[at != first[rows]], minlength=family.count) > 0
    return Operands(f, family, blocks, at, ptr, first, apart)


# Workers of a family in which operands disagree somewhere.
Rule = Callable[[Problem, Draft, Operands], np.ndarray]


def owner_computes(problem: Problem, draft: Draft, ops: Operands) -> np.ndarray:
    """The worker of the output block that the task serves: operands are fetched, results stay.

    Also where operands agree: others of the family want the same operands at the owner anyway.
    """
    return problem.owner[ops.family.start:ops.family.stop]


def a_stationary(problem: Problem, draft: Draft, ops: Operands) -> np.ndarray:
    """The first operand's worker."""
    return ops.first


def b_stationary(problem: Problem, draft: Draft, ops: Operands) -> np.ndarray:
    """The last operand's worker."""
    return np.where(ops.apart, ops.at[ops.ptr[1:] - 1], ops.first)


def largest_stationary(problem: Problem, draft: Draft, ops: Operands) -> np.ndarray:
    """The worker of the largest operand; the first of several."""
    size = problem.graph.out_bytes[ops.blocks]
    most = np.zeros(ops.family.count)
    np.maximum.at(most, ops.rows, size)
    hits = np.flatnonzero(size == most[ops.rows])
    rows = ops.rows[hits]
    out = ops.first.copy()
    out[rows[::-1]] = ops.at[hits[::-1]]  # of several hits in a row the first is written last
    return np.where(ops.apart, out, ops.first)


def layout_rules(problem: Problem, draft: Draft, ops: Operands) -> np.ndarray:
    """Products at their larger operand, anything else where its own block would lie."""
    if problem.only_reduced[ops.f]:
        return largest_stationary(problem, draft, ops)
    return np.where(ops.apart, problem.layout.workers(ops.family.grid), ops.first)


def layered_products(problem: Problem, draft: Draft, ops: Operands) -> np.ndarray:
    """Products in layers where that spares bytes, anything else at its owner."""
    made = problem.layered.get(ops.f)
    return owner_computes(problem, draft, ops) if made is None else made


RULES: dict[str, Rule] = {
    "owner": owner_computes, "2.5d": layered_products, "a-stationary": a_stationary, "b-stationary": b_stationary,
    "largest": largest_stationary, "layout": layout_rules,
}


def complete(problem: Problem, rule: Rule, earlier: Sequence[Draft] = ()) -> Draft:
    """A whole placement by one rule; if it turns out to be that of a draft in `earlier`, that draft."""
    g = problem.graph
    draft = Draft(g, problem.cluster, problem.reduction_order)
    twins = list(earlier)
    for f, family in enumerate(g.families):
        if family.role == LEAF:
            home = g.home[family.start:family.stop]
            draft.put(family, np.where(home >= 0, home, problem.layout.workers(family.grid)))
        elif family.role == REDUCE:
            forced = f in problem.outputs
            target = problem.layout.workers(family.grid) if forced else problem.owner[family.start:family.stop]
            draft.put_reduce(family, target, forced)
        elif f in problem.outputs or g.in_ptr[family.start] == g.in_ptr[family.stop]:
            draft.put(family, problem.layout.workers(family.grid))
        else:
            ops = operands(problem, draft, f)
            if not ops.apart.any():
                draft.put(family, ops.first)
                continue
            workers = rule(problem, draft, ops)
            draft.choices.append(f)
            draft.put(family, workers)
            # Alike in the last choice and all before it is alike in everything.
            twins = [t for t in twins if np.array_equal(t.place[family.start:family.stop], workers)]
            for twin in twins:
                if twin.choices[-1] == f:
                    return twin
    return draft
