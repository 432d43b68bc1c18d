"""The local executor: threads of this process run segments of the plan's order.

Small work runs in the calling thread at once. Otherwise the caller and `threads - 1` others take ready segments, lowest
first, so that the plan's memory-saving order is kept as far as the threads allow. Where the plan would outgrow the
budget, the same segments run against a store that spills (`runtime.engine`).
"""

from __future__ import annotations

import functools
import os
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nums_core import config
from nums_core.ops.taskgraph import LEAF, Family, Kernel
from nums_core.runtime.blas import one_blas_thread
from nums_core.runtime.cluster import Cluster, available_cpus
from nums_core.runtime.engine import Engine
from nums_core.runtime.executors.base import Held, Output, viewed
from nums_core.runtime.failure import kernel_error
from nums_core.runtime.footprint import check_budget, peak_bytes
from nums_core.runtime.gather import Appended, Destination
from nums_core.runtime.plan import Plan
from nums_core.runtime.progress import Progress
from nums_core.runtime.report import Report
from nums_core.runtime.results import Keeper, bind_donated
from nums_core.runtime.store import Spilled, block_bytes, block_shape
from nums_core.runtime.supertask import Segments, TaskTable, cut, estimated_seconds, useful_threads

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor


def default_memory_bytes() -> int:
    """60 % of what the machine has."""
    try:
        return int(0.6 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError):  # Windows; psutil costs 20 ms to import, so it comes second
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
        self._pool_lock = threading.Lock()
        self._tables: weakref.WeakKeyDictionary[Plan, _Prepared] = weakref.WeakKeyDictionary()

    def run(self, plan: Plan, inputs: Sequence[Any], outputs: Sequence[Output],
            donate: frozenset[int] = frozenset()) -> tuple[list[Any], Report]:
        prepared = self._tables.get(plan)
        if prepared is None:
            check_budget(plan)
            prepared = self._tables[plan] = _Prepared(plan, self.threads)
        run = _Run(self, plan, prepared, inputs, outputs, donate)
        limit = one_blas_thread() if prepared.table.blas else nullcontext()
        with limit:
            return run.go()

    def fetch(self, held: Held) -> list[np.ndarray]:
        return [r.load() if isinstance(r, Spilled) else r for r in held.refs]

    def close(self) -> None:
        with self._pool_lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True)

    def pool(self) -> ThreadPoolExecutor:
        with self._pool_lock:
            if self._pool is None:
                from concurrent.futures import ThreadPoolExecutor  # imports logging: 10 ms of a first result

                self._pool = ThreadPoolExecutor(max(self.threads - 1, 1), thread_name_prefix="nums")
            return self._pool


class _Prepared:
    """What is worked out once for a plan and kept for its replays."""

    def __init__(self, plan: Plan, threads: int) -> None:
        g = plan.graph
        self.table = TaskTable(g)
        seconds = estimated_seconds(plan)
        self.total_s = float(seconds.sum())
        self.n_tasks = g.n_tasks - int(g.is_leaf.sum())
        self.threads = useful_threads(seconds, threads)
        self.segments: Segments = cut(plan, seconds, self.threads)
        self.peak_bytes = peak_bytes(plan, self.threads)
        self.is_read = np.zeros(g.n_tasks, bool)
        self.is_read[g.in_idx] = True
        self.leaves = [_Leaf.of(f) for f in g.families if f.role == LEAF]
        self.leaf_ids = [t for leaf in self.leaves for t in leaf.ids]


class _Leaf(NamedTuple):
    """A leaf family as runs bind it; a source of the shape `whole` is its one block as it is."""

    slot: int
    kernel: Kernel
    ids: range
    args: list[tuple[slice, ...]]
    whole: tuple[int, ...] | None

    @classmethod
    def of(cls, f: Family) -> _Leaf:
        args = list(f.args) if f.args is not None else []
        once = len(args) == 1 and len(f.kernel.params) == 1 and all(at.start == 0 and at.step == 1 for at in args[0])
        whole = tuple(at.stop for at in args[0]) if once and args[0] else None
        return cls(f.kernel.params[0], f.kernel, range(f.start, f.stop), args, whole)


