"""The Dask executor: runs on the workers of an existing `distributed.Client`, with one `WorkerHost` on each.

All calls of a run are handed to Dask's scheduler as one graph. A call is a task pinned to its worker; each payload it
makes is a small task of its own behind it, so that Dask moves it from worker to worker to those who read it, and lets it
go after the last one. A call depends on the one before it on the same worker, which keeps their order, and on the actor
that is the worker's host: when Dask loses the actor, all that depends on it ends at once.

`executors.clustered` and `executors.calls` are the driver's side, `runtime.remote` and `executors.dask_worker` the
worker's, `runtime.partition` cuts the plan, `executors.dask_lives` tells which workers live; here is the rest of what is
Dask's own: its workers and their hosts.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import re
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from nums_core import config
from nums_core.errors import ConfigError, MissingBackendError, WorkerLostError
from nums_core.runtime.cluster import Cluster, Link, Worker
from nums_core.runtime.executors import dask_worker
from nums_core.runtime.executors.clustered import ClusteredExecutor, RemoteHeld, WorkerGone
from nums_core.runtime.executors.dask_lives import CHECK_S, Lives
from nums_core.runtime.executors.dask_tasks import CLOSED, Ref, Tasks
from nums_core.runtime.executors.dask_worker import Parcel
from nums_core.runtime.executors.recovery import restore
from nums_core.runtime.partition import Part

try:
    import distributed
    from distributed.comm import get_address_host
except ImportError as _error:
    raise MissingBackendError("computing on Dask needs the package distributed, which is not installed here; "
                              "pip install nums-core[dask]") from _error

# A payload that crosses is a task and two messages of the scheduler's; then it goes over TCP, between processes of one
# machine too, and is copied into the reader's memory.
LOCAL_LINK, NETWORK_LINK = Link(500e-6, 8e8), Link(700e-6, 5e8)
START_S = 60.0
REPLACE_S = 15.0  # for a nanny to start its worker again
# Of a worker's memory limit: beyond 80 % of it Dask lets the worker pause, beyond 95 % the nanny ends it.
MEMORY_SHARE = 0.6
NO_LIMIT_BYTES = 4 * 2**30
INLINE_BYTES = 4 * 2**10  # longer arguments of a call go to its worker beside the graph, past the scheduler
UNREAD = ("free", "abandon")  # questions whose answer nobody waits for


class _Place(NamedTuple):
    """Where a worker of ours is: a Dask worker's address, the host's name there, the future of its actor, and whether a
    nanny starts that Dask worker again when it dies."""

    address: str
    ident: str
    actor: Any
    nanny: bool

    @property
    def lost(self) -> bool:
        return self.actor.status in ("error", "cancelled", "lost")


class DaskExecutor(ClusteredExecutor):
    """Runs plans on the workers that a Dask client has now.

    Parameters
    ----------
    client : distributed.Client
        It stays the caller's: other work may use it meanwhile, and it is not closed here.
    workers : sequence of str, optional
        Addresses of the workers to use; all that run now if not given.
    threads : int
        Tasks a worker runs at the same time; 0: as many as Dask gave it threads.
    memory_bytes : int, bytes
        Budget of a worker; beyond it blocks are spilled. 0: its share of the worker's memory limit.

    Raises
    ------
    ConfigError
        Not a client, an asynchronous or closed one, or its cluster has no worker that can be used.
    """

    def __init__(self, client: Any, *, workers: Sequence[str] | None = None, threads: int = 0,
                 memory_bytes: int = 0) -> None:
        _check_client(client)
        self.client = client
        self.tasks = Tasks(client)
        self.lives = Lives(self.tasks)
        self.tasks.while_alive = self.lives.while_alive
        self.doubted: set[str] = set()  # addresses of workers that a call was lost on
        self.uid = uuid.uuid4().hex[:12]
        self.tickets = itertools.count(1)
        self.tails: dict[int, Ref] = {}  # the last call of each worker
        self.stopping: dict[int, set[Ref]] = {}  # of runs that are being stopped: calls to be waited for
        self._labels: dict[tuple[int, int], list[str]] = {}  # of the steps, by plan and worker
        self._naming: dict[int, list[str]] = {}  # of the run that is being handed over, by worker
        infos = _workers(client, workers)
        super().__init__(_describe(infos, threads, memory_bytes))
        self.places = [self._host(w, a, bool(info.get("nanny"))) for w, (a, info) in enumerate(infos.items())]
        try:
            self.tasks.direct = self.tasks.reaches(self.places[0].address)
            self._await_hosts(range(len(self.places)))
        except BaseException as error:
            self.close()
            if isinstance(error, WorkerGone):
                raise WorkerLostError(f"a Dask worker went away while it was started: {error}") from error
            raise

    def _host(self, worker: int, address: str, nanny: bool) -> _Place:
        w = self.cluster.workers[worker]
        ticket = next(self.tickets)
        ident = f"{self.uid}/{ticket}"
        actor = self.client.submit(
            dask_worker.DaskHost, ident, worker, w.threads, w.memory_bytes, {"spill_dir": config.get().spill_dir},
            key=f"nums-worker-{ticket}-{self.uid}", workers=[address], actor=True, pure=False)
        return _Place(address, ident, actor, nanny)

    def _await_hosts(self, workers: Sequence[int]) -> None:
        asked = {self._ask(w, "ping"): self.places[w].address for w in workers}
        try:
            self._await_answers(asked)
        finally:
            for ref in asked:
                ref.let_go()

    def _await_answers(self, asked: dict[Ref, str]) -> None:
        until = time.monotonic() + START_S
        while late := asked.keys() - set(self._wait(list(asked), CHECK_S)):
            gone = {asked[r] for r in late} - self.lives.addresses()
            if gone:
                raise WorkerGone(f"the Dask worker {min(gone)} is gone")
            if time.monotonic() > until:
                raise WorkerLostError(f"the Dask workers {', '.join(asked[r] for r in late)} did not answer within "
                                      f"{START_S:.0f} s; see whether they are busy or paused on Dask's dashboard")
        for ref, address in asked.items():
            try:
                self._get(ref)
            except (ImportError, AttributeError, RuntimeError) as error:
                raise ConfigError(f"the Dask worker {address} cannot run nums_core: {error}\n  Install the same version "
                                  "of nums_core on the scheduler and on every worker") from error

    def _ref(self, name: str, worker: int = -1, run: int = 0, parcel: Parcel | None = None) -> Ref:
        address = self.places[worker].address if worker >= 0 else ""
        return Ref(f"nums-{name}-{next(self.tickets)}-{self.uid}", address, run, parcel)

    # -- hooks --------------------------------------------------------------------------------------------------------

    def _put(self, payload: Any) -> Ref:
        return self._ref("data", parcel=Parcel.of(payload))

    def _call(self, worker: int, n_out: int, *args: Any) -> list[Ref]:
        run, index, _, header, *_ = args
        place, ticket = self.places[worker], next(self.tickets)
        holes = [k for k, a in enumerate(args) if isinstance(a, Ref)]
        imports = [args[k] for k in holes]
        for ref in imports:
            ref.wanted = ref.future is not None  # what a call of the same graph makes is read by calls only
        arguments: Any = Parcel.of(([None if isinstance(a, Ref) else a for a in args], holes))
        if arguments.nbytes > INLINE_BYTES:
            arguments = self._ref("call", worker, parcel=arguments)
        call = self._ref(self._label(worker, index, header), worker, run)
        self.tasks.add(call, 0, dask_worker.call, place.ident, run, ticket, n_out, place.actor,
                       self._before(call, worker), arguments, *imports)
        self.tails[worker] = call
        return [call, *(self.tasks.add(self._ref("result", worker, run), 1, dask_worker.take, place.ident, run, ticket, k,
                                       call) for k in range(n_out))]

    def _before(self, call: Ref, worker: int) -> Any:
        """The call of the worker before this one, if it is still to be waited for."""
        before = self.tails.get(worker)
        if before is None or before.read:
            return None
        if before.future is None:  # not handed over yet
            return before
        hold = self.tasks.again(before)
        call.holds.append(hold)
        return hold

    def _ask(self, worker: int, method: str, *args: Any) -> Ref:
        with self.lock:
            if method == "free":
                for plan_id in args[1]:
                    self._labels.pop((plan_id, worker), None)
            place = self.places[worker]
            ref = self.tasks.submit(self._ref(method, worker), dask_worker.ask, place.ident, method, Parcel.of(args),
                                    place.actor)
            if method == "abandon":
                self.stopping.pop(args[0], None)
                self.tasks.give_up(args[0])
        if method in UNREAD:
            self.tasks.outcome(ref)  # holds it until it is there
        return ref

    def _wait(self, refs: list[Ref], timeout_s: float) -> list[Ref]:
        with self.lock:
            self.tasks.hand_over()
            for run, running in self.stopping.items():
                self.tasks.give_up(run, running)
        if self.tasks.closed:
            raise ConfigError(CLOSED)
        outcomes = {self.tasks.outcome(r): r for r in refs}
        return [outcomes[done] for done in concurrent.futures.wait(outcomes, timeout_s).done]

    def _get(self, ref: Ref) -> Any:
        while not self._wait([ref], CHECK_S):
            continue
        try:
            value = self.tasks.outcome(ref).result()
        except WorkerGone:
            self.doubted.add(ref.address)
            raise
        return value.open() if isinstance(value, Parcel) else value

    def _cancel(self, ref: Ref) -> None:
        """Of a run that is being stopped, calls in progress are ended and waited for; the rest Dask forgets."""
        with self.lock:
            if ref.run not in self.stopping:
                for place in [p for p in self.places if not p.lost]:
                    self.tasks.begin(self.client.run(dask_worker.stop, place.ident, ref.run, workers=[place.address],
                                                     on_error="ignore", asynchronous=True))
            self.stopping.setdefault(ref.run, set()).add(ref)

    def _silent(self, workers: list[int], timeout_s: float) -> Ref:
        async def silent() -> list[int]:
            found = await self.lives.silent({self.places[w].address for w in workers}, timeout_s)
            return [w for w in workers if self.places[w].address in found]

        ref = self._ref("silent")
        ref.outcome = self.tasks.begin(silent())
        return ref

    def _end(self, worker: int) -> None:
        address = self.places[worker].address
        self.lives.end([address])
        # Tasks pinned to a worker that the scheduler has forgotten wait for ever, and so do those that read what they make.
        self.tasks.fail_on(address, f"the Dask worker {address} is gone")

    def _dead(self) -> list[int]:
        # A connection may be found broken before the scheduler notes that a worker died.
        doubted, self.doubted = self.doubted, set()
        alive = self.lives.addresses()
        alive -= {a for a in doubted & alive if not self.lives.answering(a)}
        return [w for w, place in enumerate(self.places) if place.address not in alive or place.lost]

    def _revive(self, worker: int) -> None:
        until = time.monotonic() + REPLACE_S
        while True:
            address = self._address_for(worker, until)
            self.places[worker] = self._host(worker, address, self.places[worker].nanny)
            try:
                return self._await_hosts([worker])
            except WorkerGone as error:
                if time.monotonic() > until + START_S:
                    raise WorkerLostError(f"worker {worker} went away and could not be started again on {address}: "
                                          f"{error}") from error

    def _shut(self) -> None:
        """Let go of the actors; Dask ends the hosts."""
        self.tasks.batch.clear()
        self.tails.clear()
        self.places.clear()

    # -- the rest -----------------------------------------------------------------------------------------------------

    def _place(self, worker: int) -> str:
        return self.places[worker].address

    def _open(self, inputs: Sequence[Any]) -> None:
        super()._open(inputs)
        if self.tasks.closed:
            raise ConfigError(CLOSED)

    def _address_for(self, worker: int, until: float) -> str:
        """A Dask worker that is nobody else's, which a nanny may be starting just now; after `until`, a shared one."""
        old = self.places[worker]
        while True:
            alive = self.lives.addresses()
            here = {a for a in alive if get_address_host(a) == get_address_host(old.address)}
            used = Counter(p.address for w, p in enumerate(self.places) if w != worker and not p.lost)
            for spare in (here - used.keys(), alive - used.keys()):
                if spare:
                    return min(spare)
            if alive and (time.monotonic() > until or not old.nanny):
                return min(sorted(here or alive), key=lambda a: used[a])
            if time.monotonic() > until + START_S:
                raise WorkerLostError("all workers of the Dask cluster went away; start some, and compute again")
            time.sleep(0.1)

    def _label(self, worker: int, index: int, header: Any) -> str:
        if header is not None:
            at = header.plan_id, worker
            if header.part is not None:
                self._labels[at] = labels(header.part)
            self._naming[worker] = self._labels[at]
        return self._naming[worker][index]

    def futures(self, held: RemoteHeld) -> list[Any]:
        """Futures of copies of kept blocks, made where they lie: for tasks that are not ours."""
        self._open([held])
        restore(self, held)
        places = [self.places[w] for w in held.home.tolist()]
        return [self.client.submit(dask_worker.block, p.ident, held.number, row, p.actor, workers=[p.address], pure=False,
                                   key=f"nums-block-{next(self.tickets)}-{self.uid}") for row, p in enumerate(places)]


