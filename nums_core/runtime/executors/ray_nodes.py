"""What a Ray cluster is made of, as plans see it: its nodes, and the workers that are put on them.

Ray describes a node by the resources it offers to work: cores and GPUs by number, `memory` and `object_store_memory` in
bytes. Nothing here talks to Ray: these are functions of the rows of `ray.nodes()`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nums_core.errors import ConfigError
from nums_core.runtime.cluster import CallCost, Cluster, Link, Worker

# Between two actors a block is written to shared memory and mapped; between nodes it also crosses the network once. What is
# smaller than Ray's limit travels inside the reply, by way of the driver. Rates are those of Ray's own benchmarks for many
# blocks in one message, cut to what a loaded machine does; `nums_core.calibrate()` measures them for predictions.
INLINE_BYTES = 100e3
LOCAL_LINK = Link(300e-6, 2e9, INLINE_BYTES, 150e-6)
NETWORK_LINK = Link(1e-3, 6e8, INLINE_BYTES, 300e-6)
DRIVER_LINK, GATHER_LINK = Link(400e-6, 1e9, INLINE_BYTES), Link(200e-6, 1e9, INLINE_BYTES)
CALL = CallCost(submit_s=250e-6, start_s=400e-6, run_s=1e-3)
# Of the memory Ray offers on a node; the rest is for Python, buffers and what kernels take for themselves.
MEMORY_SHARE = 0.8
UNTOLD_BYTES = 4 * 2**30  # of memory, where a node does not say


@dataclass(frozen=True)
class Node:
    """A machine that is alive and has at least one core.

    Attributes
    ----------
    id : str
        Ray's own, in hexadecimal.
    address : str
    cpus, gpus : int
    memory_bytes, store_bytes : int, bytes
        What Ray offers to work there, and the shared memory in which blocks cross.
    head : bool
    """

    id: str
    address: str
    cpus: int
    gpus: int = 0
    memory_bytes: int = UNTOLD_BYTES
    store_bytes: int = 0
    head: bool = False

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Node:
        """From a row of `ray.nodes()`."""
        r = row["Resources"]
        return cls(row["NodeID"], f"{row['NodeManagerAddress']}:{row['NodeManagerPort']}", int(r.get("CPU", 0)),
                   int(r.get("GPU", 0)), int(r.get("memory", UNTOLD_BYTES)), int(r.get("object_store_memory", 0)),
                   "node:__internal_head__" in r)


def usable(table: Iterable[Mapping[str, Any]]) -> list[Node]:
    """Nodes of `ray.nodes()` that are alive and have a core: the head first, the others by address."""
    found = [Node.of(row) for row in table if row["Alive"]]
    return sorted((n for n in found if n.cpus >= 1), key=lambda n: (not n.head, n.address, n.id))


@dataclass(frozen=True)
class Wanted:
    """How workers are put on nodes.

    Attributes
    ----------
    per_node : int
        Workers of each node; 0: one a core.
    threads : int
        Of each worker; 0: the node's cores shared among its workers.
    memory_bytes : int, bytes
        Of each worker; 0: its share of what Ray offers on its node.
    """

    per_node: int = 0
    threads: int = 0
    memory_bytes: int = 0

    def workers(self, node: Node) -> list[Worker]:
        """Workers of `node`; cores and GPUs that do not divide go to the first of them."""
        n = self.per_node or node.cpus
        return [Worker(0, self.threads or max(1, _share(node.cpus, n, k)),
                       self.memory_bytes or int(MEMORY_SHARE * node.memory_bytes / n),
                       gpus=_share(node.gpus, n, k), store_bytes=node.store_bytes // n) for k in range(n)]


def _share(whole: int, n: int, k: int) -> int:
    return whole // n + (k < whole % n)


def wanted(nodes: Sequence[Node], num_workers: int, per_node: int, threads: int, memory_bytes: int) -> Wanted:
    """On one node `num_workers`, or one a core; on several, one a node: its threads share memory, workers do not."""
    if not nodes:
        raise ConfigError("the Ray cluster has no node with a CPU; start it with num_cpus of 1 or more")
    return Wanted(per_node or (1 if len(nodes) > 1 else num_workers), threads, memory_bytes)


def cluster_of(workers: Sequence[Worker], node_ids: Sequence[str]) -> Cluster:
    """The cluster of `workers`, each on the node named beside it; neighbours on one node are that node's workers."""
    numbers = itertools.accumulate((a != b for a, b in itertools.pairwise(node_ids)), initial=0)
    placed = tuple(replace(w, node=k) for w, k in zip(workers, numbers, strict=True))
    return Cluster(placed, NETWORK_LINK, LOCAL_LINK, "ray", DRIVER_LINK, GATHER_LINK, CALL)
