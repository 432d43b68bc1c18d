"""The Ray executor: one actor a worker keeps that worker's blocks and runs super-tasks.

All calls of a run are handed to Ray up front. A block that crosses workers is part of a result of the call that makes
it and an argument of the calls that read it, so Ray orders and moves them without the driver. A run costs about a
millisecond for each call, whatever the number of tasks in it.

`executors.clustered` and `executors.calls` are the driver's side, `runtime.remote` the worker's, `runtime.partition`
cuts the plan; here is what is Ray's own: nodes, actors, refs, and its exceptions.
"""

from __future__ import annotations

import logging
import os
import signal
from typing import Any

from nums_core import config
from nums_core.errors import ConfigError, MissingBackendError, WorkerLostError
from nums_core.runtime.cluster import CallCost, Cluster, Link, Worker, available_cpus
from nums_core.runtime.executors.clustered import CallCancelled, ClusteredExecutor, WorkerGone
from nums_core.runtime.remote import WorkerHost

try:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
except ImportError as _error:
    raise MissingBackendError("computing on Ray needs the package ray, which is not installed here; "
                              "pip install nums-core[ray]") from _error

# Between two actors a block is written to shared memory and mapped; between nodes it also crosses the network once. What is
# smaller than Ray's limit travels inside the reply, by way of the driver. Rates are those of Ray's own benchmarks for many
# blocks in one message, cut to what a loaded machine does; `nums_core.calibrate()` measures them for predictions.
INLINE_BYTES = 100e3
LOCAL_LINK = Link(300e-6, 2e9, INLINE_BYTES, 150e-6)
NETWORK_LINK = Link(1e-3, 6e8, INLINE_BYTES, 300e-6)
DRIVER_LINK, GATHER_LINK = Link(400e-6, 1e9, INLINE_BYTES), Link(200e-6, 1e9, INLINE_BYTES)
CALL = CallCost(submit_s=250e-6, start_s=400e-6, run_s=1e-3)
START_S = 60.0
# Of the memory Ray offers on a node; the rest is for Python, buffers and what kernels take for themselves.
MEMORY_SHARE = 0.8


