"""Reduce-scatter: large partial results are combined in pieces, on all workers that hold one, and joined at the end.

Along a tree the root's worker takes log2(m) whole partials of m, one after the other, while others idle. Cut into m pieces,
piece j combined on worker j, every worker takes 1/m of m - 1 partials, and the root's worker the m - 1 pieces it lacks:

    seconds    tree  log2(m) C(s)      pieces  2 (m - 1) C(s / m)           C(n) = latency + n / bandwidth
    bytes      tree  (m - 1) s         pieces  (m - 1) s + (m - 1) s / m

Source     R. Thakur, R. Rabenseifner, W. Gropp, "Optimization of Collective Communication Operations in MPICH",
           International Journal of High Performance Computing Applications 19 (2005): reduce of long vectors as a
           reduce-scatter followed by a gather.
Notation   m  workers with partials of an output  |  s  bytes of a partial
Departs    (1) every element is combined along the same tree as without pieces, so the bits are the same   (2) pieces whose
           operands lie on one node are combined there, so that a node sends each piece once   (3) only elementwise
           combinations, whose state is one array, and few outputs: many outputs spread over the workers by themselves
Checked    bits, bytes into every worker, and the formula in tests/scheduler/test_scatter.py
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from nums_core.ops.reductions import ELEMENTWISE_STATE
from nums_core.ops.taskgraph import Family, Kernel, ListArgs
from nums_core.runtime.cluster import Cluster
from nums_core.scheduler.expand import Level, Trees

# Smaller partials are not looked at.
LARGE_BYTES = 4 * 2**20
# m^2 slices are made of the partials of an output.
MOST_WORKERS = 64
# Pieces are not worth their tasks where they save less than this share of the tree's seconds.
GAIN = 0.2


class Step(NamedTuple):
    """Tasks that become one family; the block of each weighs `share` of a partial of its output."""

    kernel: Kernel
    label: str
    level: Level
    share: np.ndarray | float = 1.0
    args: ListArgs | None = None


def inner_kernel(family: Family) -> Kernel:
    """Combines partial results and does not finish."""
    return Kernel(family.kernel.name, (family.kernel.params[0], None))


def whole_steps(family: Family, trees: Trees) -> list[Step]:
    """A reduction's trees as they are: a family a level, the roots last."""
    inner = inner_kernel(family)
    return [*(Step(inner, "combine", level) for level in trees.inner), Step(family.kernel, "", trees.root)]


def pays(family: Family, partial_bytes: float, workers: np.ndarray, counts: np.ndarray, target: np.ndarray,
         cluster: Cluster) -> bool:
    """Whether pieces are faster than the tree for every output: `workers` of its `counts` partials, wanted at `target`."""
    few = 2 * family.count <= cluster.n_workers
    if partial_bytes < LARGE_BYTES or not few or family.kernel.params[0][0] not in ELEMENTWISE_STATE:
        return False
    return all(_pays(partial_bytes, np.unique(at), wanted, cluster)
               for at, wanted in zip(np.split(workers, np.cumsum(counts)[:-1]), target.tolist(), strict=True))


def _pays(partial_bytes: float, places: np.ndarray, wanted: int, cluster: Cluster) -> bool:
    m = len(places)
    if not 2 < m <= MOST_WORKERS or wanted not in places:
        return False
    link = cluster.network if len(np.unique(cluster.node_of[places])) > 1 else cluster.local
    tree_s = (m - 1).bit_length() * link.seconds(partial_bytes)
    return bool(2 * (m - 1) * link.seconds(partial_bytes / m) <= (1 - GAIN) * tree_s)


class _Task(NamedTuple):
    """A task of the whole trees, with its old id."""

    old: int
    row: int
    worker: int
    inputs: list[int]


def _tasks(level: Level, first: int) -> list[_Task]:
    inputs = np.split(level.inputs, np.cumsum(level.counts)[:-1])
    return [_Task(first + k, row, worker, blocks.tolist())
            for k, (row, worker, blocks) in enumerate(zip(level.rows.tolist(), level.workers.tolist(), inputs, strict=True))]


