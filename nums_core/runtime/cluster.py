"""What a plan is made for: nodes, their workers, and the links between them.

A *node* is a machine; a *worker* is a place on it that runs tasks and holds blocks. Rates are what the simulator and
the scheduler reckon with; no cluster measures any of them at start-up, since plans must not depend on noise.
(`runtime.calibration` measures them for predictions alone, and only when asked.)
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np


class Rate(NamedTuple):
    """Speed of one thread: seconds = flop / flop_per_s + bytes read / read_bytes_per_s + bytes written / ..."""

    flop_per_s: float
    read_bytes_per_s: float
    written_bytes_per_s: float


@dataclass(frozen=True)
class Worker:
    """A place that runs tasks.

    Attributes
    ----------
    node : int
    threads : int
        Tasks it runs at the same time.
    memory_bytes : int, bytes
        Beyond it blocks are spilled.
    flop_per_s, memory_bytes_per_s : float
        Rates of one thread.
    gpus : int
        Devices it has; nothing runs on them yet.
    store_bytes : int, bytes
        Its share of its node's shared memory, through which blocks cross to other processes; 0: not limited.
    disk_bytes_per_s : float
        Of its spill folder, written or read.
    rates : mapping, class of kernels (`ops.costs`) -> Rate
        Measured rates of one thread; empty unless somebody calibrated. Classes that it lacks go at the rates above.
    """

    node: int
    threads: int = 1
    memory_bytes: int = 8 * 2**30
    flop_per_s: float = 2e10
    memory_bytes_per_s: float = 5e9
    gpus: int = 0
    store_bytes: int = 0
    disk_bytes_per_s: float = 1e9
    rates: Mapping[str, Rate] = field(default_factory=dict, compare=False)

    def rate(self, kernel_class: str) -> Rate:
        """Of one thread at kernels of a class, as "gemm.d"."""
        found = self.rates.get(kernel_class)
        return found or Rate(self.flop_per_s, self.memory_bytes_per_s, self.memory_bytes_per_s)


@dataclass(frozen=True)
class Link:
    """A way between two places: seconds = latency_s + bytes / bytes_per_s.

    A message of up to `inline_bytes` travels inside the reply of the call that makes it, by way of the driver: its latency
    is `inline_s`.
    """

    latency_s: float
    bytes_per_s: float
    inline_bytes: float = 0.0
    inline_s: float = 0.0

    def seconds(self, n_bytes: np.ndarray | float) -> np.ndarray | float:
        latency_s: np.ndarray | float = self.latency_s
        if self.inline_bytes:
            latency_s = np.where(np.asarray(n_bytes) <= self.inline_bytes, self.inline_s, latency_s)
        return latency_s + n_bytes / self.bytes_per_s


class CallCost(NamedTuple):
    """What a super-task costs beside its work.

    Attributes
    ----------
    submit_s : float, s
        Of the driver's time.
    start_s : float, s
        Of the worker's: receiving the call, and answering it.
    run_s : float, s
        Once a run.
    """

    submit_s: float = 0.0
    start_s: float = 0.0
    run_s: float = 0.0


FREE_CALLS = CallCost()


@dataclass(frozen=True)
class Cluster:
    """Workers in order of (node, position in the node), and the links.

    Attributes
    ----------
    workers : tuple of Worker
    network : Link
        Between nodes.
    local : Link
        Between workers of one node.
    kind : "local", "ray", "dask", "loopback" or "simulated"
    driver, gather : Link
        From the driver's memory to a worker, and back into one array there.
    call : CallCost
        Of a super-task, where workers are given such (`CALLED`).
    """

    workers: tuple[Worker, ...]
    network: Link = Link(100e-6, 1.25e9)
    local: Link = Link(20e-6, 5e9)
    kind: str = "simulated"
    driver: Link = Link(100e-6, 1.25e9)
    gather: Link = Link(100e-6, 1.25e9)
    call: CallCost = FREE_CALLS

    @classmethod
    def single(cls, threads: int, memory_bytes: int) -> Cluster:
        """This process: one node, one worker with `threads` threads."""
        return cls((Worker(0, threads, memory_bytes),), kind="local")

    @classmethod
    def regular(cls, nodes: int, workers_per_node: int = 1, *, threads: int = 1, memory_bytes: int = 8 * 2**30,
                kind: str = "simulated", network: Link | None = None, local: Link | None = None) -> Cluster:
        """`nodes` alike machines of `workers_per_node` alike workers."""
        workers = tuple(Worker(n, threads, memory_bytes) for n in range(nodes) for _ in range(workers_per_node))
        return cls(workers, network or cls.network, local or cls.local, kind)

    @property
    def n_workers(self) -> int:
        return len(self.workers)

    @cached_property
    def node_of(self) -> np.ndarray:
        """int32, shape (n_workers,)."""
        return np.array([w.node for w in self.workers], np.int32)

    @cached_property
    def n_nodes(self) -> int:
        return int(self.node_of.max()) + 1 if self.workers else 0

    @cached_property
    def workers_per_node(self) -> int:
        """Workers of a node where all nodes have as many; the largest number otherwise."""
        return int(np.bincount(self.node_of).max())

    @cached_property
    def memory_bytes(self) -> np.ndarray:
        """float64, shape (n_workers,), bytes."""
        return np.array([w.memory_bytes for w in self.workers], float)

    @cached_property
    def models(self) -> tuple[list[Worker], np.ndarray]:
        """One worker of each speed of a thread, and which of them each worker is like: int64, shape (n_workers,)."""
        first: dict[tuple[float, float, int], int] = {}
        like = [first.setdefault((w.flop_per_s, w.memory_bytes_per_s, id(w.rates) if w.rates else 0), len(first))
                for w in self.workers]
        return [self.workers[like.index(k)] for k in range(len(first))], np.array(like, np.int64)

    @cached_property
    def alike(self) -> bool:
        """Whether all workers have the same threads, speed and memory."""
        first = self.workers[0]
        return all((w.threads, w.memory_bytes, w.flop_per_s, w.memory_bytes_per_s)
                   == (first.threads, first.memory_bytes, first.flop_per_s, first.memory_bytes_per_s) for w in self.workers)


# Kinds of clusters that run super-tasks, one call each (`runtime.partition`).
CALLED = ("ray", "dask", "loopback")


def available_cpus() -> int:
    """Cores this process may use (affinity respected)."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS, Windows
        return os.cpu_count() or 1
