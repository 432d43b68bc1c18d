"""One attempt to run a plan on a cluster, seen from the driver: hand over all calls, gather, and if need be stop."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nums_core.errors import WorkerLostError
from nums_core.runtime.executors.base import Held, Output, viewed
from nums_core.runtime.executors.clustered import (
    POLL_S,
    CallCancelled,
    ClusteredExecutor,
    RemoteHeld,
    Share,
    WorkerGone,
)
from nums_core.runtime.executors.watch import Watch
from nums_core.runtime.gather import Destination
from nums_core.runtime.plan import Plan
from nums_core.runtime.progress import Progress
from nums_core.runtime.remote import Header, Status
from nums_core.runtime.report import Report
from nums_core.runtime.sources import portable
from nums_core.runtime.wire import pack, packed_bytes, unpack

if TYPE_CHECKING:
    from nums_core.runtime.executors.goal import Goal

INLINE_BYTES = 100 * 2**10  # smaller payloads travel inside the call


class _Failed(Exception):
    """A call reported a failure; the statuses say which."""


class ClusterRun:
    """One attempt to run the plan of a goal, or a part of it.

    Parameters
    ----------
    share : the plan's calls, or those of the part
    inputs : what its slots are bound to
    keep : dict number of an output -> number of the held array that it goes to
    whole : ids in the whole plan of the part's blocks; None where it is the whole plan

    Attributes
    ----------
    statuses : dict number of the call -> Status
    waiting : dict ref -> (number of the call, whether it is the status)
    ids : dict worker -> ids in the whole plan of the blocks of the worker's plan
    donated : dict slot -> RemoteHeld
    generation : lives of the workers when the calls were handed over
    gone : WorkerGone or None
        Why the attempt did not come to its end.
    """

    def __init__(self, executor: ClusteredExecutor, goal: Goal, share: Share, inputs: Sequence[Any], keep: dict[int, int],
                 donate: frozenset[int], whole: np.ndarray | None) -> None:
        self.executor, self.goal, self.share, self.inputs, self.keep = executor, goal, share, inputs, keep
        self.partition = share.partition
        self.whole = whole
        self.ids = {w: ids if whole is None else whole[ids] for w, ids in self.partition.ids.items()}
        self.donated: dict[int, RemoteHeld] = {s: inputs[s] for s in donate if self._ours(s)}
        self.number = next(executor.numbers)
        self.generation: tuple[int, ...] = ()
        self.gone: WorkerGone | None = None
        self.statuses: dict[int, Status] = {}
        self.waiting: dict[Any, tuple[int, bool]] = {}
        self.status_ref: dict[int, Any] = {}
        self.fetched: dict[int, list[np.ndarray]] = {}
        self.run_s = 0.0

    def go(self) -> None:
        """Run to the end, or as far as workers live.

        Where one is gone, the calls that need nothing of it come to their ends all the same: what they make is of use.
        """
        began = time.perf_counter()
        self.wall_s = time.time()
        progress = Progress(self.partition.seconds, self.goal.graph.n_tasks)
        failed = False
        try:
            self._hand_over()
            self.goal.begin()
            self._collect(progress)
        except _Failed:
            failed = True
            self._stop()
        except WorkerLostError:  # nobody is there to be waited for
            self.forget()
            raise
        except BaseException:
            self._stop()
            raise
        finally:
            progress.close()
            self.run_s = time.perf_counter() - began
        if self.gone is not None or failed:
            self.share.known.clear()  # the call that brought the part may have been among those that failed
        if failed:
            raise self._failure()

    # -- handing over -------------------------------------------------------------------------------------------------

    def _hand_over(self) -> None:
        with self.executor.lock:
            self.generation = tuple(self.executor.generation)
            try:
                self._submit()
            except WorkerGone as error:
                self.gone = error

    def _submit(self) -> None:
        part = self.partition
        refs: dict[int, Any] = {}  # of bundles; each is let go when its last reader is handed over
        readers = [len(b.readers) for b in part.bundles]
        begun: set[int] = set()
        for held in self.donated.values():
            held.donated = True
            held.generation[:] = -1
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
        sources = {s: portable(self.inputs[s]) for s in self.share.reads}
        return Header(self.share.plan_id, None if worker in self.share.known else part, self.wall_s, held,
                      frozenset(self.donated), sources, self.keep, tuple(extra)), arguments

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
        watch = Watch(self.executor)
        calls = self.partition.calls
        while self.waiting:
            ready = self.executor._wait(list(self.waiting), POLL_S)
            for ref in ready:
                self._take(ref, *self.waiting.pop(ref), progress)
            watch.look(calls[c].worker for c, _ in self.waiting.values())

    def _take(self, ref: Any, c: int, is_status: bool, progress: Progress) -> None:
        """What became of a call: its status, or the blocks that the driver gets."""
        try:
            value = self.executor._get(ref)
        except WorkerGone as error:
            self.gone = self.gone or error
            return
        call = self.partition.calls[c]
        if not is_status:
            if value is not None:
                self.goal.place(call.results if self.whole is None else self.whole[call.results], unpack(value))
            return
        self.statuses[c] = value
        if value.failure is not None:
            raise _Failed
        if value.stopped:
            self.gone = self.gone or WorkerGone(f"{self.executor.name(call.worker)} did not get blocks that are lost")
        progress.step(call.seconds)

    def add_to(self, report: Report, later_s: float) -> None:
        """Add what this attempt did to a report that began `later_s` before it."""
        calls, bundles = self.partition.calls, self.partition.bundles
        n = len(self.partition.leaf_in)  # of workers that there were when the plan was made; more may have joined
        report.bytes_in[:n] += self.partition.leaf_in
        report.bytes_out[:n] += self.partition.leaf_out
        last: dict[int, Status] = {}
        for c, s in sorted(self.statuses.items()):
            call = calls[c]
            last[call.worker] = s
            report.spans.extend([(*span[:3], span[3] + later_s, span[4] + later_s, span[5]) for span in s.spans]
                                if later_s else s.spans)
            report.memory.extend((w, at + later_s, n) for w, at, n in s.memory)
            extra = len(s.import_bytes) - len(call.imports)
            report.bytes_in[call.worker] += sum(s.import_bytes[:extra])  # held blocks that were not where planned
            for k, n_bytes in zip(call.imports, s.import_bytes[extra:], strict=False):
                if bundles[k].source >= 0:
                    report.bytes_in[call.worker] += n_bytes
                    report.bytes_out[calls[bundles[k].source].worker] += n_bytes
            report.predicted_busy_s[call.worker] = report.predicted_busy_s.get(call.worker, 0.0) + call.seconds
            busy_s = sum(stop - start for *_, start, stop, _ in s.spans)
            report.busy_s[call.worker] = report.busy_s.get(call.worker, 0.0) + busy_s
        for w, s in last.items():
            report.peak_bytes[w] = max(report.peak_bytes[w], s.peak_bytes)
            report.spilled_bytes += s.spilled_bytes
            report.unspilled_bytes += s.unspilled_bytes
        report.bytes_moved = float(report.bytes_in.sum())

    # -- stopping -----------------------------------------------------------------------------------------------------

    def _stop(self) -> None:
        """End all calls of the run and make the workers forget it.

        Only calls in progress are cancelled: the worker remembers it, so that the rest of its calls end at once. (Ray
        holds up a worker's queue for half a minute if a call that still waits for its arguments is cancelled.)
        """
        cancelled: set[int] = set()
        watch = Watch(self.executor)
        try:
            open_calls = {c: ref for c, ref in self.status_ref.items() if c not in self.statuses}
            while open_calls:
                for c in self._in_progress(open_calls) - cancelled:
                    cancelled.add(c)
                    self.executor._cancel(open_calls[c])
                ready = set(self.executor._wait(list(open_calls.values()), POLL_S / 2))
                for c in [c for c, ref in open_calls.items() if ref in ready]:
                    self._note(c, open_calls.pop(c))
                watch.look(self.partition.calls[c].worker for c in open_calls)
        finally:
            self.forget()

    def forget(self) -> None:
        """Make the workers forget the run, and what it kept."""
        self.share.known.clear()
        # Where a part is run, what is kept goes to what was there before.
        made = list(self.keep.values()) if self.whole is None else []
        for w in self.partition.parts:
            with contextlib.suppress(Exception):  # a dead worker has nothing to forget
                self.executor._ask(w, "abandon", self.number, made)

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
        plan, found = self.goal.plan, []
        for c, s in self.statuses.items():
            if s.failure is not None:
                ids = self.ids[self.partition.calls[c].worker]
                task = int(ids[s.failure.task]) if s.failure.task >= 0 else -1
                found.append((int(plan.position[task]) if task >= 0 else -1, task, s.failure))
        _, task, failure = min(found, key=lambda f: f[:2])
        return failure.raised(plan, task)


class Gathering:
    """An output on its way into one array. `placed`: which of its blocks are there."""

    def __init__(self, output: Output, plan: Plan, family: int) -> None:
        f = plan.graph.families[family]
        self.start, self.stop = f.start, f.stop
        self.destination = Destination(output)
        self.views = self.destination.views() if self.destination.array is not None else None
        self.blocks: list[Any] = [None] * f.count if self.views is None else []
        self.placed = np.zeros(f.count, bool)

    def place(self, ids: np.ndarray, blocks: list[Any]) -> None:
        """Blocks by id, ascending; those of other families are left out."""
        a, b = np.searchsorted(ids, (self.start, self.stop)).tolist()
        rows = (ids[a:b] - self.start).tolist()
        if self.views is None:
            for r, block in zip(rows, blocks[a:b], strict=True):
                self.blocks[r] = block
        else:
            for r, block in zip(rows, blocks[a:b], strict=True):
                self.views[r][...] = block
        self.placed[rows] = True

    def result(self) -> np.ndarray:
        if self.destination.array is not None:
            return self.destination.array
        joined = self.destination.join(self.blocks)
        return joined if joined.flags.writeable and joined.base is None else np.array(joined, order="K")
