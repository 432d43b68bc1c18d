"""Partition: a plan cut into one share for each worker and one call for each super-task.

A cluster executor sends a worker few, large pieces of work. Tasks are grouped by (window, phase, worker):

    window(t)  contiguous runs of the plan's order, few; they bound what is alive and let transfers overlap with work
    phase(t)   most changes of worker on any path to t inside its window:
               max over inputs i of the same window of phase(i) + (worker(i) != worker(t))

Ordered by (window, phase, worker) the groups are topological, so that all calls can be handed over up front. What a
group makes and uses itself never leaves the worker. Blocks that cross are bundled by who reads them: one bundle is one
result of the call that makes it and one argument of each call that reads it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from nums_core.ops.taskgraph import LEAF, AxisArgs, Family, Kernel, ListArgs, TaskGraph
from nums_core.runtime.cluster import Cluster
from nums_core.runtime.executors.base import Output
from nums_core.runtime.footprint import peak_bytes
from nums_core.runtime.plan import Plan
from nums_core.runtime.supertask import edges_of, estimated_seconds

DRIVER = -1
WINDOW_S = 0.05  # estimated work of a worker that is worth one more call
MOST_WINDOWS = 8
CALL_BYTES = 256 * 2**20  # more than this should not leave a worker in one call, nor a quarter of its shared memory
EARLY_BYTES = 8 * 2**20  # results larger than this leave before the worker goes on
SPREAD_BYTES = 64 * 2**10  # a bundle smaller than this is copied to each reader rather than shared


@dataclass(frozen=True, eq=False)
class RowArgs:
    """Arguments of some tasks of a family: those at `rows` in C order of its `grid`."""

    base: AxisArgs
    grid: tuple[int, ...]
    rows: np.ndarray

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        if not self.grid:
            return iter([()] * len(self.rows))
        index = np.unravel_index(self.rows, self.grid)
        return zip(*[[axis[i] for i in at.tolist()] for axis, at in zip(self.base.per_axis, index, strict=True)],
                   strict=True)


def row_args(f: Family, rows: np.ndarray) -> Any:
    """The arguments of the tasks of `f` at `rows`."""
    if isinstance(f.args, AxisArgs):
        return RowArgs(f.args, f.grid, rows)
    if isinstance(f.args, RowArgs):
        return RowArgs(f.args.base, f.args.grid, f.args.rows[rows])
    return None if f.args is None else ListArgs(tuple(f.args.each[i] for i in rows.tolist()))


class Step(NamedTuple):
    """One call on one worker, in its own numbering: tasks `order[start:stop]` of its plan.

    `imports[k]` are the blocks that argument `k` brings, `exports[k]` those that result `k` takes away, `results` those
    that the driver gets.
    """

    start: int
    stop: int
    imports: tuple[np.ndarray, ...]
    exports: tuple[np.ndarray, ...]
    results: np.ndarray


class HeldLeaf(NamedTuple):
    """Blocks `first ..` of a worker's plan are rows `rows` of the held input `slot`."""

    slot: int
    rows: np.ndarray
    first: int


class Kept(NamedTuple):
    """Blocks `ids` of a worker's plan are rows `rows` of output `number`, and stay there. `unknown`: their shapes are
    told."""

    number: int
    rows: np.ndarray
    ids: np.ndarray
    dtype: Any
    unknown: bool


class Part(NamedTuple):
    """A worker's share: a plan of its own, in its own numbering (leaves first), and the steps. Picklable."""

    plan: Plan
    steps: tuple[Step, ...]
    held: tuple[HeldLeaf, ...]
    kept: tuple[Kept, ...]
    peak_bytes: float
    over_budget: bool


class Bundle(NamedTuple):
    """Blocks that travel together, and the calls that read them. `source` is a call, or DRIVER."""

    source: int
    blocks: np.ndarray
    readers: tuple[int, ...]


@dataclass
class Call:
    """A super-task: step `step` of `worker`. `imports` and `exports` are bundle numbers."""

    worker: int
    step: int
    seconds: float
    imports: list[int] = field(default_factory=list)
    exports: list[int] = field(default_factory=list)
    results: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))


@dataclass
class Partition:
    """What a cluster executor needs of a plan; it does not hold the plan itself.

    Attributes
    ----------
    calls : list of Call, topological order
    bundles : list of Bundle
    parts : dict worker -> Part
    ids : dict worker -> int64 array
        Ids in the whole plan of the blocks of a worker's plan.
    leaf_in, leaf_out : float64 arrays, shape (n_workers,), bytes
        Leaves of the driver's that go to workers other than the one the plan reads them on: they count as moved from there.
    """

    calls: list[Call]
    bundles: list[Bundle]
    parts: dict[int, Part]
    ids: dict[int, np.ndarray]
    leaf_in: np.ndarray
    leaf_out: np.ndarray

    @property
    def seconds(self) -> float:
        return sum(c.seconds for c in self.calls)


