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
from nums_core.scheduler.expand import ragged
from nums_core.scheduler.load import price_inside_node
from nums_core.scheduler.policies import Operands, Problem

WAVES = 16
OPTIONS = 4  # workers of the first so many operands are tried


class Sweep:
    """A placement rule (see `policies.Rule`) with the loads it has made so far. Serves one placement."""

    def __init__(self, problem: Problem, seed: int = 0) -> None:
        n = problem.cluster.n_workers
        self.n, self.seed = n, seed
        self.bytes = problem.graph.out_bytes
        self.reduces = np.array([f.role == REDUCE for f in problem.graph.families])
        self.node, self.lam = problem.cluster.node_of, price_inside_node(problem.cluster)
        self.mem, self.into, self.out = np.zeros(n), np.zeros(n), np.zeros(n)
        self.sent = np.zeros(0, np.int64)  # block * n + destination of all copies, sorted
        self.upto = 0  # tasks below this id are in the loads

    def __call__(self, problem: Problem, draft: Draft, ops: Operands) -> np.ndarray:
        self._catch_up(problem, draft, ops.family.start)
        workers = ops.first.copy()
        size = self.bytes[ops.family.start:ops.family.stop]
        apart = np.flatnonzero(ops.apart)
        np.random.default_rng(self.seed).shuffle(apart)
        for wave in np.array_split(apart, min(WAVES, len(apart))):
            wave.sort()  # neighbours read neighbouring blocks, which is kind to the cache
            counts = np.diff(ops.ptr)[wave]
            edges = ragged(ops.ptr[wave], counts)
            blocks, at = ops.blocks[edges], ops.at[edges]
            workers[wave] = self._choose(blocks, at, counts, size[wave])
            self._move(draft.place, blocks, np.repeat(workers[wave], counts))
            self.mem += np.bincount(workers[wave], size[wave], self.n)
        self.mem += np.bincount(workers[~ops.apart], size[~ops.apart], self.n)
        self.upto = ops.family.stop
        return workers

    def _catch_up(self, problem: Problem, draft: Draft, stop: int) -> None:
        """Take the tasks that were placed without a choice into the loads."""
        g, ids = problem.graph, slice(self.upto, stop)
        self.mem += np.bincount(draft.place[ids], self.bytes[ids], self.n)
        a, b = g.in_ptr[self.upto], g.in_ptr[stop]
        reader = g.consumer_of_edge[a:b]
        reduces = self.reduces[g.family_of[reader]]
        blocks, reader = g.in_idx[a:b][~reduces], reader[~reduces]
        self._move(draft.place, blocks, draft.place[reader])
        self.upto = stop

    def _choose(self, blocks: np.ndarray, at: np.ndarray, counts: np.ndarray, made: np.ndarray) -> np.ndarray:
        """Best worker for each task of a wave; `made` is the size of its result."""
        starts = np.cumsum(counts) - counts
        best = np.full((3, len(counts)), np.inf)
        chosen = np.zeros(len(counts), np.int32)
        for k in range(min(OPTIONS, int(counts.max()))):
            d = at[starts + np.minimum(k, counts - 1)]
            price = self._price(blocks, at, counts, starts, made, d)
            better = _less(price, best)
            best[:, better] = price[:, better]
            chosen[better] = d[better]
        return chosen

    def _price(self, blocks: np.ndarray, at: np.ndarray, counts: np.ndarray, starts: np.ndarray,
               made: np.ndarray, d: np.ndarray) -> np.ndarray:
        """(F, bytes moved, load) of each task on worker `d`: float64 array, shape (3, tasks)."""
        dst = np.repeat(d, counts)
        away = np.flatnonzero(at != dst)
        away = away[~self._has(blocks[away], dst[away])]
        fetched, cost = np.zeros(len(blocks)), np.zeros(len(blocks))
        fetched[away] = self.bytes[blocks[away]]
        cost[away] = fetched[away] * np.where(self.node[at[away]] == self.node[dst[away]], self.lam, 1.0)
        moved = _fold(np.add, fetched, counts, starts)
        sent = _fold(np.maximum, self.out[at] + cost, counts, starts)
        F = (np.maximum(self.mem.max(), self.mem[d] + moved + made)  # noqa: N806
             + np.maximum(self.into.max(), self.into[d] + _fold(np.add, cost, counts, starts))
             + np.maximum(self.out.max(), sent))
        return np.stack([F, moved, self.mem[d]])

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
        self.mem += np.bincount(d, size, self.n)
        self.sent = np.sort(np.concatenate([self.sent, key]))


def _fold(how: np.ufunc, values: np.ndarray, counts: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """`how.reduceat(values, starts)`; by columns where every task has as few operands, ten times faster."""
    width = len(values) // len(counts)
    if width > 4 or (counts != width).any():
        return how.reduceat(values, starts)
    out = values[::width]
    for k in range(1, width):
        out = how(out, values[k::width])
    return out


def _less(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Column by column: is `a` before `b` in lexical order?"""
    return (a[0] < b[0]) | (a[0] == b[0]) & ((a[1] < b[1]) | (a[1] == b[1]) & (a[2] < b[2]))