# -- the cluster ------------------------------------------------------------------------------------------------------

def _check_client(client: Any) -> None:
    if not isinstance(client, distributed.Client):
        raise ConfigError(f"init(dask=...) takes a distributed.Client, got {type(client).__name__}; "
                          "client = distributed.Client(address)")
    if client.status in ("closing", "closed"):
        raise ConfigError(CLOSED)
    if client.asynchronous:
        raise ConfigError("this Dask client is asynchronous, and computing here blocks; make one that is not, "
                          "distributed.Client(address, asynchronous=False), outside of coroutines")


def _workers(client: Any, chosen: Sequence[str] | None) -> dict[str, dict[str, Any]]:
    """What the scheduler says of each worker that runs, by address: host after host, by name in each."""
    try:
        client.wait_for_workers(1, START_S)
    except TimeoutError as error:
        raise ConfigError(f"the Dask cluster has had no worker for {START_S:.0f} s; start one, `dask worker "
                          f"{client.scheduler.address}`, or cluster.scale(n)") from error
    found = client.scheduler_info(n_workers=-1)["workers"]
    running = sorted((get_address_host(a), not isinstance(i["name"], int), i["name"], a)
                     for a, i in found.items() if i["status"] == "running")
    unknown = set(chosen or ()) - {a for *_, a in running}
    if unknown:
        raise ConfigError(f"no Dask worker runs at {', '.join(sorted(unknown))}; those that do are "
                          f"{', '.join(a for *_, a in running)}")
    return {a: found[a] for *_, a in running if chosen is None or a in chosen}


