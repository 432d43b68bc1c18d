"""The worker's side of a cluster executor: blocks in this process's memory, and super-tasks run against them.

Nothing here knows which library carries the calls. A backend makes one `WorkerHost` a worker, sends it a `Part` of each
plan once, and then calls `step` for one super-task after another; blocks that cross workers come in as arguments and go
out as results, packed by `runtime.wire`. A kernel that fails is a result too (`Status.failure`), so that no backend has
to carry exceptions.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np

from nums_core import config
from nums_core.runtime.blas import one_blas_thread
from nums_core.runtime.engine import Engine
from nums_core.runtime.failure import RemoteFailure
from nums_core.runtime.partition import Part
from nums_core.runtime.results import Keeper, bind_donated
from nums_core.runtime.store import Spilled, block_bytes, block_shape
from nums_core.runtime.supertask import TaskTable, cut_run, estimated_seconds, useful_threads
from nums_core.runtime.wire import pack, packed_bytes, unpack


class Header(NamedTuple):
    """What the first call of a run on a worker brings along.

    Attributes
    ----------
    plan_id : int
    part : Part or None
        None where the worker has it already.
    wall_s : float, s
        Time of day when the run started.
    held : dict slot -> number of the held array
    donate : set of slots
    sources : dict slot -> anything with `__getitem__`, for `read` kernels
    keep : dict number of the output -> number of the held array it becomes
    extra : tuple of int64 arrays
        Blocks that the first arguments of the call bring, because they are not where the plan expects them.
    """

    plan_id: int
    part: Part | None
    wall_s: float
    held: dict[int, int]
    donate: frozenset[int]
    sources: dict[int, Any]
    keep: dict[int, int]
    extra: tuple[np.ndarray, ...]


class KeptBlocks(NamedTuple):
    """What became of an output that stays: rows here, bytes of each, shapes where the plan did not know them."""

    rows: np.ndarray
    nbytes: np.ndarray
    shapes: list[tuple[int, ...]] | None


class Status(NamedTuple):
    """How a call went: figures of the run on this worker so far (final with the last call)."""

    failure: RemoteFailure | None = None
    stopped: bool = False
    spans: tuple[tuple[str, int, int, float, float, int], ...] = ()
    memory: tuple[tuple[int, float, float], ...] = ()
    import_bytes: tuple[float, ...] = ()  # of each argument of the call
    peak_bytes: float = 0.0
    spilled_bytes: float = 0.0
    unspilled_bytes: float = 0.0
    kept: dict[int, KeptBlocks] = {}  # noqa: RUF012  -- never changed


class _Stop(BaseException):
    """The run was told to stop."""


class _Prepared:
    """What a worker works out once for a part and keeps for its replays."""

    def __init__(self, part: Part, threads: int) -> None:
        self.part, self.plan = part, part.plan
        g = self.plan.graph
        self.table = TaskTable(g)
        self.blas = self.table.blas
        seconds = estimated_seconds(self.plan)
        kept = np.zeros(g.n_tasks, bool)
        for k in part.kept:
            kept[k.ids] = True
        last, order = self.plan.last_use, self.plan.order
        self.segments, self.keep, self.drop, self.threads = [], [], [], []
        for s in part.steps:
            leaving = np.zeros(g.n_tasks, bool)
            leaving[np.concatenate([*s.exports, s.results])] = True
            after = kept | (last >= s.stop)
            tasks = order[s.start:s.stop]
            n_threads = useful_threads(seconds[tasks], threads)
            self.threads.append(n_threads)
            self.keep.append(after | leaving)
            self.segments.append(cut_run(g, tasks, seconds, n_threads, after | leaving))
            self.drop.append(np.flatnonzero(leaving & ~after).tolist())


class Adopted(NamedTuple):
    """Blocks `ids` of a worker's plan become rows `rows` of the held array `number`. `own`: for good, so that their memory
    must be nobody else's. `unknown`: their shapes are told."""

    number: int
    ids: np.ndarray
    rows: np.ndarray
    own: bool
    unknown: bool


class _Held(NamedTuple):
    """Blocks at `rows` (ascending) of a held array."""

    rows: np.ndarray
    blocks: list[Any]

    def at(self, rows: np.ndarray) -> list[Any] | None:
        """The blocks at `rows`; None if any is not here."""
        at = np.minimum(np.searchsorted(self.rows, rows), max(len(self.rows) - 1, 0))
        if len(rows) and not (len(self.rows) and (self.rows[at] == rows).all()):
            return None
        return [self.blocks[i] for i in at.tolist()]

    def joined(self, rows: np.ndarray, blocks: list[Any]) -> _Held:
        """These blocks and others; the others count where both have a row."""
        made = dict(zip(self.rows.tolist(), self.blocks, strict=True)) | dict(zip(rows.tolist(), blocks, strict=True))
        order = sorted(made)
        return _Held(np.array(order, np.int64), [made[r] for r in order])