def partition(plan: Plan, outputs: Sequence[Output]) -> Partition:
    """Cut `plan`; into more windows where a worker would outgrow its memory otherwise."""
    draft = _Draft(plan, outputs)
    n = draft.first_windows()
    made = draft.cut(n)
    while any(p.over_budget for p in made.parts.values()) and n < 64:
        n *= 4
        finer = draft.cut(n)
        if sum(p.over_budget for p in finer.parts.values()) < sum(p.over_budget for p in made.parts.values()):
            made = finer
    return made


class _Draft:
    """A partition in the making."""

    def __init__(self, plan: Plan, outputs: Sequence[Output]) -> None:
        self.plan, self.outputs = plan, outputs
        g = self.g = plan.graph
        self.worker = plan.worker.astype(np.int64)
        self.n_workers = plan.cluster.n_workers
        self.seconds = estimated_seconds(plan)
        self.viewed = np.zeros(g.n_tasks, bool)  # leaves in the driver's memory
        for f in g.families:
            if f.role == LEAF and f.kernel.name == "view":
                self.viewed[f.start:f.stop] = True
        self.kept = np.zeros(g.n_tasks, bool)
        self.sent = np.zeros(g.n_tasks, bool)  # blocks that the driver gets
        for output, k in zip(outputs, g.outputs, strict=True):
            f = g.families[k]
            (self.kept if output.keep else self.sent)[f.start:f.stop] = True
        producer, consumer = g.in_idx, g.consumer_of_edge
        cross = (self.worker[producer] != self.worker[consumer]) | self.viewed[producer]
        self.cross_block, self.cross_reader = producer[cross], consumer[cross]
        self.lookup = np.zeros(g.n_tasks, np.int64)

    def first_windows(self) -> int:
        """As many windows as transfers are worth, and as the size of what leaves a worker asks for."""
        g, leaves = self.g, self.sent.copy()
        leaves[self.cross_block] = True
        leaves &= ~g.is_leaf
        if not leaves.any():
            return 1
        out = np.bincount(self.worker[leaves], np.nan_to_num(g.out_bytes[leaves]), self.n_workers).max()
        call_bytes = min([CALL_BYTES, *(w.store_bytes // 4 for w in self.plan.cluster.workers if w.store_bytes)])
        by_time = int(self.seconds.sum() / self.n_workers / WINDOW_S)
        if not len(self.cross_block) and out < EARLY_BYTES:
            by_time = 1
        return max(1, min(by_time, MOST_WINDOWS), -(-int(out) // max(call_bytes, EARLY_BYTES)))

    # -- which call runs a task ---------------------------------------------------------------------------------------

    def cut(self, n_windows: int) -> Partition:
        self._label_calls(n_windows)
        self._first_readers()
        self._merge_calls()
        self._bundle()
        parts = {}
        self.ids: dict[int, np.ndarray] = {}
        for w in sorted({c.worker for c in self.calls}):
            parts[w] = self._part(w)
        away = self.viewed[self.moved] & (self.move_to != self.worker[self.moved])
        size = self.g.out_bytes[self.moved[away]]
        into, out = (np.bincount(w, size, self.n_workers) for w in (self.move_to[away], self.worker[self.moved[away]]))
        return Partition(self.calls, self.bundles, parts, self.ids, into, out)

    def _label_calls(self, n_windows: int) -> None:
        """Number of the call that makes each block (DRIVER for leaves that it sends; -2 where nobody asks)."""
        g, plan = self.g, self.plan
        window = np.zeros(g.n_tasks, np.int64)
        if n_windows > 1:
            cost = self.seconds[plan.order]
            share = (np.cumsum(cost) - cost / 2) / max(float(cost.sum()), 1e-30)
            window[plan.order] = np.minimum((share * n_windows).astype(np.int64), n_windows - 1)
        phase = phases(g, self.worker, window)
        n_phases = int(phase.max(initial=0)) + 1
        code = (window * n_phases + phase) * self.n_workers + self.worker
        # Held leaves that other workers read leave in a call of their own before all others.
        lent = np.zeros(g.n_tasks, bool)
        lent[self.cross_block] = True
        lent &= g.is_leaf & ~self.viewed
        code[lent] = self.worker[lent] - self.n_workers
        asked = ~g.is_leaf | lent
        codes, label = np.unique(code[asked], return_inverse=True)
        self.call_of = np.full(g.n_tasks, -2, np.int64)
        self.call_of[asked] = label
        self.call_of[self.viewed] = DRIVER
        self.call_worker = codes % self.n_workers

    def _first_readers(self) -> None:
        """Each (block, worker it goes to) once, with the first call there that reads it."""
        pair = self.cross_block * self.n_workers + self.worker[self.cross_reader]
        call = self.call_of[self.cross_reader]
        by = np.lexsort((call, pair))
        pair, call = pair[by], call[by]
        first = np.flatnonzero(np.diff(pair, prepend=-1))
        self.moved, self.move_to = pair[first] // self.n_workers, pair[first] % self.n_workers
        self.move_call = call[first]

    def _merge_calls(self) -> None:
        """Join a call with the next of its worker where nothing leaves after the first nor comes before the second."""
        g, n = self.g, len(self.call_worker)
        gives, takes = np.zeros(n, bool), np.zeros(n, bool)
        source = self.call_of[self.moved]
        gives[source[source >= 0]] = True
        takes[self.move_call] = True
        out = np.bincount(self.call_of[self.sent & ~g.is_leaf], np.nan_to_num(g.out_bytes[self.sent & ~g.is_leaf]), n)
        gives |= out > EARLY_BYTES
        into = np.arange(n)
        last: dict[int, int] = {}
        for c, w in enumerate(self.call_worker.tolist()):
            before = last.get(w)
            if before is not None and not gives[before] and not takes[c]:
                into[c] = into[before]
            last[w] = c
        roots, label = np.unique(into, return_inverse=True)
        made = self.call_of >= 0
        self.call_of[made] = label[self.call_of[made]]
        self.move_call = label[self.move_call]
        self.call_worker = self.call_worker[roots]

    # -- what travels -------------------------------------------------------------------------------------------------

    def _bundle(self) -> None:
        n = len(self.call_worker)
        made = self.call_of >= 0
        cost = np.bincount(self.call_of[made], self.seconds[made], n)
        steps: dict[int, int] = {}
        self.calls = []
        for w, s in zip(self.call_worker.tolist(), cost.tolist(), strict=True):
            self.calls.append(Call(w, steps.setdefault(w, 0), s))
            steps[w] += 1
        self.bundles: list[Bundle] = []
        for (source, readers), blocks in sorted(self._groups().items()):
            number = len(self.bundles)
            self.bundles.append(Bundle(source, np.sort(np.concatenate(blocks)), readers))
            if source != DRIVER:
                self.calls[source].exports.append(number)
            for r in readers:
                self.calls[r].imports.append(number)
        sent = np.flatnonzero(self.sent & made)
        by = np.argsort(self.call_of[sent], kind="stable")
        sent = sent[by]
        ends = np.searchsorted(self.call_of[sent], np.arange(n + 1))
        for c, (a, b) in zip(self.calls, itertools.pairwise(ends.tolist()), strict=True):
            c.results = sent[a:b]

    def _groups(self) -> dict[tuple[int, tuple[int, ...]], list[np.ndarray]]:
        """Blocks by (call that makes them, calls that read them)."""
        groups: dict[tuple[int, tuple[int, ...]], list[np.ndarray]] = {}
        moved, call = self.moved, self.move_call
        start = np.flatnonzero(np.diff(moved, prepend=-1))
        count = np.diff(start, append=len(moved))
        single = np.repeat(count == 1, count)
        source = self.call_of[moved]
        n = len(self.calls) + 1
        code = (source[single] + 1) * n + call[single]
        by = np.argsort(code, kind="stable")
        blocks, code = moved[single][by], code[by]
        at = np.flatnonzero(np.diff(code, prepend=-1))
        for c, run in zip(code[at].tolist(), np.split(blocks, at[1:]) if len(at) else [], strict=True):
            groups[c // n - 1, (c % n,)] = [run]
        shared: dict[tuple[int, tuple[int, ...]], list[int]] = {}
        readers = call.tolist()
        for a, k in zip(start[count > 1].tolist(), count[count > 1].tolist(), strict=True):
            shared.setdefault((int(source[a]), tuple(sorted(readers[a:a + k]))), []).append(int(moved[a]))
        for (s, to), listed in shared.items():
            run = np.array(listed, np.int64)
            if self.g.out_bytes[run].sum() < SPREAD_BYTES:
                for r in to:
                    groups.setdefault((s, (r,)), []).append(run)
            else:
                groups[s, to] = [run]
        return groups

    # -- a worker's share ---------------------------------------------------------------------------------------------

    def _part(self, w: int) -> Part:
        g, plan = self.g, self.plan
        mine = self.worker == w
        tasks = np.flatnonzero(mine & ~g.is_leaf)
        producer, place = edges_of(g, tasks)
        used = np.zeros(g.n_tasks, bool)
        used[producer] = True
        used |= self.call_of >= 0  # held leaves that others read
        held = np.flatnonzero(used & mine & g.is_leaf & ~self.viewed)
        imports = self.moved[self.move_to == w]
        n_leaves = len(held) + len(imports)
        ids = self.ids[w] = np.concatenate([held, imports, tasks])
        self.lookup[ids] = np.arange(len(ids))
        by_call = tasks[np.lexsort((plan.position[tasks], self.call_of[tasks]))]
        order = np.concatenate([np.arange(n_leaves), self.lookup[by_call]])
        counts = np.bincount(place, minlength=len(tasks)) if len(tasks) else np.zeros(0, np.int64)
        graph = TaskGraph(
            self._families(n_leaves, tasks), np.concatenate([np.zeros(n_leaves + 1, np.int64), np.cumsum(counts)]),
            self.lookup[producer], g.out_bytes[ids], g.flop[ids], np.full(len(ids), -1, np.int32))
        none = np.zeros(0, np.int32)
        local = Plan(graph, Cluster((plan.cluster.workers[w],), kind=plan.cluster.kind), np.zeros(len(ids), np.int32),
                     order, none.astype(np.int64), none, none, plan.policy)
        steps = self._steps(w, n_leaves, by_call)
        worker = plan.cluster.workers[w]
        leaving = max((float(np.nan_to_num(graph.out_bytes[np.concatenate([*s.exports, s.results])]).sum())
                       for s in steps), default=0.0)
        kept = self._kept(w)
        graph.__dict__["is_output"] = np.isin(np.arange(len(ids)), [t for k in kept for t in k.ids.tolist()])  # they live on
        peak = peak_bytes(local, worker.threads) + leaving
        for name in ("position", "last_use", "family_of", "is_leaf", "consumer_of_edge", "is_output"):
            local.__dict__.pop(name, None)
            graph.__dict__.pop(name, None)
        return Part(local, steps, self._held(held), kept, peak, peak > worker.memory_bytes)

    def _families(self, n_leaves: int, tasks: np.ndarray) -> tuple[Family, ...]:
        """The families of the whole plan, as far as the worker runs them; all leaves are one family."""
        out = [Family(Kernel("bound"), 0, (n_leaves,), LEAF)]
        family = self.g.family_of[tasks]
        at = np.flatnonzero(np.diff(family, prepend=-1))
        start = n_leaves
        for k, run in zip(family[at].tolist(), np.split(tasks, at[1:]) if len(at) else [], strict=True):
            f = self.g.families[k]
            out.append(Family(f.kernel, start, (len(run),), f.role, row_args(f, run - f.start), f.label, f.line))
            start += len(run)
        return tuple(out)

    def _steps(self, w: int, n_leaves: int, by_call: np.ndarray) -> tuple[Step, ...]:
        numbers = [k for k, c in enumerate(self.calls) if c.worker == w]
        called = self.call_of[by_call]
        starts = np.searchsorted(called, numbers).tolist()
        stops = np.searchsorted(called, numbers, side="right").tolist()
        local = lambda k: self.lookup[self.bundles[k].blocks]  # noqa: E731
        return tuple(Step(n_leaves + a, n_leaves + b, tuple(map(local, self.calls[k].imports)),
                          tuple(map(local, self.calls[k].exports)), self.lookup[self.calls[k].results])
                     for k, a, b in zip(numbers, starts, stops, strict=True))

    def _held(self, held: np.ndarray) -> tuple[HeldLeaf, ...]:
        family = self.g.family_of[held]
        at = np.flatnonzero(np.diff(family, prepend=-1))
        out, first = [], 0
        for k, run in zip(family[at].tolist(), np.split(held, at[1:]) if len(at) else [], strict=True):
            f = self.g.families[k]
            rows = run - f.start if f.args is None else np.array(list(f.args), np.int64)[run - f.start]
            out.append(HeldLeaf(f.kernel.params[0], rows, first))
            first += len(run)
        return tuple(out)

    def _kept(self, w: int) -> tuple[Kept, ...]:
        out = []
        for number, (output, k) in enumerate(zip(self.outputs, self.g.outputs, strict=True)):
            if output.keep:
                f = self.g.families[k]
                rows = np.flatnonzero(self.worker[f.start:f.stop] == w)
                if len(rows):
                    out.append(Kept(number, rows, self.lookup[rows + f.start], output.dtype, output.unknown))
        return tuple(out)


def phases(g: TaskGraph, worker: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Most changes of worker on any path to each task inside its window: int64, shape (n,)."""
    phase = np.zeros(g.n_tasks, np.int64)
    ptr = g.in_ptr
    for f in g.families:
        a, b = int(ptr[f.start]), int(ptr[f.stop])
        if a == b:
            continue
        producer, consumer = g.in_idx[a:b], g.consumer_of_edge[a:b]
        value = phase[producer] + (worker[producer] != worker[consumer])
        value[(window[producer] != window[consumer]) | g.is_leaf[producer]] = 0
        np.maximum.at(phase, consumer, value)
    return phase