class _RayWorker(WorkerHost):
    def step(self, *args: Any) -> Any:
        out = super().step(*args)
        return out if len(out) > 1 else out[0]  # Ray takes one result for the value itself

    @ray.method(concurrency_group="pulse")
    def pulse(self) -> int:
        """The process; answered by a thread of its own, while others compute."""
        return os.getpid()

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
    ray_options
        Passed to `ray.init` where it is called.

    Raises
    ------
    ConfigError
        The cluster has no node with a CPU.
    WorkerLostError
        Workers did not start.
    """

    def __init__(self, address: str | None = None, *, num_workers: int = 0, workers_per_node: int = 0, threads: int = 0,
                 memory_bytes: int = 0, **ray_options: Any) -> None:
        self.connected_here = _connect(address, num_workers, ray_options)
        self.nodes = _nodes()
        if not workers_per_node:
            workers_per_node = 1 if len(self.nodes) > 1 else num_workers or int(self.nodes[0]["Resources"]["CPU"])
        self.node_ids = [n["NodeID"] for n in self.nodes for _ in range(workers_per_node)]
        super().__init__(_describe(self.nodes, workers_per_node, threads, memory_bytes))
        self.actors = [self._actor(w, node) for w, node in enumerate(self.node_ids)]
        self._await_start()

    def _actor(self, worker: int, node: str) -> Any:
        w = self.cluster.workers[worker]
        # No CPU is reserved: actors hold blocks between runs, when other work on the cluster may have the cores.
        kind = ray.remote(num_cpus=0, max_restarts=0, max_task_retries=0, enable_task_events=False,
                          concurrency_groups={"pulse": 1},
                          scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False))(_RayWorker)
        return kind.remote(worker, w.threads, w.memory_bytes, {"spill_dir": config.get().spill_dir})

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

    # -- hooks --------------------------------------------------------------------------------------------------------

    def _put(self, payload: Any) -> Any:
        return ray.put(payload)

    def _call(self, worker: int, n_out: int, *args: Any) -> list[Any]:
        made = self.actors[worker].step.options(num_returns=1 + n_out).remote(*args)
        return made if n_out else [made]

    def _ask(self, worker: int, method: str, *args: Any) -> Any:
        return getattr(self.actors[worker], method).remote(*args)

    def _silent(self, workers: list[int], timeout_s: float) -> Any:
        # Asked by a task: from here a question would wait behind calls that wait for their arguments.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        return _no_pulse.options(scheduling_strategy=here).remote({w: self.actors[w] for w in workers}, timeout_s)

    def _wait(self, refs: list[Any], timeout_s: float) -> list[Any]:
        return ray.wait(refs, num_returns=len(refs), timeout=timeout_s)[0]

    def _get(self, ref: Any) -> Any:
        try:
            return ray.get(ref)
        except ray.exceptions.TaskCancelledError as error:
            raise CallCancelled(str(error)) from error
        except ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, ray.exceptions.TaskCancelledError):
                raise CallCancelled(str(cause)) from error
            if isinstance(cause, ray.exceptions.RayError):
                raise WorkerGone(_first_lines(cause)) from error
            raise cause from error
        except ray.exceptions.RayError as error:
            raise WorkerGone(_first_lines(error)) from error

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
        there = NodeAffinitySchedulingStrategy(self.node_ids[worker], soft=False)
        _end_process.options(scheduling_strategy=there).remote(self.pids[worker])

    def _place(self, worker: int) -> str:
        return f"node {self.node_ids[worker][:8]}, process {self.pids[worker]}"

    def _revive(self, worker: int) -> None:
        ray.kill(self.actors[worker])  # it may only have been out of reach
        failed: dict[str, Exception] = {}  # nodes that do not start it; Ray may still take a dead node to be alive
        while True:
            alive = [n["NodeID"] for n in _nodes() if n["NodeID"] not in failed]
            if not alive:
                error = next(iter(failed.values()))
                raise WorkerLostError(f"worker {worker} went away and could not be started again: {_first_lines(error)}"
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
        if not ray.is_initialized():
            return
        try:
            refs = [a.shutdown.remote() for a in self.actors]  # removes spill files
            ray.wait(refs, num_returns=len(refs), timeout=5.0)
            for a in self.actors:
                ray.kill(a)
        finally:
            self.actors.clear()
            if self.connected_here:
                ray.shutdown()


def _connect(address: str | None, num_workers: int, options: dict[str, Any]) -> bool:
    """Connect to Ray unless this process is; whether that was done here."""
    if ray.is_initialized():
        return False
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options = {"logging_level": logging.WARNING} | options
    if address is None:
        # Refs that a worker's death has left behind, and nobody reads, are no news.
        os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
        # address="local": a cluster named in RAY_ADDRESS is joined only where the user asks for it.
        ray.init(address="local", **{"num_cpus": num_workers or available_cpus(), "include_dashboard": False} | options)
        return True
    try:
        ray.init(address=address, **options)
    except ConnectionError as error:
        raise ConfigError(f"no Ray cluster answers at {address!r}: {error}. Start one with `ray start --head`, or leave "
                          "the address out to start one on this machine") from error
    except ValueError as error:
        if "ray[client]" in str(error):
            raise MissingBackendError(f"the address {address!r} needs Ray's client, which is not installed here; "
                                      "pip install ray[client]") from error
        raise
    return True


def _nodes() -> list[dict[str, Any]]:
    """Nodes that are alive and have a CPU, the head first, the others by address."""
    found = [n for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU", 0) >= 1]
    if not found:
        raise ConfigError("the Ray cluster has no node with a CPU; start it with num_cpus of 1 or more")
    return sorted(found, key=lambda n: ("node:__internal_head__" not in n["Resources"], n["NodeManagerAddress"],
                                        n["NodeManagerPort"], n["NodeID"]))


def _describe(nodes: list[dict[str, Any]], per_node: int, threads: int, memory_bytes: int) -> Cluster:
    workers = []
    for k, node in enumerate(nodes):
        cpus, memory = int(node["Resources"]["CPU"]), node["Resources"].get("memory", 4 * 2**30)
        worker = Worker(k, threads or max(1, cpus // per_node), memory_bytes or int(MEMORY_SHARE * memory / per_node))
        workers += [worker] * per_node
    return Cluster(tuple(workers), NETWORK_LINK, LOCAL_LINK, "ray", DRIVER_LINK, GATHER_LINK, CALL)


def _first_lines(error: BaseException) -> str:
    """The first lines of Ray's message, which says what happened to the worker."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:4])[:400]