class _Run:
    """One run of one plan."""

    def __init__(self, executor: LocalExecutor, plan: Plan, prepared: _Prepared, inputs: Sequence[Any],
                 outputs: Sequence[Output], donate: frozenset[int]) -> None:
        self.executor, self.prepared, self.inputs, self.outputs = executor, prepared, inputs, outputs
        self.plan, self.graph = plan, plan.graph
        self.engine = Engine(plan, prepared.table, prepared.table.bind_readers(inputs),
                             lambda t, error, operands: kernel_error(plan, t, error, operands))
        self.keep = self.graph.is_output.copy()
        donated = self._bind_leaves(donate)
        self.destinations = self._bind_outputs()
        # Nothing here may refer back to the run: a cycle would keep inputs and results alive until the next collection.
        self.keeper = Keeper(functools.partial(_taken, inputs, self.destinations))
        self.overwriting: set[int] = set()
        if donated:
            self.overwriting = bind_donated(self.engine, donated, [
                (t, o.dtype) for o, i in zip(outputs, self.graph.outputs, strict=True) if o.keep
                for t in range(self.graph.families[i].start, self.graph.families[i].stop)])
        if prepared.peak_bytes > executor.memory_bytes or self._holds_spilled():
            self.engine.spill_over(executor.memory_bytes)

    def _holds_spilled(self) -> bool:
        return any(isinstance(r, Spilled) for source in self.inputs if isinstance(source, Held) for r in source.refs)

    def _bind_leaves(self, donate: frozenset[int]) -> set[int]:
        """Bind the leaves; returns the blocks that may be overwritten."""
        donated: set[int] = set()
        blocks = self.engine.blocks
        for leaf in self.prepared.leaves:
            source = self.inputs[leaf.slot]
            if leaf.kernel.name == "held":
                blocks[leaf.ids.start:leaf.ids.stop] = source.refs
                if leaf.slot in donate:
                    donated.update(leaf.ids)
            elif source.shape == leaf.whole:
                blocks[leaf.ids.start] = source
            else:
                array = viewed(source, leaf.kernel)
                blocks[leaf.ids.start:leaf.ids.stop] = [array[at] for at in leaf.args]
        self.engine.foreign.update(self.prepared.leaf_ids)
        return donated

    def _bind_outputs(self) -> list[Destination | Appended | None]:
        """The array of each output that is not kept; None also where an earlier output is the same family."""
        destinations: list[Destination | Appended | None] = []
        seen: set[int] = set()
        run_s = self.prepared.total_s / self.prepared.threads
        for output, index in zip(self.outputs, self.graph.outputs, strict=True):
            if not output.keep and index not in seen and Appended.takes(output):
                seen.add(index)
                destinations.append(self._append_to(output, index))
                continue
            destination = None if output.keep or index in seen else Destination(output, run_s)
            if destination is not None and destination.array is not None:
                seen.add(index)
                self._bind_views(index, destination.views())
            destinations.append(destination)
        return destinations

    def _append_to(self, output: Output, index: int) -> Appended:
        """Let tasks append what they make; blocks that nobody else reads go at once."""
        f, engine = self.graph.families[index], self.engine
        made = Appended(output, float(self.graph.out_bytes[f.start:f.stop].sum()))
        once = self.graph.outputs.count(index) == 1
        engine.functions = list(engine.functions)
        for k, t in enumerate(range(f.start, f.stop)):
            stays = bool(self.prepared.is_read[t]) or not once
            engine.functions[t] = _appending(engine.functions[t], made, k, stays)
            self.keep[t] = not once
        return made

    def _bind_views(self, index: int, views: list[np.ndarray]) -> None:
        """Let tasks write into the result. Blocks with gaps in it that other tasks read are copied there instead: what
        is read must lie in memory as it would if it were not wanted too, or sums would differ in their last bits."""
        f, engine = self.graph.families[index], self.engine
        engine.outs[f.start:f.stop] = views
        if not self.prepared.is_read[f.start:f.stop].any():
            return
        engine.functions = list(engine.functions)
        once = self.graph.outputs.count(index) == 1
        for t, view in zip(range(f.start, f.stop), views, strict=True):
            if self.prepared.is_read[t] and not view.flags.c_contiguous:
                engine.functions[t], engine.outs[t] = _copying(engine.functions[t], view), None
                self.keep[t] = not once

    def go(self) -> tuple[list[Any], Report]:
        prepared, engine = self.prepared, self.engine
        progress = Progress(prepared.total_s, prepared.n_tasks)
        engine.step, engine.start_s = progress.step, time.perf_counter()
        try:
            engine.execute(prepared.segments, self.keep, prepared.threads, self.executor.pool)
            results = [self._result(i) for i in range(len(self.outputs))]
        finally:
            progress.close()
        return results, self._report(time.perf_counter() - engine.start_s)

    def _result(self, i: int) -> Any:
        f, output, destination = self.graph.families[self.graph.outputs[i]], self.outputs[i], self.destinations[i]
        if isinstance(destination, Appended):
            return destination.finish()
        if destination is not None and destination.array is not None:
            return destination.array
        tasks = range(f.start, f.stop)
        if output.keep:
            refs = [self._kept(t) for t in tasks]
            return Held(refs, np.zeros(len(refs), np.int32), float(sum(map(block_bytes, refs))), self.executor,
                        list(map(block_shape, refs)) if output.unknown else None)
        return self.keeper.own(Destination(output).collect([self.engine.load(t) for t in tasks]))

    def _kept(self, t: int) -> Any:
        block = self.engine.take(t)
        if isinstance(block, Spilled):
            return block
        donated = t in self.overwriting
        self.overwriting.discard(t)
        return self.keeper.own(block, donated)

    def _report(self, run_s: float) -> Report:
        plan, engine, store = self.plan, self.engine, self.engine.store
        report = Report(run_s=run_s, n_tasks=self.prepared.n_tasks, flop=float(self.graph.flop.sum()),
                        bytes_moved=0.0, policy=plan.policy, spans=engine.spans, memory=engine.memory)
        if plan.prediction is not None:
            report.predicted_s = plan.prediction.seconds
            report.predicted_peak_bytes = plan.prediction.peak_bytes
        peak = engine.peak_bytes
        report.peak_bytes = np.array([self.prepared.peak_bytes if np.isnan(peak) else peak])
        if store is not None:
            report.spilled_bytes, report.unspilled_bytes = store.spilled_bytes, store.unspilled_bytes
        return report


def _taken(inputs: Sequence[Any], destinations: Sequence[Destination | Appended | None]) -> Iterator[Any]:
    """Memory that kept blocks may not share."""
    for source in inputs:
        yield from source.refs if isinstance(source, Held) else (source,)
    yield from (d.array for d in destinations if d is not None)


def _appending(function: Any, made: Appended, k: int, stays: bool) -> Any:
    def run(args: Any, blocks: list[Any], out: Any = None) -> Any:
        block = function(args, blocks)
        made.add(k, block)
        return block if stays else None
    return run


def _copying(run: Any, view: np.ndarray) -> Any:
    def both(args: Any, blocks: list[Any], out: np.ndarray | None = None) -> Any:
        block = run(args, blocks)
        view[...] = block
        return block
    return both


def from_config() -> LocalExecutor:
    """The local executor that the settings describe."""
    c = config.get()
    return LocalExecutor(c.threads, c.memory_bytes)
