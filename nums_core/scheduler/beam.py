"""Beam search over LSHS's states: several placements of the tasks so far are carried along, the best of each step kept.

Source     P. S. Ow, T. E. Morton, "Filtered beam search in scheduling", International Journal of Production Research 26
           (1988), on the states and prices of `lshs`.
Notation   width  states kept  |  options(v)  workers that hold an operand of v, and the owner of what v serves
Departs    (1) tasks in order of id, so that the products of an output block follow one another   (2) a task that a reduction
           reads is charged for its way there: the first one on a worker sends a partial result to where the sum is
           wanted, further ones on that worker are added to it. One step of LSHS does not see that price, which is why it
           loses products to owner-computes.   (3) pairs of a reduction are left to `expand`
Cost       about 3 us for a task, an option and a state; `width_for` chooses a width that keeps to `SIMULATIONS`
Checked    against LSHS and the portfolio's rules on the cases of tests/scheduler/test_beam.py
"""

from __future__ import annotations

import heapq

import numpy as np

from nums_core.ops.taskgraph import LEAF, REDUCE
from nums_core.scheduler.load import price_inside_node
from nums_core.scheduler.lshs import State
from nums_core.scheduler.policies import Problem

# Most states, and simulated steps in all: 4,000 take about 20 ms. On larger graphs one state is carried, a search of one
# step that looks ahead to the sums.
WIDEST = 16
SIMULATIONS = 4_000
_OPTIONS = 3  # of a task, mostly: two operands and the owner

_Price = tuple[float, ...]


def width_for(n_tasks: int) -> int:
    """States to carry for so many tasks."""
    return min(WIDEST, max(1, SIMULATIONS // (_OPTIONS * max(n_tasks, 1))))


class Beam:
    """One search; `run` gives the worker of every task."""

    def __init__(self, problem: Problem, width: int) -> None:
        g = self.graph = problem.graph
        self.width = width
        self.start = State(problem.cluster, price_inside_node(problem.cluster), "least")
        self.size: list[float] = g.out_bytes.tolist()
        self.owner: list[int] = problem.owner.tolist()
        self.n = problem.cluster.n_workers
        self.forced = g.is_output.tolist()
        ptr, idx = g.in_ptr.tolist(), g.in_idx.tolist()
        self.inputs: list[list[int]] = [list(dict.fromkeys(idx[ptr[t]:ptr[t + 1]])) for t in range(g.n_tasks)]
        self.sum_of = _reduction_of(problem)

    def run(self) -> np.ndarray:
        """int32, shape (n_tasks,)."""
        states = [self.start]
        for f in self.graph.families:
            for t in range(f.start, f.stop):
                if f.role == LEAF:
                    home = int(self.graph.home[t])
                    self.start.make(t, self.size[t], home if home >= 0 else self.owner[t])
                elif f.role == REDUCE:  # its partial results have been sent off as they were made
                    for state in states:
                        state.make(t, self.size[t], self.owner[t])
                else:
                    states = self._placed(states, t)
        return np.array([states[0].where[t][0] for t in range(self.graph.n_tasks)], np.int32)

    def _placed(self, states: list[State], t: int) -> list[State]:
        """The best states with `t` placed, the best first."""
        found = [(self._price(state, t, d), k, d) for k, state in enumerate(states) for d in self._options(state, t)]
        kept = heapq.nsmallest(self.width, found)
        last = {k: at for at, (_, k, _) in enumerate(kept)}  # a state's last child is the state itself
        out = [states[k] if last[k] == at else states[k].fork() for at, (_, k, _) in enumerate(kept)]
        for state, (_, _, d) in zip(out, kept, strict=True):
            self._commit(state, t, d)
        return out

    def _options(self, state: State, t: int) -> list[int]:
        if self.forced[t] or not self.inputs[t]:
            return [self.owner[t]]
        options = dict.fromkeys(w for b in self.inputs[t] for w in state.where[b])
        if len(options) > 1:
            options.setdefault(self.owner[t])
        return list(options)

    def _onward(self, state: State, t: int, d: int) -> int | None:
        """Where the partial result of `t` goes from `d`, if it is the first of its sum there."""
        r = self.sum_of[t]
        if r < 0 or self.owner[r] == d or self._key(r, d) in state.where:
            return None
        return self.owner[r]

    def _key(self, r: int, d: int) -> int:
        """Stands in `State.where` for the part of sum `r` that is made on `d`."""
        return -1 - r * self.n - d

    def _price(self, state: State, t: int, d: int) -> _Price:
        """(F, bytes moved, load of d) if `t` ran on `d`."""
        size = self.size[t]
        mem, into, out, moved = state.after(self.inputs[t], size, d)
        to = self._onward(state, t, d)
        if to is not None:
            cost = size * state.price(d, to)
            mem = max(mem, state.mem[to] + size)
            into, out, moved = max(into, state.into[to] + cost), max(out, state.out[d] + cost), moved + size
        return mem + into + out, state.moved + moved, state.mem[d]

    def _commit(self, state: State, t: int, d: int) -> None:
        to = self._onward(state, t, d)
        state.commit(self.inputs[t], t, self.size[t], d)
        if to is not None:
            state.send(d, to, self.size[t])
            state.where[self._key(self.sum_of[t], d)] = [d]


def _reduction_of(problem: Problem) -> list[int]:
    """The reduction that reads each task, -1 where that is not its only reader."""
    g = problem.graph
    readers = np.bincount(g.in_idx, minlength=g.n_tasks)
    reader = np.full(g.n_tasks, -1, np.int64)
    reader[g.in_idx] = g.consumer_of_edge
    reduces = np.repeat([f.role == REDUCE for f in g.families], [f.count for f in g.families])
    alone = (readers == 1) & (reader >= 0)
    alone[alone] = reduces[reader[alone]]
    found: list[int] = np.where(alone, reader, -1).tolist()
    return found
