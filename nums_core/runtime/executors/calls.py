"""One run on a cluster, seen from the driver: hand over all calls, gather, and if need be stop."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from nums_core.runtime.executors.base import Held, Output, viewed
from nums_core.runtime.executors.clustered import CallCancelled, ClusteredExecutor, RemoteHeld, Share, WorkerGone
from nums_core.runtime.gather import Destination
from nums_core.runtime.partition import Call
from nums_core.runtime.plan import Plan
from nums_core.runtime.progress import Progress
from nums_core.runtime.remote import Header, Status
from nums_core.runtime.report import Report
from nums_core.runtime.sources import portable
from nums_core.runtime.wire import pack, packed_bytes, unpack

POLL_S = 0.1
INLINE_BYTES = 100 * 2**10  # smaller payloads travel inside the call


class _Failed(Exception):
    """A call reported a failure; the statuses say which."""


class ClusterRun:
    """One attempt to run a plan.

    Attributes
    ----------
    statuses : dict number of the call -> Status
    waiting : dict ref -> (number of the call, whether it is the status)
    """

    def __init__(self, executor: ClusteredExecutor, plan: Plan, share: Share, inputs: Sequence[Any],
                 outputs: Sequence[Output], donate: frozenset[int]) -> None:
        self.executor, self.plan, self.share = executor, plan, share
        self.inputs, self.outputs, self.donate = inputs, outputs, donate
        self.partition = share.partition
        self.number = next(executor.numbers)
        self.kept = {i: next(executor.numbers) for i, o in enumerate(outputs) if o.keep}
        self.statuses: dict[int, Status] = {}
        self.waiting: dict[Any, tuple[int, bool]] = {}
        self.status_ref: dict[int, Any] = {}
        self.fetched: dict[int, list[np.ndarray]] = {}

    def go(self) -> tuple[list[Any], Report]:
        began = time.perf_counter()
        self.wall_s = time.time()
        progress = Progress(self.partition.seconds, self.plan.graph.n_tasks)
        failure: Exception | None = None
        try:
            with self.executor.lock:
                self._submit()
            self.gathering = [None if o.keep else _Gathering(o, self.plan, k)
                              for o, k in zip(self.outputs, self.plan.graph.outputs, strict=True)]
            self._collect(progress)
        except _Failed:
            self._stop()
            failure = self._failure()
        except BaseException:
            self._stop()
            raise
        finally:
            progress.close()
        if failure is not None:
            raise failure
        results = [self._result(i) for i in range(len(self.outputs))]
        return results, self._report(time.perf_counter() - began)

    # -- handing over -------------------------------------------------------------------------------------------------

    def _submit(self) -> None:
        part = self.partition
        refs: dict[int, Any] = {}  # of bundles; each is let go when its last reader is handed over
        readers = [len(b.readers) for b in part.bundles]
        begun: set[int] = set()
        for c, call in enumerate(part.calls):
            header: Header | None = None
            extra: list[Any] = []
            if call.worker not in begun:
                begun.add(call.worker)
                header, extra = self._header(call.worker)
            arguments = [refs[k] if k in refs else refs.setdefault(k, self._given(k)) for k in call.imports]
            n_out = bool(len(call.results)) + len(call.exports)
            made = self.executor._call(call.worker, n_out, self.number, call.step, n_out, header, *extra, *arguments)
            self.status_ref[c] = made[0]
            self.waiting[made[0]] = (c, True)
            if len(call.results):
                self.waiting[made[1]] = (c, False)
            refs.update(zip(call.exports, made[len(made) - len(call.exports):], strict=True))
            for k in call.imports:
                readers[k] -= 1
                if not readers[k]:
                    del refs[k]
            self.share.known.add(call.worker)

        for slot in self.donate:
            if self._ours(slot):
                self.inputs[slot].donated = True

    def _given(self, bundle: int) -> Any:
        """Blocks out of the driver's arrays, packed."""
        arrays = [(viewed(self.inputs[k.params[0]], k), slices) for k, slices in self.share.given[bundle]]
        payload = pack([array[at] for array, slices in arrays for at in slices])
        return payload if packed_bytes(payload) < INLINE_BYTES else self.executor._put(payload)

    def _header(self, worker: int) -> tuple[Header, list[Any]]:
        """What the first call on `worker` brings, and the arguments for its `extra` blocks."""
        part = self.partition.parts[worker]
        held = {leaf.slot: self.inputs[leaf.slot].number for leaf in part.held if self._ours(leaf.slot)}
        extra, arguments = [], []
        for leaf in part.held:
            for ids, argument in self._misplaced(leaf.slot, leaf.rows, worker):
                extra.append(leaf.first + ids)
                arguments.append(argument)
        donate = frozenset(s for s in self.donate if self._ours(s))
        sources = {s: portable(self.inputs[s]) for s in self.share.reads}
        return Header(self.share.plan_id, None if worker in self.share.known else part, self.wall_s, held, donate,
                      sources, self.kept, tuple(extra)), arguments

    def _ours(self, slot: int) -> bool:
        return isinstance(self.inputs[slot], RemoteHeld) and self.inputs[slot].owner is self.executor

    def _misplaced(self, slot: int, rows: np.ndarray, worker: int) -> list[tuple[np.ndarray, Any]]:
        """Held blocks that are not on the worker where the plan reads them: (positions in `rows`, payload or ref)."""
        held: Held = self.inputs[slot]
        if not self._ours(slot):
            if slot not in self.fetched:
                self.fetched[slot] = held.owner.fetch(held)
            payload = pack([self.fetched[slot][r] for r in rows.tolist()])
            return [(np.arange(len(rows)), self.executor._put(payload))]
        home = held.home[rows]
        return [(at, self.executor._ask(w, "lend", self.inputs[slot].number, rows[at]))
                for w in np.unique(home[home != worker]).tolist() for at in [np.flatnonzero(home == w)]]

    # -- gathering ----------------------------------------------------------------------------------------------------

    def _collect(self, progress: Progress) -> None:
        while self.waiting:
            for ref in self.executor._wait(list(self.waiting), POLL_S):
                c, is_status = self.waiting.pop(ref)
                value = self.executor._get(ref)
                if is_status:
                    self.statuses[c] = value
                    if value.stopped:
                        raise _Failed
                    progress.step(self.partition.calls[c].seconds)
                elif value is not None:
                    blocks = unpack(value)
                    for g in self.gathering:
                        if g is not None:
                            g.place(self.partition.calls[c], blocks)
                    del blocks
                del value

    def _result(self, i: int) -> Any:
        g = self.gathering[i]
        if g is not None:
            return g.result()
        f = self.plan.graph.families[self.plan.graph.outputs[i]]
        home = np.asarray(self.plan.worker[f.start:f.stop], np.int32)
        kept = [s.kept[i] for s in self.statuses.values() if i in s.kept]
        shapes = dict(pair for k in kept for pair in zip(k.rows.tolist(), k.shapes or (), strict=False))
        return self.executor.keep(self.kept[i], home, sum(k.nbytes for k in kept),
                                  [shapes[r] for r in range(f.count)] if shapes else None)

    def _report(self, run_s: float) -> Report:
        plan, n = self.plan, self.executor.cluster.n_workers
        report = Report(run_s=run_s, n_tasks=int((~plan.graph.is_leaf).sum()), flop=float(plan.graph.flop.sum()),
                        policy=plan.policy, peak_bytes=np.zeros(n), bytes_in=self.partition.leaf_in.copy(),
                        bytes_out=self.partition.leaf_out.copy())
        last: dict[int, Status] = {}
        for c, call in enumerate(self.partition.calls):
            s = last[call.worker] = self.statuses[c]
            report.spans.extend(s.spans)
            report.memory.extend(s.memory)
            extra = len(s.import_bytes) - len(call.imports)
            sources = [self.partition.bundles[k].source for k in call.imports]
            report.bytes_in[call.worker] += sum(s.import_bytes[:extra])  # held blocks that were not where planned
            for source, n_bytes in zip(sources, s.import_bytes[extra:], strict=True):
                if source >= 0:
                    report.bytes_in[call.worker] += n_bytes
                    report.bytes_out[self.partition.calls[source].worker] += n_bytes
        for w, s in last.items():
            report.peak_bytes[w] = s.peak_bytes
            report.spilled_bytes += s.spilled_bytes
            report.unspilled_bytes += s.unspilled_bytes
        report.bytes_moved = float(report.bytes_in.sum())
        if plan.prediction is not None:
            report.predicted_s = plan.prediction.seconds
            report.predicted_peak_bytes = plan.prediction.peak_bytes
        return report

    # -- stopping -----------------------------------------------------------------------------------------------------

    def _stop(self) -> None:
        """End all calls of the run and make the workers forget it.

        Only calls in progress are cancelled: the worker remembers it, so that the rest of its calls end at once. (Ray
        holds up a worker's queue for half a minute if a call that still waits for its arguments is cancelled.)
        """
        self.share.known.clear()  # the call that brought the part may have been among those that failed
        cancelled: set[int] = set()
        try:
            open_calls = {c: ref for c, ref in self.status_ref.items() if c not in self.statuses}
            while open_calls:
                for c in self._in_progress(open_calls) - cancelled:
                    cancelled.add(c)
                    self.executor._cancel(open_calls[c])
                ready = set(self.executor._wait(list(open_calls.values()), POLL_S / 2))
                for c in [c for c, ref in open_calls.items() if ref in ready]:
                    self._note(c, open_calls.pop(c))
        finally:
            for w in self.partition.parts:
                try:
                    self.executor._ask(w, "abandon", self.number, list(self.kept.values()))
                except Exception:  # a dead worker has nothing to forget
                    continue

    def _in_progress(self, open_calls: dict[int, Any]) -> set[int]:
        """The first open call of each worker, if what it reads is there."""
        first: dict[int, int] = {}
        for c in open_calls:
            first.setdefault(self.partition.calls[c].worker, c)
        bundles = self.partition.bundles
        return {c for c in first.values()
                if all(bundles[k].source not in open_calls for k in self.partition.calls[c].imports)}

    def _note(self, c: int, ref: Any) -> None:
        try:
            self.statuses[c] = self.executor._get(ref)
        except (WorkerGone, CallCancelled):
            self.statuses[c] = Status(stopped=True)

    def _failure(self) -> Exception:
        """The failure that stands first in the plan's order, as the error to raise."""
        found = []
        for c, s in self.statuses.items():
            if s.failure is not None:
                ids = self.partition.ids[self.partition.calls[c].worker]
                task = int(ids[s.failure.task]) if s.failure.task >= 0 else -1
                found.append((int(self.plan.position[task]) if task >= 0 else -1, task, s.failure))
        if not found:
            return WorkerGone("a worker stopped without saying why")
        _, task, failure = min(found, key=lambda f: f[:2])
        return failure.raised(self.plan, task)


class _Gathering:
    """An output on its way into one array."""

    def __init__(self, output: Output, plan: Plan, family: int) -> None:
        f = plan.graph.families[family]
        self.start, self.stop = f.start, f.stop
        self.destination = Destination(output)
        self.views = self.destination.views() if self.destination.array is not None else None
        self.blocks: list[Any] = [None] * f.count if self.views is None else []

    def place(self, call: Call, blocks: list[Any]) -> None:
        a, b = np.searchsorted(call.results, (self.start, self.stop)).tolist()
        rows = (call.results[a:b] - self.start).tolist()
        if self.views is None:
            for r, block in zip(rows, blocks[a:b], strict=True):
                self.blocks[r] = block
            return
        for r, block in zip(rows, blocks[a:b], strict=True):
            self.views[r][...] = block

    def result(self) -> np.ndarray:
        if self.destination.array is not None:
            return self.destination.array
        joined = self.destination.join(self.blocks)
        return joined if joined.flags.writeable and joined.base is None else np.array(joined, order="K")
