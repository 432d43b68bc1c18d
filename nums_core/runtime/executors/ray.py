"""The Ray executor: one actor a worker keeps that worker's blocks and runs super-tasks.

All calls of a run are handed to Ray up front. A block that crosses workers is part of a result of the call that makes
it and an argument of the calls that read it, so Ray orders and moves them without the driver. A run costs about a
millisecond for each call, whatever the number of tasks in it.

`executors.clustered` and `executors.calls` are the driver's side, `runtime.remote` the worker's, `runtime.partition`
cuts the plan, `ray_nodes` says what a cluster is made of, `ray_connection` joins one, and `ray_errors` says what its
exceptions mean; here are actors and refs.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import time
import warnings
import weakref
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from nums_core import config
from nums_core._util import format_bytes
from nums_core.errors import WorkerLostError
from nums_core.runtime.cluster import Worker
from nums_core.runtime.executors.base import Output
from nums_core.runtime.executors.clustered import ClusteredExecutor, Share, WorkerGone
from nums_core.runtime.executors.ray_connection import CLIENT, connect, connection, on_node, ours, ray
from nums_core.runtime.executors.ray_errors import first_lines
from nums_core.runtime.executors.ray_nodes import Node, cluster_of, usable, wanted
from nums_core.runtime.plan import Plan
from nums_core.runtime.remote import WorkerHost
from nums_core.runtime.store import remove_spill_folder

START_S = 60.0
LOOK_S = 1.0  # between two looks for nodes that came or went, at least; a look at a few nodes takes half a millisecond
CLIENT_BYTES = 256 * 2**20  # more than this should not cross Ray's client, which carries some 0.16 GB/s

log = logging.getLogger(__name__)


class _RayWorker(WorkerHost):
    def step(self, *args: Any) -> Any:
        out = super().step(*args)
        return out if len(out) > 1 else out[0]  # Ray takes one result for the value itself

    @ray.method(concurrency_group="pulse")
    def pulse(self) -> int:
        """The process; answered by a thread of its own, while others compute."""
        return os.getpid()

    def shutdown(self) -> None:
        super().shutdown()
        remove_spill_folder()

    def cancelled(self) -> bool:
        return bool(getattr(ray.get_runtime_context(), "is_canceled", lambda: False)())


@ray.remote(num_cpus=0, max_retries=0)
def _no_pulse(actors: dict[int, Any], timeout_s: float) -> list[int]:
    """Workers whose processes do not answer. (A dead one does, in a way: with an error.)"""
    asked = {a.pulse.remote(): w for w, a in actors.items()}
    _, late = ray.wait(list(asked), num_returns=len(asked), timeout=timeout_s)
    return sorted(asked[ref] for ref in late)


@ray.remote(num_cpus=0, max_retries=0)
def _end_process(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


class _Newcomers(NamedTuple):
    """Workers of a node that joined, until their actors answer with their processes."""

    workers: list[Worker]
    actors: list[Any]
    answers: list[Any]


class RayExecutor(ClusteredExecutor):
    """Runs plans on a Ray cluster: one that runs already, or one started here.

    Parameters
    ----------
    address : str, optional
        Of a cluster: "auto", "host:port", "ray://host:port". None: the one this process is connected to, or else a new
        one on this machine.
    num_workers : int
        Workers where there is one node; 0: one a core. On several nodes use `workers_per_node`.
    workers_per_node : int
        0: one a node where there are several nodes.
    threads : int
        Tasks a worker runs at the same time; 0: the node's cores shared among its workers.
    memory_bytes : int, bytes
        Budget of a worker; beyond it blocks are spilled. 0: its share of the memory Ray offers on its node.
    elastic : bool, optional
        Whether nodes that join later are used, and those that leave forgotten. Default: on clusters that were not started
        here.
    ray_options
        Passed to `ray.init` where it is called.

    Raises
    ------
    ConfigError
        No cluster answers at the address, it refuses this process, or it has no node with a CPU.
    WorkerLostError
        Workers did not start.
    """

    def __init__(self, address: str | None = None, *, num_workers: int = 0, workers_per_node: int = 0, threads: int = 0,
                 memory_bytes: int = 0, elastic: bool | None = None, **ray_options: Any) -> None:
        self.connected_here = connect(address, num_workers, ray_options)
        try:
            self.elastic = not (self.connected_here and address is None) if elastic is None else elastic
            self.nodes = _nodes()
            self.wanted = wanted(self.nodes, num_workers, workers_per_node, threads, memory_bytes)
        except BaseException:
            if self.connected_here:
                ray.shutdown()
            raise
        workers = [(w, n.id) for n in self.nodes for w in self.wanted.workers(n)]
        self.node_ids = [n for _, n in workers]
        super().__init__(cluster_of([w for w, _ in workers], self.node_ids))
        self.connection = connection()
        self._kind = _kind()
        self.joining: dict[str, _Newcomers] = {}
        self.refused: set[str] = set()  # nodes on which workers do not start
        self._next_look_s = time.monotonic() + LOOK_S
        self.actors = [self._actor(w, node) for w, node in enumerate(self.node_ids)]
        self._await_start()
        atexit.register(_close, weakref.ref(self))  # spill files of workers go with them

    def _actor(self, worker: int, node: str, described: Worker | None = None) -> Any:
        w = described or self.cluster.workers[worker]
        return self._kind.options(scheduling_strategy=on_node(node)).remote(
            worker, w.threads, w.memory_bytes, {"spill_dir": config.get().spill_dir})

    def _await_start(self) -> None:
        refs = [a.pulse.remote() for a in self.actors]
        _, late = ray.wait(refs, num_returns=len(refs), timeout=START_S)
        try:
            if late:
                raise WorkerLostError(f"{len(late)} of {len(refs)} workers did not start within {START_S:.0f} s; see "
                                      "`ray status`, and check that nums_core is installed on every node")
            self.pids = [self._get(ref) for ref in refs]
        except BaseException as error:
            self.close()
            if isinstance(error, WorkerGone):
                raise WorkerLostError(f"{error}; check that nums_core is installed on every node") from error
            raise

    # -- nodes that come and go ---------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Notice nodes that came or went, once a second at most and never waiting: a new node takes part once its
        workers have answered."""
        now = time.monotonic()
        if not self.elastic or now < self._next_look_s or self.closed or not self.lock.acquire(blocking=False):
            return
        try:
            alive = {n.id: n for n in _nodes()}
            took = time.monotonic() - now  # grows with the cluster: a hundredth of the time is enough
            self._next_look_s = now + max(LOOK_S, 100 * took)
            self._dismiss(alive)
            for node in alive.values():
                if node.id not in self.node_ids and node.id not in self.joining and node.id not in self.refused:
                    self._invite(node)
            self._admit()
        except ray.exceptions.RayError as error:  # the run that follows meets the same trouble, and says so
            log.warning("cannot see which nodes the Ray cluster has: %s", first_lines(error))
        finally:
            self.lock.release()

    def _invite(self, node: Node) -> None:
        workers = self.wanted.workers(node)
        actors = [self._actor(len(self.actors) + k, node.id, w) for k, w in enumerate(workers)]
        self.joining[node.id] = _Newcomers(workers, actors, [a.pulse.remote() for a in actors])

    def _admit(self) -> None:
        """Newcomers whose actors have answered become workers."""
        for node, new in list(self.joining.items()):
            if len(ray.wait(new.answers, num_returns=len(new.answers), timeout=0)[0]) < len(new.answers):
                continue
            del self.joining[node]
            try:
                pids = ray.get(new.answers)
            except ray.exceptions.RayError as error:
                self.refused.add(node)
                log.warning("a node joined the Ray cluster but starts no workers: %s", first_lines(error))
                continue
            n = len(self.actors)
            self.actors += new.actors
            self.node_ids += [node] * len(new.actors)
            self.pids += pids
            self._regroup(range(n), [*self.cluster.workers, *new.workers])

    def _dismiss(self, nodes: Mapping[str, Node]) -> None:
        """Forget, between runs, workers whose node left: what they held is made again by the others when it is used. And
        those without blocks on nodes that took in workers of another, which left in the middle of a run."""
        if self.busy:
            return
        gone = {w for w, node in enumerate(self.node_ids) if node not in nodes}
        idle = self._idle(nodes)
        stay = [w for w in range(len(self.actors)) if w not in gone and w not in idle]
        if not stay or len(stay) == len(self.actors):
            return
        for w in idle:
            self._ask(w, "shutdown")
        self.actors = [self.actors[w] for w in stay]
        self.node_ids = [self.node_ids[w] for w in stay]
        self.pids = [self.pids[w] for w in stay]
        self._regroup(stay, [self.cluster.workers[w] for w in stay])

    def _idle(self, nodes: Mapping[str, Node]) -> set[int]:
        """Workers without blocks, as far as their node has more than it was to have."""
        found: set[int] = set()
        for node, n in Counter(self.node_ids).items():
            surplus = n - len(self.wanted.workers(nodes[node])) if node in nodes else 0
            if surplus > 0:
                holders = self.holders()
                found.update([w for w, at in enumerate(self.node_ids) if at == node and w not in holders][-surplus:])
        return found

    def _regroup(self, stay: Sequence[int], workers: Sequence[Worker]) -> None:
        self.renumber(stay, cluster_of(workers, self.node_ids))

    # -- hooks --------------------------------------------------------------------------------------------------------

    def _open(self, inputs: Sequence[Any]) -> None:
        super()._open(inputs)
        if connection() != self.connection:
            raise WorkerLostError("this process is no longer connected to the Ray cluster of this executor, so what it held "
                                  "is gone (was ray.shutdown() called?); nums_core.init(...) connects anew")

    def _share(self, plan: Plan, outputs: Sequence[Output]) -> Share:
        share = super()._share(plan, outputs)
        if self.connection == CLIENT and not share.known:
            sent = sum(float(np.nansum(plan.graph.out_bytes[b.blocks])) for b in share.partition.bundles if b.source < 0)
            fetched = sum(float(np.nansum(plan.graph.out_bytes[c])) for c in _fetched(plan, outputs))
            _warn_of_slow_client(sent, fetched)
        return share

    def _put(self, payload: Any) -> Any:
        with ours():
            return ray.put(payload)

    def _call(self, worker: int, n_out: int, *args: Any) -> list[Any]:
        with ours():
            made = self.actors[worker].step.options(num_returns=1 + n_out).remote(*args)
        return made if n_out else [made]

    def _ask(self, worker: int, method: str, *args: Any) -> Any:
        with ours():
            return getattr(self.actors[worker], method).remote(*args)

    def _silent(self, workers: list[int], timeout_s: float) -> Any:
        # Asked by a task: from here a question would wait behind calls that wait for their arguments.
        with ours():
            here = on_node(ray.get_runtime_context().get_node_id(), soft=True)
            return _no_pulse.options(scheduling_strategy=here).remote({w: self.actors[w] for w in workers}, timeout_s)

    def _wait(self, refs: list[Any], timeout_s: float) -> list[Any]:
        with ours():
            return ray.wait(refs, num_returns=len(refs), timeout=timeout_s)[0]

    def _get(self, ref: Any) -> Any:
        with ours():
            return ray.get(ref)

    def _cancel(self, ref: Any) -> None:
        ray.cancel(ref)

    def _dead(self) -> list[int]:
        refs = {a.pulse.remote(): w for w, a in enumerate(self.actors)}
        # A frozen worker does not answer (`Watch` gives it up); a dead one answers at once, with an error.
        ready, _ = ray.wait(list(refs), num_returns=len(refs), timeout=10.0)
        dead = []
        for ref in ready:
            try:
                self._get(ref)
            except WorkerGone:
                dead.append(refs[ref])
        return sorted(dead)

    def _end(self, worker: int) -> None:
        ray.kill(self.actors[worker])
        # A process that was stopped does not hear of it.
        _end_process.options(scheduling_strategy=on_node(self.node_ids[worker])).remote(self.pids[worker])

    def _place(self, worker: int) -> str:
        return f"node {self.node_ids[worker][:8]}, process {self.pids[worker]}"

    def _revive(self, worker: int) -> None:
        ray.kill(self.actors[worker])  # it may only have been out of reach
        failed: dict[str, Exception] = {}  # nodes that do not start it; Ray may still take a dead node to be alive
        while True:
            alive = [n.id for n in _nodes() if n.id not in failed]
            if not alive:
                error = next(iter(failed.values()))
                raise WorkerLostError(f"worker {worker} went away and could not be started again: {first_lines(error)}"
                                      "\n  See `ray status`; nums_core.init(...) connects anew.") from error
            if self.node_ids[worker] not in alive:
                self.node_ids[worker] = min(alive, key=self.node_ids.count)
            self.actors[worker] = self._actor(worker, self.node_ids[worker])
            try:
                self.pids[worker] = ray.get(self.actors[worker].pulse.remote(), timeout=START_S)
                return
            except ray.exceptions.RayError as error:
                failed[self.node_ids[worker]] = error

    def _shut(self) -> None:
        actors = [*self.actors, *(a for new in self.joining.values() for a in new.actors)]
        self.actors.clear()
        self.joining.clear()
        if connection() != self.connection:
            return
        try:
            refs = [a.shutdown.remote() for a in actors]  # removes spill files
            ray.wait(refs, num_returns=len(refs), timeout=5.0)
            for a in actors:
                ray.kill(a)
        finally:
            if self.connected_here:
                ray.shutdown()


