"""The local executor: threads of this process run segments of the plan's order.

Small work runs in the calling thread at once. Otherwise the caller and `threads - 1` others take ready segments, lowest
first, so that the plan's memory-saving order is kept as far as the threads allow. Where the plan would outgrow the
budget, the same segments run against a `BudgetStore` that spills.
"""

from __future__ import annotations

import heapq
import threading
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import numpy as np

from nums_core import config
from nums_core._util import format_bytes
from nums_core.errors import MemoryBudgetError
from nums_core.ops.taskgraph import LEAF
from nums_core.runtime.blas import one_blas_thread
from nums_core.runtime.cluster import Cluster, available_cpus
from nums_core.runtime.executors.base import Held, Output
from nums_core.runtime.failure import kernel_error
from nums_core.runtime.gather import Destination
from nums_core.runtime.plan import Plan
from nums_core.runtime.progress import Progress
from nums_core.runtime.report import Report
from nums_core.runtime.store import BudgetStore, Spilled, block_bytes
from nums_core.runtime.supertask import Segments, TaskTable, cut, estimated_seconds

# Below this a task's Python dominates, and a second thread only fights for the interpreter.
MIN_TASK_S = 12e-6
INLINE_S = 150e-6


def default_memory_bytes() -> int:
    """60 % of what the machine (or its container) has."""
    import psutil

    return int(0.6 * psutil.virtual_memory().total)


