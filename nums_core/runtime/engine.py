"""Engine: the blocks of one run in one process, and the loops that run segments over them.

The local executor runs a whole plan with one engine; a worker of a cluster keeps one engine a run and gives it one
super-task after another. Three loops do the work: *free* (nothing is counted: for small tasks), *tracked* (bytes are
summed as blocks come and go) and *counted* (against a `BudgetStore` that spills).
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nums_core.runtime.plan import Plan
from nums_core.runtime.store import BudgetStore, Spilled, block_bytes
from nums_core.runtime.supertask import Segments, TaskTable

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

# Blocks larger than this on average are worth 0.3 us of accounting each.
TRACK_BYTES = 32 * 2**10

# How often a worker looks whether its run was stopped.
POLL_S = 0.02

Fail = Callable[[int, Exception, list[Any]], BaseException]
Work = Iterable[tuple[int, list[int]]]  # tasks, each with the blocks that die with it


class Engine:
    """Blocks by id, and how to make them.

    Attributes
    ----------
    blocks, outs : lists, one entry a task
        The data; where a task must write its block, or None.
    foreign : set of int
        Blocks whose memory is not the run's: views of the user's arrays, of shared memory, of results.
    store : BudgetStore or None
    spans, memory : as in `Report`
    peak_bytes : float, bytes
        Most that the run's own blocks took at once; NaN where nothing was counted.
    """

    def __init__(self, plan: Plan, table: TaskTable, functions: list[Any], fail: Fail, *, worker: int = 0,
                 start_s: float | None = None) -> None:
        self.table, self.functions, self.fail, self.worker = table, functions, fail, worker
        self.plan, self.graph = plan, plan.graph
        n = self.graph.n_tasks
        self.blocks: list[Any] = [None] * n
        self.outs: list[Any] = [None] * n
        self.foreign: set[int] = set()
        self.store: BudgetStore | None = None
        self.spans: list[tuple[str, int, int, float, float, int]] = []
        self.memory: list[tuple[int, float, float]] = []
        self.start_s = time.perf_counter() if start_s is None else start_s
        self.live_bytes = self._peak_bytes = 0.0
        self.tracked = table.mean_bytes >= TRACK_BYTES
        self.step: Callable[[float], None] = lambda seconds: None
        self.check: Callable[[], None] | None = None  # raises where the run was told to stop
        self._reached = 0
        self._polled_s = 0.0
        self._lock = threading.Lock()

    # -- blocks -------------------------------------------------------------------------------------------------------

    def bind(self, ids: Sequence[int], blocks: Sequence[Any]) -> None:
        """Blocks that exist already. `ids` is a range or a list."""
        if isinstance(ids, range):
            self.blocks[ids.start:ids.stop] = blocks
        else:
            for b, block in zip(ids, blocks, strict=True):
                self.blocks[b] = block
        self.foreign.update(ids)
        if self.store is not None:
            for b, block in zip(ids, blocks, strict=True):
                self.store.put(b, block, counts=False)

    def take(self, b: int) -> Any:
        """A block, in memory or as `Spilled`."""
        return self.blocks[b] if self.store is None else self.store.blocks.get(b)

    def load(self, b: int) -> Any:
        """A block, in memory."""
        block = self.take(b)
        return block.load() if isinstance(block, Spilled) else block

    def free(self, b: int) -> None:
        if self.store is not None:
            self.store.free(b)
        elif self.tracked and b not in self.foreign:
            block, self.blocks[b] = self.blocks[b], None
            with self._lock:
                self.live_bytes -= block_bytes(block)
        self.blocks[b] = None

    def sample(self) -> None:
        """Write down how much is alive now."""
        if self.store is not None or self.tracked:
            live = self.live_bytes if self.store is None else self.store.live_bytes
            self.memory.append((self.worker, time.perf_counter() - self.start_s, live))

    def spill_over(self, budget_bytes: float) -> None:
        """Keep to a budget from here on."""
        g, position = self.graph, self.plan.position
        uses: dict[int, list[int]] = {}
        for b, c in zip(g.in_idx.tolist(), position[g.consumer_of_edge].tolist(), strict=True):
            uses.setdefault(b, []).append(c)
        for u in uses.values():
            u.sort(reverse=True)
        never = float(g.n_tasks)

        def next_use(b: int) -> float:
            ahead = uses.get(b)
            while ahead and ahead[-1] <= self._reached:  # the task in progress has pinned its operands
                ahead.pop()
            return ahead[-1] if ahead else never

        self.store = BudgetStore(budget_bytes, next_use)
        for b in self.foreign:
            self.store.put(b, self.blocks[b], counts=False)

    @property
    def peak_bytes(self) -> float:
        if self.store is not None:
            return self.store.peak_bytes
        return self._peak_bytes if self.tracked else float("nan")

    # -- running ------------------------------------------------------------------------------------------------------

    def execute(self, segments: Segments, keep: np.ndarray, threads: int,
                pool: Callable[[], ThreadPoolExecutor] | None = None) -> None:
        """Run all segments; blocks that only they read, and that `keep` does not name, are freed on the way."""
        if threads == 1 or len(segments.tasks) == 1 or pool is None:
            readers = dict(segments.readers)
            for s in range(len(segments.tasks)):
                self.run_segment(segments, s, 0)
                self.release(segments.reads[s], readers, keep)
        else:
            _Crew(self, segments, keep, threads).work(pool())

    def run_segment(self, segments: Segments, s: int, thread: int) -> None:
        began = time.perf_counter() - self.start_s
        tasks = segments.tasks[s]
        work: Work = zip(tasks, segments.frees[s], strict=True)
        if self.check is not None and thread == 0:
            work = self._polling(work)
        # What NumPy would warn of (1/0, inf - inf) is in the values; nobody stands at the line that could be warned.
        with np.errstate(all="ignore"):
            if self.store is not None:
                self._run_counted(work)
            elif self.tracked:
                self._run_tracked(work)
            else:
                self._run_free(work)
        label = self.graph.families[self.graph.family_of[tasks[0]]].label
        self.spans.append((label, self.worker, thread, began, time.perf_counter() - self.start_s, len(tasks)))
        self.step(segments.seconds[s])

    def _polling(self, work: Work) -> Work:
        """`work`, with a look from time to time whether to stop."""
        assert self.check is not None
        for item in work:
            now = time.perf_counter()
            if now - self._polled_s > POLL_S:
                self._polled_s = now
                self.check()
            yield item

    def _run_free(self, work: Work) -> None:
        blocks, outs, functions = self.blocks, self.outs, self.functions
        args, inputs = self.table.args, self.table.inputs
        t = -1
        try:
            for t, dying in work:
                blocks[t] = functions[t](args[t], [blocks[i] for i in inputs[t]], outs[t])
                for b in dying:
                    blocks[b] = None
        except Exception as error:
            raise self.fail(t, error, [blocks[i] for i in inputs[t]]) from error

    def _run_tracked(self, work: Work) -> None:
        blocks, outs, functions = self.blocks, self.outs, self.functions
        args, inputs = self.table.args, self.table.inputs
        live = most = 0.0
        t = -1
        try:
            for t, dying in work:
                block = blocks[t] = functions[t](args[t], [blocks[i] for i in inputs[t]], outs[t])
                if outs[t] is None:
                    live += block_bytes(block)
                    most = max(most, live)
                else:
                    self.foreign.add(t)
                for b in dying:
                    if b not in self.foreign:
                        live -= block_bytes(blocks[b])
                    blocks[b] = None
        except Exception as error:
            raise self.fail(t, error, [blocks[i] for i in inputs[t]]) from error
        finally:
            with self._lock:
                self._peak_bytes = max(self._peak_bytes, self.live_bytes + most)
                self.live_bytes += live
                self.sample()

    def _run_counted(self, work: Work) -> None:
        store, table = self.store, self.table
        assert store is not None
        for t, dying in work:
            self._reached = max(self._reached, int(self.plan.position[t]))
            out, ids = self.outs[t], table.inputs[t]
            need = 0.0 if out is not None else table.need[t]
            operands = store.enter(ids, need)
            try:
                block = self.functions[t](table.args[t], operands, out)
            except Exception as error:
                store.abandon(ids, need)
                raise self.fail(t, error, operands) from error
            except BaseException:
                store.abandon(ids, need)
                raise
            del operands
            store.leave(ids, t, block, need, counts=out is None)
            for b in dying:
                store.free(b)
            self.sample()

    def release(self, reads: list[int], readers: dict[int, int], keep: np.ndarray) -> None:
        """Count down the blocks that a segment read from outside; free those nobody waits for."""
        for b in reads:
            left = readers[b] - 1
            readers[b] = left
            if left == 0 and not keep[b]:
                self.free(b)


class _Crew:
    """The threads of one `execute` and what they share: the heap of ready segments, lowest first."""

    def __init__(self, engine: Engine, segments: Segments, keep: np.ndarray, threads: int) -> None:
        self.engine, self.segments, self.keep, self.threads = engine, segments, keep, threads
        self.readers = dict(segments.readers)
        self.n_before = list(segments.n_before)
        self.ready = [s for s, n in enumerate(self.n_before) if n == 0]
        heapq.heapify(self.ready)
        self.left = len(self.n_before)
        self.changed = threading.Condition()
        self.failure: BaseException | None = None

    def work(self, pool: ThreadPoolExecutor) -> None:
        from concurrent.futures import wait

        helpers = [pool.submit(self._loop, k) for k in range(1, self.threads)]
        try:
            self._loop(0)
            # Helpers that other runs kept from starting are not needed any more.
            wait([h for h in helpers if not h.cancel()])
        except BaseException as error:  # Ctrl-C lands in the caller's thread
            self._stop(error)
            wait([h for h in helpers if not h.cancel()])
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
                self.engine.run_segment(self.segments, s, thread)
            except BaseException as error:
                self._stop(error)
                return
            with self.changed:
                self.engine.release(self.segments.reads[s], self.readers, self.keep)
                self.left -= 1
                for d in self.segments.after[s]:
                    self.n_before[d] -= 1
                    if self.n_before[d] == 0:
                        heapq.heappush(self.ready, d)
                self.changed.notify_all()
