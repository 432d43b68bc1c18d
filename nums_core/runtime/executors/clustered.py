"""What all cluster executors share: the workers' lives, the arrays they hold, the plans they know.

A backend (Ray, Dask, the loopback of the tests) is a subclass with a few small methods, the *hooks* of
`ClusteredExecutor`; they carry calls to `runtime.remote.WorkerHost` and know nothing of plans. `executors.calls` is one
attempt to run a plan, `executors.recovery` what happens where a worker dies.
"""

from __future__ import annotations

import itertools
import queue
import threading
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nums_core.errors import ConfigError
from nums_core.ops.taskgraph import Kernel
from nums_core.runtime.cluster import Cluster
from nums_core.runtime.executors.base import Held, Output
from nums_core.runtime.executors.renumber import Renumbering, steady
from nums_core.runtime.footprint import check_budget
from nums_core.runtime.lineage import Making, Origin, Pins, reading
from nums_core.runtime.partition import Partition, partition, row_args
from nums_core.runtime.plan import Plan
from nums_core.runtime.report import Report

POLL_S = 0.1


class WorkerGone(Exception):
    """A worker died, or what it made is lost."""


class CallCancelled(Exception):
    """The call was cancelled, or one that it depends on."""


@dataclass(eq=False)
class RemoteHeld(Held):
    """Blocks that workers keep under a number.

    Attributes
    ----------
    generation : int64 array, one entry a block
        The life of its worker that it was made in; -1: it is not there.
    donated : bool
        A run may have overwritten blocks.
    origin : Origin
        How they were made.
    """

    number: int = -1
    generation: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    donated: bool = False
    origin: Origin = None  # type: ignore[assignment]  # set where it is made


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

    Attributes
    ----------
    generation : list of int
        How often each worker was started again.
    deaths : int
        All of these together, and workers that left.
    ended : set of workers that were given up
    """

    def __init__(self, cluster: Cluster) -> None:
        super().__init__()
        self.cluster = cluster
        self.lock = threading.RLock()  # calls of two runs are handed over one run after the other
        self.recovering = threading.RLock()  # what two runs miss is made again once
        self.generation = [0] * cluster.n_workers
        self.deaths = 0
        self.ended: set[int] = set()
        self.numbers = itertools.count(1)
        self.pins = Pins()
        self._shares: weakref.WeakKeyDictionary[Plan, dict[tuple[bool, ...], Share]] = weakref.WeakKeyDictionary()
        self._reaper: _Reaper | None = None
        self.closed = False

    @steady
    def run(self, plan: Plan, inputs: Sequence[Any], outputs: Sequence[Output],
            donate: frozenset[int] = frozenset()) -> tuple[list[Any], Report]:
        from nums_core.runtime.executors.recovery import run_plan

        self._open(inputs)
        return run_plan(self, self.renumbered(plan), inputs, outputs, donate)

    @steady
    def fetch(self, held: Held) -> list[np.ndarray]:
        from nums_core.runtime.executors.recovery import fetch

        if not isinstance(held, RemoteHeld) or held.owner is not self:
            return held.owner.fetch(held)
        self._open([held])
        return fetch(self, held)

    @steady
    def stored(self, held: Held, source: Any, output: Output) -> None:
        """The blocks of `held` stand in `source` too: lost ones are read from there, and how they were made is forgotten."""
        if isinstance(held, RemoteHeld) and held.owner is self:
            plan, outputs = reading(source, output, held.home, self.cluster)
            before = held.origin.making
            serial = -1 if before is None else before.serial
            held.origin.making = Making(plan, outputs, (self.pins.pin(source, np.inf),), serial)
            held.origin.making.depth = 0
            held.origin.output = 0

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            if self._reaper is not None:
                self._reaper.stop()
            self._shut()

    # -- what the runs need -------------------------------------------------------------------------------------------

    def new_held(self, home: np.ndarray, making: Making | None, output: int) -> RemoteHeld:
        """A handle of blocks that are to be kept; they are freed when it goes."""
        number = next(self.numbers)
        held = RemoteHeld(list(range(len(home))), home, 0.0, self, None, number, np.full(len(home), -1, np.int64))
        held.origin = Origin(making, output, weakref.ref(held))
        self.held[number] = held
        weakref.finalize(held, self._garbage().put, (number, 0)).atexit = False
        return held

    def alive(self, held: RemoteHeld) -> np.ndarray:
        """Which blocks live: bool, one entry a block."""
        return held.generation == np.asarray(self.generation)[held.home]

    def free(self, helds: Iterable[Any]) -> None:
        """Free blocks before their handles go."""
        for held in helds:
            if isinstance(held, RemoteHeld) and held.owner is self:
                held.generation[:] = -1
                self._garbage().put((held.number, 0))

    def value(self, ref: Any, worker: int) -> Any:
        """What a worker answers. Raises WorkerGone, also where it does not answer in time."""
        from nums_core.runtime.executors.watch import Watch

        watch = Watch(self)
        while not self._wait([ref], POLL_S):
            watch.look([worker])
        return self._get(ref)

    def name(self, worker: int) -> str:
        """A worker, for messages."""
        return f"worker {worker} on {self._place(worker)}"

    def end(self, worker: int) -> None:
        """Give a worker up: its calls end, and it is started again before anything is tried again."""
        self.ended.add(worker)
        self._end(worker)

    def replace_dead(self) -> None:
        """Start again, empty, the workers that died."""
        with self.lock:
            for w in sorted({*self._dead(), *self.ended}):
                self._revive(w)
                self.ended.discard(w)
                self.generation[w] += 1
                self.deaths += 1
                for shares in self._shares.values():
                    for share in shares.values():
                        share.known.discard(w)

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

    def _open(self, inputs: Sequence[Any]) -> None:
        if self.closed:
            raise ConfigError("this executor was closed; start one again with nums_core.init(...)")
        if any(isinstance(x, RemoteHeld) and x.owner is self and x.donated for x in inputs):
            raise ConfigError("this array was donated to an earlier run, which may have overwritten it; use that run's "
                              "result instead, or do not donate it")

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

    def _silent(self, workers: list[int], timeout_s: float) -> Any:
        """A ref to those of `workers` whose processes answered nothing for `timeout_s`. They are to answer while they
        compute. None where that cannot be told."""
        return None

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

    def _end(self, worker: int) -> None:
        """Kill a worker that does not answer, if that can be done from here."""

    def _revive(self, worker: int) -> None:
        """Start a dead worker again, empty."""
        raise NotImplementedError

    def _place(self, worker: int) -> str:
        """Where a worker is, for messages."""
        return f"node {self.cluster.workers[worker].node}"

    def _shut(self) -> None:
        """Give everything back."""


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
