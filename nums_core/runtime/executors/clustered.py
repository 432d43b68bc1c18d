"""What all cluster executors share: submitting the calls of a run, gathering, stopping, and starting again.

A backend (Ray, Dask, the loopback of the tests) is a subclass with a few small methods, the *hooks* of
`ClusteredExecutor`; they carry calls to `runtime.remote.WorkerHost` and know nothing of plans.
"""

from __future__ import annotations

import itertools
import queue
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nums_core.errors import ConfigError, WorkerLostError
from nums_core.ops.taskgraph import Kernel
from nums_core.runtime.cluster import Cluster
from nums_core.runtime.executors.base import Held, Output
from nums_core.runtime.executors.renumber import Renumbering, steady
from nums_core.runtime.footprint import check_budget
from nums_core.runtime.partition import Partition, partition, row_args
from nums_core.runtime.plan import Plan
from nums_core.runtime.report import Report
from nums_core.runtime.wire import unpack

TRIES = 3


class WorkerGone(Exception):
    """A worker died, or what it made is lost."""


class CallCancelled(Exception):
    """The call was cancelled, or one that it depends on."""


@dataclass(eq=False)
class RemoteHeld(Held):
    """Blocks that workers keep under a number. `generation[w]` is the life of worker `w` that it was made in."""

    number: int = -1
    generation: tuple[int, ...] = ()
    donated: bool = False


class Share:
    """A plan's calls, with what its replays need. It does not hold the plan.

    Attributes
    ----------
    known : set of workers that have their part already
    given : dict number of a bundle -> list of (kernel of the leaf, slices)
        What the driver must cut out of its own arrays.
    reads : tuple of slots of `read` kernels
    """

    def __init__(self, plan: Plan, outputs: Sequence[Output], plan_id: int) -> None:
        self.plan_id = plan_id
        self.partition: Partition = partition(plan, outputs)
        self.known: set[int] = set()
        g = plan.graph
        self.given: dict[int, list[tuple[Kernel, list[Any]]]] = {}
        for number, bundle in enumerate(self.partition.bundles):
            if bundle.source < 0:
                family = g.family_of[bundle.blocks]
                at = np.flatnonzero(np.diff(family, prepend=-1))
                self.given[number] = [
                    (g.families[k].kernel, list(row_args(g.families[k], run - g.families[k].start)))
                    for k, run in zip(family[at].tolist(), np.split(bundle.blocks, at[1:]), strict=True)]
        self.reads = tuple(sorted({f.kernel.params[0] for f in g.families if f.kernel.name == "read"}))


