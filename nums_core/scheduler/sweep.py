"""LSHS for graphs too large to search task by task: the same greedy choice, made for a wave of tasks at once.

Families are taken in order. The tasks of a family whose operands disagree are dealt into waves; all tasks of a wave
choose among their operands' workers by (F, bytes moved, load) under the loads that the waves before them left, and
then the loads are brought up to date. Loads are those of `lshs.py`; copies are remembered in the same way. The pairs
of a reduction are not simulated: `expand` places them.
"""

from __future__ import annotations

import numpy as np

from nums_core.ops.taskgraph import REDUCE
from nums_core.scheduler.draft import Draft
from nums_core.scheduler.load import price_inside_node
from nums_core.scheduler.policies import Operands, Problem
from nums_core.scheduler.shares import burden

WAVES = 16
OPERANDS = 8  # of a task; further ones are not reckoned with


class Sweep:
    """A placement rule (see `policies.Rule`) with the loads it has made so far. Serves one placement."""

    def __init__(self, problem: Problem, seed: int = 0) -> None:
        n = problem.cluster.n_workers
        self.n, self.seed = n, seed
        self.bytes = problem.graph.out_bytes
        self.reduces = np.array([f.role == REDUCE for f in problem.graph.families])
        self.node, self.lam = problem.cluster.node_of, price_inside_node(problem.cluster)
        heavier = burden(problem.cluster)
        self.burden = np.ones(n) if heavier is None else heavier
        self.mem, self.into, self.out = np.zeros(n), np.zeros(n), np.zeros(n)
        self.sent = np.zeros(0, np.int64)  # block * n + destination of all copies, sorted
        self.upto = 0  # tasks below this id are in the loads

    def __call__(self, problem: Problem, draft: Draft, ops: Operands) -> np.ndarray:
        self._catch_up(problem, draft, ops.family.start)
        workers = ops.first.copy()
        made = self.bytes[ops.family.start:ops.family.stop]
        apart = np.flatnonzero(ops.apart)
        np.random.default_rng(self.seed).shuffle(apart)
        for wave in np.array_split(apart, min(WAVES, len(apart))):
            wave.sort()  # neighbours read neighbouring blocks, which is kind to the cache
            blocks, size = self._columns(ops, wave)
            chosen = self._choose(blocks, draft.place[blocks], size, made[wave])
            workers[wave] = chosen
            self._move(draft.place, blocks.reshape(-1), np.tile(chosen, len(blocks)))
            self.mem += np.bincount(chosen, made[wave], self.n) * self.burden
        self.mem += np.bincount(workers[~ops.apart], made[~ops.apart], self.n) * self.burden
        self.upto = ops.family.stop
        return workers

    def _columns(self, ops: Operands, tasks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Operands of tasks and their sizes, one row for each operand; tasks with fewer repeat the last, at no size."""
        first = ops.ptr[tasks]
        counts = ops.ptr[tasks + 1] - first
        column = np.arange(min(int(counts.max()), OPERANDS))[:, None]
        blocks = ops.blocks[first + np.minimum(column, counts - 1)]
        return blocks, np.where(column < counts, self.bytes[blocks], 0.0)

    def _catch_up(self, problem: Problem, draft: Draft, stop: int) -> None:
        """Take the tasks that were placed without a choice into the loads."""
        g, ids = problem.graph, slice(self.upto, stop)
        self.mem += np.bincount(draft.place[ids], self.bytes[ids], self.n) * self.burden
        a, b = g.in_ptr[self.upto], g.in_ptr[stop]
        reader = g.consumer_of_edge[a:b]
        reduces = self.reduces[g.family_of[reader]]
        blocks, reader = g.in_idx[a:b][~reduces], reader[~reduces]
        self._move(draft.place, blocks, draft.place[reader])
        self.upto = stop

    def _choose(self, blocks: np.ndarray, at: np.ndarray, size: np.ndarray, made: np.ndarray) -> np.ndarray:
        """Best worker for each task of a wave; `made` is the size of its result."""
        chosen = at[0].copy()
        best = self._price(0, blocks, at, size, made)
        for k in range(1, len(at)):
            price = self._price(k, blocks, at, size, made)
            better = _less(price, best)
            best = np.where(better, price, best)
            chosen[better] = at[k][better]
        return chosen

    def _price(self, k: int, blocks: np.ndarray, at: np.ndarray, size: np.ndarray, made: np.ndarray) -> np.ndarray:
        """(F, bytes moved, load) of each task on the worker of its operand `k`: float64 array, shape (3, tasks)."""
        d = at[k]
        moved, into = np.zeros(len(d)), self.into[d]
        out = np.full(len(d), self.out.max())
        for j in range(len(at)):
            if j != k:
                fetched = size[j] * ((at[j] != d) & ~self._has(blocks[j], d))
                cost = fetched * np.where(self.node[at[j]] == self.node[d], self.lam, 1.0)
                moved += fetched
                into += cost
                np.maximum(out, self.out[at[j]] + cost, out=out)
        load = self.mem[d]
        F = (np.maximum(load + (moved + made) * self.burden[d], self.mem.max())  # noqa: N806
             + np.maximum(into, self.into.max()) + out)
        return np.stack([F, moved, load])

    def _has(self, blocks: np.ndarray, dst: np.ndarray) -> np.ndarray:
        if not len(self.sent):
            return np.zeros(len(blocks), bool)
        key = blocks * self.n + dst
        return self.sent[np.minimum(np.searchsorted(self.sent, key), len(self.sent) - 1)] == key

    def _move(self, place: np.ndarray, blocks: np.ndarray, dst: np.ndarray) -> None:
        """Send blocks to `dst` unless they are there, and remember the copies."""
        away = place[blocks] != dst
        key = np.sort(blocks[away] * self.n + dst[away])
        key = key[np.r_[True, key[1:] != key[:-1]]] if len(key) else key
        key = key[~self._has(key // self.n, key % self.n)]
        if not len(key):
            return
        size, d, maker = self.bytes[key // self.n], key % self.n, place[key // self.n]
        cost = np.where(self.node[maker] == self.node[d], self.lam * size, size)
        self.out += np.bincount(maker, cost, self.n)
        self.into += np.bincount(d, cost, self.n)
        self.mem += np.bincount(d, size, self.n) * self.burden
        self.sent = np.sort(np.concatenate([self.sent, key]))


def _less(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Task by task: is `a` before `b` in lexical order?"""
    return (a[0] < b[0]) | (a[0] == b[0]) & ((a[1] < b[1]) | (a[1] == b[1]) & (a[2] < b[2]))
