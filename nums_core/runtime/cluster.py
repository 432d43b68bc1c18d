"""What a plan is made for: nodes, their workers, and the links between them.

A *node* is a machine; a *worker* is a place on it that runs tasks and holds blocks. Rates are what the simulator and
the scheduler reckon with; `Cluster.local` measures none of them at start-up, since plans must not depend on noise.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Worker:
    """A place that runs tasks.

    Attributes
    ----------
    node : int
    threads : int
        Tasks it runs at the same time.
    memory_bytes : int, bytes
    flop_per_s, memory_bytes_per_s : float
        Rates of one thread.
    gpus : int
        Devices it has; nothing runs on them yet.
    store_bytes : int, bytes
        Its share of its node's shared memory, through which blocks cross to other processes; 0: not limited.
    """

    node: int
    threads: int = 1
    memory_bytes: int = 8 * 2**30
    flop_per_s: float = 2e10
    memory_bytes_per_s: float = 5e9
    gpus: int = 0
    store_bytes: int = 0


@dataclass(frozen=True)
class Link:
    """A way between two places: seconds = latency_s + bytes / bytes_per_s."""

    latency_s: float
    bytes_per_s: float

    def seconds(self, n_bytes: np.ndarray | float) -> np.ndarray | float:
        return self.latency_s + n_bytes / self.bytes_per_s


@dataclass(frozen=True)
class Cluster:
    """Workers in order of (node, position in the node), and the two kinds of link.

    Attributes
    ----------
    workers : tuple of Worker
    network : Link
        Between nodes.
    local : Link
        Between workers of one node.
    kind : "local", "ray", "dask" or "simulated"
    """

    workers: tuple[Worker, ...]
    network: Link = Link(100e-6, 1.25e9)
    local: Link = Link(20e-6, 5e9)
    kind: str = "simulated"

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


def available_cpus() -> int:
    """Cores this process may use (affinity respected)."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS, Windows
        return os.cpu_count() or 1