def _close(executor: weakref.ref[RayExecutor]) -> None:
    made = executor()
    if made is not None:
        made.close()


def _kind() -> Any:
    """The class of the actors. No CPU is reserved: they hold blocks between runs, when other work may have the cores."""
    return ray.remote(num_cpus=0, max_restarts=0, max_task_retries=0, enable_task_events=False,
                      concurrency_groups={"pulse": 1})(_RayWorker)


def _nodes() -> list[Node]:
    return usable(ray.nodes())


def _fetched(plan: Plan, outputs: Sequence[Output]) -> list[slice]:
    """Blocks that come to the driver."""
    families = [plan.graph.families[k] for k in plan.graph.outputs]
    return [slice(f.start, f.stop) for f, o in zip(families, outputs, strict=True) if not o.keep]


def _warn_of_slow_client(sent_bytes: float, fetched_bytes: float) -> None:
    for n_bytes, way, remedy in (
            (sent_bytes, "goes to the cluster", "read the data on the workers (from_zarr, creation functions, random), or "
             "persist() once what every run needs"),
            (fetched_bytes, "comes back", "reduce first, keep it there with persist(), or write it with to_zarr")):
        if n_bytes > CLIENT_BYTES:
            warnings.warn(f"{format_bytes(n_bytes)} {way} through Ray's client, which carries some 0.16 GB/s. Start the driver "
                          f"on the cluster (`ray job submit`), or {remedy}.", stacklevel=2)