class LocalExecutor:
    """Runs plans on threads of this process.

    Parameters
    ----------
    threads : int
        0: one a core.
    memory_bytes : int, bytes
        Budget for blocks the runs make (not for the user's own arrays nor for results). 0: 60 % of the machine.
    """

    def __init__(self, threads: int = 0, memory_bytes: int = 0) -> None:
        self.threads = threads or available_cpus()
        self.memory_bytes = memory_bytes or default_memory_bytes()
        self.cluster = Cluster.single(self.threads, self.memory_bytes)
        self._pool: ThreadPoolExecutor | None = None
        self._tables: weakref.WeakKeyDictionary[Plan, _Prepared] = weakref.WeakKeyDictionary()

    def run(self, plan: Plan, inputs: Sequence[Any], outputs: Sequence[Output],
            donate: frozenset[int] = frozenset()) -> tuple[list[Any], Report]:
        prepared = self._tables.get(plan)
        if prepared is None:
            prepared = self._tables[plan] = _Prepared(plan, self.threads)
        if prepared.largest_bytes > self.memory_bytes:
            raise MemoryBudgetError(_too_large(prepared, self.memory_bytes))
        run = _Run(self, prepared, inputs, outputs, donate)
        limit = one_blas_thread() if prepared.table.blas else nullcontext()
        with limit:
            return run.go()

    def fetch(self, held: Held) -> list[np.ndarray]:
        return [r.load() if isinstance(r, Spilled) else r for r in held.refs]

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True)
            self._pool = None

    def pool(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(max(self.threads - 1, 1), thread_name_prefix="nums")
        return self._pool


def _too_large(prepared: _Prepared, budget: int) -> str:
    f = prepared.largest_family
    return (f"one task of {f.label or f.kernel.name!r}{f' written at {f.line}' if f.line else ''} works on "
            f"{format_bytes(prepared.largest_bytes)}, over the memory budget of {format_bytes(budget)}; use smaller "
            "chunks (x.rechunk(...), or config block_bytes) or raise memory_bytes")


class _Prepared:
    """What is worked out once for a plan and kept for its replays."""

    def __init__(self, plan: Plan, threads: int) -> None:
        g = plan.graph
        self.plan, self.table = plan, TaskTable(plan)
        seconds = estimated_seconds(plan)
        self.total_s = float(seconds.sum())
        n = max(g.n_tasks - int(g.is_leaf.sum()), 1)
        self.n_tasks = n
        self.threads = threads if self.total_s > INLINE_S and self.total_s / n > MIN_TASK_S else 1
        self.segments: Segments = cut(plan, seconds, self.threads)
        own = np.where(g.is_leaf, 0.0, g.out_bytes)
        work = own.copy()
        np.add.at(work, g.consumer_of_edge, own[g.in_idx])
        self.need = np.nan_to_num(own)
        largest = int(np.argmax(work)) if g.n_tasks else 0
        self.largest_bytes = float(np.nan_to_num(work[largest])) if g.n_tasks else 0.0
        self.largest_family = g.families[int(g.family_of[largest])] if g.n_tasks else None
        grow = own[plan.order].copy()
        np.subtract.at(grow, np.minimum(plan.last_use, g.n_tasks - 1), np.where(plan.last_use < g.n_tasks, own, 0.0))
        self.peak_bytes = float(np.cumsum(grow).max(initial=0.0)) + self.threads * float(own.max(initial=0.0))


class _Run:
    """One run of one plan."""

    def __init__(self, executor: LocalExecutor, prepared: _Prepared, inputs: Sequence[Any],
                 outputs: Sequence[Output], donate: frozenset[int]) -> None:
        self.executor, self.prepared, self.outputs = executor, prepared, outputs
        self.plan, self.segments = prepared.plan, prepared.segments
        self.graph = self.plan.graph
        self.functions = prepared.table.bind_readers(inputs)
        self.inputs = inputs
        self.blocks: list[Any] = [None] * self.graph.n_tasks
        self.outs: list[Any] = [None] * self.graph.n_tasks
        self.destinations = [None if o.keep else Destination(o) for o in outputs]
        self.spans: list[tuple[str, int, int, float, float, int]] = []
        self.memory: list[tuple[int, float, float]] = []
        self._bind_leaves()
        self._bind_outputs()
        if donate:
            self._bind_donated(donate)
        self.readers = dict(self.segments.readers)
        self.store: BudgetStore | None = None
        if prepared.peak_bytes > executor.memory_bytes or any(isinstance(b, Spilled) for b in self.blocks):
            self.store = self._budget_store()
        self.progress = Progress(prepared.total_s, prepared.n_tasks)
        self.start = 0.0

    # -- binding ------------------------------------------------------------------------------------------------------

    def _bind_leaves(self) -> None:
        self.viewed: set[int] = set()
        for f in self.graph.families:
            if f.role != LEAF:
                continue
            source = self.inputs[f.kernel.params[0]]
            if f.kernel.name == "view":
                self.blocks[f.start:f.stop] = [source[at] for at in f.args]
            else:
                self.blocks[f.start:f.stop] = source.refs
            self.viewed.update(range(f.start, f.stop))

    def _bind_outputs(self) -> None:
        for output, destination, index in zip(self.outputs, self.destinations, self.graph.outputs, strict=True):
            if destination is not None and destination.array is not None:
                f = self.graph.families[index]
                self.outs[f.start:f.stop] = destination.views()

    def _bind_donated(self, donate: frozenset[int]) -> None:
        """Let an output block overwrite the donated block it is made from, where nothing else reads it any more."""
        g, plan = self.graph, self.plan
        given: set[int] = set()
        for f in g.families:
            if f.role == LEAF and f.kernel.name == "held" and f.kernel.params[0] in donate:
                given.update(range(f.start, f.stop))
        for output, index in zip(self.outputs, g.outputs, strict=True):
            f = g.families[index]
            if not output.keep or f.kernel.name != "fused":
                continue
            identity = tuple(range(f.kernel.params[0].ndim))
            for t in range(f.start, f.stop):
                for k, b in enumerate(self.prepared.table.inputs[t]):
                    old = self.blocks[b]
                    if (b in given and plan.last_use[b] == plan.position[t] and isinstance(old, np.ndarray)
                            and old.dtype == output.dtype and old.nbytes == g.out_bytes[t] and old.flags.writeable
                            and self.prepared.table.inputs[t].count(b) == 1
                            and f.kernel.params[0].maps[k] == identity):
                        self.outs[t] = old
                        given.discard(b)
                        break

    def _budget_store(self) -> BudgetStore:
        position = self.plan.position
        uses: dict[int, list[int]] = {}
        g = self.graph
        for b, c in zip(g.in_idx.tolist(), position[g.consumer_of_edge].tolist(), strict=True):
            uses.setdefault(b, []).append(c)
        for u in uses.values():
            u.sort(reverse=True)
        never = float(g.n_tasks)

        def next_use(b: int) -> float:
            ahead = uses.get(b)
            while ahead and ahead[-1] < self.reached:
                ahead.pop()
            return ahead[-1] if ahead else never

        self.reached = 0
        store = BudgetStore(self.executor.memory_bytes, next_use)
        store.foreign = frozenset(self.viewed)
        for b in self.viewed:
            store.put(b, self.blocks[b], counts=False)
        return store

    # -- running ------------------------------------------------------------------------------------------------------

    def go(self) -> tuple[list[Any], Report]:
        self.start = time.perf_counter()
        self.task = -1
        try:
            if self.prepared.threads == 1 or len(self.segments.tasks) == 1:
                self._serial()
            else:
                _Crew(self, self.prepared.threads).work()
            results = [self._result(i) for i in range(len(self.outputs))]
        finally:
            self.progress.close()
        return results, self._report(time.perf_counter() - self.start)

    def _serial(self) -> None:
        for s in range(len(self.segments.tasks)):
            self.run_segment(s, 0)
            self.release(s)

    def run_segment(self, s: int, thread: int) -> None:
        began = time.perf_counter() - self.start
        (self._run_counted if self.store is not None else self._run_free)(s)
        label = self.graph.families[self.graph.family_of[self.segments.tasks[s][0]]].label
        self.spans.append((label, 0, thread, began, time.perf_counter() - self.start, len(self.segments.tasks[s])))
        self.progress.step(self.segments.seconds[s])

    def _run_free(self, s: int) -> None:
        blocks, outs, functions = self.blocks, self.outs, self.functions
        args, inputs = self.prepared.table.args, self.prepared.table.inputs
        t = -1
        try:
            for t, dying in zip(self.segments.tasks[s], self.segments.frees[s], strict=True):
                blocks[t] = functions[t](args[t], [blocks[i] for i in inputs[t]], outs[t])
                for b in dying:
                    blocks[b] = None
        except Exception as error:
            raise kernel_error(self.plan, t, error, [blocks[i] for i in inputs[t]]) from error

    def _run_counted(self, s: int) -> None:
        store, table = self.store, self.prepared.table
        assert store is not None
        for t, dying in zip(self.segments.tasks[s], self.segments.frees[s], strict=True):
            self.reached = max(self.reached, int(self.plan.position[t]))
            out, ids = self.outs[t], table.inputs[t]
            need = 0.0 if out is not None else float(self.prepared.need[t])
            operands = store.enter(ids, need)
            try:
                block = self.functions[t](table.args[t], operands, out)
            except Exception as error:
                store.abandon(ids, need)
                raise kernel_error(self.plan, t, error, operands) from error
            except BaseException:
                store.abandon(ids, need)
                raise
            del operands
            store.leave(ids, t, block, need, counts=out is None)
            if out is not None:
                store.foreign |= {t}
            for b in dying:
                store.free(b, counts=b not in store.foreign)
            self.memory.append((0, time.perf_counter() - self.start, store.live_bytes))

    def release(self, s: int) -> None:
        """Count down the blocks that segment `s` read from outside; free those nobody waits for."""
        g = self.graph
        for b in self.segments.reads[s]:
            left = self.readers[b] - 1
            self.readers[b] = left
            if left == 0 and not g.is_output[b]:
                if self.store is not None:
                    self.store.free(b, counts=b not in self.store.foreign)
                else:
                    self.blocks[b] = None

    # -- results ------------------------------------------------------------------------------------------------------

    def _result(self, i: int) -> Any:
        f, output, destination = self.graph.families[self.graph.outputs[i]], self.outputs[i], self.destinations[i]
        if destination is not None and destination.array is not None:
            return destination.array
        take = self.store.blocks.__getitem__ if self.store is not None else self.blocks.__getitem__
        refs = [take(t) for t in range(f.start, f.stop)]
        if destination is None:
            n_bytes = float(sum(r.nbytes if isinstance(r, Spilled) else block_bytes(r) for r in refs))
            shapes = None
            if any(c != c for sizes in output.chunks for c in sizes):
                shapes = [r.shape for r in refs]
            return Held(refs, np.zeros(len(refs), np.int32), n_bytes, self.executor, shapes)
        return destination.join([r.load() if isinstance(r, Spilled) else r for r in refs])

    def _report(self, run_s: float) -> Report:
        plan, store = self.plan, self.store
        report = Report(run_s=run_s, n_tasks=self.prepared.n_tasks, flop=float(self.graph.flop.sum()),
                        bytes_moved=0.0, policy=plan.policy, spans=self.spans, memory=self.memory)
        if plan.prediction is not None:
            report.predicted_s = plan.prediction.seconds
            report.predicted_peak_bytes = plan.prediction.peak_bytes
        report.peak_bytes = np.array([store.peak_bytes if store is not None else self.prepared.peak_bytes])
        if store is not None:
            report.spilled_bytes, report.unspilled_bytes = store.spilled_bytes, store.unspilled_bytes
        return report


class _Crew:
    """The threads of one run and what they share: the heap of ready segments."""

    def __init__(self, run: _Run, threads: int) -> None:
        self.run, self.threads = run, threads
        self.n_before = list(run.segments.n_before)
        self.ready = [s for s, n in enumerate(self.n_before) if n == 0]
        heapq.heapify(self.ready)
        self.left = len(self.n_before)
        self.changed = threading.Condition()
        self.failure: BaseException | None = None

    def work(self) -> None:
        helpers = [self.run.executor.pool().submit(self._loop, k) for k in range(1, self.threads)]
        try:
            self._loop(0)
        except BaseException as error:  # Ctrl-C lands in the caller's thread
            self._stop(error)
        for h in helpers:
            h.result()
        if self.failure is not None:
            raise self.failure

    def _stop(self, error: BaseException) -> None:
        with self.changed:
            if self.failure is None:
                self.failure = error
            self.changed.notify_all()

    def _loop(self, thread: int) -> None:
        while True:
            with self.changed:
                while not self.ready and self.left and self.failure is None:
                    self.changed.wait(0.5)
                if not self.left or self.failure is not None:
                    return
                s = heapq.heappop(self.ready)
            try:
                self.run.run_segment(s, thread)
            except BaseException as error:
                self._stop(error)
                return
            with self.changed:
                self.run.release(s)
                self.left -= 1
                for d in self.run.segments.after[s]:
                    self.n_before[d] -= 1
                    if self.n_before[d] == 0:
                        heapq.heappush(self.ready, d)
                self.changed.notify_all()


def from_config() -> LocalExecutor:
    """The local executor that the settings describe."""
    c = config.get()
    return LocalExecutor(c.threads, c.memory_bytes)
