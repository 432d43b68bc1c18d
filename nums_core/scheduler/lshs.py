"""LSHS, Load Simulated Hierarchical Scheduling: a greedy search that places one task at a time where loads grow least.

Source     Elibol et al., "NumS: Scalable Array Programming for the Cloud", arXiv 2206.14276, and its planner's code.
Notation   frontier  tasks whose operands are placed  |  options(v)  workers that hold an operand of v
           R[mem|in|out]  loads in bytes  |  F = max R[mem] + max R[in] + max R[out]  |  lam  price inside a node
Inputs     block sizes (estimates, bytes) and homes of leaves from the TaskGraph; layout workers of the output blocks
Departs    (1) plans fully before anything runs   (2) bytes, not elements   (3) ties: F, then bytes moved, then load
           of the worker, then its number, so a seed gives one plan in any process   (4) every output block is forced to
           its layout worker   (5) pairs of a Reduce: "fifo" as the source, "local" drains workers, then nodes, "fixed"
           keeps to the halving tree   (6) copies may come from the holder that has sent least (`source="least"`)
Checked    against the reference vectors in tests/scheduler/test_lshs.py

Loads only grow, so the maxima after a step follow from the old maxima and the few entries that change: a simulated step
costs O(operands), whatever the number of workers.
"""

from __future__ import annotations

import copy
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from nums_core.ops.taskgraph import LEAF, REDUCE, TaskGraph
from nums_core.runtime.cluster import Cluster
from nums_core.scheduler.layout import Layout
from nums_core.scheduler.load import Loads, price_inside_node
from nums_core.scheduler.shares import burden

PAIRINGS = ("fifo", "local", "fixed")


@dataclass
class State:
    """R, and where copies are."""

    cluster: Cluster
    lam: float
    source: str = "first"
    ties: str = "bytes"
    moved: float = 0.0
    where: dict[int, list[int]] = field(default_factory=dict)  # block -> holders, maker first
    size: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = self.cluster.n_workers
        self.mem, self.into, self.out = [0.0] * n, [0.0] * n, [0.0] * n
        self.top = [0.0, 0.0, 0.0]
        self.node: list[int] = self.cluster.node_of.tolist()
        heavier = burden(self.cluster)
        self.burden: list[float] = [1.0] * n if heavier is None else heavier.tolist()

    def make(self, block: int, size: float, d: int) -> None:
        """A new block appears on worker `d`."""
        self.where[block], self.size[block] = [d], size
        self.mem[d] += size * self.burden[d]
        self.top[0] = max(self.top[0], self.mem[d])

    def _holder(self, block: int, d: int) -> int:
        holders = self.where[block]
        if self.source == "first" or len(holders) == 1:
            return holders[0]
        return min(holders, key=lambda w: (self.node[w] != self.node[d], self.out[w], w))

    def transfers(self, blocks: list[int], d: int) -> list[tuple[int, int, float, float]]:
        """(block, source, bytes, priced bytes) of what running on `d` has to fetch."""
        out = []
        for b in dict.fromkeys(blocks):
            if d not in self.where[b]:
                src, size = self._holder(b, d), self.size[b]
                out.append((b, src, size, size * self.lam if self.node[src] == self.node[d] else size))
        return out

    def price(self, src: int, dst: int) -> float:
        """Of a byte from `src` to `dst`."""
        return self.lam if self.node[src] == self.node[dst] else 1.0

    def after(self, blocks: list[int], size: float, d: int) -> tuple[float, float, float, float]:
        """Largest load of each kind (memory, in, out) if a task on `blocks` ran on `d`, and the bytes it would move."""
        heavier = self.burden[d]
        mem, into, moved = self.mem[d] + size * heavier, self.into[d], 0.0
        out = self.top[2]
        sent: dict[int, float] = {}
        for _, src, n_bytes, cost in self.transfers(blocks, d):
            mem += n_bytes * heavier
            into += cost
            moved += n_bytes
            sent[src] = sent.get(src, self.out[src]) + cost
            out = max(out, sent[src])
        return max(self.top[0], mem), max(self.top[1], into), out, moved

    def simulate(self, blocks: list[int], size: float, d: int) -> tuple[float, ...]:
        """(F, bytes moved, load of d, d) if a task on `blocks` ran on `d`; less is better. F alone with
        `ties="first"`, where the first option found wins, as in the source."""
        mem, into, out, moved = self.after(blocks, size, d)
        F = mem + into + out  # noqa: N806
        return (F,) if self.ties == "first" else (F, moved, self.mem[d], d)

    def commit(self, blocks: list[int], block: int, size: float, d: int) -> None:
        for b, src, n_bytes, cost in self.transfers(blocks, d):
            self.out[src] += cost
            self.into[d] += cost
            self.mem[d] += n_bytes * self.burden[d]
            self.moved += n_bytes
            self.where[b] = [*self.where[b], d]  # anew: forks share the lists
            self.top[2] = max(self.top[2], self.out[src])
        self.top[1] = max(self.top[1], self.into[d])
        self.make(block, size, d)

    def send(self, src: int, dst: int, size: float) -> None:
        """A block that nobody else will ask for goes from `src` to `dst`."""
        cost = size * self.price(src, dst)
        self.out[src] += cost
        self.into[dst] += cost
        self.mem[dst] += size * self.burden[dst]
        self.moved += size
        self.top = [max(self.top[0], self.mem[dst]), max(self.top[1], self.into[dst]), max(self.top[2], self.out[src])]

    def fork(self) -> State:
        """A state of its own that is equal to this one."""
        twin = copy.copy(self)
        twin.mem, twin.into, twin.out, twin.top = self.mem[:], self.into[:], self.out[:], self.top[:]
        twin.where = self.where.copy()
        return twin

    def loads(self) -> Loads:
        return Loads(np.array(self.mem), np.array(self.into), np.array(self.out), self.moved)