class _Run:
    """One run on this worker, between its first and its last call."""

    def __init__(self, host: WorkerHost, run: int, prepared: _Prepared, header: Header) -> None:
        self.host, self.run, self.prepared, self.header = host, run, prepared, header
        part = prepared.part
        started = time.perf_counter() - (time.time() - header.wall_s)
        self.engine = Engine(part.plan, prepared.table, prepared.table.bind_readers(header.sources), self._fail,
                             worker=host.worker, start_s=started)
        self.engine.check = self._check
        self.failure: RemoteFailure | None = None
        self.spilled = False
        self.next = 0  # step
        donated = self._bind_held()
        self.overwriting: set[int] = set()
        if donated:
            self.overwriting = bind_donated(self.engine, donated, [
                (t, k.dtype) for k in part.kept for t in k.ids.tolist()])
        self.keeper = Keeper(lambda: [b for h in header.held.values() if h in host.held for b in host.held[h].blocks])
        if part.over_budget or self.spilled:
            self.engine.spill_over(host.memory_bytes)

    def _fail(self, task: int, error: Exception, operands: list[Any]) -> BaseException:
        self.failure = RemoteFailure(task, error, operands)
        return _Stop()

    def _check(self) -> None:
        if self.host.cancelled():
            self.host.stopped.add(self.run)
            raise _Stop

    def _bind_held(self) -> set[int]:
        """Bind held leaves that are here; returns the blocks that may be overwritten."""
        donated: set[int] = set()
        for leaf in self.prepared.part.held:
            found = self.host.held.get(self.header.held.get(leaf.slot, -1))
            if found is None:
                continue
            self.spilled = self.spilled or any(isinstance(b, Spilled) for b in found.blocks)
            ids = range(leaf.first, leaf.first + len(leaf.rows))
            if np.array_equal(found.rows, leaf.rows):
                self.engine.bind(ids, found.blocks)
            else:
                at = np.searchsorted(found.rows, leaf.rows)
                here = (at < len(found.rows)) & (found.rows[np.minimum(at, len(found.rows) - 1)] == leaf.rows)
                self.engine.bind([ids[i] for i in np.flatnonzero(here).tolist()],
                                 [found.blocks[i] for i in at[here].tolist()])
            if leaf.slot in self.header.donate:
                donated.update(ids)
        return donated

    def step(self, index: int, arguments: tuple[Any, ...]) -> list[Any]:
        """Run one step; returns the payloads of its results (if any) and of its exports."""
        prepared, engine = self.prepared, self.engine
        if index != self.next:  # the step before never came: what it should have read is lost
            raise _Stop
        s = prepared.part.steps[index]
        imports = self.header.extra + s.imports if index == 0 else s.imports
        self.import_bytes = tuple(map(packed_bytes, arguments))
        for ids, payload in zip(imports, arguments, strict=True):
            engine.bind(ids.tolist(), unpack(payload))
        del arguments
        if index == 0 and any(engine.blocks[b] is None for leaf in prepared.part.held
                              for b in range(leaf.first, leaf.first + len(leaf.rows))):
            raise _Stop  # this worker was started again, and lost what it held
        with one_blas_thread() if prepared.blas else nullcontext():
            engine.execute(prepared.segments[index], prepared.keep[index], prepared.threads[index], self.host.pool)
        out = [pack([engine.load(b) for b in s.results.tolist()])] if len(s.results) else []
        out += [pack([engine.load(b) for b in ids.tolist()]) for ids in s.exports]
        for b in prepared.drop[index]:
            engine.free(b)
        engine.sample()
        self.next += 1
        return out

    def finish(self) -> dict[int, KeptBlocks]:
        """Keep what is to be kept, by number of the output."""
        return {k.number: self.adopt(Adopted(self.header.keep[k.number], k.ids, k.rows, True, k.unknown))
                for k in self.prepared.part.kept}

    def present(self) -> np.ndarray:
        """The blocks that are here between two steps. (Those that a step may have written over are gone by its end.)"""
        return np.flatnonzero([self.engine.take(b) is not None for b in range(self.engine.graph.n_tasks)])

    def adopt(self, a: Adopted) -> KeptBlocks:
        """Let blocks stay when the run ends."""
        blocks = [self._kept(t) if a.own else self.engine.take(t) for t in a.ids.tolist()]
        before = self.host.held.get(a.number)
        self.host.held[a.number] = _Held(a.rows, blocks) if before is None else before.joined(a.rows, blocks)
        return KeptBlocks(a.rows, np.array([block_bytes(b) for b in blocks], float),
                          list(map(block_shape, blocks)) if a.unknown else None)

    def _kept(self, t: int) -> Any:
        block = self.engine.take(t)
        if isinstance(block, Spilled):
            return block
        donated = t in self.overwriting
        self.overwriting.discard(t)
        return self.keeper.own(block, donated)

    def status(self, kept: dict[int, KeptBlocks]) -> Status:
        e = self.engine
        spans, memory = tuple(e.spans), tuple(e.memory)
        e.spans, e.memory = [], []
        peak = self.prepared.part.peak_bytes if np.isnan(e.peak_bytes) else e.peak_bytes
        return Status(self.failure, False, spans, memory, self.import_bytes, peak,
                      e.store.spilled_bytes if e.store else 0.0, e.store.unspilled_bytes if e.store else 0.0, kept)


