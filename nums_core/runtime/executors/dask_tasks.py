"""Tasks on their way to Dask's scheduler, the values they make on their way back, and Dask's exceptions as ours.

Tasks are collected and handed over as one graph: a message to the scheduler costs as much as some thousand of our own
tasks. Values of the driver's go to the workers beside the graph.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import weakref
from collections.abc import Callable, Collection, Container, Coroutine
from typing import Any, NamedTuple

from nums_core.errors import ConfigError, MissingBackendError
from nums_core.runtime.executors.clustered import CallCancelled, WorkerGone
from nums_core.runtime.executors.dask_worker import HostGone, Parcel

try:
    import distributed
    from dask.highlevelgraph import HighLevelGraph, MaterializedLayer
    from distributed.scheduler import KilledWorker
except ImportError as _error:
    raise MissingBackendError("computing on Dask needs the package distributed, which is not installed here; "
                              "pip install nums-core[dask]") from _error

REACH_S = 5.0  # for a worker to take data from here
# What Dask raises where a worker, or what it made, is lost. OSError is also all that has to do with connections.
LOST = (HostGone, KilledWorker, OSError, TimeoutError, concurrent.futures.CancelledError, asyncio.CancelledError,
        *(getattr(distributed.scheduler, name) for name in ("NoValidWorkerError", "NoWorkerError")
          if hasattr(distributed.scheduler, name)))
CLOSED = ("the Dask client of this executor was closed; connect again, client = distributed.Client(address), and call "
          "nums_core.init(dask=client)")


class Ref:
    """A value that a task makes, or that the driver sends.

    Attributes
    ----------
    key : str
        Dask's name of it. The words before the first number are what its dashboard shows.
    address : str
        Of the worker that makes it or reads it first; empty where that is not known yet.
    run : int
        Number of the run it is made in.
    parcel : Parcel or None
        A value of the driver's that was not sent yet.
    wanted : bool
        Whether Dask keeps it until the driver has read it, or until this object goes.
    future : Future or None
        None before it is handed over, and once it was read.
    read : bool
    holds : list
        Keeps what the task reads and no task of the same graph makes.
    """

    __slots__ = ("__weakref__", "address", "future", "holds", "key", "outcome", "parcel", "read", "run", "wanted")

    def __init__(self, key: str, address: str = "", run: int = 0, parcel: Parcel | None = None) -> None:
        self.key, self.address, self.run, self.parcel = key, address, run, parcel
        self.wanted, self.read = True, False
        self.future: Any = None
        self.holds: list[Any] = []
        self.outcome: concurrent.futures.Future[Any] | None = None

    def fail(self, error: BaseException) -> None:
        self.outcome = concurrent.futures.Future()
        self.outcome.set_exception(error)
        self.let_go()

    def let_go(self) -> None:
        """It was read, or nobody will. `read` is set first: who finds it unset can still take hold of the key.

        Whoever still waits for the value meets a cancelled future. (To cancel the waiting itself would cancel all that
        the client gathers at this moment.)
        """
        self.read = True
        future, self.future = self.future, None
        if future is not None:
            with contextlib.suppress(RuntimeError):  # the client's event loop is closed
                future.release()
        self.holds.clear()


class Task(NamedTuple):
    """Where several tasks can run, one of higher priority runs first."""

    ref: Ref
    priority: int
    function: Callable[..., Any]
    args: tuple[Any, ...]


class Tasks:
    """Tasks for one client's scheduler.

    Attributes
    ----------
    direct : bool
        Data go to the workers and come back without passing through the scheduler.
    while_alive : coroutine function of (awaitable, addresses) -> the value
        Raises WorkerGone where one of these workers is gone meanwhile.
    """

    while_alive: Callable[[Any, Collection[str]], Coroutine[Any, Any, Any]]

    def __init__(self, client: Any) -> None:
        self.client, self.direct = client, False
        self.batch: list[Task] = []
        self.wanted: weakref.WeakSet[Ref] = weakref.WeakSet()  # handed over and not read, as far as somebody holds them

    def add(self, ref: Ref, priority: int, function: Callable[..., Any], *args: Any) -> Ref:
        """A task that makes `ref` when it is handed over. Refs among `args` are what it reads."""
        for a in args:
            if isinstance(a, Ref):
                a.address = a.address or ref.address
                if a.future is not None or a.parcel is not None:
                    ref.holds.append(a)
        self.batch.append(Task(ref, priority, function, args))
        return ref

    def submit(self, ref: Ref, function: Callable[..., Any], *args: Any) -> Ref:
        """A task on its own, at once."""
        ref.future = self.client.submit(function, *args, key=ref.key, workers=[ref.address], pure=False)
        return ref

    def again(self, ref: Ref) -> Any:
        """Another hold of a value that somebody else may read at any moment; None if that has happened."""
        hold = None if ref.read else distributed.Future(ref.key, self.client)
        return None if ref.read else hold

    # -- handing over -------------------------------------------------------------------------------------------------

    def hand_over(self) -> None:
        """Send all that was added. Where a worker is gone, all of it ends with that."""
        batch, self.batch = self.batch, []
        if not batch:
            return
        try:
            self._scatter(batch)
            self._submit(batch)
        except BaseException as error:
            known = self.known(error)
            if isinstance(known, WorkerGone):  # the traceback would hold what was sent, and Dask holds the exception
                known = WorkerGone(*known.args)
                error.with_traceback(None)
            for task in batch:
                task.ref.fail(known if isinstance(known, Exception) else CallCancelled("interrupted"))
            if isinstance(known, WorkerGone):
                return
            if known is error:
                raise
            raise known from error

    def _scatter(self, batch: list[Task]) -> None:
        """Send the driver's values to the workers that read them first."""
        refs = {a.key: a for task in batch for a in task.args if isinstance(a, Ref) and a.parcel is not None}
        by_address: dict[str, dict[str, Any]] = {}
        for ref in refs.values():
            by_address.setdefault(ref.address, {})[ref.key] = ref.parcel

        async def send() -> list[dict[str, Any]]:
            sent = asyncio.gather(*(
                self.client.scatter(parcels, workers=[address], direct=self.direct, timeout=REACH_S, asynchronous=True)
                for address, parcels in by_address.items()))
            try:
                return await self.while_alive(sent, by_address)
            except KeyError as error:  # so the scheduler says where data that pass through it are for a worker it misses
                raise WorkerGone(f"the Dask worker {error} is gone") from error

        for futures in self.client.sync(send) if refs else ():
            for key, future in futures.items():
                refs[key].future, refs[key].parcel = future, None

    def _submit(self, batch: list[Task]) -> None:
        layers: dict[tuple[str, int], dict[str, Any]] = {}
        for task in batch:
            args = [(a.future or a.key) if isinstance(a, Ref) else a for a in task.args]
            layers.setdefault((task.ref.address, task.priority), {})[task.ref.key] = (task.function, *args)
        graph = HighLevelGraph(
            {f"{address} {priority}": MaterializedLayer(tasks, annotations={
                "workers": [address], "allow_other_workers": False, "retries": 0, "priority": priority})
             for (address, priority), tasks in layers.items()},
            # Dask orders by the tasks' own dependencies; these would only matter if it culled layers.
            {f"{address} {priority}": set() for address, priority in layers})
        wanted = [task.ref for task in batch if task.ref.wanted]
        for ref, future in zip(wanted, self.client.get(graph, [r.key for r in wanted], sync=False), strict=True):
            ref.future = future
            self.wanted.add(ref)

    def give_up(self, run: int, but: Container[Ref] = ()) -> None:
        """Let Dask forget the run's tasks, those in `but` excepted. What is running runs to its end."""
        for ref in list(self.wanted):
            if ref.run == run and ref not in but and not ref.read:
                ref.fail(CallCancelled("given up with its run"))

    def fail_on(self, address: str, why: str) -> None:
        """All that a worker was to make ends with WorkerGone, and with it the runs that it has a part in."""
        waiting = [ref for ref in self.wanted if not ref.read]
        runs = {ref.run for ref in waiting if ref.address == address} - {0}
        for ref in waiting:
            if ref.run in runs or ref.address == address:
                ref.fail(WorkerGone(why))

    # -- values -------------------------------------------------------------------------------------------------------

    def begin(self, coroutine: Coroutine[Any, Any, Any]) -> concurrent.futures.Future[Any]:
        """Run something on the client's event loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.client.loop.asyncio_loop)

    def outcome(self, ref: Ref) -> concurrent.futures.Future[Any]:
        """The value, or the exception, that is being waited for from now on."""
        if ref.outcome is None:
            ref.outcome = self.begin(self._value(ref))
        return ref.outcome

    async def _value(self, ref: Ref) -> Any:
        try:
            return await self.client.gather(ref.future, direct=self.direct, asynchronous=True)
        except BaseException as error:
            # Dask's cancellation of a future is the event loop's own for a coroutine. Tracebacks would hold the future.
            known, error = self.known(error), error.with_traceback(None)
            if known is error:
                raise
            raise known from error
        finally:
            ref.let_go()

    def reaches(self, address: str) -> bool:
        """Whether data can go straight to that worker."""
        if self.client.direct_to_workers is not None:
            return bool(self.client.direct_to_workers)
        probe = self.begin(self.client.scatter(b"", workers=[address], direct=True, hash=False, timeout=REACH_S,
                                               asynchronous=True))
        try:
            probe.result(REACH_S)
        except LOST:
            probe.cancel()
            return False
        return True

    # -- exceptions ---------------------------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        return self.client.status in ("closing", "closed")

    def known(self, error: BaseException) -> BaseException:
        """Dask's exception as one of ours; others as they are."""
        if isinstance(error, KeyboardInterrupt):
            return error
        if self.closed:
            return ConfigError(CLOSED)
        # That an actor is lost Dask says by a plain RuntimeError.
        if isinstance(error, LOST) or (type(error) is RuntimeError and "Actor was lost" in str(error)):
            return WorkerGone(f"{type(error).__name__}: {error}"[:400])
        return error