class _Fifo:
    """Pairs of a Reduce, balanced: two from the front, their result to the back (the source's rule)."""

    def __init__(self, blocks: list[int], state: State) -> None:
        self.queue = deque(sorted(blocks, key=lambda b: state.where[b][0]))

    def pair(self) -> list[int]:
        """The two blocks to combine next."""
        return [self.queue[0], self.queue[1]]

    def replace(self, block: int) -> None:
        """Put the pair's result in its place."""
        self.queue.popleft()
        self.queue.popleft()
        self.queue.append(block)


class _Local:
    """Pairs of a Reduce, local first: inside each worker, then inside each node, then over nodes."""

    def __init__(self, blocks: list[int], state: State) -> None:
        self.state, self.stage = state, -1
        self._next_stage(blocks)

    def _next_stage(self, blocks: list[int]) -> None:
        self.stage += 1
        groups: dict[int, deque[int]] = {}
        for b in sorted(blocks, key=lambda b: self.state.where[b][0]):
            w = self.state.where[b][0]
            groups.setdefault((w, self.state.node[w], 0)[self.stage], deque()).append(b)
        self.groups = list(groups.values())
        self.open = [g for g in self.groups if len(g) > 1][::-1]

    def pair(self) -> list[int]:
        while not self.open:
            self._next_stage([g[0] for g in self.groups])
        return [self.open[-1][0], self.open[-1][1]]

    def replace(self, block: int) -> None:
        group = self.open[-1]
        group.popleft()
        group.popleft()
        group.append(block)
        if len(group) == 1:
            self.open.pop()


class _Fixed:
    """Pairs of a Reduce along the halving tree of `ops.tree`, children before parents."""

    def __init__(self, blocks: list[int], state: State) -> None:
        self.value = {(i, i + 1): b for i, b in enumerate(blocks)}
        self.ranges = _post_order(0, len(blocks))[::-1]

    def pair(self) -> list[int]:
        lo, hi = self.ranges[-1]
        mid = lo + (hi - lo) // 2
        return [self.value[lo, mid], self.value[mid, hi]]

    def replace(self, block: int) -> None:
        self.value[self.ranges.pop()] = block


def _post_order(lo: int, hi: int) -> list[tuple[int, int]]:
    if hi - lo < 2:
        return []
    mid = lo + (hi - lo) // 2
    return [*_post_order(lo, mid), *_post_order(mid, hi), (lo, hi)]


_PAIRING: dict[str, type[_Fifo] | type[_Local] | type[_Fixed]] = {"fifo": _Fifo, "local": _Local, "fixed": _Fixed}


@dataclass(frozen=True)
class Result:
    """Worker of every task (of a Reduce: of its last pair), and the loads that the search reckoned with."""

    worker: np.ndarray
    loads: Loads