class Pieces:
    """Rewrites the trees of a family, from the leaves up, so that what spans workers is combined in pieces.

    Parameters
    ----------
    trees : Trees
        Inner ids from `next_id` on.
    partials : dict
        Worker of every block that `trees` combines.
    target : int array, one an output
        Where results are wanted; one of the workers that hold a partial.
    """

    def __init__(self, family: Family, trees: Trees, partials: dict[int, int], target: np.ndarray, node_of: np.ndarray,
                 next_id: int) -> None:
        self.family, self.trees, self.target = family, trees, target.tolist()
        self.node: list[int] = node_of.tolist()
        self.at = dict(partials)  # worker of every block, by its new id
        self.whole = {b: b for b in partials}  # new id by old id, of what is not in pieces
        self.pieces: dict[int, list[int]] = {}  # new ids by old id
        self.like: dict[int, int] = {}  # for each output, a whole block where the result is wanted
        self.old_id = self.next_id = next_id
        self.owners: list[list[int]] = [[] for _ in self.target]  # of pieces 0, 1, ... of each output
        self.steps: list[Step] = []

    def rewrite(self) -> list[Step]:
        """The families, in order; the last one makes the results."""
        levels: list[list[_Task]] = []
        for level in (*self.trees.inner, self.trees.root):
            levels.append(_tasks(level, self.old_id))
            self.old_id += len(level.counts)
        holders = {(t.row, self.at[b]) for tasks in levels for t in tasks for b in t.inputs if b in self.at}
        for row, worker in sorted(holders):
            self.owners[row].append(worker)
        for tasks in levels[:-1]:
            together = [self._is_together(t) for t in tasks]
            self._combine_whole([t for t, whole in zip(tasks, together, strict=True) if whole])
            self._combine_pieces([t for t, whole in zip(tasks, together, strict=True) if not whole])
        self._combine_pieces(levels[-1])
        self._join(levels[-1])
        return self.steps

    def _is_together(self, task: _Task) -> bool:
        return all(b in self.whole and self.at[self.whole[b]] == task.worker for b in task.inputs)

    def _combine_whole(self, tasks: list[_Task]) -> None:
        made = self._add(inner_kernel(self.family), "combine", [t.row for t in tasks], [t.worker for t in tasks],
                         [[self.whole[b] for b in t.inputs] for t in tasks])
        self.whole |= {t.old: new for t, new in zip(tasks, made, strict=True)}

    def _slice(self, row_of: dict[int, int]) -> None:
        """Cut whole blocks into as many pieces as their output has owners."""
        todo = [(self.whole[b], row, j, len(self.owners[row])) for b, row in row_of.items()
                for j in range(len(self.owners[row]))]
        made = self._add(Kernel("scatter.slice"), "scatter", [row for _, row, _, _ in todo],
                         [self.at[b] for b, _, _, _ in todo], [[b] for b, _, _, _ in todo],
                         ListArgs(tuple((j, m) for _, _, j, m in todo)))
        for b, row in row_of.items():
            self.pieces[b] = [next(made) for _ in self.owners[row]]
            if self.at[self.whole[b]] == self.target[row]:
                self.like[row] = self.whole[b]

    def _combine_pieces(self, tasks: list[_Task]) -> None:
        self._slice({b: t.row for t in tasks for b in t.inputs if b in self.whole})
        todo = [(t.row, j, [self.pieces[b][j] for b in t.inputs]) for t in tasks for j in range(len(self.owners[t.row]))]
        made = self._add(inner_kernel(self.family), "combine", [row for row, _, _ in todo],
                         [self._place(row, j, blocks) for row, j, blocks in todo], [blocks for _, _, blocks in todo],
                         in_pieces=True)
        for t in tasks:
            self.pieces[t.old] = [next(made) for _ in self.owners[t.row]]

    def _place(self, row: int, j: int, blocks: list[int]) -> int:
        """Owner of piece `j`; one inside the node where all operands lie, if they do on one."""
        nodes = {self.node[self.at[b]] for b in blocks}
        near = [w for w in self.owners[row] if self.node[w] in nodes] if len(nodes) == 1 else self.owners[row]
        return near[j % len(near)]

    def _join(self, roots: list[_Task]) -> None:
        """Pieces side by side, in the shape of a block that lies where the result is wanted."""
        self._add(Kernel("scatter.join", self.family.kernel.params), "", [t.row for t in roots],
                  [self.target[t.row] for t in roots], [[*self.pieces[t.old], self.like[t.row]] for t in roots])

    def _add(self, kernel: Kernel, label: str, rows: list[int], workers: list[int], inputs: list[list[int]],
             args: ListArgs | None = None, in_pieces: bool = False) -> Iterator[int]:
        """One more family; its new ids in order."""
        ids = range(self.next_id, self.next_id + len(rows))
        self.next_id += len(rows)
        self.at |= dict(zip(ids, workers, strict=True))
        if rows:
            level = Level(np.array([b for blocks in inputs for b in blocks], np.int64),
                          np.array([len(blocks) for blocks in inputs]), np.array(rows), np.array(workers, np.int32))
            share = np.array([1 / len(self.owners[row]) for row in rows]) if in_pieces or args is not None else 1.0
            self.steps.append(Step(kernel, label, level, share, args))
        return iter(ids)