def _describe(infos: dict[str, dict[str, Any]], threads: int, memory_bytes: int) -> Cluster:
    hosts = list(dict.fromkeys(map(get_address_host, infos)))
    return Cluster(tuple(
        Worker(hosts.index(get_address_host(a)), threads or info["nthreads"],
               memory_bytes or int(MEMORY_SHARE * (info["memory_limit"] or NO_LIMIT_BYTES)))
        for a, info in infos.items()), NETWORK_LINK, LOCAL_LINK, kind="dask")


def labels(part: Part) -> list[str]:
    """A name for each step: up to three operations, those with the most work, in the plan's order.

    Dask takes the words before the first number of a key for the name of its group, and colours by it.
    """
    g = part.plan.graph
    first = np.array([f.start for f in g.families])
    made = []
    for step in part.steps:
        tasks = part.plan.order[step.start:step.stop]
        family = np.searchsorted(first, tasks, side="right") - 1
        work = np.bincount(family, g.flop[tasks] + np.nan_to_num(g.out_bytes[tasks]), len(g.families))
        most = sorted(k for k in np.argsort(-work, kind="stable")[:3].tolist() if work[k] > 0)
        names = [re.split(r"[ .]", g.families[k].label or g.families[k].kernel.name)[0] for k in most]
        made.append("-".join(dict.fromkeys(w for n in names for w in re.findall("[a-zA-Z]+", n))) or "lend")
    return made