class Search:
    """One run of LSHS over an unexpanded graph."""

    def __init__(self, graph: TaskGraph, layout: Layout, *, pairing: str = "local", source: str = "first",
                 ties: str = "bytes", lam: float | None = None) -> None:
        self.graph, self.pairing = graph, _PAIRING[pairing]
        cluster = layout.cluster
        self.state = State(cluster, price_inside_node(cluster) if lam is None else lam, source, ties)
        self.size: list[float] = graph.out_bytes.tolist()
        self.worker = [-1] * graph.n_tasks
        self.layout_of: list[int] = np.concatenate(
            [np.zeros(0, np.int32), *(layout.workers(f.grid) for f in graph.families)]).tolist()
        self.forced: list[bool] = graph.is_output.tolist()
        self.reduces = {t for f in graph.families if f.role == REDUCE for t in range(f.start, f.stop)}
        self.open: dict[int, _Fifo | _Local | _Fixed] = {}  # Reduces under way
        self.next_block = graph.n_tasks  # a Reduce's inner results get numbers past all tasks
        ptr = graph.in_ptr.tolist()
        idx: list[int] = graph.in_idx.tolist()
        self.inputs = [idx[ptr[t]:ptr[t + 1]] for t in range(graph.n_tasks)]
        self.waiting = [len(blocks) for blocks in self.inputs]
        self.pairs_left = [len(blocks) - 1 if t in self.reduces else 0 for t, blocks in enumerate(self.inputs)]
        self.readers: list[list[int]] = [[] for _ in range(graph.n_tasks)]
        for t, blocks in enumerate(self.inputs):
            for b in blocks:
                self.readers[b].append(t)

    def run(self, seed: int = 0, sample: int | None = 1) -> Result:
        """Place everything; each step compares `sample` random frontier tasks (None: all) and commits the best."""
        rng = random.Random(seed)
        frontier = self._place_leaves()
        while frontier:
            picks: Sequence[int] = range(len(frontier))
            if sample is not None and sample < len(frontier):
                picks = [rng.randrange(len(frontier))] if sample == 1 else rng.sample(picks, sample)
            at, d = self._best(frontier, picks)
            if self._step(frontier[at], d):
                v, frontier[at] = frontier[at], frontier[-1]
                frontier.pop()
                frontier += self._released(v)
        return Result(np.array(self.worker, np.int32), self.state.loads())

    def _place_leaves(self) -> list[int]:
        """Leaves go where they are, or to their layout worker; returns the first frontier."""
        g = self.graph
        for f in g.families:
            if f.role == LEAF:
                for t in range(f.start, f.stop):
                    home = int(g.home[t])
                    self.worker[t] = home if home >= 0 else self.layout_of[t]
                    self.state.make(t, self.size[t], self.worker[t])
        placed = [t for t in range(g.n_tasks) if self.worker[t] >= 0]
        return [t for t in range(g.n_tasks) if not self.inputs[t] and self.worker[t] < 0] + [
            r for t in placed for r in self._released(t)]

    def _released(self, v: int) -> list[int]:
        """Readers of `v` that have all their operands now."""
        out = []
        for r in self.readers[v]:
            self.waiting[r] -= 1
            if not self.waiting[r]:
                out.append(r)
        return out

    def _operands(self, v: int) -> list[int]:
        """Blocks that the next step of `v` reads: its inputs, or the next pair of a Reduce."""
        if self.pairs_left[v] < 1:
            return self.inputs[v]
        if v not in self.open:
            self.open[v] = self.pairing(self.inputs[v], self.state)
        return self.open[v].pair()

    def _options(self, v: int, blocks: list[int]) -> list[int]:
        if not blocks or (self.forced[v] and self.pairs_left[v] < 2):
            return [self.layout_of[v]]
        return list(dict.fromkeys(w for b in blocks for w in self.state.where[b]))

    def _best(self, frontier: list[int], picks: Sequence[int]) -> tuple[int, int]:
        """(index in the frontier, worker) of the step with the least F."""
        best: tuple[tuple[float, ...], int, int] | None = None
        for at in picks:
            v = frontier[at]
            blocks = self._operands(v)
            options = self._options(v, blocks)
            if len(options) == 1 and len(picks) == 1:  # nothing to compare
                return at, options[0]
            for d in options:
                price = self.state.simulate(blocks, self._step_size(v), d)
                if best is None or price < best[0]:
                    best = price, at, d
        assert best is not None
        return best[1], best[2]

    def _step_size(self, v: int) -> float:
        """A step of a Reduce makes one more partial result."""
        return self.size[v] if self.pairs_left[v] < 2 else self.size[self.inputs[v][0]]

    def _step(self, v: int, d: int) -> bool:
        """Run the next step of `v` on `d`; True when `v` is done."""
        blocks, size = self._operands(v), self._step_size(v)
        if self.pairs_left[v] > 1:
            self.state.commit(blocks, self.next_block, size, d)
            self.open[v].replace(self.next_block)
            self.next_block += 1
            self.pairs_left[v] -= 1
            return False
        self.state.commit(blocks, v, size, d)
        self.worker[v] = d
        return True


def search(graph: TaskGraph, layout: Layout, *, seed: int = 0, sample: int | None = 1, pairing: str = "local",
           source: str = "first", ties: str = "bytes", lam: float | None = None) -> Result:
    """Run LSHS once; see the head of the module for the options."""
    return Search(graph, layout, pairing=pairing, source=source, ties=ties, lam=lam).run(seed, sample)