class ClusteredExecutor(Renumbering):
    """Runs plans on workers in other processes.

    Subclasses implement the hooks at the end. A *ref* is whatever stands for a value that is being made; it must be
    hashable and may be passed to `_call` as an argument.
    """

    def __init__(self, cluster: Cluster) -> None:
        super().__init__()
        self.cluster = cluster
        self.lock = threading.RLock()  # calls of two runs are handed over one run after the other
        self.generation = [0] * cluster.n_workers
        self.numbers = itertools.count(1)
        self._shares: weakref.WeakKeyDictionary[Plan, dict[tuple[bool, ...], Share]] = weakref.WeakKeyDictionary()
        self._reaper: _Reaper | None = None
        self.closed = False

    @steady
    def run(self, plan: Plan, inputs: Sequence[Any], outputs: Sequence[Output],
            donate: frozenset[int] = frozenset()) -> tuple[list[Any], Report]:
        from nums_core.runtime.executors.calls import ClusterRun

        self._open()
        plan = self.renumbered(plan)
        share = self._share(plan, outputs)
        gone: WorkerGone | None = None
        for _ in range(TRIES):
            self._check_held(inputs)
            try:
                return ClusterRun(self, plan, share, inputs, outputs, donate).go()
            except WorkerGone as error:
                gone = error
                self._replace_dead()
                if any(isinstance(inputs[slot], RemoteHeld) for slot in donate):
                    raise WorkerLostError(f"{error}\n  Donated inputs may have been overwritten, so the run cannot be "
                                          "repeated. Make them again, or donate nothing.") from error
        raise WorkerLostError(
            f"{gone}\n  The run was tried {TRIES} times. If workers are killed for memory, use smaller chunks "
            "(x.rechunk(...), or config block_bytes) or a lower memory_bytes, so that blocks are spilled.") from gone

    @steady
    def fetch(self, held: Held) -> list[np.ndarray]:
        if not isinstance(held, RemoteHeld):
            return held.owner.fetch(held)
        self._open()
        self._check_held([held])
        blocks: list[Any] = [None] * len(held.refs)
        asked = [self._ask(w, "fetch", held.number) for w in np.unique(held.home).tolist()]
        for ref in asked:
            try:
                rows, payload = self._get(ref)
            except WorkerGone as error:
                self._replace_dead()
                raise WorkerLostError(_LOST.format(error)) from error
            for r, block in zip(rows.tolist(), unpack(payload), strict=True):
                blocks[r] = block
        return blocks

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            if self._reaper is not None:
                self._reaper.stop()
            self._shut()

    # -- what the runs need -------------------------------------------------------------------------------------------

    def keep(self, number: int, home: np.ndarray, nbytes: float, shapes: list[tuple[int, ...]] | None) -> Held:
        """A handle of the blocks kept under `number`; they are freed when it goes."""
        held = RemoteHeld(list(range(len(home))), home, nbytes, self, shapes, number, tuple(self.generation))
        self.held[number] = held
        weakref.finalize(held, self._garbage().put, (number, 0)).atexit = False
        return held

    def _garbage(self) -> queue.SimpleQueue[Any]:
        if self._reaper is None:
            self._reaper = _Reaper(self)
        return self._reaper.queue

    def _share(self, plan: Plan, outputs: Sequence[Output]) -> Share:
        key = tuple(o.keep for o in outputs)
        with self.lock:
            shares = self._shares.setdefault(plan, {})
            if key not in shares:
                check_budget(plan)
                shares[key] = share = Share(plan, outputs, next(self.numbers))
                weakref.finalize(plan, self._garbage().put, (0, share.plan_id)).atexit = False
            return shares[key]

    def _open(self) -> None:
        if self.closed:
            raise ConfigError("this executor was closed; start one again with nums_core.init(...)")

    def _check_held(self, inputs: Sequence[Any]) -> None:
        for held in inputs:
            if isinstance(held, RemoteHeld) and held.owner is self:
                if held.donated:
                    raise ConfigError("this array was donated to an earlier run, which may have overwritten it; use that "
                                      "run's result instead, or do not donate it")
                lost = [w for w in np.unique(held.home).tolist() if held.generation[w] != self.generation[w]]
                if lost:
                    raise WorkerLostError(_LOST.format(f"worker {lost[0]} went away and was started again"))

    def _replace_dead(self) -> None:
        with self.lock:
            for w in self._dead():
                self._revive(w)
                self.generation[w] += 1
                for shares in self._shares.values():
                    for share in shares.values():
                        share.known.discard(w)

    # -- hooks --------------------------------------------------------------------------------------------------------

    def _put(self, payload: Any) -> Any:
        """A ref to a value of the driver's."""
        raise NotImplementedError

    def _call(self, worker: int, n_out: int, *args: Any) -> list[Any]:
        """Call `WorkerHost.step(*args)` after all earlier calls to `worker`; refs of its `1 + n_out` results."""
        raise NotImplementedError

    def _ask(self, worker: int, method: str, *args: Any) -> Any:
        """Call another method of the `WorkerHost`; a ref to its result."""
        raise NotImplementedError

    def _wait(self, refs: list[Any], timeout_s: float) -> list[Any]:
        """Those of `refs` that are ready: after `timeout_s`, or once all are."""
        raise NotImplementedError

    def _get(self, ref: Any) -> Any:
        """The value. Raises WorkerGone, CallCancelled."""
        raise NotImplementedError

    def _cancel(self, ref: Any) -> None:
        """Make `WorkerHost.cancelled` true for the call in progress that makes `ref`."""

    def _dead(self) -> list[int]:
        """Workers that do not live any more."""
        return []

    def _revive(self, worker: int) -> None:
        """Start a dead worker again, empty."""
        raise NotImplementedError

    def _shut(self) -> None:
        """Give everything back."""


_LOST = ("{}\n  It held blocks of a persisted array, which are lost. Compute that array again from its sources "
         "(y = f(x).persist()), or keep a copy on disk of what is costly to make again.")


class _Reaper:
    """Frees what was garbage collected: finalizers may run at any moment in any thread, so they only fill a queue."""

    def __init__(self, executor: ClusteredExecutor) -> None:
        self.queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.executor = weakref.ref(executor)
        threading.Thread(target=self._loop, name="nums-free", daemon=True).start()

    def stop(self) -> None:
        self.queue.put(None)

    def _loop(self) -> None:
        while (first := self.queue.get()) is not None:
            batch = [first]
            try:
                while (more := self.queue.get(timeout=0.01)) is not None:
                    batch.append(more)
            except queue.Empty:
                more = 0
            executor = self.executor()
            if more is None or executor is None or executor.closed:
                return
            held, plans = [h for h, _ in batch if h], [p for _, p in batch if p]
            try:
                with executor.lock:  # so that nobody is renumbered meanwhile
                    for w in range(executor.cluster.n_workers):
                        executor._ask(w, "free", held, plans)
            except Exception:  # the cluster is going down: nothing is left to free
                return
            del executor