class WorkerHost:
    """A worker: the blocks it holds, the parts it knows, the runs in progress.

    Parameters
    ----------
    worker : int
    threads : int
    memory_bytes : int, bytes
        Budget of a run; beyond it blocks are spilled.
    settings : dict
        Settings of the driver that matter here (`spill_dir`).
    """

    def __init__(self, worker: int, threads: int, memory_bytes: int, settings: dict[str, Any]) -> None:
        self.worker, self.threads, self.memory_bytes = worker, threads, memory_bytes
        config.set(**settings)
        self.parts: dict[int, _Prepared] = {}
        self.runs: dict[int, _Run] = {}
        self.held: dict[int, _Held] = {}
        self.stopped: set[int] = set()
        self._pool: ThreadPoolExecutor | None = None
        self._pool_lock = threading.Lock()

    def cancelled(self) -> bool:
        """Whether the call in progress was cancelled; backends that can tell override this."""
        return False

    def pool(self) -> ThreadPoolExecutor:
        with self._pool_lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(max(self.threads - 1, 1), thread_name_prefix="nums")
            return self._pool

    def step(self, run: int, index: int, n_out: int, header: Header | None, *arguments: Any) -> list[Any]:
        """Run step `index` of a run: [Status, packed results if the step has any, packed exports ...].

        `n_out` is the length of what follows the Status: Nones where the step did not run to its end, which stop the
        calls that get them.
        """
        try:
            if header is not None:
                self._know(header)
            lost = header is None and run not in self.runs
            if lost or run in self.stopped or any(a is None for a in arguments):
                self.stopped.add(run)
                return [Status(stopped=True), *[None] * n_out]
            if header is not None:
                self.runs[run] = _Run(self, run, self.parts[header.plan_id], header)
                for slot in header.donate:  # given up: freed with its last use
                    self.held.pop(header.held.get(slot, -1), None)
            return self._step(run, index, arguments)
        except _Stop:
            failure = self.runs[run].failure
        except Exception as error:  # not a kernel's: the disk is full, a result does not pickle, ...
            failure = RemoteFailure(-1, error, [])
        self.stopped.add(run)
        return [Status(failure, stopped=True), *[None] * n_out]

    def _step(self, run: int, index: int, arguments: tuple[Any, ...]) -> list[Any]:
        state = self.runs[run]
        out = state.step(index, arguments)
        last = index == len(state.prepared.part.steps) - 1
        status = state.status(state.finish() if last else {})
        if last:
            del self.runs[run]
        return [status, *out]

    def _know(self, header: Header) -> None:
        if header.plan_id not in self.parts:
            assert header.part is not None
            self.parts[header.plan_id] = _Prepared(header.part, self.threads)

    def lend(self, held: int, rows: np.ndarray) -> Any:
        """Some blocks of a held array, packed; None if they are not here, which stops the calls that get it."""
        found = self.held[held].at(rows) if held in self.held else None
        return None if found is None else pack([_load(b) for b in found])

    def salvage(self, run: int, donated: list[int]) -> tuple[np.ndarray, list[bool]]:
        """What a run that came to a halt has left: its blocks that are here, in the numbering of the worker's plan, and
        which of the held arrays donated to it were not touched."""
        present = self.runs[run].present() if run in self.runs else np.zeros(0, np.int64)
        return present, [h in self.held for h in donated]

    def adopt(self, run: int, blocks: list[Adopted]) -> list[KeptBlocks]:
        """Keep some blocks of a run that came to a halt, and forget the rest of it."""
        made = [self.runs[run].adopt(a) for a in blocks] if run in self.runs else []
        self.abandon(run, [])
        return made

    def free(self, held: list[int], plans: list[int]) -> None:
        """Forget held arrays and parts of plans."""
        for h in held:
            self.held.pop(h, None)
        for p in plans:
            self.parts.pop(p, None)

    def abandon(self, run: int, keep: list[int]) -> None:
        """Forget a run that failed, and the held arrays it would have made."""
        self.runs.pop(run, None)
        self.stopped.discard(run)
        self.free(keep, [])

    def renumber(self, worker: int) -> None:
        """Be worker `worker` from here on."""
        self.worker = worker

    def shutdown(self) -> None:
        """Let go of everything; spill files are removed."""
        self.runs.clear()
        self.held.clear()
        self.parts.clear()
        if self._pool is not None:
            self._pool.shutdown(wait=False)

    def ping(self) -> int:
        """Answers with the number of arrays held."""
        return len(self.held)


def _load(block: Any) -> Any:
    return block.load() if isinstance(block, Spilled) else block
