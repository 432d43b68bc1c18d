"""Draft: a graph with a worker for every task, reductions already cut into trees.

A policy says where tasks run, one family after the other; this module keeps the books: renumbering, because trees add
families in front of the family they replace, and the sizes and flop of the tasks added.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from nums_core.ops.reductions import any_order
from nums_core.ops.taskgraph import TASK, Family, TaskGraph
from nums_core.runtime.cluster import Cluster
from nums_core.scheduler import expand, scatter


@dataclass(frozen=True)
class Placed:
    """A finished draft: the expanded graph and the worker of each task."""

    graph: TaskGraph
    worker: np.ndarray


@dataclass(frozen=True)
class _Rows:
    """Tasks of one family, as columns of the expanded graph."""

    counts: np.ndarray
    inputs: np.ndarray
    out_bytes: np.ndarray
    flop: np.ndarray
    worker: np.ndarray


class Draft:
    """Grows family by family, in order: `put` for leaves and ordinary tasks, `put_reduce` for reductions.

    Attributes
    ----------
    place : int32 array, shape (n of the unexpanded graph,)
        Worker of each task placed so far, by its old id.
    choices : list of int
        Families in which operands disagreed, so that a policy had a choice.
    """

    def __init__(self, graph: TaskGraph, cluster: Cluster, reduction_order: str = "fixed") -> None:
        self.graph = graph
        self.place = np.zeros(graph.n_tasks, np.int32)
        self.choices: list[int] = []
        self.cluster = cluster
        self._local = reduction_order == "local"
        self._one_worker = cluster.n_workers == 1
        self._shift = 0  # tasks added so far
        self._new_id = np.arange(graph.n_tasks) if graph.n_tasks else np.zeros(0, np.int64)
        self._families: list[Family] = []
        self._new_index: list[int] = []  # of each old family
        self._rows: list[_Rows] = []
        self._kept = 0  # old ids below this are in _rows

    def put(self, family: Family, workers: np.ndarray | int) -> None:
        """Place a family of leaves or ordinary tasks."""
        if not self._one_worker:
            self.place[family.start:family.stop] = workers
        self._append(family)

    def put_reduce(self, family: Family, target: np.ndarray, forced: bool) -> None:
        """Cut a family of reductions into trees; roots go to `target` where forced, else where their inputs lead."""
        g = self.graph
        ptr = g.in_ptr[family.start:family.stop + 1]
        blocks, counts = g.in_idx[ptr[0]:ptr[-1]], np.diff(ptr)
        if not family.count:
            self._append(replace(family, role=TASK))
            return
        size = max(float(g.out_bytes[blocks].max(initial=0.0)), 1.0)
        most = max(2, int(expand.TASK_BYTES // size))
        if self._one_worker and counts.max(initial=0) <= most:
            self._append(replace(family, role=TASK))
            return
        if self._one_worker:
            target = np.zeros(family.count, np.int32)
        trees = expand.cut(self._new_id[blocks], self.place[blocks], counts, target, family.start + self._shift, most,
                           self.cluster.node_of if self._local or _any_order(family) else None, forced)
        self.place[family.start:family.stop] = target if forced else trees.root.workers
        if trees.inner or len(trees.root.inputs) != len(blocks) or (trees.root.inputs != self._new_id[blocks]).any():
            self._insert(family, self._steps(family, trees, blocks, counts, size, target), counts)
        else:
            self._append(replace(family, role=TASK))

    def _steps(self, family: Family, trees: expand.Trees, blocks: np.ndarray, counts: np.ndarray, size: float,
               target: np.ndarray) -> list[scatter.Step]:
        """The trees' families, in pieces where partials are so large that it pays."""
        workers = self.place[blocks]
        if not scatter.pays(family, size, workers, counts, target, self.cluster):
            return scatter.whole_steps(family, trees)
        partials = dict(zip(self._new_id[blocks].tolist(), workers.tolist(), strict=True))
        self.place[family.start:family.stop] = target
        return scatter.Pieces(family, trees, partials, target, self.cluster.node_of, family.start + self._shift).rewrite()

    def _append(self, family: Family) -> None:
        """Take over a family whose tasks stay as they are, but for their numbers."""
        self._new_index.append(len(self._families))
        if self._shift:
            self._new_id[family.start:family.stop] += self._shift
            family = replace(family, start=family.start + self._shift)
        self._families.append(family)

    def _insert(self, family: Family, steps: list[scatter.Step], counts: np.ndarray) -> None:
        """Add the steps of a reduction: a new family for each, the last one, which makes the results, in its own place."""
        g = self.graph
        self._flush(family.start)
        flop = g.flop[family.start:family.stop].copy()  # what inner tasks do is taken off
        per_input = flop / np.maximum(counts - 1, 1)
        ptr = g.in_ptr[family.start:family.stop]
        partial = np.maximum.reduceat(g.out_bytes[g.in_idx[ptr[0]:g.in_ptr[family.stop]]], ptr - ptr[0])
        *inner, last = steps
        for kernel, label, level, share, args in inner:
            self._families.append(Family(kernel, family.start + self._shift, (len(level.counts),), TASK, args,
                                         f"{family.label}.{label}", family.line))
            work = per_input[level.rows] * (level.counts - 1) * share
            flop -= np.bincount(level.rows, work, family.count)
            self._rows.append(_Rows(level.counts, level.inputs, partial[level.rows] * share, work, level.workers))
            self._shift += len(level.counts)
        self._append(replace(family, role=TASK, kernel=last.kernel))
        root = last.level
        self._rows.append(_Rows(root.counts, root.inputs, g.out_bytes[family.start:family.stop],
                                np.maximum(flop, 0.0), self.place[family.start:family.stop]))
        self._kept = family.stop

    def _flush(self, stop: int) -> None:
        """Make rows of the old tasks from `_kept` to `stop`."""
        g, start = self.graph, self._kept
        if start < stop:
            a, b = g.in_ptr[start], g.in_ptr[stop]
            self._rows.append(_Rows(np.diff(g.in_ptr[start:stop + 1]), self._new_id[g.in_idx[a:b]],
                                    g.out_bytes[start:stop], g.flop[start:stop], self.place[start:stop]))
        self._kept = stop

    def finish(self) -> Placed:
        """The expanded graph; once, since the columns gathered for it are given up."""
        g = self.graph
        if not self._rows:  # nothing was cut: the arrays serve as they are
            return Placed(TaskGraph(tuple(self._families), g.in_ptr, g.in_idx, g.out_bytes, g.flop, g.home, g.outputs),
                          self.place)
        self._flush(g.n_tasks)
        cat = {name: np.concatenate([getattr(rows, name) for rows in self._rows])
               for name in ("counts", "inputs", "out_bytes", "flop", "worker")}
        self._rows = []
        in_ptr = np.zeros(len(cat["counts"]) + 1, np.int64)
        np.cumsum(cat["counts"], out=in_ptr[1:])
        home = np.full(len(cat["counts"]), -1, np.int32)
        home[self._new_id] = g.home
        outputs = tuple(self._new_index[f] for f in g.outputs)
        return Placed(TaskGraph(tuple(self._families), in_ptr, cat["inputs"], cat["out_bytes"], cat["flop"], home,
                                outputs), cat["worker"])


def _any_order(family: Family) -> bool:
    """Whether a reduction is exact, so that its partials need not keep to the fixed tree."""
    (name, *_), finish = family.kernel.params
    return any_order(name, finish[1] if isinstance(finish, tuple) else None)
